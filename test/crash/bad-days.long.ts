/** Every bad day in all its variants (`npm run test:long bad-days`, `--seed 7`). A sample of them is in bad-days.test.ts. */
import { test } from "node:test";
import { faultInTheMiddle, faults, middles } from "./bad-faults.ts";
import {
	allMetadataOld,
	type Loss,
	type Moment,
	oldContents,
	pairLostMounted,
	pairLostUnmounted,
	staleAlone,
	threeLostMounted,
	threeLostUnmounted,
} from "./bad-loss.ts";
import { deathsDuringMount, emptyDirectory, foreignDisk, newerFormat, newerKinds, secondDaemon } from "./bad-mounts.ts";
import {
	type FragmentPart,
	fragmentRot,
	fragmentRotOnThree,
	logPlaces,
	logRot,
	logRotOnAll,
	type MetadataPiece,
	metadataRot,
	noiseDisk,
	runRotOnAll,
	superblockRot,
} from "./bad-rot.ts";
import { diskFull, healedWhenFull, metadataDiskFull, oneDiskFull } from "./bad-space.ts";
import { pairs } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

const base = Number(process.env["CAIRN_SEED"] ?? 1) * 1_000_000;
let next = base;
const seed = (): number => next++;

/** Goes through all of them, so that one failure does not hide another. */
function days(name: string, all: () => readonly (() => Promise<void>)[]): void {
	test(name, async () => {
		const failures: unknown[] = [];
		for (const day of all()) await day().catch((error: unknown) => failures.push(error));
		if (failures.length > 0)
			throw new AggregateError(failures, `${failures.length} of them: ${failures.map((error) => (error as Error).message).join("\n")}`);
	});
}

const triples = diskPaths.flatMap((a, i) => diskPaths.slice(i + 1).flatMap((b, j) => diskPaths.slice(i + j + 2).map((c) => [a, b, c])));

days("pairs lost while mounted", () =>
	pairs().flatMap((pair) => (["vanish", "unlinked", "wipe"] as Loss[]).map((how) => () => pairLostMounted(seed(), pair, how))),
);
days("pairs lost while not mounted", () =>
	pairs().flatMap((pair) => (["wipe", "absent"] as Loss[]).map((how) => () => pairLostUnmounted(seed(), pair, how))),
);
days("three lost while mounted", () => triples.map((lost) => () => threeLostMounted(seed(), lost)));
days("three lost while not mounted", () => triples.map((lost) => () => threeLostUnmounted(seed(), lost)));
days("stale disks alone", () => [...diskPaths.map((path) => [path]), ...pairs()].map((stale) => () => staleAlone(seed(), stale)));
days("old contents", () =>
	[...diskPaths.map((path) => [path]), ...pairs()].flatMap((old) =>
		(["unmounted", "killed", "cut"] as Moment[]).map((moment) => () => oldContents(seed(), old, moment)),
	),
);
days("all metadata old", () => [1, 2, 3].map(() => () => allMetadataOld(seed())));
days("one disk fails in the middle of something", () =>
	["/d1", "/d2", "/d3", "/d4"].flatMap((path) =>
		faults.flatMap((fault) =>
			middles.flatMap((middle) => [0, 1.7, 5.3].map((extra) => () => faultInTheMiddle(seed(), path, fault, middle, extra))),
		),
	),
);
days("space runs out", () => [
	...[20_000, 30_000, 200_000, 900_000].map((length) => () => diskFull(seed(), length)),
	...diskPaths.map((path) => () => oneDiskFull(seed(), path)),
	...diskPaths.flatMap((a, i) =>
		diskPaths.slice(i + 1).map((b) => () => {
			const third = diskPaths.find((path) => path !== a && path !== b) as string;
			return healedWhenFull(seed(), [b, a, third]);
		}),
	),
	...diskPaths.map((path) => () => metadataDiskFull(seed(), path)),
]);
days("superblocks rot", () => diskPaths.flatMap((path) => [[0], [1], [0, 1]].map((slots) => () => superblockRot(seed(), path, slots))));
days("logs rot", () => [
	...[0, 1, 2].flatMap((mirror) =>
		logPlaces.flatMap((place) => (["kill", "cut"] as const).map((how) => () => logRot(seed(), mirror, place, how))),
	),
	...[1, 2, 3, 4].map(() => () => logRotOnAll(seed())),
]);
const pieces: readonly MetadataPiece[] = ["manifest 0", "manifest 1", "manifest", "run start", "run middle", "run end", "run"];
days("runs and manifests rot", () => [
	...pieces.flatMap((piece) => [true, false].flatMap((mounted) => [1, 2, 3].map(() => () => metadataRot(seed(), piece, mounted)))),
	() => runRotOnAll(seed()),
]);
const parts: readonly FragmentPart[] = ["header", "table", "payload", "all"];
days("fragments rot", () => [
	...[...diskPaths.map((path) => [path]), ...pairs()].flatMap((paths) =>
		parts.flatMap((part) => [true, false].map((mounted) => () => fragmentRot(seed(), paths, part, mounted))),
	),
	() => fragmentRotOnThree(seed()),
]);
days("noise over one disk", () => diskPaths.flatMap((path) => [true, false].map((mounted) => () => noiseDisk(seed(), path, mounted))));
days("others at the disks", () => [
	() => secondDaemon(seed()),
	() => foreignDisk(seed()),
	() => emptyDirectory(seed()),
	...newerKinds.flatMap((kind) => [diskPaths, ["/d1"], ["/d2"], ["/d3"]].map((paths) => () => newerFormat(seed(), kind, paths))),
]);
for (const how of ["kill", "cut"] as const) {
	test(`${how} at every step of a mount`, async () => {
		const steps = await deathsDuringMount(seed(), how, []);
		for (let at = 1; at <= steps + 2; at++) await deathsDuringMount(seed(), how, [at]);
		for (let at = 1; at <= steps; at += 5) await deathsDuringMount(seed(), how, [at, (at * 7) % steps || 1, (at * 11) % steps || 1]);
	});
}
