/** The table at work: promises, and what a successor finds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import type { Clock } from "../platform/interface.ts";
import { Prng } from "../platform/sim/prng.ts";
import { FileLocks, type LocalLock } from "./file-locks.ts";
import { LockMemory, lockMemoryBytes, type RequestName } from "./memory.ts";
import { wholeFile } from "./range.ts";

const volume = "01234567-89ab-cdef-0123-456789abcdef";
const ino = 9;

class Machine {
	readonly bytes = new Uint8Array(lockMemoryBytes(60_000));
	nowMs = 5000;
	locks: FileLocks;
	#unique = 1;

	constructor() {
		this.locks = this.#open(false);
	}

	#open(resume: boolean): FileLocks {
		// Monotonic times are a process's own.
		const beganMs = this.nowMs;
		const clock = {
			monotonicMs: () => this.nowMs - beganMs,
			realtime: () => ({ seconds: Math.floor(this.nowMs / 1000), nanoseconds: (this.nowMs % 1000) * 1e6 }),
		} as Clock;
		return new FileLocks({ clock, memory: new LockMemory({ volume, session: { id: 3, resume } }, this.bytes) });
	}

	kill(): void {
		this.locks = this.#open(true);
	}

	name(): RequestName {
		return { low: this.#unique++, high: 7 };
	}

	lock(given: Partial<LocalLock> & { readonly by: number }, wait = false, request = this.name()): Promise<void> {
		return this.locks.lock(this.about(given), { wait, victim: true, request });
	}

	about({ by, ...given }: Partial<LocalLock> & { readonly by: number }): LocalLock {
		const owner = { id: by.toString(16).padStart(16, "0"), pid: by };
		return { ino, handle: 1, family: "fcntl", owner, exclusive: true, range: wholeFile, ...given };
	}

	held(): string[] {
		const { held } = this.locks.list(1000);
		return held
			.map(
				({ ino: at, family, exclusive, range, owner }) =>
					`${at} ${family} ${exclusive} ${range.start}-${range.end} ${owner.id} ${owner.pid}`,
			)
			.sort();
	}
}

const code = (promise: Promise<void>): Promise<string> =>
	promise.then(
		() => "locked",
		(error: unknown) => (isFsError(error) ? error.code : String(error)),
	);

test("waiting, granting, giving up: each promise settles once, with the code that fits", async () => {
	const machine = new Machine();
	await machine.lock({ by: 1, range: { start: 0, end: 9 } });
	assert.equal(await code(machine.lock({ by: 2 })), "EAGAIN");
	const [name, other] = [machine.name(), machine.name()];
	const waiting = code(machine.lock({ by: 2 }, true, name));
	const again = code(machine.lock({ by: 2 }, true, name));
	const second = code(machine.lock({ by: 3 }, true, other));
	assert.deepEqual(
		machine.locks.list(10).waiting.map(({ owner, waitsFor }) => [owner.pid, waitsFor.length]),
		[
			[2, 1],
			[3, 2],
		],
	);
	machine.locks.cancel(other);
	assert.equal(await second, "ECANCELED");
	assert.equal(await code(machine.lock({ by: 1, ino: 10 })), "locked");
	machine.locks.unlock(machine.about({ by: 1 }), machine.name());
	assert.deepEqual(await Promise.all([waiting, again]), ["locked", "locked"]);
});

test("a successor knows what is held, since when, and which requests it need not carry out", async () => {
	const machine = new Machine();
	const [first, second, third] = [machine.name(), machine.name(), machine.name()];
	await machine.lock({ by: 1, range: { start: 0, end: 99 } }, false, first);
	await machine.lock({ by: 2, family: "flock", handle: 2 }, false, second);
	machine.locks.unlock(machine.about({ by: 1, range: { start: 10, end: 19 } }), third);
	const before = machine.held();
	machine.nowMs += 10_000;
	machine.kill();
	assert.deepEqual(machine.held(), before);
	assert.ok(machine.locks.list(10).held.every(({ ageMs }) => ageMs === 10_000));
	for (const name of [first, second, third]) assert.ok(machine.locks.isDone(name));
	assert.ok(!machine.locks.isDone({ low: 0, high: 0 }));
	machine.kill();
	assert.ok(machine.locks.isDone(first), "the successor of a successor too");
	machine.locks.endPast();
	assert.ok(!machine.locks.isDone(first));
	machine.locks.keepOnly((handle) => handle === 2);
	assert.deepEqual(machine.held().length, 1);
	assert.equal(machine.locks.figures().counters.acquired.size, 0, "what was there is not counted again");
});

test("random lives: after each command a successor finds exactly what is held, also when the memory is written anew", async () => {
	const machine = new Machine();
	const random = new Prng(20_261_121, "file-locks");
	const waiting: { name: RequestName; done: Promise<string> }[] = [];
	for (let step = 0; step < 12_000; step++) {
		const by = 1 + random.below(5);
		const start = random.below(40);
		const range = random.below(5) === 0 ? wholeFile : { start, end: start + random.below(8) };
		const given = { by, ino: 1 + random.below(3), handle: by, range, exclusive: random.below(2) === 0 };
		const dice = random.below(100);
		if (dice < 60) {
			const name = machine.name();
			const flock = random.below(5) === 0;
			const done = code(machine.lock({ ...given, ...(flock ? { family: "flock", range: wholeFile } : {}) }, dice < 20, name));
			if (dice < 20) waiting.push({ name, done });
		} else if (dice < 85) machine.locks.unlock(machine.about(given), machine.name());
		else if (dice < 90) machine.locks.dropOwner(given.ino, machine.about(given).owner.id, machine.name());
		else if (dice < 93) machine.locks.dropHandle(given.ino, given.handle);
		else if (waiting.length > 0) machine.locks.cancel((waiting.pop() as (typeof waiting)[0]).name);
		if (step % 50 !== 49) continue;
		const before = machine.held();
		for (const { name } of waiting.splice(0)) machine.locks.cancel(name);
		const after = machine.held();
		assert.ok(before.length > 0 || after.length === 0);
		machine.kill();
		assert.deepEqual(machine.held(), after, `step ${step}`);
	}
});
