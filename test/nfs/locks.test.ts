/** NLM and NSM through a socket, on a volume whose other locks come as those of a mount do: every call with its results, waiting and being told, deaths of either side. In virtual time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import type { LocalLock } from "../../src/volume/interface.ts";
import type { NfsClient } from "./client.ts";
import { crashLocks } from "./locks-crash.ts";
import { LockClient, LockHost, results } from "./lock-client.ts";
import { inWorld, type NfsWorld, wholeVolume } from "./world.ts";

const seed = 20_261_121;
const nobody = { low: 0, high: 0 };

interface Scene {
	readonly world: NfsWorld;
	readonly nfs: NfsClient;
	readonly top: Uint8Array;
	readonly file: Uint8Array;
	readonly ino: number;
	readonly host: LockHost;
	client(name: string): Promise<LockClient>;
}

async function stage(world: NfsWorld): Promise<Omit<Scene, "host">> {
	const nfs = await world.connect();
	const { handle: top } = await nfs.mount("/demo");
	const made = await nfs.create(top, "f", "unchecked", { mode: 0o666 });
	const file = made.handle as Uint8Array;
	const ino = (await nfs.getattr(file)).attributes?.fileid ?? 0;
	return { world, nfs, top, file, ino, client: async (name) => new LockClient(await world.connect(), name) };
}

function check(name: string, body: (scene: Scene) => Promise<void>): void {
	test(name, () =>
		inWorld(seed, async (world) => {
			const scene = await stage(world);
			const host = new LockHost(world.platform);
			await host.listen();
			await body({ ...scene, host });
			await host.stop();
		}),
	);
}

/** As the kernel asks for a program on the mount. */
const local = (ino: number, owner: number, exclusive = true, start = 0, end = 9): LocalLock => ({
	ino,
	handle: 1,
	family: "fcntl",
	owner: { id: owner.toString(16).padStart(16, "0"), pid: owner },
	exclusive,
	range: { start, end },
});
const atOnce = { wait: false, victim: true, request: nobody };

for (const version of [1, 3, 4] as const)
	check(`version ${version}: lock, test, unlock, ranges split`, async ({ file, client }) => {
		const [a, b] = [await client("a"), await client("b")];
		assert.equal(await a.lock({ file, offset: 100, length: 100, owner: 7 }, version), results.granted);
		assert.deepEqual(await a.test({ file, owner: 7 }, version), { status: results.granted, holder: undefined });
		assert.deepEqual(await b.test({ file, offset: 150, length: 1 }, version), {
			status: results.denied,
			holder: { exclusive: true, owner: 7, offset: 100n, length: 100n },
		});
		assert.equal(await b.lock({ file, offset: 199 }, version), results.denied);
		assert.equal(await a.lock({ file, offset: 199, owner: 8 }, version), results.denied, "another process of the same machine");
		assert.equal(await b.lock({ file, offset: 200 }, version), results.granted);
		assert.equal(await a.unlock({ file, offset: 120, length: 10, owner: 7 }, version), results.granted);
		assert.equal(await b.lock({ file, offset: 120, length: 10 }, version), results.granted);
		assert.equal(await b.lock({ file, offset: 120, length: 11 }, version), results.denied);
		assert.equal(await a.unlock({ file, owner: 7 }, version), results.granted);
		assert.equal(await a.unlock({ file, owner: 7 }, version), results.granted, "of nothing: fine");
		assert.equal(await b.lock({ file }, version), results.granted);
		assert.equal(await a.lock({ file, exclusive: false }, version), results.denied);
	});

check("shared locks stand side by side; one becomes exclusive when it is alone", async ({ file, client }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file, exclusive: false }), results.granted);
	assert.equal(await b.lock({ file, exclusive: false }), results.granted);
	assert.equal(await a.lock({ file }), results.denied);
	assert.equal(await b.unlock({ file }), results.granted);
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file, exclusive: false }), results.denied);
});

