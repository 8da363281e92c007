import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError, isFsError } from "../../base/errors.ts";
import type { Clock, Random } from "../../platform/interface.ts";
import { choices, kvConformance } from "../../../test/conformance/kv.ts";
import { encodeHead, headKey } from "../head.ts";
import type { Commit, CommitResult, Engine, Transaction } from "../interface.ts";
import { transact } from "../transact.ts";
import type { MemoryEngineOptions } from "./engine.ts";
import { createMemoryEngine, createMemoryStore } from "./engine.ts";

function seededRandom(seed: number): Random {
	const choose = choices(seed);
	return {
		u32: () => choose(65_536) * 65_536 + choose(65_536),
		below: (bound) => (choose(2_147_483_646) * 4_194_304 + choose(4_194_304)) % bound,
		bytes: (length) => Uint8Array.from({ length }, () => choose(256)),
	};
}

/** Time without waiting: sleeps end in the order of their ends, one per turn of the event loop. */
function turnClock(): Clock {
	let now = 0;
	let running = false;
	const timers: { at: number; fn: () => void }[] = [];
	const tick = (): void => {
		timers.sort((a, b) => a.at - b.at);
		const next = timers.shift();
		if (!next) {
			running = false;
			return;
		}
		now = Math.max(now, next.at);
		next.fn();
		setImmediate(tick);
	};
	const after = (ms: number, fn: () => void): (() => void) => {
		const timer = { at: now + ms, fn };
		timers.push(timer);
		if (!running) setImmediate(tick);
		running = true;
		return () => {
			const at = timers.indexOf(timer);
			if (at >= 0) timers.splice(at, 1);
		};
	};
	return {
		realtime: () => ({ seconds: 0, nanoseconds: 0 }),
		monotonicMs: () => now,
		sleep: (ms) => new Promise((resolve) => void after(ms, resolve)),
		after,
		yield: () => new Promise((resolve) => setImmediate(resolve)),
	};
}

function harnessOf(remote: boolean) {
	return async (seed: number) => {
		const store = createMemoryStore();
		const clock = turnClock();
		const random = seededRandom(seed);
		const behaviour = {
			clock,
			random,
			latencyMs: 5,
			missedPeeks: 0.3,
			conflicts: 0.05,
			unknownDone: 0.08,
			unknownNotDone: 0.08,
			unknownLate: 0.08,
			lateMs: 40,
		};
		const options: MemoryEngineOptions = remote ? { store, remote: behaviour } : { store };
		const harness = {
			engine: createMemoryEngine(options),
			clock,
			random,
			run: <T>(work: Promise<T>): Promise<T> => work,
			async reopen() {
				await harness.engine.close();
				harness.engine = createMemoryEngine(options);
				return harness.engine;
			},
			close: () => harness.engine.close(),
		};
		return harness;
	};
}

kvConformance("memory", harnessOf(false));
kvConformance("memory as remote", harnessOf(true), { historySteps: 400 });

// ── transact, where an engine must be made to measure ────────────────────────────────────────────────────────────

const head = { key: headKey(0), epoch: 1 };
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const modules = () => ({ clock: turnClock(), random: seededRandom(1) });

/** Nothing is ever in memory. */
function coldEngine(inner: Engine): Engine {
	return {
		manifest: inner.manifest,
		read: (keys) => inner.read(keys),
		range: (range) => inner.range(range),
		peek: () => undefined,
		peekRange: () => undefined,
		commit: (commit) => inner.commit(commit),
		durable: (position) => inner.durable(position),
		changesAfter: (position, limit) => inner.changesAfter(position, limit),
		get position() {
			return inner.position;
		},
		close: () => inner.close(),
	};
}

test("transact: a function that swallows the suspension is found out", async () => {
	const engine = coldEngine(createMemoryEngine());
	const swallow = (tx: Transaction): number => {
		try {
			tx.get("a");
		} catch {
			return 1;
		}
		return 2;
	};
	await assert.rejects(transact(engine, modules(), swallow, { head }), /swallowed/);
	const translate = (tx: Transaction): number => {
		try {
			tx.get("a");
		} catch {
			throw new FsError("EIO", "test.translated", "translated");
		}
		return 2;
	};
	await assert.rejects(transact(engine, modules(), translate, { head }), /swallowed/);
});

test("transact: an asynchronous function is refused", async () => {
	await assert.rejects(
		transact(createMemoryEngine(), modules(), async () => 1, { head }),
		/synchronous/,
	);
});

