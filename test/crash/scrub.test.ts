import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { limits } from "../../src/volume/native/limits.ts";
import { caller, diskPaths, makeWorldVolume, openSim, pattern } from "./scenario.ts";

const fileBytes = 1_500_000;
const write = { disposition: "open-or-create", access: { read: true, write: true } } as const;
const seconds = 1000;
const hours = 3600 * seconds;

async function fill(volume: NativeVolume, files: number): Promise<void> {
	for (let at = 0; at < files; at++) {
		const { handle } = await volume.open(caller, { parent: volume.root, name: `f${at}` }, write);
		await volume.write(handle, 0, pattern(at, fileBytes));
		await volume.close(handle);
		await volume.syncAll();
	}
}

/** The bytes of a file, or the code of the error. */
async function contents(volume: NativeVolume, name: string): Promise<Uint8Array | string> {
	const { handle } = await volume.open(caller, { parent: volume.root, name }, write);
	try {
		return await volume.read(handle, 0, fileBytes);
	} catch (error) {
		return (error as { readonly code: string }).code;
	} finally {
		await volume.close(handle);
	}
}

/** Waits, generously, until the scrub does nothing more. */
async function ended(world: SimWorld, volume: NativeVolume): Promise<void> {
	for (let at = 0; at < 6000 && volume.scrub.status().state !== "idle"; at++) await world.sleep(seconds);
	assert.equal(volume.scrub.status().state, "idle");
}

/** One byte in a hundred of every pack, in runs of a few: hardly a block stays as it was. */
function flip(world: SimWorld, path: string, everyBytes: number, runBytes: number): void {
	for (const name of world.disk(path).files()) {
		if (!name.startsWith("pack/")) continue;
		const size = world.disk(path).peek(name).length;
		for (let at = 0; at + runBytes <= size; at += everyBytes) world.corrupt(path, name, at, runBytes);
	}
}

describe("scrub", () => {
	test("begun by hand, paused over a restart, gone on with, killed, gone on with: every segment was read, damage is mended and counted", async () => {
		const world = new SimWorld({ seed: 41 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			let volume = await openSim(node.boot());
			await fill(volume, 12);
			flip(world, "/d4", 40_000, 400);
			await volume.scrub.begin({ dryRun: false, intensity: "low" });
			await assert.rejects(volume.scrub.begin({ dryRun: false }), /is running/);
			while ((volume.scrub.status().pass?.segments ?? 0) < 3) await world.sleep(50);
			const paused = await volume.scrub.pause();
			const before = paused.pass?.segments ?? 0;
			assert.ok(before >= 3 && before < 12, `${before} segments`);
			await volume.shutdown();

			volume = await openSim(node.boot());
			await world.sleep(60 * seconds);
			assert.deepEqual([volume.scrub.status().state, volume.scrub.status().pass?.segments], ["paused", before]);
			await volume.scrub.resume();
			while ((volume.scrub.status().pass?.segments ?? 0) < before + 3) await world.sleep(50);
		});
		node.kill();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			assert.equal(volume.scrub.status().state, "running");
			await ended(world, volume);
			const { lastPass } = volume.scrub.status();
			assert.ok((lastPass?.segments ?? 0) >= 12 && (lastPass?.corrupt ?? 0) > 0);
			assert.deepEqual([lastPass?.repaired, lastPass?.unrecoverable, lastPass?.byHand], [lastPass?.corrupt, 0, true]);
			const ledger = await volume.ledger();
			assert.deepEqual([ledger.provenBytes, ledger.recordedBytes, ledger.degradedBytes], [12 * fileBytes, 0, 0]);
			await assert.rejects(volume.scrub.pause(), /nothing to pause/);
			await volume.shutdown();
		});
	});

	test("by night: begins by itself, sleeps by day, goes on the next night; off is off", async () => {
		const world = new SimWorld({ seed: 42 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await fill(volume, 3);
			const later = async (count: number): Promise<void> => {
				node.jumpClock(count * hours);
				await world.sleep(3 * limits.scrubTickMs);
			};
			const night = volume.scrub.status();
			assert.deepEqual([night.schedule, night.hourUtc, night.state, night.lastPass], ["nightly", 1, "idle", null]);
			await later(2);
			const first = volume.scrub.status();
			assert.deepEqual([first.state, first.lastPass?.segments, first.lastPass?.byHand], ["idle", 3, false]);
			await later(3);
			assert.deepEqual(volume.scrub.status().lastPass, first.lastPass, "once a night");
			await later(24);
			assert.notDeepEqual(volume.scrub.status().lastPass, first.lastPass);
			await volume.scrub.setSchedule({ schedule: "off" });
			await assert.rejects(volume.scrub.begin({ dryRun: true }), /scrub is off/);
			const last = volume.scrub.status().lastPass;
			await later(48);
			assert.deepEqual(volume.scrub.status().lastPass, last);
			await volume.shutdown();
		});
	});

	test("a dry run repairs nothing, continuous comes again, stop gives up", async () => {
		const world = new SimWorld({ seed: 43 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await fill(volume, 4);
			await volume.setHealing({ paused: true });
			flip(world, "/d1", 40_000, 400);
			await volume.scrub.begin({ dryRun: true, intensity: "high" });
			await ended(world, volume);
			const { pass: dry, lastPass } = volume.scrub.status();
			assert.ok((dry?.corrupt ?? 0) > 0);
			assert.deepEqual([dry?.repaired, dry?.dryRun, lastPass], [0, true, null]);
			assert.deepEqual(
				(await volume.ledger()).shortages.map((one) => [one.cause, one.bytes]),
				[["paused", 4 * fileBytes]],
			);
			await volume.setHealing({ paused: false });
			await volume.scrub.setSchedule({ schedule: "continuous", intensity: "low" });
			await world.sleep(20 * 60 * seconds);
			const second = volume.scrub.status().lastPass;
			assert.deepEqual([second?.dryRun, second?.corrupt], [false, 0]);
			await volume.scrub.setSchedule({ schedule: "manual" });
			await ended(world, volume);
			await volume.scrub.begin({ dryRun: false });
			const stopped = await volume.scrub.stopPass();
			assert.deepEqual([stopped.state, stopped.pass?.endedAt], ["idle", null]);
			await volume.shutdown();
		});
	});
});

