/** Bad days on which disks hold other bytes than were written to them. */
import assert from "node:assert/strict";
import type { VerifyResult } from "../../src/volume/native/interface.ts";
import { awayIn, BadWorld, fails, must } from "./bad-world.ts";
import { diskPaths, pattern } from "./scenario.ts";

const slotBytes = 64 * 1024;

async function verify(bad: BadWorld): Promise<VerifyResult> {
	return bad.volume.verify({ dryRun: false, lost: true }, () => {});
}

function noise(bad: BadWorld, path: string, file: string, offset: number, length: number): void {
	const bytes = pattern(bad.fresh(), 251).map((byte) => byte | 1);
	const changed = bad.world.corrupt(path, file, offset, length, bytes);
	must(bad, changed > 0, `${file} on ${path} has bytes at ${offset}`);
}

function filesOn(bad: BadWorld, path: string, folder: string): string[] {
	return bad.world
		.disk(path)
		.files()
		.filter((name) => name.startsWith(folder));
}

/** Errors of a disk that were counted as damage. */
async function corruptOn(bad: BadWorld, path: string): Promise<number> {
	const status = await bad.volume.status();
	for (const disk of status.disks) if (disk.path !== path) assert.equal(disk.errors, 0, `seed ${bad.seed}: ${disk.path} is blamed`);
	return status.disks.find((disk) => disk.path === path)?.errorKinds.corrupt ?? 0;
}

/** Found, counted, repaired, and then nothing is left of it. */
async function mendedBy(bad: BadWorld, what: string): Promise<VerifyResult> {
	const found = await verify(bad);
	assert.deepEqual([found.unrecoverable, found.lostPaths], [0, []], `seed ${bad.seed}, ${what}`);
	assert.equal(found.repaired, found.corrupt + found.missing, `seed ${bad.seed}, ${what}: all is repaired: ${JSON.stringify(found)}`);
	await bad.expectClean(`${what}, verified again`);
	return found;
}

/** One slot of a superblock costs nothing; without both the disk is not known any more, and says so. */
export async function superblockRot(seed: number, path: string, slots: readonly number[]): Promise<void> {
	const bad = await BadWorld.make(seed);
	for (const slot of slots) noise(bad, path, "superblock", slot * slotBytes + 30, 400);
	await bad.run(async () => {
		await bad.mount();
		await bad.check(`slots ${slots.join(" and ")} of ${path}`);
		await bad.put("more", 120_000);
		if (slots.length === 1) {
			await bad.expectWhole("one slot is enough");
			await bad.remount();
			await bad.expectWhole("both slots are right again");
		} else {
			const status = await bad.expectDegraded([path]);
			const slot = status.disks.find((disk) => disk.path === path);
			assert.match(slot?.reason ?? "", /superblock is damaged/, `seed ${seed}`);
			await fails(`seed ${seed}`, bad.volume.disks.replace(path, undefined), "REFUSED", "log.not-empty", /is not empty/);
			bad.world.wipe(path);
			await bad.volume.disks.replace(path, undefined);
			await bad.expectWhole("replaced");
		}
		await bad.check("at the end");
		await bad.expectClean("at the end");
		await bad.unmount();
	});
}

/** Where in a log segment: as a fraction of what was ever written into it. */
export const logPlaces = ["header", "first record", "middle", "last record"] as const;
export type LogPlace = (typeof logPlaces)[number];

function hurtLog(bad: BadWorld, path: string, place: LogPlace, seed: number): number {
	let hurt = 0;
	for (const file of filesOn(bad, path, "log/")) {
		const bytes = bad.world.disk(path).peek(file);
		let end = bytes.length;
		while (end > 0 && bytes[end - 1] === 0) end--;
		if (end <= 4096) continue;
		hurt++;
		const at = { header: 0, "first record": 4096, middle: Math.floor(end / 2), "last record": end - 200 }[place];
		bad.world.corrupt(path, file, Math.max(0, at), 200 + (seed % 3) * 600, pattern(seed, 97));
	}
	return hurt;
}

/** A life that leaves records in the log which no checkpoint covers. */
async function liveOnTheLog(bad: BadWorld, how: "kill" | "cut"): Promise<string[]> {
	await bad.mount();
	for (let i = 0; i < 12; i++) await bad.put(`logged${i % 5}`, 2_500 + i * 700, i * 100);
	await bad.write("logged3", 4_000, 500);
	const members = (await bad.volume.status()).disks.filter((disk) => disk.metadata).map((disk) => disk.path);
	if (how === "kill") bad.kill();
	else bad.cut();
	return members;
}

