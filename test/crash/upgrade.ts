/** Installations of Cairn that differ from this one in what they leave for a successor, made from the compiled program. */
import assert from "node:assert/strict";
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** A file of the program, what stands there, and what the other version has instead. */
export type Difference = readonly [file: string, here: string, there: string];

/** Answers its folder, for `TestVolume.tryOf`. */
export function installation(folder: string, differences: readonly Difference[] = []): string {
	cpSync(fileURLToPath(new URL("../../src", import.meta.url)), join(folder, "dist/src"), { recursive: true });
	for (const name of ["node_modules", "package.json"])
		symlinkSync(fileURLToPath(new URL(`../../../${name}`, import.meta.url)), join(folder, name));
	for (const [file, here, there] of differences) {
		const path = join(folder, "dist/src", file);
		const text = readFileSync(path, "utf8");
		assert.ok(text.includes(here), `${file} has: ${here}`);
		writeFileSync(path, text.replace(here, there));
	}
	return folder;
}
