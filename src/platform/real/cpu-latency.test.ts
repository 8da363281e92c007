import assert from "node:assert/strict";
import { existsSync, mkdtempSync, openSync, readFileSync, readlinkSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CpuLatency, wishedLatencyUs } from "./cpu-latency.ts";
import { lowLatencyHoldMs, maxPollingProcessors, requestRowGapMs, requestsBeforeLowLatency } from "./fuse-limits.ts";

const poll = { name: "POLL", exitLatencyUs: 0 };

test("what is wished for: light sleeps where there are some and others, none in a small guest", () => {
	const of = (driver: string, processors: number, ...latencies: number[]) =>
		wishedLatencyUs({ driver, processors, states: [poll, ...latencies.map((exitLatencyUs) => ({ name: "C", exitLatencyUs }))] });
	assert.equal(of("haltpoll", 4, 1), 0);
	assert.equal(of("haltpoll", maxPollingProcessors + 1, 1), undefined);
	assert.equal(of("intel_idle", 4, 2, 10, 133), 10);
	assert.equal(of("intel_idle", 256, 2, 10, 133), 10);
	assert.equal(of("acpi_idle", 4, 1), undefined, "nothing deeper");
	assert.equal(of("acpi_idle", 4, 60, 130), undefined, "it would have to stay awake");
	assert.equal(of("none", 4), undefined);
	assert.equal(wishedLatencyUs({ driver: "none", processors: 4, states: [] }), undefined);
});

describe("the wish", () => {
	let folder: string;
	before(() => {
		folder = mkdtempSync(join(tmpdir(), "cairn-latency-"));
	});
	after(() => rmSync(folder, { recursive: true }));

	/** A file in the place of the device, and a clock by hand. */
	class Bench {
		nowMs = 1000;
		readonly #path: string;
		readonly latency: CpuLatency;
		#timer: { readonly fn: () => void; readonly atMs: number } | undefined;

		constructor(name: string, flags = "w") {
			this.#path = join(folder, name);
			this.latency = new CpuLatency(openSync(this.#path, flags), 7, {
				nowMs: () => this.nowMs,
				later: (fn, ms) => {
					assert.equal(this.#timer, undefined, "one timer at a time");
					this.#timer = { fn, atMs: this.nowMs + ms };
				},
			});
		}

		requests(count: number, gapMs: number): void {
			for (let i = 0; i < count; i++) {
				this.pass(gapMs);
				this.latency.busy(this.nowMs);
			}
		}

		pass(ms: number): void {
			const endMs = this.nowMs + ms;
			while (this.#timer !== undefined && this.#timer.atMs <= endMs) {
				const { fn, atMs } = this.#timer;
				this.#timer = undefined;
				this.nowMs = atMs;
				fn();
			}
			this.nowMs = endMs;
		}

		get isTimed(): boolean {
			return this.#timer !== undefined;
		}

		get said(): number[] {
			const bytes = readFileSync(this.#path);
			return [...new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))];
		}
	}

	test("stands while requests come in a row, and ends soon after the last", () => {
		const bench = new Bench("row");
		bench.requests(requestsBeforeLowLatency - 1, 0.1);
		assert.deepEqual(bench.said, []);
		bench.requests(1, 0.1);
		assert.deepEqual(bench.said, [7]);
		bench.requests(1000, 0.1);
		assert.deepEqual(bench.said, [7]);
		bench.pass(lowLatencyHoldMs - 0.2);
		assert.deepEqual(bench.said, [7]);
		bench.pass(0.2);
		assert.deepEqual(bench.said, [7, -1]);
		assert.ok(!bench.isTimed);
		bench.requests(1, 0.1);
		assert.deepEqual(bench.said, [7, -1, 7], "they still come in a row");
		bench.pass(1000);
		assert.deepEqual(bench.said, [7, -1, 7, -1]);
	});

	test("lone requests change nothing", () => {
		const bench = new Bench("lone");
		bench.requests(1000, requestRowGapMs);
		assert.deepEqual(bench.said, []);
		assert.ok(!bench.isTimed);
	});

	test("a device that refuses is let go", () => {
		const latency = new Bench("row", "r");
		latency.requests(100, 0.1);
		assert.ok(!latency.isTimed);
		const opened = readdirSync("/proc/self/fd").map((fd) => existsSync(`/proc/self/fd/${fd}`) && readlinkSync(`/proc/self/fd/${fd}`));
		assert.equal(opened.filter((path) => path === join(folder, "row")).length, 1, "that of the first test alone");
	});
});