describe("one per cent of a disk's bytes", () => {
	test("all is found, counted and repaired", async () => {
		const world = new SimWorld({ seed: 44 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await fill(volume, 8);
			const { segments } = await volume.explain("f0");
			flip(world, "/d2", 10_000, 100);
			const found = await volume.verify({ dryRun: false, lost: true }, () => {});
			assert.deepEqual([found.corrupt, found.repaired, found.missing, found.unrecoverable], [8, 8, 0, 0]);
			assert.equal(segments[0]?.fragments.length, 6);
			const again = await volume.verify({ dryRun: true, lost: true }, () => {});
			assert.deepEqual([again.corrupt, again.missing], [0, 0]);
			for (let at = 0; at < 8; at++) assert.deepEqual(await contents(volume, `f${at}`), pattern(at, fileBytes));
			await volume.shutdown();
		});
	});

	test("with two disks lost already: what can be saved is, what cannot is named and answers EIO, never wrong bytes", async () => {
		const world = new SimWorld({ seed: 45 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await volume.setHealing({ paused: true });
			await fill(volume, 8);
			await volume.shutdown();
		});
		world.vanish("/d5");
		world.vanish("/d6");
		const files = 8;
		await world.run(async () => {
			const volume = await openSim(node.boot(), diskPaths);
			// A third disk with damage in parts of it: the segments that lie there have three bad fragments of six, the others two.
			const packs = world
				.disk("/d1")
				.files()
				.filter((name) => name.startsWith("pack/"));
			for (const name of packs) {
				const size = world.disk("/d1").peek(name).length;
				for (let at = 0; at < size / 2; at += 10_000) world.corrupt("/d1", name, at, 100);
			}
			const found = await volume.verify({ dryRun: false, lost: true }, () => {});
			assert.ok(found.unrecoverable > 0 && found.unrecoverable < files, `${found.unrecoverable} of ${files}`);
			assert.equal(found.lostPaths.length, found.unrecoverable);
			const lost = new Set(found.lostPaths.map((path) => path.replace(/^\//, "")));
			for (let at = 0; at < files; at++) {
				const expected = lost.has(`f${at}`) ? "EIO" : pattern(at, fileBytes);
				assert.deepEqual(await contents(volume, `f${at}`), expected, `f${at}`);
			}
			const ledger = await volume.ledger();
			// What the lost segments still gave was moved to safety.
			assert.ok(ledger.lostBytes > 0 && ledger.lostBytes < found.unrecoverable * fileBytes, `${ledger.lostBytes} bytes lost`);
			assert.equal(ledger.levels[0]?.wantedBytes, files * fileBytes);
			await volume.shutdown();
		});
	});
});

describe("a segment beyond recovery", () => {
	test("names only the files whose own bytes are gone", async () => {
		const world = new SimWorld({ seed: 48 });
		await makeWorldVolume(world);
		const node = world.node();
		const small = 20_000;
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await volume.setHealing({ paused: true });
			for (let at = 0; at < 40; at++) {
				const { handle } = await volume.open(caller, { parent: volume.root, name: `s${at}` }, write);
				await volume.write(handle, 0, pattern(at, small));
				await volume.close(handle);
			}
			await volume.syncAll();
			assert.equal((await volume.ledger()).levels[0]?.segments, 1, "all lie together");
			await volume.shutdown();
		});
		world.vanish("/d5");
		world.vanish("/d6");
		const [pack] = world
			.disk("/d1")
			.files()
			.filter((name) => name.startsWith("pack/"));
		world.corrupt("/d1", pack as string, 64 * 1024, 1);
		await world.run(async () => {
			const volume = await openSim(node.boot());
			const found = await volume.verify({ dryRun: false, lost: true }, () => {});
			assert.equal(found.unrecoverable, 1);
			const lost = new Set(found.lostPaths);
			assert.ok(lost.size > 0 && lost.size < 6, `${lost.size} files`);
			for (let at = 0; at < 40; at++) {
				const { handle } = await volume.open(caller, { parent: volume.root, name: `s${at}` }, write);
				const read = await volume.read(handle, 0, small).catch((error: { readonly code: string }) => error.code);
				assert.deepEqual(read, lost.has(`s${at}`) ? "EIO" : pattern(at, small), `s${at}`);
				await volume.close(handle);
			}
			await volume.shutdown();
		});
	});
});

describe("verify", () => {
	test("goes on where the daemon was killed: what was proven since is not read again", async () => {
		const world = new SimWorld({ seed: 46 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await world.sleep(10 * seconds);
			await fill(volume, 10);
			await assert.rejects(
				volume.verify({ dryRun: false, lost: false, resume: true }, () => {}),
				/no verify was interrupted/,
			);
			void volume.verify({ dryRun: false, lost: false }, ({ doneBytes }) => {
				if (doneBytes >= 4 * fileBytes) world.disk("/d6").hang();
			});
			await world.sleep(limits.proofFlushMs + 3 * seconds);
		});
		node.kill();
		world.disk("/d6").unhang();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			const found = await volume.verify({ dryRun: false, lost: false, resume: true }, () => {});
			assert.ok(found.skippedSegments >= 3 && found.skippedSegments < 10, `${found.skippedSegments} passed over`);
			assert.equal(found.checkedFragments, 6 * (10 - found.skippedSegments));
			assert.equal((await volume.ledger()).provenBytes, 10 * fileBytes);
			await assert.rejects(
				volume.verify({ dryRun: false, lost: false, resume: true }, () => {}),
				/no verify was interrupted/,
			);
			await volume.shutdown();
		});
	});
});

describe("healing", () => {
	test("paused it waits, over restarts, and says so; resumed it does all", async () => {
		const world = new SimWorld({ seed: 47 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			let volume = await openSim(node.boot());
			await fill(volume, 4);
			await volume.setHealing({ paused: true, tranquility: 3 });
			await volume.shutdown();
			world.wipe("/d3");
			volume = await openSim(node.boot());
			await volume.disks.replace("d3", "/d3");
			await world.sleep(300 * seconds);
			const { healing, protection } = await volume.status();
			assert.deepEqual([healing.active, healing.paused, healing.tranquility], [false, true, 3]);
			assert.equal(protection.degradedBytes, 4 * fileBytes);
			await volume.setHealing({ paused: false });
			const result = await volume.heal(() => {});
			assert.deepEqual([result.remainingBytes, (await volume.status()).protection.degradedBytes], [0, 0]);
			await volume.shutdown();
		});
	});
});
