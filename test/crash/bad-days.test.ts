/** Bad days of a volume, a sample of each kind; bad-days.long.ts has all of them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultInTheMiddle } from "./bad-faults.ts";
import {
	allMetadataOld,
	type Loss,
	oldContents,
	pairLostMounted,
	pairLostUnmounted,
	staleAlone,
	threeLostMounted,
	threeLostUnmounted,
} from "./bad-loss.ts";
import { deathsDuringMount, emptyDirectory, foreignDisk, newerFormat, newerKinds, otherMemorySize, secondDaemon } from "./bad-mounts.ts";
import {
	fragmentRot,
	fragmentRotOnThree,
	logPlaces,
	logRot,
	logRotOnAll,
	metadataRot,
	noiseDisk,
	runRotOnAll,
	superblockRot,
} from "./bad-rot.ts";
import { diskFull, healedWhenFull, metadataDiskFull, oneDiskFull } from "./bad-space.ts";
import { pairs } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

test("all fifteen pairs of disks are lost at once, mounted or not, and replaced", async () => {
	for (const [i, pair] of pairs().entries()) {
		if (i % 3 === 0) await pairLostMounted(100 + i, pair, (["vanish", "unlinked", "wipe"] as Loss[])[(i / 3) % 3] as Loss);
		else await pairLostUnmounted(100 + i, pair, (["wipe", "absent"] as Loss[])[i % 2] as Loss);
	}
});

test("three disks lost at once: refused, and all is there when they are back", async () => {
	await threeLostMounted(200, ["/d4", "/d5", "/d6"]);
	await threeLostMounted(201, ["/d1", "/d2", "/d3"]);
	await threeLostUnmounted(203, ["/d4", "/d5", "/d6"]);
	await threeLostUnmounted(204, ["/d2", "/d3", "/d6"]);
});

test("stale disks alone are refused, and old contents are never served", async () => {
	await staleAlone(300, ["/d1"]);
	await staleAlone(301, ["/d2", "/d5"]);
	await oldContents(303, ["/d2", "/d6"], "unmounted");
	await oldContents(304, ["/d3"], "killed");
	await oldContents(305, ["/d1", "/d2"], "cut");
	await allMetadataOld(306);
});

test("a disk fails in the middle of something: the others go on in time, and no other is blamed", async () => {
	await faultInTheMiddle(400, "/d1", "vanish", "fsync");
	await faultInTheMiddle(401, "/d2", "sync", "fsync");
	await faultInTheMiddle(402, "/d3", "hang", "fsync");
	await faultInTheMiddle(404, "/d2", "read-only", "seal");
	await faultInTheMiddle(405, "/d6", "hang", "seal");
	await faultInTheMiddle(406, "/d1", "write", "flush");
	await faultInTheMiddle(407, "/d3", "hang", "flush");
	await faultInTheMiddle(409, "/d2", "hang", "roster");
	await faultInTheMiddle(411, "/d1", "read-only", "roster");
});

test("disks in use, foreign disks, empty directories and formats to come are refused or left alone", async () => {
	await secondDaemon(700);
	await foreignDisk(701);
	await emptyDirectory(702);
	for (const [i, kind] of newerKinds.entries()) {
		await newerFormat(710 + i, kind, kind === "superblock" ? ["/d5"] : diskPaths);
		if (kind !== "fragment") await newerFormat(730 + i, kind, ["/d1", "/d2"]);
	}
	await otherMemorySize(750);
});

test("the daemon dies, or the power fails, half-way through mounts with dirty data in memory", async () => {
	const steps = await deathsDuringMount(800, "kill", []);
	assert(steps > 20, `a mount takes ${steps} steps`);
	const stride = Math.ceil(steps / 5);
	for (let at = 1; at <= steps; at += stride) await deathsDuringMount(800 + at, "kill", [at]);
	for (let at = 3; at <= steps; at += stride) await deathsDuringMount(900 + at, "cut", [at]);
	await deathsDuringMount(860, "kill", [9, 3, Math.floor(steps / 2), steps - 2]);
});

test("disks fill up", async () => {
	await diskFull(500, 200_000);
	await oneDiskFull(502, "/d1");
	await oneDiskFull(503, "/d6");
	await healedWhenFull(504, ["/d1", "/d2", "/d3"]);
	await healedWhenFull(505, ["/d6", "/d2", "/d4"]);
	await metadataDiskFull(504, "/d2");
});

test("superblocks, log, runs and manifests rot", async () => {
	await superblockRot(600, "/d2", [0]);
	await superblockRot(601, "/d5", [1]);
	await superblockRot(602, "/d1", [0, 1]);
	for (const [i, place] of logPlaces.entries()) await logRot(610 + i, i % 3, place, i % 2 === 0 ? "kill" : "cut");
	await logRotOnAll(620);
	await metadataRot(630, "manifest 0", false);
	await metadataRot(631, "manifest", true);
	await metadataRot(632, "run start", false);
	await metadataRot(633, "run middle", true);
	await metadataRot(634, "run end", true);
	await metadataRot(635, "run", false);
	await runRotOnAll(636);
});

test("fragments rot, and a whole disk turns into noise", async () => {
	await fragmentRot(640, ["/d1", "/d4"], "header", false);
	await fragmentRot(641, ["/d2", "/d3"], "table", true);
	await fragmentRot(642, ["/d5", "/d6"], "payload", true);
	await fragmentRot(643, ["/d2"], "all", false);
	await fragmentRotOnThree(644);
	await noiseDisk(650, "/d1", true);
	await noiseDisk(651, "/d2", false);
	await noiseDisk(652, "/d6", true);
});
