/**
 * Seeds that found bugs, each with what it found. They are played again by every run of the tests. What the simulator draws for a seed changes when operations and faults are added, so an old seed may play something else by
 * now; bugs that could be reached more directly have tests of their own beside the code that was wrong.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate } from "./run.ts";

interface Found {
	readonly seed: number;
	readonly steps: number;
	/** Rare ways that were taken each time. */
	readonly always?: readonly string[];
	readonly what: string;
}

/** Where it is said, the simulator was wrong, and the volume right. */
export const quick: readonly Found[] = [
	{
		seed: 253,
		steps: 100,
		what: "simulator: a lock that was granted beside one that was just given up for a shared one was taken for wrong",
	},
	{ seed: 1982, steps: 100, what: "simulator: status was compared with the disks before compaction had ended" },
	{ seed: 3101, steps: 100, what: "a balance moved the last 64 KiB to and fro without end" },
	{
		seed: 3351,
		steps: 100,
		what: "simulator: what was answered in the moment of a durable() was taken for durable with what was before it",
	},
	{
		seed: 7361,
		steps: 100,
		what: "a run written while mounting counted as in hand for ever: its file stayed on a disk that the metadata left",
	},
	{ seed: 10225, steps: 100, what: "a read beside a truncation had the old size with zeros in the place of what was on the disks" },
	{ seed: 10434, steps: 100, what: "simulator: a volume with a disk still to be emptied was taken for whole" },
	{
		seed: 14117,
		steps: 100,
		what: "after a checkpoint that found no space the roster named a manifest that nobody had, and the mount was refused",
	},
	{ seed: 17124, steps: 100, what: "a raw disk whose sync failed while it was verified passed for one that could not be read" },
	{ seed: 12251, steps: 100, what: "runs in hand came back as garbage on a disk that the metadata left" },
	{ seed: 10853, steps: 100, what: "a drain left new metadata with one copy that could be read" },
	{ seed: 15414, steps: 100, what: "a change of protection that waited to be tried again was told as over" },
	{ seed: 18021, steps: 100, what: "a change of protection that was refused kept all later ones waiting until the next mount" },
	{ seed: 1390, steps: 100, what: "an open that joined a lease while it was broken was taken for one with all of it" },
];

/** Half a minute each. */
export const slow: readonly Found[] = [
	{ seed: 153, steps: 823, always: ["volume.garbage-soon"], what: "a copy lay less safely than it asked to" },
	{
		seed: 43,
		steps: 1500,
		always: ["volume.garbage-soon"],
		what: "an open for reading and writing was granted a half each by two entries of an access list",
	},
];

export function regressionTests(all: readonly Found[]): void {
	for (const { seed, steps, always = [], what } of all) {
		test(`seed ${seed}: ${what}`, async () => {
			const { failure } = await simulate({ seed, steps, always: new Set(always) });
			assert.equal(failure, undefined);
		});
	}
}
