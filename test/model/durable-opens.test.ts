/** Opens that are kept by record: what each rule of durable and persistent handles means, over a volume in virtual time. Deaths at any moment are in test/crash/durable.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import type { SimNode } from "../../src/platform/sim/node.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { maximumDurableOpens } from "../../src/records/limits.ts";
import type { Caller, DurableRequest, HandleId, Opened, OpenIntent, Reconnect } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { limits } from "../../src/volume/native/limits.ts";
import { diskPaths, makeWorldVolume, openSim, simMemory } from "../crash/scenario.ts";
import { recount } from "../support/recount.ts";

const RH = 5;
const RWH = 7;
const client = "c".repeat(32);
const guid = (number: number): string => number.toString(16).padStart(32, "0");
const caller = (more: Partial<Caller> = {}): Caller => ({
	uid: 7,
	gid: 7,
	groups: [],
	principal: "anna",
	door: "smb",
	clientInstance: "session",
	share: undefined,
	trusted: true,
	...more,
});
const program = caller({ door: "fuse", uid: 0, gid: 0, principal: undefined, clientInstance: "mount" });

class Scene {
	readonly world: SimWorld;
	readonly node: SimNode;
	volume!: NativeVolume;
	readonly broken: number[] = [];
	readonly ended: HandleId[] = [];

	constructor(seed: number) {
		this.world = new SimWorld({ seed });
		this.node = this.world.node();
	}

	async mount(): Promise<void> {
		this.volume = await openSim(this.node.boot());
		this.volume.durableOpens.listen({
			broken: (_handles, to) => void this.broken.push(to),
			revoked: () => {},
			ended: (handle) => void this.ended.push(handle),
		});
	}

	/** The daemon is gone, and there is another. */
	async again(how: "kill" | "cut" | "clean"): Promise<void> {
		if (how === "clean") await this.volume.shutdown();
		if (how === "cut") this.node.powerCut();
		else this.node.kill();
		await this.mount();
	}

	open(number: number, durable: Partial<DurableRequest> = {}, intent: Partial<OpenIntent> = {}, who = caller()): Promise<Opened> {
		const request = { clientGuid: client, createGuid: guid(number), persistent: false, timeoutMs: 0, ...durable };
		const asked = { disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o666 } } as const;
		return this.volume.open(who, { parent: this.volume.root, name: "f" }, { ...asked, ...intent, durable: request });
	}

	reconnect(number: number, handle: HandleId, more: Partial<Reconnect> = {}, who = caller()): Promise<Opened> {
		const by = { handle, clientGuid: client, createGuid: guid(number), persistent: false, leaseKey: undefined, ...more };
		return this.volume.durableOpens.reconnect(who, by);
	}

	/** A program on the mount writes. */
	async writes(): Promise<string> {
		return outcome(async () => {
			const { volume } = this;
			const { handle } = await volume.open(
				program,
				{ parent: volume.root, name: "f" },
				{ disposition: "open", access: { read: false, write: true } },
			);
			await volume.close(handle);
		});
	}

	unlink(): Promise<string> {
		return outcome(() => this.volume.unlink(program, this.volume.root, "f"));
	}

	get left(): readonly HandleId[] {
		return this.volume.durableOpens.list().map(({ handle }) => handle);
	}
}

async function outcome(work: () => Promise<unknown>): Promise<string> {
	return work().then(
		() => "done",
		(error: unknown) => (isFsError(error) ? error.code : String(error)),
	);
}

function scene(about: string, body: (s: Scene) => Promise<void>): void {
	test(about, async () => {
		const s = new Scene(7);
		await makeWorldVolume(s.world);
		await s.world.run(async () => {
			await s.mount();
			await body(s);
			for (const { handle } of s.volume.durableOpens.list()) await s.volume.close(handle);
			await s.volume.shutdown();
			await recount(s.node.boot(), diskPaths, simMemory);
		});
	});
}

const denyWrite = { read: false, write: true, delete: false };
const denyDelete = { read: false, write: false, delete: true };