check("offsets of 64 bits are exact", async ({ file, client }) => {
	const [a, b] = [await client("a"), await client("b")];
	const far = 2n ** 63n;
	assert.equal(await a.lock({ file, offset: far, length: 1n }), results.granted);
	assert.equal(await b.lock({ file, offset: far + 1n, length: 1n }), results.granted);
	assert.deepEqual((await b.test({ file, offset: far - 5n })).holder, { exclusive: true, owner: 1, offset: far, length: 1n });
	assert.equal(await a.lock({ file, offset: 2n ** 64n - 1n, length: 1 }), results.granted);
	assert.equal(await a.lock({ file, offset: 2n ** 64n - 1n, length: 2 }), results.tooBig);
	const old = await a.test({ file, owner: 2, offset: 0xffff_ffff }, 3);
	assert.deepEqual(old.holder, { exclusive: true, owner: 1, offset: 0xffff_ffffn, length: 1n }, "as far as 32 bits go");
});

check("programs on the mount and clients respect each other", async ({ world, ino, file, client }) => {
	const { locks } = world.volume;
	const a = await client("a");
	await locks.lock(local(ino, 5), atOnce);
	assert.deepEqual((await a.test({ file })).holder, { exclusive: true, owner: 5, offset: 0n, length: 10n });
	assert.equal(await a.lock({ file, offset: 9, length: 1 }), results.denied);
	assert.equal(await a.lock({ file, offset: 10 }), results.granted);
	await assert.rejects(locks.lock(local(ino, 6, false, 10, 10), atOnce), (error) => isFsError(error, "EAGAIN"));
	assert.equal(locks.conflict(local(ino, 6, false, 10, 10))?.owner.door, "nfs");
	const waiting = locks.lock(local(ino, 6, true, 20, 29), { ...atOnce, wait: true, request: { low: 1, high: 0 } });
	assert.equal(await a.unlock({ file }), results.granted);
	await waiting;
	const { held } = await world.volume.listLocks("");
	assert.deepEqual(
		held.map(({ door, pid }) => [door, pid]),
		[
			["fuse", 5],
			["fuse", 6],
		],
	);
	const whole = { ...local(ino, 9), family: "flock" as const, range: { start: 0, end: 2n ** 64n - 1n } };
	await locks.lock(whole, atOnce);
	assert.equal(await a.lock({ file, offset: 100 }), results.granted, "flock(2) of this machine and ranges do not know each other");
	assert.equal(await a.unlock({ file }), results.granted);
	locks.unlock(local(ino, 5), nobody);
	locks.unlock(local(ino, 6, true, 20, 29), nobody);
	assert.equal(await a.lock({ file }), results.denied, "but the whole file may be somebody's flock");
});

check("who waits is told, and keeps its place", async ({ file, host, client, world }) => {
	const [a, b, c] = [await client("a"), await client("b"), await client("c")];
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	assert.equal(await b.lock({ file, length: 10, block: true, owner: 2 }), results.blocked);
	assert.equal(await b.lock({ file, length: 10, block: true, owner: 2 }), results.blocked, "asked again, it waits once");
	assert.equal(await c.lock({ file, length: 10, block: true, owner: 3 }), results.blocked);
	assert.equal(host.grants.length, 0);
	assert.equal(await a.unlock({ file }), results.granted);
	await world.world.sleep(100);
	assert.deepEqual(
		host.grants.map(({ version, owner, offset, length, exclusive, cookie }) => ({ version, owner, offset, length, exclusive, cookie })),
		[{ version: 4, owner: 2, offset: 0n, length: 10n, exclusive: true, cookie: "b-1" }],
	);
	assert.equal(await b.unlock({ file, owner: 2 }), results.granted);
	await world.world.sleep(100);
	assert.equal(host.grants[1]?.owner, 3);
	assert.equal((await a.test({ file })).holder?.owner, 3);
});

