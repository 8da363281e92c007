/**
 * Locks of Linux clients in two guests (lab/) and of programs on the mount, against one another: conflicts, waiting, a guest that loses power, kill -9 of the server, an unmount of it. `npm run test:long nfs-guest-locks`.
 * Clients need their status monitor (rpc.statd) and find the server by its port mapper, as with any server.
 */
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotStartGuests, Guest } from "../lab/guest.ts";
import { cannotMount, execute, missingPrograms, must, sleep, TestVolume } from "../support/cairn.ts";

const commandLine = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const reason = cannotMount() ?? cannotStartGuests() ?? missingPrograms("python3");

/**
 * `try FILE KIND START LENGTH`: asks without waiting. `hold FILE KIND START LENGTH NAME`: waits for it, says so in NAME.held, and holds it until NAME.stop is there. KIND: shared, exclusive, or flock (the whole file).
 * `count FILE TIMES`: adds to a number in a file, under a lock.
 */
const program = `
import fcntl, os, sys, time
what, path = sys.argv[1:3]
def lock(fd, kind, start, length, wait):
    flags = 0 if wait else fcntl.LOCK_NB
    if kind == "flock": fcntl.flock(fd, fcntl.LOCK_EX | flags)
    else: fcntl.lockf(fd, (fcntl.LOCK_EX if kind == "exclusive" else fcntl.LOCK_SH) | flags, length, start)
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
if what == "try":
    try: lock(fd, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), False); print("granted")
    except (BlockingIOError, PermissionError): print("denied")
elif what == "hold":
    lock(fd, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), True)
    name = sys.argv[6]
    open(name + ".held", "w").close()
    while not os.path.exists(name + ".stop"): time.sleep(0.05)
    os.close(fd)
    open(name + ".free", "w").close()
elif what == "count":
    for i in range(int(sys.argv[3])):
        fcntl.lockf(fd, fcntl.LOCK_EX)
        n = int(os.pread(fd, 20, 0) or b"0")
        os.pwrite(fd, b"%d" % (n + 1), 0)
        fcntl.lockf(fd, fcntl.LOCK_UN)
    print("counted")
`;

/** Somewhere locks are asked for: a guest, or this machine on its mount. */
interface Place {
	readonly title: string;
	readonly folder: string;
	/** Files that say what is held, as the place sees them. */
	readonly base: string;
	run(command: string): Promise<string>;
}

interface NfsStatus {
	readonly doors: {
		readonly nfs: {
			readonly locks: {
				readonly stateNumber: number;
				readonly grace: object | null;
				readonly grants: { readonly taken: number };
				readonly clients: readonly object[];
			};
		};
	};
}

