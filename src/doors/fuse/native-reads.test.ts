/** Staging over simulated disks; native reads as a whole are played on real mounts (test/crash/native-reads.test.ts). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../../base/telemetry.ts";
import type { Disk, DiskFile, FuseBackings } from "../../platform/interface.ts";
import { SimWorld } from "../../platform/sim/world.ts";
import { makeWorldVolume, openSim } from "../../../test/crash/scenario.ts";
import type { Attributes, Caller } from "../../volume/interface.ts";
import { NativeReads } from "./native-reads.ts";

const folder = "/staged";
const sizeBytes = 1 << 20;
const root: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "native-reads",
	share: undefined,
	trusted: true,
};

/** As a kernel does: what is written is in the page cache, is on the disk after a sync, and leaves the cache when it is asked to, but only where it is on the disk. */
function cached(file: DiskFile, isIgnored: (site: string) => boolean, closed: () => void): DiskFile {
	const cache = new Map<number, { bytes: Uint8Array; isDirty: boolean }>();
	const over: Partial<DiskFile> = {
		async write(offset, parts) {
			cache.set(offset, { bytes: new Uint8Array(Buffer.concat(parts)), isDirty: true });
		},
		async sync(site) {
			if (isIgnored(site)) return;
			for (const [offset, page] of cache) {
				if (page.isDirty) await file.write(offset, [page.bytes]);
				page.isDirty = false;
			}
			await file.sync(site);
		},
		async uncache(offset, lengthBytes) {
			for (const [at, { isDirty }] of cache) if (!isDirty && at >= offset && at < offset + lengthBytes) cache.delete(at);
			await file.uncache(offset, lengthBytes);
		},
		async read(offset, lengthBytes) {
			if (cache.size === 0) return file.read(offset, lengthBytes);
			const all = new Uint8Array(sizeBytes);
			for (const [at, { bytes }] of cache) all.set(bytes, at);
			return all.slice(offset, offset + lengthBytes);
		},
		async borrow(offset, lengthBytes) {
			return { bytes: await (over.read as DiskFile["read"])(offset, lengthBytes), release: () => {} };
		},
		async close() {
			for (const [offset, { bytes, isDirty }] of cache) if (isDirty) await file.write(offset, [bytes]);
			await file.close();
			closed();
		},
	};
	return delegate(file, over);
}

function delegate<T extends object>(to: T, over: Partial<T>): T {
	return new Proxy(to, {
		get: (target, name) => {
			const value = name in over ? over[name as keyof T] : target[name as keyof T];
			return typeof value === "function" && !(name in over) ? value.bind(target) : value;
		},
	});
}

/** Whether a file is staged on a disk that loses one write of it (`isLying`) without a word. */
async function isStaged(isLying: boolean, ignored: string | undefined): Promise<boolean> {
	const world = new SimWorld({ seed: 5 });
	const inUse = new Set<string>();
	const backings: FuseBackings = { open: async () => 1, close: async () => {}, inUse: async (path) => inUse.has(path) };
	await makeWorldVolume(world);
	const node = world.node();
	world.addDisk(folder, { capacityBytes: 1 << 30 });
	return world.run(async () => {
		const platform = node.boot();
		const volume = await openSim(platform);
		const openFolder = async (path: string): Promise<Disk> => {
			const disk = await platform.openDisk(path);
			const open: Disk["open"] = async (name, how) => {
				const file = await disk.open(name, how);
				const full = `${folder}/${name}`;
				inUse.add(full);
				return cached(
					file,
					(site) => site === ignored,
					() => inUse.delete(full),
				);
			};
			return delegate(disk, { open });
		};
		const reads = await NativeReads.begin(
			{ folder, readOnly: true, spaceBytes: 1 << 30 },
			{ volume, platform, openFolder, backings, logger: silentLogger },
		);
		const attributes = await written(volume);
		if (isLying) world.lieNextWrite(folder, "lost", (name) => name.startsWith("staged-"));
		for (let i = 0; i < 3; i++) {
			assert.equal(await reads.opening(attributes, true), undefined);
			reads.closed(attributes.ino, false);
		}
		await world.sleep(60_000);
		const { stagedFiles, unavailable } = reads.status;
		assert.equal(unavailable, undefined);
		await reads.end(false);
		await volume.shutdown();
		return stagedFiles > 0;
	});
}

async function written(volume: Awaited<ReturnType<typeof openSim>>): Promise<Attributes> {
	const access = { read: true, write: true };
	const { handle, attributes } = await volume.open(
		root,
		{ parent: volume.root, name: "f" },
		{ disposition: "create", access, attributes: { mode: 0o644 } },
	);
	for (let at = 0; at < sizeBytes; at += 65_536) await volume.write(handle, at, new Uint8Array(65_536).fill(1 + at / 65_536));
	const now = await volume.getAttributes(root, volume.node(attributes.ino), handle);
	await volume.close(handle);
	return now;
}

test("a staged file is used when the disk, not the page cache, has shown what was written; that takes the sync fuse.staged", async () => {
	assert.equal(await isStaged(false, undefined), true);
	assert.equal(await isStaged(true, undefined), false, "the disk has lost a part of it");
	assert.equal(await isStaged(true, "fuse.staged"), true, "without the sync nobody would notice");
});