check("a client that refuses what it waited for does not have it, but has what it had before", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	host.answer = () => results.denied;
	assert.equal(await b.lock({ file, length: 5, exclusive: false }), results.granted);
	assert.equal(await a.lock({ file, length: 10, exclusive: false }), results.granted);
	assert.equal(await b.lock({ file, length: 10, block: true }), results.blocked);
	assert.equal(await a.unlock({ file }), results.granted);
	await world.world.sleep(100);
	assert.equal(host.grants.length, 1);
	assert.deepEqual((await a.test({ file })).holder, { exclusive: false, owner: 1, offset: 0n, length: 5n });
});

check("a client that cannot be told loses what it never heard of", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	await host.stop();
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file, block: true }), results.blocked);
	assert.equal(await a.unlock({ file }), results.granted);
	assert.equal(await a.lock({ file }), results.denied, "it is tried for a while");
	await world.world.sleep(70_000);
	assert.equal(await a.lock({ file }), results.granted);
});

check("a grant whose answer is lost is not taken back: its client may know", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	let calls = 0;
	// Linux denies a grant that it has accepted already.
	host.answer = () => (calls++ === 0 ? undefined : results.denied);
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file, block: true }), results.blocked);
	assert.equal(await a.unlock({ file }), results.granted);
	await world.world.sleep(120_000);
	assert.ok(calls >= 2, "it was told again");
	assert.equal(await a.lock({ file }), results.denied);
	assert.equal(await b.unlock({ file }), results.granted);
	assert.equal(await a.lock({ file }), results.granted);
});

check("who asks again instead of waiting to be told, has it", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	await host.stop();
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file, block: true }), results.blocked);
	assert.equal(await a.unlock({ file }), results.granted);
	assert.equal(await b.lock({ file, block: true }), results.granted);
	await world.world.sleep(120_000);
	assert.equal(await a.lock({ file }), results.denied, "that it was not told does not matter any more");
});

check("waiting is given up by CANCEL, and so is a grant that nobody has heard of", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.cancel({ file }), results.denied, "nothing waits");
	assert.equal(await b.lock({ file, block: true }), results.blocked);
	assert.equal(await b.cancel({ file, exclusive: false }), results.denied, "another request");
	assert.equal(await b.cancel({ file }), results.granted);
	assert.equal(await a.unlock({ file }), results.granted);
	await world.world.sleep(100);
	assert.equal(host.grants.length, 0);
	await host.stop();
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file, block: true }), results.blocked);
	assert.equal(await a.unlock({ file }), results.granted);
	assert.equal(await b.cancel({ file }), results.granted);
	assert.equal(await a.lock({ file }), results.granted);
});

check("deadlocks are found, among clients and across the mount", async ({ world, nfs, top, file, ino, client }) => {
	const [a, b] = [await client("a"), await client("b")];
	const other = (await nfs.create(top, "g", "unchecked", { mode: 0o666 })).handle as Uint8Array;
	assert.equal(await a.lock({ file }), results.granted);
	assert.equal(await b.lock({ file: other }), results.granted);
	assert.equal(await a.lock({ file: other, block: true }), results.blocked);
	assert.equal(await b.lock({ file, block: true }), results.deadlock);
	assert.equal(await b.lock({ file, block: true }, 3), results.denied, "version 3 has no word for it");
	assert.equal(await a.cancel({ file: other }), results.granted);
	const otherIno = (await nfs.getattr(other)).attributes?.fileid ?? 0;
	const { locks } = world.volume;
	const waiting = locks.lock(local(ino, 5), { ...atOnce, wait: true, request: { low: 1, high: 0 } });
	await assert.rejects(locks.lock(local(otherIno, 5), atOnce), (error) => isFsError(error, "EAGAIN"));
	assert.equal(await b.unlock({ file: other }), results.granted);
	await locks.lock(local(otherIno, 5), atOnce);
	assert.equal(await a.lock({ file: other, block: true }), results.deadlock);
	assert.equal(await a.unlock({ file }), results.granted);
	await waiting;
});