scene("had again by its client, user and GUIDs alone, and once", async (s) => {
	const { handle, durable } = await s.open(1, { lease: { key: guid(9), state: RH } });
	assert.deepEqual(durable, { persistent: false, timeoutMs: limits.durableUsualMs, lease: { state: RH, epoch: 1 } });
	assert.equal(await outcome(() => s.reconnect(1, handle, { leaseKey: guid(9) })), "ENOENT", "its client is there");
	assert.equal(await outcome(() => s.open(1)), "EEXIST", "a request that comes again is known");
	assert.equal(s.volume.durableOpens.find(client, guid(1))?.handle, handle);
	s.volume.durableOpens.disconnect(handle);
	const wrong: readonly Partial<Reconnect>[] = [
		{},
		{ leaseKey: guid(8) },
		{ leaseKey: guid(9), clientGuid: "d".repeat(32) },
		{ leaseKey: guid(9), createGuid: guid(2) },
		{ leaseKey: guid(9), persistent: true },
		{ leaseKey: guid(9), handle: handle + 1 },
	];
	for (const by of wrong) assert.equal(await outcome(() => s.reconnect(1, handle, by)), "ENOENT", JSON.stringify(by));
	for (const who of [caller({ uid: 8 }), caller({ principal: "bob" })])
		assert.equal(await outcome(() => s.reconnect(1, handle, { leaseKey: guid(9) }, who)), "EACCES");
	assert.equal((await s.reconnect(1, handle, { leaseKey: guid(9) })).handle, handle);
	s.volume.durableOpens.disconnect(handle);
	const byName = { handle: undefined, clientGuid: client, createGuid: guid(1), persistent: false, leaseKey: guid(9) };
	assert.equal((await s.volume.durableOpens.reconnect(caller(), byName)).handle, handle, "by its GUIDs");
	const { durable: figures } = (await s.volume.status()).locks;
	const { connected, waiting, granted, reconnected, refused } = figures;
	assert.deepEqual(
		{ connected, waiting, granted, reconnected, refused },
		{ connected: 1, waiting: 0, granted: 1, reconnected: 2, refused: 9 },
	);
});

scene("other doors cannot have one, and nonsense is refused", async (s) => {
	assert.equal(await outcome(() => s.open(1, {}, {}, program)), "ENOTSUP");
	for (const durable of [{ clientGuid: "x" }, { createGuid: "C".repeat(32) }, { timeoutMs: -1 }, { lease: { key: guid(1), state: 8 } }])
		assert.equal(await outcome(() => s.open(1, durable)), "EINVAL", JSON.stringify(durable));
	assert.deepEqual(s.left, []);
	const { handle } = await s.open(1);
	assert.throws(() => s.volume.now?.close(handle), /durable open/);
	for (const work of [
		() => s.volume.durableOpens.unlock(handle, { start: 0, end: 9 }),
		() => s.volume.durableOpens.answerLease(handle, 1),
		() => s.volume.durableOpens.lease(handle, 1),
		() => s.volume.durableOpens.lock(handle + 1, { exclusive: true, range: { start: 0, end: 9 } }, false),
	])
		assert.match(await outcome(work), /ENOENT|EINVAL|EBADF/);
});

for (const how of ["kill", "cut", "clean"] as const)
	scene(`after ${how}: there again with its ranges, its lease and what it denies, and nobody gets what conflicts`, async (s) => {
		const { handle } = await s.open(1, { lease: { key: guid(9), state: RWH } }, { deny: denyWrite });
		const { durableOpens } = s.volume;
		for (const [start, exclusive] of [
			[0, true],
			[10, false],
			[20, true],
		] as const)
			await durableOpens.lock(handle, { exclusive, range: { start, end: start + 9 } }, false);
		await durableOpens.unlock(handle, { start: 20, end: 29 });
		await durableOpens.answerLease(handle, RH);
		await s.again(how);
		const [open] = s.volume.durableOpens.list();
		assert.deepEqual([open?.handle, open?.connected, open?.leaseState, open?.deny], [handle, false, RH, 2]);
		const held = s.volume.locks.heldSmb(open?.ino ?? 0, handle).map(({ exclusive, range }) => [exclusive, range.start, range.end]);
		assert.deepEqual(held, [
			[true, 0, 9],
			[false, 10, 19],
		]);
		assert.equal(await s.writes(), "EBUSY", "in grace nobody ends it");
		await s.reconnect(1, handle, { leaseKey: guid(9) });
		assert.equal(await s.writes(), "EBUSY");
		// What may be gone with the power is told.
		assert.equal(await outcome(() => s.volume.fsync(handle, false)), how === "cut" ? "EIO" : "done");
		await s.volume.close(handle);
		assert.equal(await s.writes(), "done");
		await s.again(how);
		if (how !== "cut") assert.deepEqual(s.left, []);
	});

