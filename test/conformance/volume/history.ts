/**
 * Random histories with kills and power cuts, against a model that knows what each may take: a kill nothing acknowledged; a power cut only what came
 * after the last sync, and of that any part.
 */
import assert from "node:assert/strict";
import type { HandleId, NodeRef } from "../../../src/volume/interface.ts";
import { SeededRandom } from "../../support/map-records.ts";
import { copyAll } from "./ranges.ts";
import { alone, type Case, type MakeVolumeHarness, pattern, root, type VolumeSuiteOptions } from "./support.ts";

export function historyTests(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions): void {
	for (const seed of options.seeds ?? [1, 2]) {
		alone(
			`${name}: history`,
			makeHarness,
			(check) =>
				check(`kills and power cuts amid random operations, seed ${seed}`, (c) => new History(c, seed, options.historySteps ?? 110).run()),
			seed,
		);
	}
}

const fileCount = 4;
const largest = 400_000;

interface ModelFile {
	node: NodeRef;
	handle: HandleId;
	/** What readers see now. */
	now: Uint8Array;
	/** What it was at the last sync, and at each change since: what a power cut may mix. */
	since: Uint8Array[];
	/** What the change begun last would make of it. */
	attempted: Uint8Array;
}

class History {
	readonly #c: Case;
	readonly #seed: number;
	readonly #steps: number;
	readonly #random: SeededRandom;
	readonly #files: ModelFile[] = [];
	#step = 0;

	constructor(c: Case, seed: number, steps: number) {
		this.#c = c;
		this.#seed = seed;
		this.#steps = steps;
		this.#random = new SeededRandom(seed + 1000);
	}

	async run(): Promise<void> {
		try {
			for (let i = 0; i < fileCount; i++) await this.#make(i);
			for (; this.#step < this.#steps; this.#step++) await this.#next();
			await this.#end("crash");
			await this.#end("reopen");
		} catch (error) {
			throw new Error(`seed ${this.#seed}, step ${this.#step}: ${error instanceof Error ? error.message : String(error)}`, {
				cause: error,
			});
		}
	}

	async #make(i: number): Promise<void> {
		const node = await this.#c.file(`f${i}`);
		const handle = await this.#c.openNode(node);
		await this.#c.volume.fsync(handle, false);
		const empty = new Uint8Array(0);
		this.#files[i] = { node, handle, now: empty, since: [empty], attempted: empty };
	}

	async #next(): Promise<void> {
		const random = this.#random;
		const file = random.pick(this.#files);
		const choice = random.below(100);
		if (choice < 38) await this.#write(file);
		else if (choice < 47) await this.#allocate(file);
		else if (choice < 55) await this.#copy(file, random.pick(this.#files));
		else if (choice < 67) await this.#truncate(file);
		else if (choice < 80) await this.#sync(file);
		else if (choice < 84) await this.#syncAll();
		else if (choice < 89) await this.#c.harness.sleep(random.below(2500));
		else if (choice < 92) await this.#end("crash");
		else if (choice < 95) await this.#end("powerCut");
		else if (choice < 99) await this.#endAmidst(random.chance(0.5) ? "crash" : "powerCut");
		else await this.#end("reopen");
	}