check("asynchronous calls are answered by calls", async ({ file, host, client, world }) => {
	const [a, b] = [await client("a"), await client("b")];
	const heard = async (): Promise<readonly (readonly [number, number])[]> => {
		await world.world.sleep(100);
		return host.results.splice(0).map(({ procedure, status }) => [procedure, status] as const);
	};
	await a.send({ file }, 7);
	assert.deepEqual(await heard(), [[12, results.granted]]);
	await b.send({ file }, 6);
	assert.deepEqual(await heard(), [[11, results.denied]]);
	await b.send({ file, block: true }, 7);
	assert.deepEqual(await heard(), [[12, results.blocked]]);
	await b.send({ file }, 8);
	assert.deepEqual(await heard(), [[13, results.granted]]);
	await a.send({ file }, 9);
	assert.deepEqual(await heard(), [[14, results.granted]]);
	assert.equal(await b.lock({ file }), results.granted);
});

check("shares: who denies, and who does what is denied", async ({ file, client }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.share(file, "one", 1, 2), results.granted);
	assert.equal(await b.share(file, "two", 1, 0), results.granted);
	assert.equal(await b.share(file, "three", 2, 0), results.denied);
	assert.equal(await b.share(file, "three", 1, 1), results.denied);
	assert.equal(await a.share(file, "one", 3, 0), results.granted, "the same one changes");
	assert.equal(await b.share(file, "three", 2, 0), results.granted);
	assert.equal(await a.share(file, "one", 0, 0, { un: true }), results.granted);
	assert.equal(await b.share(file, "x".repeat(200), 1, 0), results.noLocks);
});

check("a client that begins anew holds nothing: FREE_ALL, a notice, a newer state with its next lock", async ({ file, client }) => {
	const [a, b] = [await client("a.example"), await client("b")];
	assert.equal(await a.lock({ file }), results.granted);
	await b.freeAll();
	await b.notify("c", 5);
	assert.equal(await b.lock({ file }), results.denied);
	await a.freeAll();
	assert.equal(await b.lock({ file }), results.granted);
	assert.equal(await b.unlock({ file }), results.granted);

	a.state = 3;
	assert.equal(await a.lock({ file, length: 1 }), results.granted);
	await b.notify("a.example", 3);
	assert.equal(await b.lock({ file }), results.denied, "that state was known: these locks are of after it");
	await b.notify("a.exam", 5);
	assert.equal(await b.lock({ file }), results.denied, "another name");
	await b.notify("A", 5);
	assert.equal(await b.lock({ file }), results.granted, "names may lack their domain");
	assert.equal(await b.unlock({ file }), results.granted);

	assert.equal(await a.lock({ file, length: 1 }), results.granted);
	a.state = 5;
	assert.equal(await a.lock({ file, offset: 5, length: 1 }), results.granted);
	assert.equal(await b.lock({ file, length: 5 }), results.granted, "what it held with the older state is gone");
	assert.equal(await b.lock({ file, offset: 5 }), results.denied);
});

check("what is no file, not allowed, gone or read-only", async ({ world, nfs, top, file, client }) => {
	const a = await client("a");
	assert.equal(await a.lock({ file: top }), results.failed);
	assert.equal(await a.lock({ file: new Uint8Array(44) }), results.stale);
	assert.equal(await a.lock({ file, length: 1 }), results.granted);
	const secret = (await nfs.create(top, "s", "guarded", { mode: 0o600, uid: 0 })).handle as Uint8Array;
	a.rpc.credential = { flavor: "sys", machineName: "x", uid: 77, gid: 77, groups: [] };
	assert.equal(await a.lock({ file: secret }), results.failed);
	await nfs.remove(top, "f");
	assert.equal(await a.lock({ file }), results.stale);
	assert.equal(await a.unlock({ file }), results.granted, "what one holds of a file that is gone can be given up");
	assert.equal((await world.volume.listLocks("")).held.length, 0);
	world.setExports([]);
	assert.equal(await a.unlock({ file }), results.stale);
	world.setExports([wholeVolume]);
});

