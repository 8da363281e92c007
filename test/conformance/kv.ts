/**
 * What every metadata engine must do (src/kv/interface.ts), for any factory. Each test opens an engine of its own; all random choices come from a seed that is
 * printed with the failure.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import { decodeHead, encodeHead, headKey } from "../../src/kv/head.ts";
import type { Change, Engine, Entry, KeyRange, Position, Transaction } from "../../src/kv/interface.ts";
import { transact } from "../../src/kv/transact.ts";
import type { Clock, Random } from "../../src/platform/interface.ts";

export interface KvHarness {
	readonly engine: Engine;
	readonly clock: Clock;
	readonly random: Random;
	/** Drives a promise to its end (simulated worlds need that; elsewhere the identity). */
	run<T>(work: Promise<T>): Promise<T>;
	/** Closes and opens again on the same contents. */
	reopen(): Promise<Engine>;
	close(): Promise<void>;
}

export interface KvSuiteOptions {
	/** Operations of the random history. */
	readonly historySteps?: number;
	/** Seeds of the random tests. */
	readonly seeds?: readonly number[];
}

type MakeHarness = (seed: number) => Promise<KvHarness>;

interface Bench {
	readonly harness: KvHarness;
	engine: Engine;
	/** One blind commit, whatever spurious conflicts and unknown outcomes the engine makes up. */
	put(entries: Record<string, string | undefined>): Promise<Position>;
	text(key: string): Promise<string | undefined>;
	transact<T>(fn: (tx: Transaction) => T, epoch?: number): Promise<{ result: T; position: Position }>;
}

export function kvConformance(name: string, makeHarness: MakeHarness, options: KvSuiteOptions = {}): void {
	const seeds = options.seeds ?? [1, 2, 3];
	const check = (title: string, body: (bench: Bench) => Promise<void>, seed = 7): void => {
		test(`${name}: ${title}`, async () => {
			const harness = await makeHarness(seed);
			try {
				await harness.run(body(makeBench(harness)));
			} finally {
				await harness.close();
			}
		});
	};
	readTests(check);
	rangeTests(check);
	commitTests(check);
	feedTests(check);
	transactTests(check);
	for (const seed of seeds) {
		check(`random history against a map, seed ${seed}`, (bench) => randomHistory(bench, seed, options.historySteps ?? 1_500), seed);
		check(`counters under concurrency, seed ${seed}`, (bench) => counters(bench, seed), seed);
		check(`transfers keep their sum, seed ${seed}`, (bench) => transfers(bench, seed), seed);
	}
}

type Check = (title: string, body: (bench: Bench) => Promise<void>, seed?: number) => void;

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function makeBench(harness: KvHarness): Bench {
	const bench: Bench = {
		harness,
		engine: harness.engine,
		async put(entries) {
			const done = await bench.transact((tx) => {
				for (const [key, value] of Object.entries(entries)) {
					if (value === undefined) tx.delete(key);
					else tx.put(key, encode(value));
				}
			});
			return done.position;
		},
		async text(key) {
			const [found] = await bench.engine.read([key]);
			return found && decode(found.value);
		},
		transact(fn, epoch = 1) {
			const modules = { clock: harness.clock, random: harness.random };
			return transact(bench.engine, modules, fn, { head: { key: headKey(0), epoch }, attempts: 400 });
		},
	};
	return bench;
}

/** Asks until the engine has an answer of its own: remote-like ones make up conflicts and doubts. */
async function commitSurely(bench: Bench, expected: "committed" | "conflict", commit: Parameters<Engine["commit"]>[0]): Promise<Position> {
	for (let i = 0; i < 200; i++) {
		const result = await bench.engine.commit(commit);
		if (result.outcome === "committed") {
			assert.equal(expected, "committed", "this commit had to conflict");
			return result.position;
		}
		if (result.outcome === "conflict" && (expected === "conflict" || !bench.engine.manifest.unknownOutcomes)) {
			assert.equal(expected, "conflict", "this commit must not conflict");
			return 0;
		}
	}
	throw new Error("the engine gave no clear outcome in 200 attempts");
}

