/** What df says is free is what fits, and what was deleted is free again. */
import assert from "node:assert/strict";
import { silentLogger } from "../../src/base/telemetry.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { caller, pattern } from "./scenario.ts";

const MiB = 1024 * 1024;

export interface Filling {
	readonly redundancy: string;
	/** Sizes of the disks. */
	readonly disksMiB: readonly number[];
	readonly fileBytes: number;
	/** Parts of what df said by which what fits, and what is free at the end, may differ. */
	readonly fits: number;
	readonly returns: number;
}

/** Fills a volume, empties it, and compares with what df said. */
export async function fill(seed: number, { redundancy, disksMiB, fileBytes, fits, returns }: Filling): Promise<void> {
	const label = `seed ${seed}, ${redundancy} on ${disksMiB.join(", ")} MiB, files of ${fileBytes}`;
	const world = new SimWorld({ seed });
	const diskPaths = disksMiB.map((size, i) => {
		world.addDisk(`/d${i + 1}`, { capacityBytes: size * MiB });
		return `/d${i + 1}`;
	});
	const node = world.node();
	const about = { name: "sim", diskPaths, redundancy, sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
	const log = { logSegmentBytes: 2.5 * MiB, logSegmentCount: 4 };
	await world.run(() => createVolume({ ...about, ...log }, { platform: node.boot(), logger: silentLogger }));
	node.kill();
	const memory = { logTailBytes: 4 * MiB, dirtyRingBytes: 16 * MiB };
	const work = async (): Promise<void> => {
		const options = { name: "sim", diskPaths, acceptLoss: false, memory };
		const volume = await openVolume(options, { platform: node.boot(), logger: silentLogger });
		await world.sleep(3_000);
		const before = (await volume.space()).freeBytes;
		const { files, written } = await writeUntilFull(volume, fileBytes);
		assert.equal((await volume.space()).freeBytes, 0, `${label}: free when a write was refused`);
		await volume.syncAll();
		assert.ok(Math.abs(written / before - 1) <= fits, `${label}: ${written} bytes fitted, ${before} were free`);
		for (let i = 0; i < files; i++) await volume.unlink(caller, volume.root, `f${i}`);
		const isBack = async (): Promise<boolean> => (await volume.space()).freeBytes >= before * (1 - returns);
		for (let i = 0; i < 120 && !(await isBack()); i++) await world.sleep(1_000);
		assert.ok(await isBack(), `${label}: ${(await volume.space()).freeBytes} free after all was deleted, ${before} before`);
		await volume.shutdown();
	};
	await world.run(work, { limitMs: 3_600_000 });
}

async function writeUntilFull(volume: NativeVolume, fileBytes: number): Promise<{ readonly files: number; readonly written: number }> {
	const piece = pattern(1, Math.min(fileBytes, MiB));
	let written = 0;
	for (let files = 0; ; files++) {
		const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
		const { handle } = await volume.open(caller, { parent: volume.root, name: `f${files}` }, intent);
		try {
			for (let at = 0; at < fileBytes; ) {
				const { written: some } = await volume.write(handle, at, piece.subarray(0, Math.min(piece.length, fileBytes - at)));
				at += some;
				written += some;
			}
		} catch (error) {
			assert.equal((error as { code?: string }).code, "ENOSPC", String(error));
			return { files: files + 1, written };
		} finally {
			await volume.close(handle);
		}
	}
}