	/** The end comes while each file has one more change under way, and syncs are: every change is made, not made, or made in part. */
	async #endAmidst(how: "crash" | "powerCut"): Promise<void> {
		const before = this.#files.map(({ now }) => now);
		const work = this.#files.map((file) => {
			const choice = this.#random.below(10);
			return choice < 5 ? this.#write(file) : choice < 8 ? this.#allocate(file) : this.#truncate(file);
		});
		for (const file of this.#files) if (this.#random.chance(0.5)) work.push(this.#c.volume.fsync(file.handle, false));
		if (this.#random.chance(0.3)) work.push(this.#c.volume.syncAll());
		void Promise.allSettled(work);
		await this.#c.harness.sleep(this.#random.pick([0, 0.1, 1, 5, 20]));
		await this.#c.harness[how]();
		for (const [i, file] of this.#files.entries()) {
			const possible = how === "crash" ? [before[i] ?? file.now, file.attempted] : [...file.since, before[i] ?? file.now, file.attempted];
			await this.#reopened(i, possible, how);
		}
	}

	async #reopened(i: number, possible: readonly Uint8Array[], how: string): Promise<void> {
		const file = this.#files[i] as ModelFile;
		file.handle = await this.#c.openNode(file.node);
		const bytes = await this.#c.get(`f${i}`);
		accept(possible, bytes, `f${i} after ${how}`);
		file.now = bytes;
		// A power cut leaves what is durable; after a kill nothing more is durable than before it.
		file.since = how === "powerCut" ? [bytes] : [...possible, ...file.since, bytes];
	}

	async #write(file: ModelFile): Promise<void> {
		const random = this.#random;
		const offset = random.below(random.pick([50, file.now.length + 1, largest / 2]));
		const bytes = pattern(1 + random.below(random.pick([20, 3000, 150_000])), this.#step);
		const now = new Uint8Array(Math.max(file.now.length, offset + bytes.length));
		now.set(file.now);
		now.set(bytes, offset);
		file.attempted = now;
		await this.#c.writeAll(file.handle, offset, bytes);
		this.#changed(file, now);
	}

	async #truncate(file: ModelFile): Promise<void> {
		const size = this.#random.below(file.now.length + 1000);
		const now = new Uint8Array(size);
		now.set(file.now.subarray(0, size));
		file.attempted = now;
		await this.#c.volume.setAttributes(root, file.node, { size });
		this.#changed(file, now);
	}

	async #allocate(file: ModelFile): Promise<void> {
		const random = this.#random;
		const mode = random.pick(["allocate", "allocate-keep-size", "punch", "zero", "zero-keep-size"] as const);
		const offset = random.below(file.now.length + 5000);
		const length = 1 + random.below(random.pick([3000, 100_000]));
		const now = new Uint8Array(mode === "allocate" || mode === "zero" ? Math.max(file.now.length, offset + length) : file.now.length);
		now.set(file.now);
		if (!mode.startsWith("allocate")) now.fill(0, Math.min(offset, now.length), Math.min(offset + length, now.length));
		file.attempted = now;
		await this.#c.volume.allocate(file.handle, mode, offset, length);
		this.#changed(file, now);
	}

	async #copy(file: ModelFile, source: ModelFile): Promise<void> {
		const random = this.#random;
		const from = random.below(source.now.length + 1);
		const to = random.below(largest / 2);
		const bytes = source.now.slice(from, from + 1 + random.below(150_000));
		if (bytes.length === 0 || (file === source && Math.abs(from - to) < bytes.length)) return;
		const now = new Uint8Array(Math.max(file.now.length, to + bytes.length));
		now.set(file.now);
		now.set(bytes, to);
		file.attempted = now;
		await copyAll(this.#c, source.handle, from, file.handle, to, bytes.length);
		this.#changed(file, now);
	}

	#changed(file: ModelFile, now: Uint8Array): void {
		file.now = now;
		file.since.push(now);
	}

	async #sync(file: ModelFile): Promise<void> {
		await this.#c.volume.fsync(file.handle, this.#random.chance(0.5));
		file.since = [file.now];
	}

	async #syncAll(): Promise<void> {
		await this.#c.volume.syncAll();
		for (const file of this.#files) file.since = [file.now];
	}

	async #end(how: "crash" | "powerCut" | "reopen"): Promise<void> {
		await this.#c.harness[how]();
		for (const [i, file] of this.#files.entries()) {
			if (how === "powerCut") {
				await this.#reopened(i, file.since, how);
				continue;
			}
			file.handle = await this.#c.openNode(file.node);
			const bytes = await this.#c.get(`f${i}`);
			assert.ok(Buffer.from(bytes).equals(file.now), `f${i} after ${how}: ${describe(bytes, file.now)}`);
			// A clean end syncs; after a kill nothing more is durable than before it.
			if (how === "reopen") file.since = [bytes];
		}
	}
}

/** Each byte is one that one of the versions has there. */
function accept(versions: readonly Uint8Array[], bytes: Uint8Array, name: string): void {
	const sizes = versions.map(({ length }) => length);
	const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
	assert.ok(bytes.length >= least && bytes.length <= most, `${name}: ${bytes.length} bytes, ${least} to ${most} possible`);
	if (versions.some((version) => Buffer.compare(version, bytes) === 0)) return;
	for (let at = 0; at < bytes.length; at++) {
		const byte = bytes[at] ?? 0;
		// Where a size came before its bytes there is a hole.
		const possible = versions.some((version) => (version[at] ?? 0) === byte);
		assert.ok(possible, `${name}: byte ${at} of ${bytes.length} is ${byte}, which it never was since the last sync`);
	}
}

function describe(actual: Uint8Array, expected: Uint8Array): string {
	let at = 0;
	while (at < Math.min(actual.length, expected.length) && actual[at] === expected[at]) at++;
	return `${actual.length} bytes, ${expected.length} expected, first difference at ${at}`;
}