scene(
	"away and merely durable: ended by whoever is in conflict, by a share, a range, or a lease that is broken; not by others",
	async (s) => {
		const { durableOpens } = s.volume;
		const first = (await s.open(1, {}, { deny: denyWrite })).handle;
		assert.equal(await s.writes(), "EBUSY");
		durableOpens.disconnect(first);
		const reads = await s.open(2, { clientGuid: "d".repeat(32) }, { access: { read: true, write: false } });
		assert.deepEqual(s.left, [first, reads.handle], "who only reads is in no conflict");
		assert.equal(await s.writes(), "done");
		assert.deepEqual(s.left, [reads.handle]);
		assert.equal(await outcome(() => s.reconnect(1, first)), "ENOENT");

		const second = (await s.open(3)).handle;
		await durableOpens.lock(second, { exclusive: true, range: { start: 0, end: 9 } }, false);
		durableOpens.disconnect(second);
		const lock = (): Promise<unknown> => durableOpens.lock(reads.handle, { exclusive: false, range: { start: 5, end: 5 } }, false);
		assert.equal(await outcome(lock), "done");
		assert.deepEqual(s.left, [reads.handle]);

		const third = (await s.open(4, { lease: { key: guid(9), state: RH } })).handle;
		durableOpens.disconnect(third);
		assert.equal(await s.unlink(), "done");
		assert.deepEqual(s.left, [reads.handle]);
		const { conflicts } = (await s.volume.status()).locks.durable;
		assert.equal(conflicts, 3);
	},
);

scene("away and persistent: others are refused until its time is over", async (s) => {
	const { handle } = await s.open(1, { persistent: true, timeoutMs: 100_000 }, { deny: { ...denyWrite, delete: true } });
	s.volume.durableOpens.disconnect(handle);
	await s.world.sleep(99_000);
	assert.equal(await s.writes(), "EBUSY");
	assert.equal(await s.unlink(), "EBUSY");
	assert.deepEqual(s.left, [handle]);
	await s.world.sleep(2000);
	assert.deepEqual(s.left, []);
	assert.equal(await s.writes(), "done");
	// Its end is not waited for: what is not durable of that may come back with the power.
	await s.volume.syncAll();
	await s.again("cut");
	assert.deepEqual(s.left, []);
	assert.equal((await s.open(2, { timeoutMs: 10 ** 9 })).durable?.timeoutMs, limits.durableMostMs);
});

scene("a persistent one that is away loses a lease in time, and hears of the break when it is back", async (s) => {
	const { handle } = await s.open(1, { persistent: true, timeoutMs: 300_000, lease: { key: guid(9), state: RWH } });
	s.volume.durableOpens.disconnect(handle);
	const writing = s.writes();
	await s.world.sleep(1000);
	assert.deepEqual(s.broken, []);
	await s.reconnect(1, handle, { persistent: true, leaseKey: guid(9) });
	await s.world.sleep(1);
	assert.deepEqual(s.broken, [RH]);
	await s.volume.durableOpens.answerLease(handle, RH);
	assert.equal(await writing, "done");
	s.volume.durableOpens.disconnect(handle);
	assert.equal(await s.unlink(), "done", "after its time");
	assert.equal(s.volume.durableOpens.list()[0]?.leaseState, 0);
});

scene("a removed file stays for it, over restarts, and goes with it", async (s) => {
	const { handle, attributes } = await s.open(1, { persistent: true });
	await s.volume.write(handle, 0, Uint8Array.of(1, 2, 3));
	assert.equal(await s.unlink(), "done");
	for (const how of ["kill", "cut", "clean"] as const) {
		await s.again(how);
		await s.reconnect(1, handle, { persistent: true });
		assert.deepEqual([...(await s.volume.read(handle, 0, 9))], [1, 2, 3], "what was written through it is durable");
	}
	await s.volume.close(handle);
	await s.world.sleep(10_000);
	assert.equal(await outcome(() => s.volume.getAttributes(program, s.volume.node(attributes.ino))), "ESTALE");
	await s.again("cut");
	assert.deepEqual(s.left, []);
});

scene("deny modes bind the unlink too: a name that is kept from being removed stays", async (s) => {
	const { handle } = await s.open(1, { persistent: true }, { deny: denyDelete });
	assert.equal(await s.unlink(), "EBUSY");
	await s.again("kill");
	assert.equal(await s.unlink(), "EBUSY");
	assert.equal(await outcome(() => s.volume.rename(program, s.volume.root, "f", s.volume.root, "g", 0)), "EBUSY");
	await s.reconnect(1, handle, { persistent: true });
	await s.volume.close(handle);
	assert.equal(await s.unlink(), "done");
});

scene("opens with one lease key have one lease, which goes with the last of them", async (s) => {
	const lease = { key: guid(9), state: RH };
	const first = await s.open(1, { lease });
	const second = await s.open(2, { lease });
	assert.equal(second.durable?.lease?.state, RH);
	await s.volume.close(first.handle);
	await s.again("kill");
	const { ino } = second.attributes;
	assert.equal(s.volume.locks.listBound(9, ino).leases[0]?.state, RH);
	await s.reconnect(2, second.handle, { leaseKey: guid(9) });
	await s.volume.close(second.handle);
	assert.deepEqual(s.volume.locks.listBound(9, ino).leases, []);
	assert.notEqual(s.volume.now?.getAttributes(program, s.volume.node(ino)), undefined, "PLAIN again");
});

