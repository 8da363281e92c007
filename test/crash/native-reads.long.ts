/** Files that the kernel reads by itself, over many kills of the daemon, and on a read-only mount: `npm run test:long native-reads [-- --kills N]` (some minutes). The quick suite (native-reads.test.ts) does each thing once. */
import assert from "node:assert/strict";
import { closeSync, constants, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, missingPrograms, must, sleep, TestVolume } from "../support/cairn.ts";
import { nativeStatus, put, stage, until, work } from "./native-reads.ts";

const sizeBytes = 2 << 20;
const kills = Number(process.env["CAIRN_KILLS"] ?? 20);

function isWritable(path: string): boolean {
	try {
		closeSync(openSync(path, "r+"));
		return true;
	} catch (error) {
		assert.equal((error as { code?: unknown }).code, "EBUSY");
		return false;
	}
}

describe("files that the kernel reads by itself", { skip: cannotMount() ?? missingPrograms("chattr") ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
	});
	after(async () => {
		for (const name of ["stop", "stop-3"]) if (volume !== undefined) writeFileSync(join(volume.base, name), "");
		await volume?.close();
	});

	test(`${kills} kills, with readers of every kind on several files, while files are staged, attached and left`, async (t) => {
		await volume.mount("-o", "native_reads=on");
		if ((await nativeStatus(volume)).unavailable !== null) return t.skip("this kernel cannot");
		const paths = Array.from({ length: 4 }, (_, i) => put(volume, `hot ${i}`, sizeBytes));
		for (const path of paths) await must("chattr", ["+i", path]);
		const stop = join(volume.base, "stop");
		const workers = paths.flatMap((path, i) => [
			work("opener", path, stop),
			...(i < 2 ? [work("reader", path, stop), work("mapper", path, stop)] : []),
		]);
		for (let i = 0; i < kills; i++) {
			// As long as a daemon has to live to count as one that served; then at any moment of what it does.
			await sleep(1100 + Math.random() * 1500);
			await volume.successorOf(volume.killDaemon());
			for (const path of paths) closeSync(openSync(path, "r"));
		}
		await until("files are read natively", volume, async () => (await nativeStatus(volume)).heldFiles > 0);
		writeFileSync(stop, "");
		for (const { ended } of workers) assert.ok((await ended) > 0);
		await until("all are let go of", volume, async () => (await nativeStatus(volume)).heldFiles === 0);
		for (const path of paths) await must("chattr", ["-i", path]);
		// chattr has opened them too, and they are held for a second after that.
		await until("all can be written again", volume, () => paths.every(isWritable));
		await volume.unmount();
	});

	test("a read-only mount: every file; an upgrade in between", async (t) => {
		await volume.mount();
		const paths = [0, 1, 2].map((i) => put(volume, `file ${i}`, sizeBytes));
		await volume.unmount();
		await volume.mount("-o", "ro,native_reads=on");
		if ((await nativeStatus(volume)).unavailable !== null) return t.skip("this kernel cannot");
		for (const path of paths) await stage(volume, path);
		const stop = join(volume.base, "stop-3");
		const workers = paths.flatMap((path) => [work("opener", path, stop), work("reader", path, stop)]);
		await Promise.all(workers.map(({ reading }) => reading));
		await until("they read natively", volume, async () => (await nativeStatus(volume)).heldFiles === 3);
		await volume.cairn("upgrade", volume.name);
		assert.ok((await nativeStatus(volume)).handles >= 3);
		await volume.successorOf(volume.killDaemon());
		writeFileSync(stop, "");
		for (const { ended } of workers) assert.ok((await ended) > 0);
		// Past the page cache, and as programs are run.
		const fd = openSync(paths[0] as string, constants.O_RDONLY | constants.O_DIRECT);
		closeSync(fd);
	});
});