check("bounds: locks of a file, waiting for one, names that are made up", async ({ world, file, client }) => {
	const a = await client("a");
	for (let i = 0; i < 1000; i++) assert.equal(await a.lock({ file, offset: 2 * i, length: 1 }), results.granted);
	assert.equal(await a.lock({ file, offset: 2000, length: 1 }), results.noLocks);
	assert.equal(await a.unlock({ file, offset: 1998, length: 1 }), results.granted);
	for (let i = 0; i < 200; i++) await a.lock({ file, offset: 0, length: 1, block: true, owner: 100 + i });
	assert.equal((await world.volume.listLocks("")).totalWaiting, 100);
	for (let i = 0; i < 70; i++)
		assert.equal(await new LockClient(a.rpc, `name${i}`).test({ file }).then(({ status }) => status), results.denied);
	assert.equal(world.volume.clientLocks.clients().length, 1, "who only asks is not entered");
	for (let i = 0; i < 70; i++) await new LockClient(a.rpc, `name${i}`).lock({ file, offset: 5000 + i, length: 1 });
	assert.ok(world.volume.clientLocks.clients().length <= 64);
	assert.equal(await new LockClient(a.rpc, "x".repeat(300)).lock({ file, offset: 9000, length: 1 }), results.noLocks);
});

// ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Everything there is dies; the clients' machines are made anew, as they live on. */
async function again(
	world: NfsWorld,
	how: "kill" | "power-cut" | "clean",
): Promise<{ readonly host: LockHost; client(name: string): Promise<LockClient> }> {
	if (how === "clean") await world.close();
	if (how === "power-cut") world.node.powerCut();
	else world.node.kill();
	await world.open();
	const host = new LockHost(world.platform);
	await host.listen();
	return { host, client: async (name) => new LockClient(await world.connect(), name) };
}

check("after kill -9 everything is as clients were told, and nobody has to ask again", async ({ world, file, client, host }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file, offset: 10, length: 10, exclusive: false }), results.granted);
	assert.equal(await a.lock({ file, offset: 30, length: 10, owner: 2 }), results.granted);
	assert.equal(await a.unlock({ file, offset: 12, length: 1 }), results.granted);
	assert.equal(await a.share(file, "s", 1, 2), results.granted);
	assert.equal(await b.lock({ file, offset: 30, length: 1, block: true }), results.blocked);
	await host.stop();
	for (let round = 0; round < 3; round++) {
		const after = await again(world, "kill");
		const [c, d] = [await after.client("a"), await after.client("b")];
		assert.equal(await d.lock({ file, offset: 10, length: 1 }), results.denied);
		assert.equal(await d.lock({ file, offset: 12, length: 1 }), results.granted);
		assert.equal(await d.unlock({ file, offset: 12, length: 1 }), results.granted);
		assert.deepEqual((await d.test({ file, offset: 30 })).holder, { exclusive: true, owner: 2, offset: 30n, length: 10n });
		assert.equal(await d.share(file, "t", 2, 0), results.denied);
		assert.equal(await c.lock({ file, offset: 30, length: 10, owner: 2, reclaim: true }), results.granted, "who asks all the same has it");
		assert.equal(await d.lock({ file, offset: 90, length: 10, owner: 2, reclaim: true }), results.denied);
		assert.deepEqual(after.host.notices, []);
		assert.equal(world.volume.clientLocks.stateNumber, 1);
		await after.host.stop();
	}
});