scene("reads and writes through an open are not kept out by its own locks", async (s) => {
	const { handle } = await s.open(1);
	const other = await s.open(2, { clientGuid: "d".repeat(32) });
	await s.volume.durableOpens.lock(handle, { exclusive: true, range: { start: 0, end: 9 } }, false);
	assert.equal(await outcome(() => s.volume.write(handle, 0, Uint8Array.of(1))), "done");
	assert.equal(await outcome(() => s.volume.read(handle, 0, 1)), "done");
	assert.equal(await outcome(() => s.volume.write(other.handle, 0, Uint8Array.of(2))), "EAGAIN");
	await s.volume.durableOpens.unlock(handle, { start: 0, end: 9 });
	await s.volume.durableOpens.lock(handle, { exclusive: false, range: { start: 0, end: 9 } }, false);
	assert.equal(await outcome(() => s.volume.write(handle, 0, Uint8Array.of(1))), "EAGAIN", "a shared one binds its own writes too");
});

scene("what an open waits for is given up when its client is gone", async (s) => {
	const { durableOpens } = s.volume;
	const { handle } = await s.open(1);
	const other = await s.open(2, { clientGuid: "d".repeat(32) });
	const range = { start: 0, end: 9 };
	await durableOpens.lock(handle, { exclusive: true, range }, false);
	const answer = await durableOpens.lock(other.handle, { exclusive: true, range }, true);
	assert.equal(answer.kind, "waiting");
	const how = answer.kind === "waiting" ? outcome(() => answer.granted) : undefined;
	durableOpens.disconnect(other.handle);
	assert.equal(await how, "ECANCELED");
	await durableOpens.unlock(handle, range);
	assert.deepEqual(s.volume.locks.list(9).held, []);
});

scene("an operator ends one, whether its client is there or not", async (s) => {
	const { handle } = await s.open(1, { persistent: true }, { deny: denyWrite });
	assert.equal(await s.volume.breakLocks("f", "smb:1"), 0);
	assert.equal(await s.volume.breakLocks("f", `smb:${handle}`), 1);
	assert.deepEqual(s.ended, [handle]);
	assert.equal(await s.writes(), "done");
	assert.equal(await outcome(() => s.volume.write(handle, 0, Uint8Array.of(1))), "EBADF");
	await s.again("cut");
	assert.deepEqual(s.left, []);
});

const leased = { lease: { key: guid(9), state: RH } };

scene("an open that joins a lease while it is broken comes down with it, over a death too", async (s) => {
	const first = await s.open(1, leased);
	const unlinked = s.unlink();
	await s.world.sleep(10);
	assert.deepEqual(s.broken, [0]);
	const second = await s.open(2, leased);
	assert.equal(second.durable?.lease?.state, RH, "it is broken, and not given back yet");
	await s.volume.durableOpens.answerLease(first.handle, 0);
	assert.equal(await unlinked, "done");
	assert.deepEqual(leaseStates(s), [0, 0]);
	await s.again("kill");
	assert.deepEqual(leaseStates(s), [0, 0]);
});

scene("a lease that is given back while an open joins it is gone for both, whatever comes first", async (s) => {
	let together = 0;
	for (let turns = 0; turns < 60; turns++) {
		const first = await s.open(1, leased);
		const unlinked = s.unlink();
		await s.world.sleep(10);
		const joining = s.open(2, leased);
		for (let i = 0; i < turns; i++) await Promise.resolve();
		await s.volume.durableOpens.answerLease(first.handle, 0);
		const second = await joining;
		assert.equal(await unlinked, "done");
		// It may have come after the end of the file, to one of its own.
		if (second.attributes.ino === first.attributes.ino) {
			together++;
			assert.deepEqual(leaseStates(s), [0, 0], `${turns} turns`);
		}
		for (const handle of s.left) await s.volume.close(handle);
		await s.unlink();
	}
	assert.ok(together > 0);
});

scene("a break that nobody was there to hear is told to the open that joins the lease", async (s) => {
	const first = await s.open(1, { ...leased, persistent: true });
	s.volume.durableOpens.disconnect(first.handle);
	const unlinked = s.unlink();
	await s.world.sleep(10);
	assert.deepEqual(s.broken, []);
	const second = await s.open(2, leased);
	await s.world.sleep(10);
	assert.deepEqual(s.broken, [0]);
	await s.volume.durableOpens.answerLease(second.handle, 0);
	assert.equal(await unlinked, "done");
});

const leaseStates = (s: Scene): number[] => s.volume.durableOpens.list().map(({ leaseState }) => leaseState);

test("a record of the bound's worth: opens beyond it are made without", () => {
	// Making them takes long; that the bound is asked is seen in `ask`. What it is must leave room for other handles.
	assert.ok(maximumDurableOpens < limits.handles / 4);
});
