/**
 * Files that the kernel reads by itself, through real mounts and kill -9 of the daemon: nobody gets an error, nobody reads a stale byte, nobody can write where somebody would not see it. The long suite kills more often.
 */
import assert from "node:assert/strict";
import { closeSync, constants, openSync, truncateSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { RealNetwork } from "../../src/platform/real/network.ts";
import { cannotMount, missingPrograms, must, TestVolume } from "../support/cairn.ts";
import { firstWord, nativeStatus, NfsReader, put, stage, until, work, wordOf } from "./native-reads.ts";

const on = ["-o", "native_reads=on"] as const;
const sizeBytes = 2 << 20;

describe("files that the kernel reads by itself", { skip: cannotMount() ?? missingPrograms("chattr") ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		await volume.mount(...on);
	});
	after(async () => {
		// What is still at work after a failure.
		for (const name of ["stop", "stop-mapper", "stop-2"]) if (volume !== undefined) writeFileSync(join(volume.base, name), "");
		await volume?.close();
	});

	const stagedNames = (): Promise<string[]> => readdir(join(volume.base, "home", volume.name, "native"));

	test("readers go on over kills of the daemon; writers are kept out until nobody reads, and are seen at once then", async (t) => {
		const { unavailable } = await nativeStatus(volume);
		if (unavailable !== null) return t.skip(unavailable);
		const path = put(volume, "hot", sizeBytes);
		const words = ["export", "add", volume.name, "--squash", "none", "--any-port", "--json"];
		const exported = JSON.parse(await volume.cairn(...words)) as { readonly path: string; readonly url: string };
		const port = Number(new URL(exported.url).searchParams.get("nfsport"));
		const nfs = new NfsReader({ network: new RealNetwork(), port, path: exported.path, name: "hot" });
		await must("chattr", ["+i", path]);
		await stage(volume, path);
		const [stop, stopMapper] = [join(volume.base, "stop"), join(volume.base, "stop-mapper")];
		const workers = [work("reader", path, stop), work("opener", path, stop)];
		const mapper = work("mapper", path, stopMapper);
		await Promise.all([...workers, mapper].map(({ reading }) => reading));
		await until("they read natively", volume, async () => (await nativeStatus(volume)).handles > 0);
		{
			await volume.successorOf(volume.killDaemon());
			const before = nfs.count;
			await until("the export is served", volume, () => nfs.count > before + 20);
			assert.ok((await nativeStatus(volume)).handles > 0, "the successor knows of them");
		}
		await must("chattr", ["-i", path]);
		const held = { code: "EBUSY" };
		for (const write of [
			() => openSync(path, "r+"),
			() => openSync(path, constants.O_WRONLY),
			() => openSync(path, constants.O_RDONLY | constants.O_TRUNC),
			() => truncateSync(path, 4096),
		])
			assert.throws(write, held);
		assert.equal((await volume.try("locks", "break", path, "--yes")).code, 3, "there is none that could be broken");
		assert.throws(() => openSync(path, "r+"), held, "an operator cannot take it away");
		writeFileSync(stop, "");
		for (const count of await Promise.all(workers.map(({ ended }) => ended))) assert.ok(count > 0);
		await until("only the mapping is left", volume, async () => (await nativeStatus(volume)).handles === 0);
		assert.throws(() => openSync(path, "r+"), held, "it is mapped, and no descriptor is open");
		await volume.successorOf(volume.killDaemon());
		assert.throws(() => openSync(path, "r+"), held, "a successor knows it too");
		writeFileSync(stopMapper, "");
		assert.ok((await mapper.ended) > 0);
		await nfs.stop();
		await until("it is let go of", volume, async () => (await nativeStatus(volume)).heldFiles === 0);
		const fd = openSync(path, "r+");
		writeSync(fd, new Uint32Array([7]));
		assert.equal(firstWord(path), 7);
		closeSync(fd);
		await must("chattr", ["+i", path]);
		for (let i = 0; i < 3; i++) assert.equal(firstWord(path), 7, "the staged file is an old one");
		await until("it was staged anew", volume, async () => (await stagedNames()).join() !== "staged-1");
		assert.equal(firstWord(path), 7);
		assert.equal(wordOf(0) === 7, false);
		await must("chattr", ["-i", path]);
	});

	test("one that is removed while it is read stays readable; nothing is left when the volume is unmounted", async (t) => {
		if ((await nativeStatus(volume)).unavailable !== null) return t.skip("this kernel cannot");
		const path = put(volume, "removed", sizeBytes);
		await must("chattr", ["+i", path]);
		await stage(volume, path);
		const stop = join(volume.base, "stop-2");
		const reader = work("reader", path, stop);
		await reader.reading;
		await must("chattr", ["-i", path]);
		unlinkSync(path);
		await volume.successorOf(volume.killDaemon());
		writeFileSync(stop, "");
		assert.ok((await reader.ended) > 0);
		await volume.unmount();
		assert.deepEqual(await stagedNames(), []);
		assert.ok(!(await readdir("/dev/shm")).includes(`cairn-${volume.id}.native`));
	});

	test("without anybody who takes the mount over it is not used, and status says why", async () => {
		await volume.mount("-o", "native_reads=on,on_crash=die");
		assert.match((await nativeStatus(volume)).unavailable ?? "", /nothing takes this mount over/);
		assert.match(await volume.cairn("status", volume.name), /native {6}reads: not used/);
	});
});