function readTests(check: Check): void {
	check("absent keys read as absent, in the order asked for", async (bench) => {
		await bench.put({ b: "2", a: "1" });
		const found = await bench.engine.read(["zz", "a", "b", "a"]);
		assert.deepEqual(
			found.map((one) => one && decode(one.value)),
			[undefined, "1", "2", "1"],
		);
	});

	check("values of any bytes and lengths come back", async (bench) => {
		const values = [0, 1, 100, 16_384, 70_000, 400_000].map((length) => Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 255));
		for (const [i, value] of values.entries()) await bench.transact((tx) => tx.put(`v${i}`, value));
		bench.engine = await bench.harness.reopen();
		for (const [i, value] of values.entries()) {
			const [found] = await bench.engine.read([`v${i}`]);
			assert.ok(found && Buffer.compare(found.value, value) === 0, `value ${i} of ${value.length} bytes`);
		}
	});

	check("a caller may change its buffers after a commit", async (bench) => {
		const buffer = encode("before");
		await bench.transact((tx) => tx.put("k", buffer));
		buffer.fill(0x78);
		assert.equal(await bench.text("k"), "before");
	});

	check("peek agrees with read wherever it answers", async (bench) => {
		await bench.put({ a: "1", b: "2" });
		await bench.put({ a: undefined });
		for (const key of ["a", "b", "c"]) {
			const [found] = await bench.engine.read([key]);
			for (let i = 0; i < 5; i++) {
				const peeked = bench.engine.peek(key);
				if (peeked !== undefined) assert.equal(peeked?.version, found?.version);
			}
		}
		assert.equal(await bench.text("a"), undefined);
	});

	check("keys of all byte values keep their order", async (bench) => {
		const keys = [0, 1, 47, 127, 128, 200, 254, 255].map((code) => `k${String.fromCharCode(code)}`);
		for (const key of keys.toReversed()) await bench.put({ [key]: "x" });
		const found = await bench.engine.range({ start: "k", end: "l", limit: 100 });
		assert.deepEqual(
			found.map((entry) => entry.key),
			keys,
		);
	});
}

function rangeTests(check: Check): void {
	check("ranges: start inclusive, end exclusive, limit, order", async (bench) => {
		await bench.put({ "r/a": "1", "r/b": "2", "r/c": "3", "r/d": "4" });
		const keys = async (range: KeyRange): Promise<string> => (await bench.engine.range(range)).map((entry) => entry.key.slice(2)).join("");
		assert.equal(await keys({ start: "r/a", end: "r/d", limit: 9 }), "abc");
		assert.equal(await keys({ start: "r/b", end: "r/z", limit: 2 }), "bc");
		assert.equal(await keys({ start: "r/bb", end: undefined, limit: 9 }), "cd");
		assert.equal(await keys({ start: "r/e", end: "r/z", limit: 9 }), "");
		assert.equal(await keys({ start: "r/a", end: "r/z", limit: 0 }), "");
	});

	check("ranges skip what was deleted and show the newest values, through reopening", async (bench) => {
		for (let i = 0; i < 60; i++) await bench.put({ [`k${String(i).padStart(3, "0")}`]: `old${i}` });
		bench.engine = await bench.harness.reopen();
		for (let i = 0; i < 60; i += 3) await bench.put({ [`k${String(i).padStart(3, "0")}`]: undefined });
		for (let i = 1; i < 60; i += 3) await bench.put({ [`k${String(i).padStart(3, "0")}`]: `new${i}` });
		const expected = Array.from({ length: 60 }, (_, i) => (i % 3 === 1 ? `new${i}` : `old${i}`)).filter((_, i) => i % 3 !== 0);
		for (let round = 0; round < 2; round++) {
			const found = await bench.engine.range({ start: "k", end: "l", limit: 1_000 });
			assert.deepEqual(
				found.map((entry) => decode(entry.value)),
				expected,
			);
			bench.engine = await bench.harness.reopen();
		}
	});

	check("peekRange agrees with range wherever it answers", async (bench) => {
		for (let i = 0; i < 20; i++) await bench.put({ [`p${i}`]: String(i) });
		const range = { start: "p1", end: "p9", limit: 7 };
		const found = await bench.engine.range(range);
		for (let i = 0; i < 10; i++) {
			const peeked = bench.engine.peekRange(range);
			if (peeked) assert.deepEqual(peeked.map(plainEntry), found.map(plainEntry));
		}
	});
}

function plainEntry(entry: Entry): unknown {
	return [entry.key, decode(entry.value), entry.version];
}