/** The log of one mirror is damaged while nobody serves it. */
export async function logRot(seed: number, mirror: number, place: LogPlace, how: "kill" | "cut"): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const members = await liveOnTheLog(bad, how);
		const path = members[mirror] as string;
		must(bad, hurtLog(bad, path, place, seed) > 0, "the log was written to");
		await bad.mount();
		await bad.check(`log of ${path} damaged at its ${place}`, how === "kill" ? "acknowledged" : "durable");
		await bad.put("goes-on", 10_000);
		await corruptOn(bad, path);
		await bad.expectWhole("a mirror was damaged");
		await bad.remount();
		await bad.check("and mounted again");
		await bad.expectClean("and mounted again");
		await bad.unmount();
	});
}

/** The same records damaged on all mirrors, and the memory gone with the power: refused, saying what is lost; nothing wrong is served. */
export async function logRotOnAll(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const members = await liveOnTheLog(bad, "cut");
		const kept = members.map((path) => [path, bad.world.snapshot(path)] as const);
		for (const path of members) hurtLog(bad, path, "middle", seed);
		const error = await fails(`seed ${seed}`, bad.mount(), "EIO", "log.lost", /log records \d+ to \d+ .*--accept-loss/s);
		assert.equal(typeof error.data["first"], "number");
		for (const [path, snapshot] of kept) bad.world.restore(path, snapshot);
		await bad.mount();
		await bad.check("the log is as it was", "durable");
	});
}

export type MetadataPiece = "manifest 0" | "manifest 1" | "manifest" | "run start" | "run middle" | "run end" | "run";

/** Pieces of runs and manifest on one disk, mounted or not. */
export async function metadataRot(seed: number, piece: MetadataPiece, mounted: boolean): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		const path = (await bad.volume.status()).disks.filter((disk) => disk.metadata)[seed % 3]?.path as string;
		if (!mounted) await bad.unmount();
		hurtMetadata(bad, path, piece);
		if (!mounted) await bad.mount();
		await bad.check(`${piece} on ${path}`);
		await bad.put("more", 20_000);
		const found = await mendedBy(bad, `${piece} on ${path}`);
		const counted = await corruptOn(bad, path);
		must(bad, counted > 0 || (!mounted && found.corrupt === 0), `${piece} on ${path}: the damage is counted`);
		await bad.expectWhole(piece);
		await bad.remount();
		await bad.check(`${piece} on ${path}, mounted again`);
		await bad.unmount();
	});
}

function hurtMetadata(bad: BadWorld, path: string, piece: MetadataPiece): void {
	const manifestSlot = bad.world.disk(path).peek("kv/manifest").length / 2;
	if (piece === "manifest 0" || piece === "manifest") noise(bad, path, "kv/manifest", 20, 200);
	if (piece === "manifest 1" || piece === "manifest") noise(bad, path, "kv/manifest", manifestSlot + 20, 200);
	if (!piece.startsWith("run")) return;
	for (const file of filesOn(bad, path, "kv/run")) {
		const size = bad.world.disk(path).peek(file).length;
		if (piece === "run") noise(bad, path, file, 0, size);
		else noise(bad, path, file, { "run start": 0, "run middle": Math.floor(size / 2), "run end": size - 100 }[piece as "run start"], 90);
	}
}

/** All copies of a run: an error that names it, or (nothing needed it) right answers; never wrong ones. */
export async function runRotOnAll(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		for (const path of diskPaths)
			for (const file of filesOn(bad, path, "kv/run")) noise(bad, path, file, 0, bad.world.disk(path).peek(file).length);
		await fails(`seed ${seed}`, bad.mount(), "EIO", "kv.run-lost", /run-\d+.*can be read from no copy/);
	});
}

export type FragmentPart = "header" | "table" | "payload" | "all";

/** Parts of all fragments on these disks, mounted or not. */
export async function fragmentRot(seed: number, paths: readonly string[], part: FragmentPart, mounted: boolean): Promise<void> {
	const bad = await BadWorld.make(seed);
	const label = `${part} of fragments on ${paths.join(" and ")}, ${mounted ? "mounted" : "not mounted"}`;
	await bad.run(async () => {
		if (mounted) await bad.mount();
		let hurt = 0;
		for (const path of paths) hurt += hurtFragments(bad, path, part);
		if (!mounted) await bad.mount();
		await bad.check(label);
		await bad.volume.heal(() => {});
		await mendedBy(bad, label);
		let counted = 0;
		for (const disk of (await bad.volume.status()).disks) {
			if (paths.includes(disk.path)) counted += disk.errorKinds.corrupt;
			else assert.equal(disk.errors, 0, `seed ${seed}, ${label}: ${disk.path} is blamed`);
		}
		must(bad, hurt > 0 && counted >= hurt, `${label}: ${hurt} fragments were damaged, ${counted} counted`);
		await bad.expectWhole(label);
		const others = diskPaths.filter((path) => !paths.includes(path)).slice(0, 2);
		for (const path of others) bad.world.vanish(path);
		await bad.remount();
		await bad.check(`${label}, and then ${others.join(" and ")} lost`);
	});
}