check(
	"after a power cut clients have again what they held, and nothing else is locked before",
	async ({ world, ino, file, client, host }) => {
		const [a, b] = [await client("a"), await client("b")];
		assert.equal(await a.lock({ file, length: 10 }), results.granted);
		assert.equal(await b.lock({ file, offset: 50, length: 10 }), results.granted);
		await world.volume.syncAll();
		await host.stop();
		const after = await again(world, "power-cut");
		const [c, d, e] = [await after.client("a"), await after.client("b"), await after.client("e")];
		await world.world.sleep(3000);
		assert.deepEqual(
			after.host.notices.map(({ name, state }) => `${name} ${state}`),
			["127.0.0.1 3", "127.0.0.1 3"],
			"each client is told once",
		);
		assert.equal(await e.lock({ file, offset: 100, length: 1 }), results.grace);
		assert.equal((await e.test({ file, offset: 100, length: 1 })).status, results.grace);
		assert.equal(await e.lock({ file, offset: 100, length: 1, reclaim: true }), results.denied, "it held nothing");
		const waiting = { done: false };
		const ofMount = world.volume.locks.lock(local(ino, 5, true, 200, 209), atOnce).then(() => {
			waiting.done = true;
		});
		const cancelled = world.volume.locks.lock(local(ino, 6), { ...atOnce, request: { low: 9, high: 0 } });
		world.volume.locks.cancel({ low: 9, high: 0 });
		await assert.rejects(cancelled, (error) => isFsError(error, "ECANCELED"));
		assert.equal(await c.lock({ file, length: 10, reclaim: true }), results.granted);
		assert.equal(await d.lock({ file, offset: 5, length: 1, reclaim: true }), results.denied, "somebody has it");
		// The record says that another one held it, who has not asked yet.
		assert.equal(await c.lock({ file, offset: 50, length: 1, reclaim: true }), results.denied);
		assert.equal(await d.lock({ file, offset: 50, length: 10, reclaim: true }), results.granted);
		assert.deepEqual((await world.volume.status()).locks.reclaims, { granted: 2, refused: 2 });
		await world.world.sleep(60_000);
		assert.equal(waiting.done, false, "what is not sure stays closed for all of grace");
		await world.world.sleep(40_000);
		await ofMount;
		assert.equal(await e.lock({ file, offset: 100, length: 1 }), results.granted);
		assert.equal(await e.lock({ file, offset: 50, length: 1 }), results.denied);
		assert.equal(await e.lock({ file, offset: 9, length: 1 }), results.denied);
		await after.host.stop();
	},
);

check("who has not asked in grace has nothing again in the next one", async ({ world, file, client, host }) => {
	const a = await client("a");
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	await world.volume.syncAll();
	await host.stop();
	let after = await again(world, "power-cut");
	await world.world.sleep(120_000);
	const b = await after.client("b");
	assert.equal(await b.lock({ file, length: 10 }), results.granted);
	await world.volume.syncAll();
	await after.host.stop();
	after = await again(world, "power-cut");
	const [c, d] = [await after.client("a"), await after.client("b")];
	assert.equal(await c.lock({ file, length: 10, reclaim: true }), results.denied);
	assert.equal(await d.lock({ file, length: 10, reclaim: true }), results.granted);
	await after.host.stop();
});

check("a kill in the middle of grace begins it anew", async ({ world, file, client, host }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	assert.equal(await b.lock({ file, offset: 20, length: 10 }), results.granted);
	await world.volume.syncAll();
	await host.stop();
	let after = await again(world, "power-cut");
	assert.equal(await (await after.client("a")).lock({ file, length: 10, reclaim: true }), results.granted);
	await after.host.stop();
	after = await again(world, "kill");
	const [c, d] = [await after.client("a"), await after.client("b")];
	assert.equal(await c.lock({ file, offset: 20, length: 10 }), results.grace);
	assert.equal(await d.lock({ file, offset: 20, length: 10, reclaim: true }), results.granted);
	assert.equal(await c.lock({ file, length: 10, reclaim: true }), results.granted);
	assert.equal(world.volume.clientLocks.stateNumber, 5);
	await after.host.stop();
});