describe("locks of Linux clients", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let first: Guest;
	let second: Guest;
	let places: readonly Place[];
	let holds = 0;

	const inNetwork = (...words: readonly string[]): Promise<string> =>
		must("nsenter", [`--net=/run/netns/${first.network}`, process.execPath, commandLine, ...words], {
			env: { CAIRN_HOME: join(volume.base, "home") },
		});
	const status = async (): Promise<NfsStatus["doors"]["nfs"]["locks"]> =>
		(JSON.parse(await volume.cairn("status", volume.name, "--json")) as NfsStatus).doors.nfs.locks;

	/** What a monitor remembers outlives its machine: it lies on this one. */
	const mount = async (guest: Guest, name: string): Promise<void> => {
		await guest.must(
			`cp -an /var/lib/nfs /host/base/nfs-${name} 2>/dev/null; mount --bind /host/base/nfs-${name} /var/lib/nfs && ` +
				"{ pgrep rpc.statd >/dev/null || rpc.statd --no-notify; } && sm-notify -f; " +
				`mkdir -p /mnt/n && mount -t nfs -o vers=3,proto=tcp,ac,actimeo=0 $LAB_HOST:/${volume.name} /mnt/n`,
		);
	};
	const placeOf = (title: string, guest: Guest): Place => ({
		title,
		folder: "/mnt/n",
		base: "/host/base",
		run: (command) => guest.must(command, { timeoutMs: 300_000 }),
	});

	const ask = async (place: Place, file: string, kind: string, start = 0, length = 0): Promise<string> =>
		(await place.run(`python3 ${place.base}/lock.py try ${place.folder}/${file} ${kind} ${start} ${length}`)).trim();

	/** Answers what it has, and how to let go of it. */
	interface Held {
		readonly held: () => boolean;
		until(): Promise<void>;
		release(): Promise<void>;
	}
	const eventually = async (what: string, is: () => boolean | Promise<boolean>, limitMs = 200_000): Promise<void> => {
		for (const endMs = performance.now() + limitMs; !(await is()); await sleep(50))
			assert.ok(performance.now() < endMs, `${what}\n${volume.log()}`);
	};
	const hold = async (place: Place, file: string, kind: string, start = 0, length = 0): Promise<Held> => {
		const name = `hold${holds++}`;
		const path = (ending: string): string => join(first.base, `${name}.${ending}`);
		await place.run(
			`setsid python3 ${place.base}/lock.py hold ${place.folder}/${file} ${kind} ${start} ${length} ${place.base}/${name} >${place.base}/${name}.log 2>&1 </dev/null & true`,
		);
		return {
			held: () => existsSync(path("held")),
			until: () => eventually(`${place.title} gets ${file}`, () => existsSync(path("held"))),
			release: async () => {
				writeFileSync(path("stop"), "");
				await eventually(`${place.title} lets go of ${file}`, () => existsSync(path("free")));
			},
		};
	};

	before(async () => {
		const prepared = await Guest.prepare({ disks: 0, diskBytes: 0, memoryMiB: 384, address: 11 });
		first = prepared;
		second = first.another("second", 12);
		writeFileSync(join(first.base, "lock.py"), program);
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		await inNetwork("mount", volume.name, volume.mountpoint);
		await inNetwork("export", "add", volume.name, "--clients", "10.77.0.0/24", "--squash", "none");
		await inNetwork("export", "serve", volume.name, "--portmapper", "own");
		await first.start();
		await second.start();
		await mount(first, "first");
		await mount(second, "second");
		const here: Place = { title: "the mount", folder: volume.mountpoint, base: first.base, run: (command) => must("sh", ["-c", command]) };
		places = [placeOf("first", first), placeOf("second", second), here];
	});
	after(async () => {
		await second?.kill();
		await first?.close();
		await volume?.close();
	});

	test("everybody respects everybody: ranges, shared and exclusive, whole files by flock(2)", async () => {
		for (const holder of places) {
			const range = await hold(holder, "ranges", "exclusive", 100, 100);
			await range.until();
			const shared = await hold(holder, "ranges", "shared", 300, 100);
			await shared.until();
			const whole = await hold(holder, "whole", "flock");
			await whole.until();
			for (const other of places.filter((place) => place !== holder)) {
				const about = `${holder.title} holds, ${other.title} asks`;
				assert.equal(await ask(other, "ranges", "shared", 199, 1), "denied", about);
				assert.equal(await ask(other, "ranges", "exclusive", 200, 100), "granted", about);
				assert.equal(await ask(other, "ranges", "shared", 300, 100), "granted", about);
				assert.equal(await ask(other, "ranges", "exclusive", 399, 1), "denied", about);
				assert.equal(await ask(other, "whole", "flock"), "denied", about);
			}
			for (const one of [range, shared, whole]) await one.release();
		}
		for (const place of places) assert.equal(await ask(place, "ranges", "exclusive"), "granted");
	});

	test("who waits is told", async (t) => {
		const [one, two, here] = places as [Place, Place, Place];
		const before = (await status()).grants.taken;
		for (const [holder, waiter] of [
			[one, two],
			[two, one],
			[here, one],
			[one, here],
		] as const) {
			const held = await hold(holder, "turn", "exclusive", 0, 10);
			await held.until();
			const waiting = await hold(waiter, "turn", "exclusive", 5, 10);
			await eventually(
				"it waits",
				async () => (JSON.parse(await volume.cairn("locks", volume.name, "--json")) as { totalWaiting: number }).totalWaiting === 1,
			);
			assert.equal(waiting.held(), false);
			await held.release();
			await waiting.until();
			await waiting.release();
		}
		const { taken } = await status().then(({ grants }) => grants);
		t.diagnostic(`${taken - before} grants taken by clients that waited`);
		assert.equal(taken - before, 3, "by a call, not by asking again");
	});

	test("three who count in one file lose no number", async () => {
		await Promise.all(places.map((place) => place.run(`python3 ${place.base}/lock.py count ${place.folder}/number 60`)));
		assert.equal(await must("cat", [join(volume.mountpoint, "number")]), "180");
	});

	test("kill -9 of the server: locks are kept, waiters get theirs, nobody is asked anything", async () => {
		const [one, two, here] = places as [Place, Place, Place];
		const { stateNumber } = await status();
		const held = [await hold(one, "kept", "exclusive", 0, 10), await hold(here, "kept", "exclusive", 20, 10)];
		for (const each of held) await each.until();
		const waiting = await hold(two, "kept", "exclusive", 0, 30);
		await eventually(
			"it waits",
			async () => (JSON.parse(await volume.cairn("locks", volume.name, "--json")) as { totalWaiting: number }).totalWaiting === 1,
		);
		for (let round = 0; round < 3; round++) {
			await volume.successorOf(volume.killDaemon());
			assert.equal(await ask(two, "kept", "exclusive", 9, 1), "denied");
			assert.equal(await ask(two, "kept", "exclusive", 10, 10), "granted");
			assert.equal(await ask(one, "kept", "exclusive", 20, 1), "denied");
			assert.equal(await ask(here, "kept", "shared", 0, 1), "denied");
		}
		assert.equal((await status()).stateNumber, stateNumber);
		assert.equal(waiting.held(), false);
		for (const each of held) await each.release();
		await waiting.until();
		await waiting.release();
	});

	test("the server is unmounted and mounted: clients have their locks again, and nobody else in between", async () => {
		const [one, two, here] = places as [Place, Place, Place];
		const { stateNumber } = await status();
		const held = await hold(one, "again", "exclusive", 0, 10);
		await held.until();
		await inNetwork("umount", volume.mountpoint);
		await inNetwork("mount", volume.name, volume.mountpoint);
		const rival = await hold(here, "again", "exclusive", 0, 1);
		await eventually("the client has its lock again, and grace ends", async () => (await status()).grace === null);
		assert.equal((await status()).stateNumber, stateNumber + 2);
		assert.equal(await ask(two, "again", "exclusive", 0, 10), "denied");
		assert.equal(await ask(here, "again", "exclusive", 9, 1), "denied");
		assert.equal(rival.held(), false, "who asked in grace waits for it");
		await held.release();
		await rival.until();
		await rival.release();
	});

	test("a guest that loses power holds its locks until it is back", async () => {
		const [one, two, here] = places as [Place, Place, Place];
		const held = await hold(two, "power", "exclusive", 0, 10);
		await held.until();
		const staying = await hold(one, "power", "exclusive", 20, 10);
		await staying.until();
		await second.kill();
		assert.equal(await ask(here, "power", "exclusive", 0, 1), "denied");
		const waiting = await hold(one, "power", "exclusive", 0, 10);
		await second.start();
		await mount(second, "second");
		await waiting.until();
		assert.equal(await ask(here, "power", "exclusive", 20, 1), "denied", "only its own are gone");
		assert.equal(await ask(two, "power", "exclusive", 30, 1), "granted");
		for (const each of [waiting, staying]) await each.release();
	});

	test("rpcinfo sees the lock manager and the monitor", { skip: !existsSync("/usr/sbin/rpcinfo") }, async () => {
		const { stdout } = await execute("nsenter", [`--net=/run/netns/${first.network}`, "rpcinfo", "-p", "10.77.0.1"], { timeoutMs: 60_000 });
		for (const line of [/100021 +4 +tcp +2049/, /100021 +1 +udp +2049/, /100024 +1 +udp +2049/]) assert.match(stdout, line);
	});
});