/** Fragments begin on whole blocks with their magic. */
function hurtFragments(bad: BadWorld, path: string, part: FragmentPart): number {
	let hurt = 0;
	for (const file of filesOn(bad, path, "pack/")) {
		const bytes = bad.world.disk(path).peek(file);
		for (let at = 0; at < bytes.length; at += 4096) {
			if (Buffer.from(bytes.buffer, bytes.byteOffset + at, 5).toString("latin1") !== "CAIRN") continue;
			hurt++;
			const places: Record<FragmentPart, readonly [number, number]> = {
				header: [8, 40],
				table: [128, 4],
				payload: [4096 + 17, 1],
				all: [0, 4096 + 50],
			};
			const [offset, length] = places[part];
			noise(bad, path, file, at + offset, length);
		}
	}
	return hurt;
}

/** More fragments than the redundancy bears: EIO that names what is missing, the lost files by path, everything else right. */
export async function fragmentRotOnThree(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const kept = diskPaths.map((path) => [path, bad.world.snapshot(path)] as const);
		for (const path of ["/d2", "/d3", "/d5"]) hurtFragments(bad, path, "payload");
		await bad.mount();
		await fails(`seed ${seed}`, bad.read("large"), "EIO", "storage.lost", /4 of its 6 fragments are needed/);
		const found = await verify(bad);
		must(bad, found.unrecoverable > 0 && found.lostPaths.includes("large"), `lost: ${JSON.stringify(found)}`);
		for (const path of ["tiny", "dir/b"]) await bad.read(path);
		const status = await bad.volume.status();
		must(bad, status.protection.lostBytes > 0 && status.state === "degraded", `status tells: ${JSON.stringify(status.protection)}`);
		await bad.put("new", 200_000);
		await bad.remove("new");
		await bad.unmount();
		for (const [path, snapshot] of kept) for (const file of filesOn(bad, path, "pack/")) restoreFile(bad, path, file, snapshot);
		await bad.mount();
		await bad.check("the right bytes are back");
	});
}

/** The bytes that the file had in the snapshot, as far as they differ. */
function restoreFile(bad: BadWorld, path: string, file: string, snapshot: ReturnType<BadWorld["world"]["snapshot"]>): void {
	const was = snapshot.files.get(file);
	if (was === undefined) return;
	const then = was.read(0, was.size);
	const now = bad.world.disk(path).peek(file);
	for (let at = 0; at < Math.min(then.length, now.length); at += 4096) {
		const change = then.slice(at, at + 4096).map((byte, i) => byte ^ (now[at + i] ?? 0));
		if (Buffer.from(then.buffer, at, 5).toString("latin1") !== "CAIRN" && change.filter((byte) => byte !== 0).length === 1)
			bad.world.corrupt(path, file, at, change.length, change);
	}
}

/** Everything on one disk is noise. */
export async function noiseDisk(seed: number, path: string, mounted: boolean): Promise<void> {
	const bad = await BadWorld.make(seed);
	const label = `noise over ${path}, ${mounted ? "mounted" : "not mounted"}`;
	const hurt = (): void => {
		for (const file of bad.world.disk(path).files()) noise(bad, path, file, 0, Math.min(bad.world.disk(path).peek(file).length, 300_000));
	};
	await bad.run(async () => {
		if (!mounted) hurt();
		await bad.mount();
		if (mounted) hurt();
		await bad.check(label);
		await bad.put("more", 150_000);
		await bad.syncAll();
		const found = await verify(bad);
		assert.deepEqual([found.unrecoverable, found.lostPaths], [0, []], `seed ${seed}, ${label}`);
		await bad.check(`${label}, verified`);
		if (awayIn(await bad.volume.status()).includes(path)) {
			bad.world.wipe(path);
			await bad.volume.disks.replace(path, undefined);
		}
		await bad.expectWhole(label);
		await bad.expectClean(label);
		const others = diskPaths.filter((one) => one !== path).slice(0, 2);
		for (const one of others) bad.world.vanish(one);
		await bad.remount();
		await bad.check(`${label}, and two others lost`);
	});
}