function commitTests(check: Check): void {
	check("expect: right version, wrong version, absent", async (bench) => {
		await bench.put({ a: "1" });
		const version = (await bench.engine.read(["a"]))[0]?.version as number;
		const put = { puts: [["b", encode("x")] as const], deletes: [] };
		await commitSurely(bench, "conflict", { expect: [["a", version + 1]], ...put });
		await commitSurely(bench, "conflict", { expect: [["a", undefined]], ...put });
		await commitSurely(bench, "conflict", { expect: [["nothing", version]], ...put });
		await commitSurely(bench, "committed", {
			expect: [
				["a", version],
				["nothing", undefined],
			],
			...put,
		});
		assert.equal(await bench.text("b"), "x");
	});

	check("a deleted key counts as absent and gets a new version when it comes back", async (bench) => {
		await bench.put({ a: "1" });
		const before = (await bench.engine.read(["a"]))[0]?.version as number;
		await bench.put({ a: undefined });
		await commitSurely(bench, "conflict", { expect: [["a", before]], puts: [["c", encode("c")]], deletes: [] });
		await commitSurely(bench, "committed", { expect: [["a", undefined]], puts: [["d", encode("d")]], deletes: [] });
		await bench.put({ a: "2" });
		const after = (await bench.engine.read(["a"]))[0]?.version as number;
		assert.ok(after > before);
		assert.equal(await bench.text("c"), undefined);
	});

	check("a conflict changes nothing, a commit changes everything", async (bench) => {
		await bench.put({ a: "1", b: "1" });
		await commitSurely(bench, "conflict", {
			expect: [["a", undefined]],
			puts: [
				["a", encode("2")],
				["n", encode("2")],
			],
			deletes: ["b"],
		});
		assert.deepEqual([await bench.text("a"), await bench.text("b"), await bench.text("n")], ["1", "1", undefined]);
		await commitSurely(bench, "committed", {
			expect: [],
			puts: [
				["a", encode("2")],
				["n", encode("2")],
			],
			deletes: ["b"],
		});
		assert.deepEqual([await bench.text("a"), await bench.text("b"), await bench.text("n")], ["2", undefined, "2"]);
	});

	check("positions ascend; a value's version is the position of its commit", async (bench) => {
		let last = 0;
		for (let i = 0; i < 5; i++) {
			const position = await commitSurely(bench, "committed", { expect: [], puts: [["p", encode(String(i))]], deletes: [] });
			assert.ok(position > last);
			assert.equal((await bench.engine.read(["p"]))[0]?.version, position);
			last = position;
		}
		assert.ok(bench.engine.position >= last);
		await bench.engine.durable(last);
		bench.engine = await bench.harness.reopen();
		assert.ok(bench.engine.position >= last, "positions never go back");
		assert.equal((await bench.engine.read(["p"]))[0]?.version, last, "a version survives reopening");
	});

	check("limits of a commit are asserted", async (bench) => {
		const { maximumChanges, maximumCommitBytes, maximumKeyBytes } = bench.engine.manifest;
		const tooBig = (error: unknown): boolean => isFsError(error, "E2BIG");
		const many = Array.from({ length: maximumChanges + 1 }, (_, i) => [`m${i}`, encode("")] as const);
		const commit = async (puts: readonly (readonly [string, Uint8Array])[], deletes: readonly string[] = []): Promise<unknown> =>
			bench.engine.commit({ expect: [], puts, deletes });
		await assert.rejects(commit(many), tooBig);
		await assert.rejects(commit(many.slice(0, maximumChanges), ["x"]), tooBig);
		await assert.rejects(commit([["k", new Uint8Array(maximumCommitBytes)]]), tooBig);
		await assert.rejects(commit([["k".repeat(maximumKeyBytes + 1), encode("")]]), tooBig);
		assert.equal(await bench.text("m0"), undefined);
		await commitSurely(bench, "committed", { expect: [], puts: many.slice(0, maximumChanges), deletes: [] });
		await commitSurely(bench, "committed", {
			expect: [],
			puts: [["k".repeat(maximumKeyBytes), new Uint8Array(maximumCommitBytes - maximumKeyBytes)]],
			deletes: [],
		});
		assert.equal(await bench.text("m99"), "");
	});
}

