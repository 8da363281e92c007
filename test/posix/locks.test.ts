/** Locks of files through a mount: processes that fork, exec, close, die, and daemons that do. The long suite `locks` does it with many. */
import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, missingPrograms, must, sleep, TestVolume } from "../support/cairn.ts";
import { SeededRandom } from "../support/map-records.ts";
import { Agent, type LockCommand, type LockType, lockStress } from "./locks.ts";

const skip = cannotMount() ?? false;
const [shared, exclusive, nonBlocking, unlock] = [1, 2, 4, 8];

describe("locks of files", { skip }, () => {
	let volume: TestVolume;
	let a: Agent;
	let b: Agent;
	let c: Agent;
	let nextFile = 0;
	before(async () => {
		volume = await TestVolume.start({ disks: 2, redundancy: "replicate:2" });
		[a, b, c] = await Promise.all([Agent.start(), Agent.start(), Agent.start()]);
	});
	after(async () => {
		await Promise.all([a?.kill(), b?.kill(), c?.kill()]);
		await volume?.close();
	});

	function file(): string {
		const path = join(volume.mountpoint, `f${nextFile++}`);
		writeFileSync(path, "contents");
		return path;
	}

	/** Requests are answered in the order of their arrival: one that comes after shows that the one before waits. */
	async function waits(promise: Promise<unknown>): Promise<void> {
		await sleep(300);
		assert.equal(await Promise.race([promise, Promise.resolve("it waits")]), "it waits");
	}

	test("any close of the file ends a process's locks; those of an open file end with its last descriptor, whoever has it", async () => {
		const path = file();
		const [one, two] = [await a.open(path), await a.open(path, "r")];
		const other = await b.open(path);
		const copy = (await a.call("dup", one)) as number;
		assert.equal(await a.lock(one, "set", "write", 0, 10), "ok");
		assert.equal(await a.lock(one, "set-ofd", "write", 20, 10), "ok");
		assert.equal(await a.flock(one, exclusive), "ok");
		assert.equal(await b.lock(other, "test", "read", 0, 100), `write 0 10 ${a.pid}`);
		await a.call("close", two);
		assert.equal(await b.lock(other, "set", "write", 0, 10), "ok", "another descriptor of the file, for reading");
		assert.equal(await b.lock(other, "set", "read", 20, 1), "EAGAIN");
		await a.call("close", one);
		assert.equal(await b.lock(other, "set", "read", 20, 1), "EAGAIN", "its copy is open");
		assert.equal(await b.flock(other, shared | nonBlocking), "EAGAIN");
		await a.call("close", copy);
		assert.equal(await b.lock(other, "set", "read", 20, 1), "ok");
		assert.equal(await b.flock(other, exclusive | nonBlocking), "ok");
		await b.call("close", other);
	});

	test("a child after fork and exec has the open file's locks, not the process's", async () => {
		const path = file();
		const fd = openSync(path, "r+");
		const child = await Agent.start([fd]);
		const other = await b.open(path);
		assert.equal(await child.flock(3, exclusive), "ok");
		assert.equal(await child.lock(3, "set-ofd", "write", 0, 5), "ok");
		assert.equal(await child.lock(3, "set", "write", 10, 5), "ok");
		await child.kill();
		assert.equal(await b.lock(other, "set", "write", 10, 5), "ok", "the child's own went with it");
		assert.equal(await b.flock(other, exclusive | nonBlocking), "EAGAIN", "this process has the open file");
		assert.equal(await b.lock(other, "set", "write", 0, 5), "EAGAIN");
		closeSync(fd);
		assert.equal(await b.flock(other, exclusive | nonBlocking), "ok");
		await b.call("close", other);
	});

	test("who waits gets it when it is unlocked, closed, or its holder killed, in the order of arrival; killed waiters leave no trace", async () => {
		const path = file();
		const holder = await Agent.start();
		assert.equal(await holder.lock(await holder.open(path), "set", "write"), "ok");
		const doomed = await Agent.start();
		const lost = doomed.lock(await doomed.open(path), "wait", "write");
		await waits(lost);
		const [fb, fc] = [await b.open(path), await c.open(path)];
		const first = b.lock(fb, "wait", "write");
		await waits(first);
		const second = c.lock(fc, "wait", "read");
		await waits(second);
		await doomed.kill();
		await holder.kill();
		assert.equal(await first, "ok");
		await waits(second);
		assert.equal(await b.lock(fb, "set", "unlock"), "ok");
		assert.equal(await second, "ok");
		await Promise.all([b.call("close", fb), c.call("close", fc)]);
	});

	test("a deadlock over two files is refused to who closes the circle; open file descriptions wait, and can be killed", async () => {
		const [x, y] = [file(), file()];
		for (const how of ["wait", "wait-ofd"] as const) {
			const set = how === "wait" ? "set" : "set-ofd";
			const [p, q] = await Promise.all([Agent.start(), Agent.start()]);
			const [px, py, qx, qy] = [await p.open(x), await p.open(y), await q.open(x), await q.open(y)];
			assert.deepEqual([await p.lock(px, set, "write"), await q.lock(qy, set, "write")], ["ok", "ok"]);
			const waiting = p.lock(py, how, "write");
			await waits(waiting);
			const closing = q.lock(qx, how, "write");
			if (how === "wait") {
				assert.equal(await closing, "EDEADLK");
				await q.lock(qy, "set", "unlock");
				assert.equal(await waiting, "ok");
				await Promise.all([p.end(), q.end()]);
			} else {
				// Each is the owner of two descriptions, and no owner waits for itself: nothing is refused.
				await waits(closing);
				await q.kill();
				assert.equal(await waiting, "ok");
				await p.kill();
			}
		}
	});

	test("offsets up to the last there is, as fcntl(2) has them", async () => {
		const path = file();
		const [fa, fb] = [await a.open(path), await b.open(path)];
		const far = 2n ** 63n - 2n;
		assert.equal(await a.lock(fa, "set", "write", far, 1n), "ok");
		assert.equal(await b.lock(fb, "set", "write", 2n ** 53n, far - 2n ** 53n), "ok");
		assert.equal(await b.lock(fb, "test", "write", far, 0), `write ${far} 1 ${a.pid}`);
		assert.equal(await a.lock(fa, "set", "write", far, 0), "ok");
		assert.equal(await b.lock(fb, "test", "write", far + 1n, 1), `write ${far} 0 ${a.pid}`);
		assert.equal(await a.lock(fa, "test", "write", 0, 0), `write ${2n ** 53n} ${far - 2n ** 53n} ${b.pid}`);
		await Promise.all([a.call("close", fa), b.call("close", fb)]);
	});

	test("random calls of three processes are answered as on the machine's own file system", async () => {
		const beside = mkdtempSync(join(tmpdir(), "cairn-locks-"));
		const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
		const random = new SeededRandom(seed);
		const story: string[] = [`seed ${seed}`];
		try {
			const paths = [file(), file()].map((ours, at) => [ours, join(beside, `f${at}`)] as const);
			for (const [, theirs] of paths) writeFileSync(theirs, "contents");
			const open = new Map<Agent, (readonly [number, number])[]>([
				[a, []],
				[b, []],
				[c, []],
			]);
			for (let step = 0; step < 600; step++) {
				const agent = random.pick([a, b, c]);
				const fds = open.get(agent) as (readonly [number, number])[];
				const dice = random.below(100);
				const pair = fds.length === 0 ? undefined : fds[random.below(fds.length)];
				const both = async (call: (fd: number) => Promise<unknown>): Promise<void> => {
					const [ours, theirs] = [await call((pair as readonly [number, number])[0]), await call((pair as readonly [number, number])[1])];
					assert.deepEqual(ours, theirs, story.slice(-30).join("\n"));
				};
				if (pair === undefined || (dice < 12 && fds.length < 4)) {
					const [ours, theirs] = random.pick(paths);
					const flags = random.below(4) === 0 ? "r" : "r+";
					story.push(`${agent.pid} open ${ours} ${flags}`);
					fds.push([await agent.open(ours, flags), await agent.open(theirs, flags)]);
				} else if (dice < 18) {
					story.push(`${agent.pid} dup ${pair}`);
					fds.push([(await agent.call("dup", pair[0])) as number, (await agent.call("dup", pair[1])) as number]);
				} else if (dice < 28) {
					story.push(`${agent.pid} close ${pair}`);
					open.set(
						agent,
						fds.filter((one) => one !== pair),
					);
					await both((fd) => agent.call("close", fd));
				} else if (dice < 45) {
					const operation = random.pick([shared | nonBlocking, exclusive | nonBlocking, unlock]);
					story.push(`${agent.pid} flock ${pair} ${operation}`);
					await both((fd) => agent.flock(fd, operation));
				} else {
					const command = random.pick<LockCommand>(["set", "set", "set", "set-ofd", "set-ofd", "test"]);
					const type = random.pick<LockType>(command === "test" ? ["read", "write"] : ["read", "write", "unlock"]);
					const [start, length] = [random.below(30), random.below(12)];
					story.push(`${agent.pid} ${command} ${type} ${pair} ${start}+${length}`);
					// Of several in the way either names one: which, and that an open file has no process, is not compared.
					await both(async (fd) => {
						const answer = await agent.lock(fd, command, type, start, length);
						return command === "test" ? answer.startsWith("unlock") : answer;
					});
				}
			}
			for (const [agent, fds] of open) for (const pair of fds) for (const fd of pair) await agent.call("close", fd);
		} finally {
			rmSync(beside, { recursive: true, force: true });
		}
	});

	test("flock(1): shells that take turns", { skip: missingPrograms("flock") ?? false }, async () => {
		const path = file();
		writeFileSync(path, "0");
		const script = 'for i in $(seq 20); do flock "$1.lock" sh -c "echo \\$((\\$(cat \\"$1\\") + 1)) > \\"$1\\""; done';
		await Promise.all(Array.from({ length: 4 }, () => must("bash", ["-c", script, "-", path])));
		assert.equal((await must("cat", [path])).trim(), "80");
	});

	test("kill -9 of the daemon: who holds a lock holds it, who waits waits, and nobody sees an error", async () => {
		const path = file();
		const [fa, fb, fc] = [await a.open(path), await b.open(path), await c.open(path)];
		assert.equal(await a.lock(fa, "set", "write", 0, 10), "ok");
		assert.equal(await a.flock(fa, exclusive), "ok");
		assert.equal(await a.lock(fa, "set-ofd", "read", 50, 10), "ok");
		const waiting = b.lock(fb, "wait", "write", 5, 10);
		await waits(waiting);
		await volume.successorOf(volume.killDaemon());
		assert.equal(await c.lock(fc, "set", "read", 0, 1), "EAGAIN");
		assert.equal(await c.flock(fc, shared | nonBlocking), "EAGAIN");
		assert.equal(await c.lock(fc, "set", "write", 55, 1), "EAGAIN");
		await waits(waiting);
		assert.equal(await a.lock(fa, "set", "unlock", 0, 10), "ok");
		assert.equal(await waiting, "ok");
		await a.call("close", fa);
		assert.equal(await c.lock(fc, "set", "write", 50, 10), "ok");
		assert.equal(await c.flock(fc, exclusive | nonBlocking), "ok");
		await Promise.all([b.call("close", fb), c.call("close", fc)]);
	});

	test("cairn locks: who holds, who waits for whom; break takes it away, and says what that means", async () => {
		const path = file();
		const [fa, fb] = [await a.open(path), await b.open(path)];
		assert.equal(await a.lock(fa, "set", "write", 10, 5), "ok");
		assert.equal(await a.flock(fa, shared), "ok");
		const waiting = b.lock(fb, "wait", "read", 12, 0);
		await waits(waiting);
		const list = JSON.parse(await volume.cairn("locks", path, "--json")) as {
			readonly held: readonly Record<string, unknown>[];
			readonly waiting: readonly Record<string, unknown>[];
		};
		const short = (lock: Record<string, unknown>): unknown[] => [
			lock["family"],
			lock["kind"],
			lock["start"],
			lock["end"],
			lock["pid"],
			lock["door"],
		];
		assert.deepEqual(list.held.map(short).sort(), [
			["fcntl", "exclusive", 10, 14, a.pid, "fuse"],
			["flock", "shared", 0, null, a.pid, "fuse"],
		]);
		assert.deepEqual(list.waiting.map(short), [["fcntl", "shared", 12, null, b.pid, "fuse"]]);
		const owner = list.held.find(({ family }) => family === "fcntl")?.["owner"] as string;
		assert.deepEqual(list.waiting[0]?.["waitsFor"], [owner]);
		assert.match(await volume.cairn("locks", volume.name), /2 locks held, 1 waiting[\s\S]*fcntl exclusive +10-14 +[0-9]+ +fuse/);
		assert.match(await volume.cairn("locks"), new RegExp(`volume ${volume.name}: 2 locks`));
		const unsure = await volume.try("locks", "break", path);
		assert.deepEqual([unsure.code, /not told/.test(unsure.stderr)], [4, true]);
		assert.equal((await volume.try("locks", "break", path, "--owner", "fuse:0000000000000000", "--yes")).code, 3);
		assert.equal((await volume.try("locks", "break", volume.mountpoint, "--yes")).code, 2);
		assert.equal((await volume.try("locks", join(volume.mountpoint, "nothing"))).code, 3);
		const broken = await volume.try("locks", "break", path, "--owner", owner, "--yes", "--json");
		assert.deepEqual([broken.code, (JSON.parse(broken.stdout) as { broken: number }).broken], [0, 1]);
		assert.match(broken.stderr, /does not know that/);
		assert.equal(await waiting, "ok");
		const status = (await volume.status()) as unknown as {
			readonly locks: { readonly held: number; readonly refused: { readonly broken: number } };
		};
		assert.deepEqual([status.locks.held, status.locks.refused.broken], [2, 1]);
		await Promise.all([a.call("close", fa), b.call("close", fb)]);
	});

	test("many processes, circles among them, daemons and processes killed: nobody is where another must be alone", async () => {
		const { grants } = await lockStress(volume, { seed: Date.now() % 100_000, workers: 6, seconds: 6, daemonKills: 1, workerKills: 3 });
		assert.ok(grants > 50, `${grants} grants`);
	});
});