check("after a clean end only what was held may be had again, and then grace is over", async ({ world, file, client, host }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	assert.equal(await a.lock({ file, offset: 20, length: 10, exclusive: false }), results.granted);
	assert.equal(await b.lock({ file, offset: 50, length: 10 }), results.granted);
	await host.stop();
	let after = await again(world, "clean");
	const [c, d] = [await after.client("a"), await after.client("b")];
	assert.equal(await c.lock({ file, length: 11, reclaim: true }), results.denied);
	assert.equal(await c.lock({ file, offset: 20, length: 10, reclaim: true }), results.denied, "it was shared");
	assert.equal(await c.lock({ file, length: 5, reclaim: true }), results.granted);
	assert.equal(await c.lock({ file, offset: 20, length: 10, exclusive: false, reclaim: true }), results.granted);
	assert.equal(await d.lock({ file, offset: 50, length: 10, reclaim: true }), results.granted);
	assert.equal(await d.lock({ file, offset: 90, length: 1 }), results.grace);
	assert.equal(await c.unlock({ file, offset: 5, length: 5 }), results.granted, "what is given up need not be had");
	await world.world.sleep(100);
	assert.equal(await d.lock({ file, offset: 90, length: 1 }), results.granted);
	for (const one of [c, d]) await one.freeAll();
	assert.equal(world.volume.clientLocks.clients().length, 0);
	await after.host.stop();
	after = await again(world, "clean");
	assert.equal(world.volume.clientLocks.grace, undefined, "nobody held anything");
	await after.host.stop();
});

check("grace ends when all that held something have begun anew", async ({ world, file, client, host }) => {
	const a = await client("a");
	a.state = 1;
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	await world.volume.syncAll();
	await host.stop();
	const after = await again(world, "power-cut");
	const [c, d] = [await after.client("a"), await after.client("d")];
	assert.equal(await d.lock({ file }), results.grace);
	await c.notify("a", 3);
	await world.world.sleep(100);
	assert.equal(await d.lock({ file }), results.granted);
	await after.host.stop();
});

check("a client that cannot be reached is told later", async ({ world, file, client, host }) => {
	const a = await client("a");
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	await world.volume.syncAll();
	await host.stop();
	const after = await again(world, "power-cut");
	await after.host.stop();
	await world.world.sleep(200_000);
	assert.equal(world.server.status().locks.untold, 1);
	const later = new LockHost(world.platform);
	await later.listen();
	await world.world.sleep(120_000);
	assert.deepEqual(later.notices, [{ name: "127.0.0.1", state: 3 }]);
	assert.equal(world.server.status().locks.untold, 0);
	await later.stop();
});

check("a client that holds nothing leaves the roster in the end", async ({ world, file, client }) => {
	const [a, b] = [await client("a"), await client("b")];
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	assert.equal(await b.lock({ file, offset: 10 }), results.granted);
	assert.equal(await a.unlock({ file }), results.granted);
	await world.world.sleep(900_000);
	assert.deepEqual(
		world.volume.clientLocks.clients().map(({ name }) => name),
		["b"],
	);
});

check("what an operator takes away stays away", async ({ world, file, client, host }) => {
	const a = await client("a");
	assert.equal(await a.lock({ file, length: 10 }), results.granted);
	assert.equal((await world.volume.listLocks("f")).held[0]?.client, "a@127.0.0.1");
	assert.equal(await world.volume.breakLocks("f", undefined), 1);
	await host.stop();
	const after = await again(world, "kill");
	assert.equal((await world.volume.listLocks("")).totalHeld, 0);
	await after.host.stop();
});

test("deaths at any moment: what clients know is so", async () => {
	let had = 0;
	for (let i = 0; i < 2; i++) had += (await crashLocks(1 + i, 5)).had;
	assert.ok(had > 0, "some was had again");
});