function feedTests(check: Check): void {
	check("changesAfter gives every commit once, oldest first", async (bench) => {
		const start = bench.engine.position;
		await bench.put({ a: "1" });
		await bench.put({ a: undefined, b: "2" });
		await bench.put({ c: "3" });
		const seen: Change[] = [];
		let after = start;
		for (;;) {
			const page = await bench.engine.changesAfter(after, 1);
			assert.ok(page !== "gap");
			assert.ok(page.changes.length <= 1);
			if (page.changes.length === 0) break;
			seen.push(...page.changes);
			after = (page.changes[0] as Change).position;
		}
		assert.deepEqual(
			seen.map((change) => change.position),
			seen.map((change) => change.position).toSorted((x, y) => x - y),
		);
		const model = new Map<string, string>();
		for (const change of seen) {
			for (const [key, value] of change.puts) if (key !== headKey(0)) model.set(key, decode(value));
			for (const key of change.deletes) model.delete(key);
		}
		assert.deepEqual(
			[...model],
			[
				["b", "2"],
				["c", "3"],
			],
		);
		assert.equal(after, bench.engine.position);
		await bench.engine.durable(after);
		const last = await bench.engine.changesAfter(after, 10);
		assert.ok(last !== "gap" && last.changes.length === 0 && last.watermark >= after);
	});

	check("changesAfter answers gap instead of leaving commits out", async (bench) => {
		await bench.put({ a: "1" });
		bench.engine = await bench.harness.reopen();
		const found = await bench.engine.changesAfter(0, 1_000);
		if (found === "gap") return;
		assert.ok(found.changes.some((change) => change.puts.some(([key]) => key === "a")));
	});
}

function transactTests(check: Check): void {
	check("transact: own writes are visible to get and range", async (bench) => {
		await bench.put({ "d/a": "1", "d/b": "2", "d/c": "3", "d/e": "5" });
		const done = await bench.transact((tx) => {
			tx.delete("d/a");
			tx.put("d/b", encode("two"));
			tx.put("d/d", encode("4"));
			assert.equal(tx.get("d/a"), undefined);
			assert.equal(decode(tx.get("d/b") as Uint8Array), "two");
			const all = tx.range({ start: "d/", end: "d0", limit: 10 }).map((entry) => entry.key.slice(2) + decode(entry.value));
			const two = tx.range({ start: "d/", end: "d0", limit: 2 }).map((entry) => entry.key.slice(2));
			return { all: all.join(" "), two: two.join(" ") };
		});
		assert.deepEqual(done.result, { all: "btwo c3 d4 e5", two: "b c" });
	});

	check("transact: an error ends it without a commit", async (bench) => {
		await assert.rejects(
			bench.transact((tx) => {
				tx.put("x", encode("1"));
				throw new RangeError("no");
			}),
			RangeError,
		);
		assert.equal(await bench.text("x"), undefined);
	});

	check("transact: without changes nothing is committed", async (bench) => {
		await bench.put({ a: "1" });
		const before = bench.engine.position;
		const done = await bench.transact((tx) => tx.get("a") && tx.range({ start: "a", end: undefined, limit: 3 }).length);
		assert.ok((done.result as number) >= 1);
		assert.equal(bench.engine.position, before);
		assert.equal(done.position, before);
	});

	check("transact: every change moves the head by one", async (bench) => {
		for (let i = 1; i <= 12; i++) await bench.put({ a: String(i) });
		const [found] = await bench.engine.read([headKey(0)]);
		const head = decodeHead((found as Entry).value);
		assert.equal(head.epoch, 1);
		assert.ok(head.sequence >= 12);
		assert.ok(head.tokens.length <= 8);
	});

	check("transact: a head of another epoch fences", async (bench) => {
		await bench.put({ a: "1" });
		const [found] = await bench.engine.read([headKey(0)]);
		const head = decodeHead((found as Entry).value);
		await commitSurely(bench, "committed", {
			expect: [],
			puts: [[headKey(0), encodeHead({ ...head, epoch: 2, sequence: head.sequence + 1 })]],
			deletes: [],
		});
		await assert.rejects(bench.put({ a: "2" }), (error) => isFsError(error, "ESTALE"));
		assert.equal(await bench.text("a"), "1");
		await bench.transact((tx) => tx.put("a", encode("3")), 2);
		assert.equal(await bench.text("a"), "3");
	});
}

// ── random ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Lehmer generator: enough for choosing, and the same everywhere. */
export function choices(seed: number): (bound: number) => number {
	let state = (seed * 48_271 + 12_345) % 2_147_483_647 || 1;
	return (bound) => {
		state = (state * 48_271) % 2_147_483_647;
		return state % bound;
	};
}