test("transact: fetches are bounded", async () => {
	const engine = coldEngine(createMemoryEngine());
	let key = 0;
	await assert.rejects(
		transact(engine, modules(), (tx) => tx.get(`k${key++}`), { head }),
		(error) => isFsError(error, "EAGAIN"),
	);
});

test("transact: a range that was fetched before its guard changed is not used", async () => {
	const inner = createMemoryEngine();
	const engine = coldEngine(inner);
	inner.commitNow?.({
		expect: [],
		puts: [
			["guard", text("1")],
			["r1", text("1")],
		],
		deletes: [],
	});
	let ranges = 0;
	const racing: Engine = {
		...engine,
		manifest: engine.manifest,
		position: 0,
		async range(range) {
			const found = await inner.range(range);
			if (ranges++ === 0)
				inner.commitNow?.({
					expect: [],
					puts: [
						["guard", text("2")],
						["r2", text("2")],
					],
					deletes: [],
				});
			return found;
		},
		peek: (key) => (key === "guard" || key === head.key ? inner.peek(key) : undefined),
	};
	const { result } = await transact(
		racing,
		modules(),
		(tx) => {
			const guard = new TextDecoder().decode(tx.get("guard"));
			const count = tx.range({ start: "r", end: "s", limit: 9 }).length;
			tx.put("seen", text(`${guard}:${count}`));
			return `${guard}:${count}`;
		},
		{ head },
	);
	assert.equal(result, "2:2");
	assert.equal(ranges, 2);
});

test("transact: gives up after bounded conflicts", async () => {
	const inner = createMemoryEngine();
	let attempts = 0;
	const engine: Engine = {
		...coldEngine(inner),
		position: 0,
		async commit(): Promise<CommitResult> {
			attempts++;
			return { outcome: "conflict" };
		},
	};
	await assert.rejects(
		transact(engine, modules(), (tx) => tx.put("a", text("1")), { head, attempts: 5 }),
		(error) => isFsError(error, "EAGAIN"),
	);
	assert.equal(attempts, 5);
});

/** The first commit is unknown; `then` says what becomes of it. */
function doubtful(inner: Engine, becomes: (commit: Commit) => void): Engine {
	let first = true;
	return {
		...coldEngine(inner),
		manifest: { ...inner.manifest, unknownOutcomes: true },
		get position() {
			return inner.position;
		},
		async commit(commit) {
			if (!first) return inner.commit(commit);
			first = false;
			becomes(commit);
			return { outcome: "unknown" };
		},
	};
}

test("transact: an error of a retry is not believed while the first attempt is in doubt", async () => {
	const create = (tx: Transaction): string => {
		if (tx.get("file")) throw new FsError("EEXIST", "test.exists", "exists");
		tx.put("file", text("1"));
		return "made";
	};
	const done = createMemoryEngine();
	const one = await transact(
		doubtful(done, (commit) => void done.commitNow?.(commit)),
		modules(),
		create,
		{ head },
	);
	assert.equal(one.result, "made");

	// Somebody else makes the file; the doubtful commit would still be possible if the head did not move on.
	const other = createMemoryEngine();
	let late: Commit | undefined;
	const engine = doubtful(other, (commit) => {
		late = commit;
		other.commitNow?.({ expect: [], puts: [["file", text("other")]], deletes: [] });
	});
	await assert.rejects(transact(engine, modules(), create, { head }), (error) => isFsError(error, "EEXIST"));
	assert.deepEqual(other.commitNow?.(late as Commit), { outcome: "conflict" }, "the late commit cannot happen after the answer");
});

test("transact: when the head has forgotten, the feed answers; a gap is said to be unknown", async () => {
	for (const feedCommits of [1_000, 3]) {
		const inner = createMemoryEngine({ feedCommits });
		const engine = doubtful(inner, (commit) => {
			inner.commitNow?.(commit);
			for (let i = 0; i < 20; i++) {
				const next = { epoch: 1, sequence: 2 + i, tokens: Array.from({ length: 8 }, (_, age) => 1_000_000 + i - age) };
				inner.commitNow?.({ expect: [], puts: [[head.key, encodeHead(next)]], deletes: [] });
			}
		});
		const make = (tx: Transaction): string => {
			tx.put("a", text("1"));
			return "made";
		};
		const work = transact(engine, modules(), make, { head });
		if (feedCommits === 1_000) assert.equal((await work).result, "made");
		else await assert.rejects(work, (error) => isFsError(error, "EIO") && error.site === "kv.unknown-outcome");
	}
});
