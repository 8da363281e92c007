/**
 * What every volume must do (src/volume/interface.ts), for any implementation: names, attributes, files, and what survives.
 *
 * Tests of names, attributes and files share one volume, each in a directory of its own; every test of survival has a volume to itself.
 */
import { accessTests } from "./volume/access.ts";
import { durabilityTests } from "./volume/durability.ts";
import { attributeTests } from "./volume/attributes.ts";
import { contentsTests } from "./volume/contents.ts";
import { fileTests } from "./volume/files.ts";
import { historyTests } from "./volume/history.ts";
import { nameHistoryTests } from "./volume/name-history.ts";
import { nameTests } from "./volume/names.ts";
import { permissionTests } from "./volume/permissions.ts";
import { rangeTests } from "./volume/ranges.ts";
import type { MakeVolumeHarness, VolumeSuiteOptions } from "./volume/support.ts";

export type { MakeVolumeHarness, VolumeHarness, VolumeSuiteOptions } from "./volume/support.ts";

export function volumeConformance(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions = {}): void {
	nameTests(name, makeHarness, options);
	attributeTests(name, makeHarness);
	permissionTests(name, makeHarness);
	accessTests(name, makeHarness);
	fileTests(name, makeHarness);
	contentsTests(name, makeHarness, options);
	rangeTests(name, makeHarness, options);
	durabilityTests(name, makeHarness);
	historyTests(name, makeHarness, options);
	nameHistoryTests(name, makeHarness, options);
}