async function counters(bench: Bench, seed: number): Promise<void> {
	const choose = choices(seed);
	const done: { index: number; value: number }[] = [];
	const increment = async (index: number): Promise<void> => {
		const { result } = await bench.transact((tx) => {
			const value = Number(decode(tx.get(`count${index}`) ?? encode("0"))) + 1;
			tx.put(`count${index}`, encode(String(value)));
			return value;
		});
		done.push({ index, value: result });
	};
	for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: 12 }, () => increment(choose(3))));
	for (let index = 0; index < 3; index++) {
		const values = done.filter((one) => one.index === index).map((one) => one.value);
		const expected = Array.from({ length: values.length }, (_, i) => i + 1);
		assert.deepEqual(
			values.toSorted((a, b) => a - b),
			expected,
			`seed ${seed}: each increment of counter ${index} happened once`,
		);
		assert.equal(await bench.text(`count${index}`), values.length === 0 ? undefined : String(values.length), `seed ${seed}`);
	}
}

async function transfers(bench: Bench, seed: number): Promise<void> {
	const choose = choices(seed + 100);
	await bench.put(Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`acc${i}`, "100"])));
	const amount = (tx: Transaction, key: string): number => Number(decode(tx.get(key) as Uint8Array));
	const transfer = (from: number, to: number): Promise<unknown> =>
		bench.transact((tx) => {
			tx.put(`acc${from}`, encode(String(amount(tx, `acc${from}`) - 1)));
			tx.put(`acc${to}`, encode(String(amount(tx, `acc${to}`) + 1)));
		});
	const audit = async (): Promise<void> => {
		const { result } = await bench.transact((tx) => [0, 1, 2, 3, 4, 5].map((i) => amount(tx, `acc${i}`)).reduce((a, b) => a + b, 0));
		assert.equal(result, 600, `seed ${seed}: a read-only transaction sees one state`);
	};
	const work: Promise<unknown>[] = [];
	for (let i = 0; i < 40; i++) {
		const from = choose(6);
		work.push(transfer(from, (from + 1 + choose(5)) % 6));
		if (i % 4 === 0) work.push(audit());
	}
	await Promise.all(work);
	await audit();
}

async function randomHistory(bench: Bench, seed: number, steps: number): Promise<void> {
	const choose = choices(seed);
	const model = new Map<string, string>();
	const key = (): string => `h${"abc"[choose(3)]}${String(choose(120)).padStart(3, "0")}`;
	for (let step = 0; step < steps; step++) {
		const context = `seed ${seed}, step ${step}`;
		const what = choose(100);
		if (what < 55) await randomCommit(bench, choose, model, key, step);
		else if (what < 75) assert.equal(await readOne(bench, model, key()), true, context);
		else if (what < 97) await randomRange(bench, choose, model, key, context);
		else if (what < 98 && step % 7 === 0) bench.engine = await bench.harness.reopen();
		else await bench.engine.durable(bench.engine.position);
	}
	bench.engine = await bench.harness.reopen();
	const all = await bench.engine.range({ start: "ha", end: "i", limit: 10_000 });
	assert.deepEqual(
		all.map((entry) => [entry.key, decode(entry.value)]),
		sorted(model),
		`seed ${seed}: everything after reopening`,
	);
}

async function randomCommit(
	bench: Bench,
	choose: (bound: number) => number,
	model: Map<string, string>,
	key: () => string,
	step: number,
): Promise<void> {
	const changes: Record<string, string | undefined> = {};
	for (let i = 0; i < 1 + choose(6); i++) {
		changes[key()] = choose(3) === 0 ? undefined : `${step}.${i}.${"x".repeat(choose(8) === 0 ? choose(3_000) : choose(40))}`;
	}
	await bench.put(changes);
	for (const [name, value] of Object.entries(changes)) {
		if (value === undefined) model.delete(name);
		else model.set(name, value);
	}
}

async function readOne(bench: Bench, model: Map<string, string>, key: string): Promise<boolean> {
	return (await bench.text(key)) === model.get(key);
}

async function randomRange(
	bench: Bench,
	choose: (bound: number) => number,
	model: Map<string, string>,
	key: () => string,
	context: string,
): Promise<void> {
	const [start, end] = [key(), key()].toSorted() as [string, string];
	const limit = 1 + choose(50);
	const found = await bench.engine.range({ start, end, limit });
	const expected = sorted(model)
		.filter(([name]) => name >= start && name < end)
		.slice(0, limit);
	assert.deepEqual(
		found.map((entry) => [entry.key, decode(entry.value)]),
		expected,
		context,
	);
}

function sorted(model: Map<string, string>): [string, string][] {
	return [...model].sort((a, b) => (a[0] < b[0] ? -1 : 1));
}
