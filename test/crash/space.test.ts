import { test } from "node:test";
import { BadWorld } from "./bad-world.ts";
import { fill } from "./space.ts";

const large = { fileBytes: 100 * 1024 * 1024, fits: 0.01, returns: 0.01 };

test("df is true to one percent for large files, on equal and on unequal disks", async () => {
	await fill(940, { redundancy: "rs:4+2", disksMiB: [48, 48, 48, 48, 48, 48], ...large });
	await fill(941, { redundancy: "replicate:2", disksMiB: [64, 128, 96], ...large });
});

test("a raw disk gives back all that was removed, although it gives back whole units and fragments end within them", async () => {
	const bad = await BadWorld.make(945, 64 * 1024 * 1024, true);
	await bad.run(async () => {
		await bad.mount();
		const fileBytes = 2 * 1024 * 1024;
		for (let at = 0; at < 24; at++) await bad.put(`file ${at}`, fileBytes);
		await bad.syncAll();
		const before = (await bad.volume.space()).freeBytes;
		for (let at = 0; at < 20; at++) await bad.remove(`file ${at}`);
		const gained = async (): Promise<number> => (await bad.volume.space()).freeBytes - before;
		await bad.until("what was removed is free", async () => (await gained()) >= 20 * fileBytes * 0.98);
		await bad.check("removed");
		await bad.unmount();
	});
});
