/** The core beside a naive kernel and a naive volume that do what the real ones do, over random histories. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, createStagingState, figures, isBound, nextTickMs } from "./staging-core.ts";
import type { StagingCommand, StagingEffect, StagingLimits } from "./staging-core.ts";

const limits: StagingLimits = {
	spaceBytes: 100,
	files: 4,
	minFileBytes: 10,
	opens: 2,
	opensWithinMs: 1000,
	countedInodes: 8,
	idleMs: 50,
	attachMs: 30,
	lookMs: 10,
	maxLookMs: 40,
	retryMs: 100,
};

/** splitmix-like; small and the same everywhere. */
function randomOf(seed: number): (bound: number) => number {
	let x = seed >>> 0;
	return (bound) => {
		x = (x + 0x9e37_79b9) >>> 0;
		let z = Math.imul(x ^ (x >>> 16), 0x21f0_aaad);
		z = Math.imul(z ^ (z >>> 15), 0x735a_2d97);
		return ((z ^ (z >>> 15)) >>> 0) % bound;
	};
}

interface File {
	size: number;
	/** Changes with attributes and with contents. */
	change: number;
	contents: number;
	immutable: boolean;
	/** Somebody denies writing. */
	held: boolean;
	/** Kernel: native handles and the object behind their number; ordinary handles, those for writing among them. */
	native: number;
	behind: number | undefined;
	ordinary: number;
	writers: number;
	/** Mappings that have outlived their handles, of a staged file. */
	mapped: Map<number, number>;
}

/** Holds every answer against what the kernel would do with it, and every effect against what would be lost by it. */
class World {
	nowMs = 0;
	state = createStagingState(limits);
	readonly files: File[];
	/** Staged files that exist, and the contents that they are a copy of. */
	readonly staged = new Map<number, { ino: number; contents: number }>();
	/** Numbers that the kernel knows, and the file behind each. */
	readonly numbers = new Map<number, number>();
	readonly pending: StagingEffect[] = [];
	readonly unanswered = new Map<number, { ino: number; write: boolean }>();
	readonly table = new Map<number, { file: number; number: number; bound: boolean }>();
	nextKey = 1;
	nextNumber = 1;
	nativeOpens = 0;
	restarts = 0;
	readonly random: (bound: number) => number;

	constructor(random: (bound: number) => number) {
		this.random = random;
		this.files = Array.from({ length: 6 }, (_, i) => ({
			size: [5, 20, 40, 60, 90, 120][i] as number,
			change: 1,
			contents: 1,
			immutable: i !== 1,
			held: false,
			native: 0,
			behind: undefined,
			ordinary: 0,
			writers: 0,
			mapped: new Map<number, number>(),
		}));
	}

	file(ino: number): File {
		return this.files[ino] as File;
	}

	run(command: StagingCommand): void {
		for (const effect of apply(this.state, command, this.nowMs)) {
			if (effect.kind === "answer") {
				assert.ok(effect.refused !== true, "the volume keeps writers out");
				this.answered(effect.key, effect.number);
			} else if (effect.kind === "release") this.released(effect.ino);
			else if (effect.kind === "record") this.table.set(effect.ino, effect);
			else if (effect.kind === "remove") this.removed(effect.file);
			else this.pending.push(effect);
		}
		assert.ok(figures(this.state).stagedBytes <= limits.spaceBytes || this.restarts > 0, "N6");
	}

	/** fuse_file_io_open() of Linux: EIO where this throws. */
	answered(key: number, number: number | undefined): void {
		const open = this.unanswered.get(key);
		assert.ok(open !== undefined, "N5: answered once");
		this.unanswered.delete(key);
		const file = this.file(open.ino);
		if (number === undefined) {
			assert.equal(file.native, 0, "an ordinary open beside native ones");
			file.ordinary++;
			if (open.write) file.writers++;
			return;
		}
		assert.ok(!open.write, "a writer got a native handle");
		const behind = this.numbers.get(number);
		assert.ok(behind !== undefined, "a number that the kernel does not know");
		assert.equal(file.ordinary, 0, "a native open beside ordinary ones");
		if (file.native > 0) assert.equal(number, file.behind, "another file behind the same inode");
		assert.ok(file.held, "N3");
		assert.deepEqual(this.staged.get(behind), { ino: open.ino, contents: file.contents }, "a stale byte");
		const { number: known, bound } = this.table.get(open.ino) ?? {};
		assert.deepEqual([known, bound], [number, true], "a successor would not know it");
		file.native++;
		file.behind = number;
		this.nativeOpens++;
	}

	released(ino: number): void {
		const file = this.file(ino);
		assert.ok(file.held && file.native === 0 && file.mapped.size === 0, "N3: released while in use");
		file.held = false;
		this.table.delete(ino);
	}

	removed(name: number): void {
		const copy = this.staged.get(name);
		this.staged.delete(name);
		if (copy === undefined) return;
		const file = this.file(copy.ino);
		assert.ok(!file.mapped.has(name) && !(file.native > 0 && this.numbers.get(file.behind as number) === name), "N4: removed while in use");
	}

	open(ino: number, write: boolean): void {
		const file = this.file(ino);
		// The volume refuses both.
		if (write && (file.held || file.immutable)) return;
		const key = this.nextKey++;
		this.unanswered.set(key, { ino, write });
		this.run({ kind: "open", key, ino, reading: !write, eligible: file.immutable, sizeBytes: file.size, change: file.change });
	}

	close(ino: number): void {
		const file = this.file(ino);
		if (file.native > 0) {
			const name = this.numbers.get(file.behind as number) as number;
			if (this.random(4) === 0) file.mapped.set(name, (file.mapped.get(name) ?? 0) + 1);
			file.native--;
			if (file.native === 0) file.behind = undefined;
			this.run({ kind: "close", ino, native: true });
		} else if (file.ordinary > 0) {
			file.ordinary--;
			file.writers = Math.min(file.writers, file.ordinary);
			this.run({ kind: "close", ino, native: false });
		}
	}

	unmap(ino: number): void {
		const { mapped } = this.file(ino);
		const [name] = mapped.keys();
		if (name === undefined) return;
		const left = (mapped.get(name) as number) - 1;
		if (left === 0) mapped.delete(name);
		else mapped.set(name, left);
	}

	change(ino: number): void {
		const file = this.file(ino);
		if (this.random(3) === 0) file.immutable = !file.immutable;
		if (this.random(2) === 0) file.change++;
		// Metadata may change at any time; contents only while nobody denies it.
		if (!file.held && file.writers > 0) {
			assert.equal(file.mapped.size, 0, "somebody who has it mapped would not see it");
			assert.equal(file.native, 0, "somebody who reads it natively would not see it");
			file.change++;
			file.contents++;
		}
	}

	/** Performs an effect, well or badly. */
	perform(): void {
		const [effect] = this.pending.splice(this.random(Math.max(1, this.pending.length)), 1);
		if (effect === undefined) return;
		const fails = this.random(3) === 0;
		if (effect.kind === "copy") {
			const file = this.file(effect.ino);
			const done = !fails && file.change === effect.change;
			if (!fails) this.staged.set(effect.file, { ino: effect.ino, contents: file.contents });
			this.run({ kind: "copied", ino: effect.ino, done });
		} else if (effect.kind === "attach") this.attach(effect, fails);
		else if (effect.kind === "look") this.look(effect, fails);
	}

	attach({ ino, file: name, change }: Extract<StagingEffect, { kind: "attach" }>, fails: boolean): void {
		const file = this.file(ino);
		const opensForWriting = file.writers + [...this.unanswered.values()].filter((one) => one.ino === ino && one.write).length;
		const refused = change !== undefined && (opensForWriting > 0 || file.change !== change);
		if (refused || fails) {
			this.run({ kind: "attached", ino, number: undefined });
			return;
		}
		file.held = true;
		const number = this.nextNumber++;
		this.numbers.set(number, name);
		this.run({ kind: "attached", ino, number });
	}

	look({ ino, file: name, number }: Extract<StagingEffect, { kind: "look" }>, fails: boolean): void {
		const file = this.file(ino);
		if (number !== undefined) {
			assert.equal(file.native, 0, "N1: a number that is in use was given up");
			this.numbers.delete(number);
		}
		const inUse = fails || file.mapped.has(name) || [...this.numbers.values()].includes(name);
		this.run({ kind: "looked", ino, inUse, change: file.change });
	}

	/** kill -9 of the daemon, and a successor. Opens that were not answered come again. */
	restart(): void {
		this.restarts++;
		const again = [...this.unanswered.values()];
		this.unanswered.clear();
		this.pending.length = 0;
		this.state = createStagingState(limits);
		for (const [name, copy] of this.staged) if (this.table.get(copy.ino)?.file !== name) this.staged.delete(name);
		this.files.forEach((file, ino) => {
			const left = this.table.get(ino);
			const open = file.native + file.ordinary;
			file.held = left !== undefined;
			if (left !== undefined)
				this.run({
					kind: "restore",
					ino,
					file: left.file,
					number: left.number,
					sizeBytes: file.size,
					handles: left.bound ? open : undefined,
				});
			if (left?.bound !== true) for (let i = 0; i < open; i++) this.run({ kind: "restore-ordinary", ino });
			assert.equal(left?.bound === true && open > 0, isBound(this.state, ino));
			assert.equal(file.native > 0, isBound(this.state, ino), "handles are not what a successor takes them for");
		});
		for (const { ino, write } of again) this.open(ino, write);
	}

	step(): void {
		const ino = this.random(this.files.length);
		const what = this.random(20);
		if (what < 6) this.open(ino, this.random(8) === 0);
		else if (what < 11) this.close(ino);
		else if (what < 12) this.unmap(ino);
		else if (what < 13) this.change(ino);
		else if (what < 18) this.perform();
		else if (what < 19) this.pass(this.random(60));
		else if (this.random(3) === 0) this.restart();
	}

	pass(ms: number): void {
		this.nowMs += ms;
		this.run({ kind: "tick" });
	}

	/** Everybody goes home: nothing is held for ever. */
	end(): void {
		for (let rounds = 0; ; rounds++) {
			assert.ok(rounds < 10_000, "it does not come to rest");
			for (let ino = 0; ino < this.files.length; ino++) {
				this.close(ino);
				this.unmap(ino);
			}
			if (this.pending.length > 0) this.perform();
			else if (nextTickMs(this.state) === undefined && this.files.every(({ native, ordinary }) => native + ordinary === 0)) break;
			else this.pass(Math.max(1, (nextTickMs(this.state) ?? this.nowMs) - this.nowMs));
		}
		assert.equal(this.unanswered.size, 0, "N5: every open is answered");
		assert.ok(this.files.every(({ held }) => !held) && this.table.size === 0 && this.numbers.size === 0);
	}
}

test("random histories: no open fails, nobody reads what is stale, everything is let go of in the end", () => {
	const base = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
	let [native, restarts] = [0, 0];
	for (let seed = base; seed < base + 60; seed++) {
		const world = new World(randomOf(seed));
		try {
			for (let i = 0; i < 1500; i++) world.step();
			world.end();
		} catch (error) {
			throw new Error(`seed ${seed}`, { cause: error });
		}
		native += world.nativeOpens;
		restarts += world.restarts;
	}
	assert.ok(native > 300 && restarts > 60, `${native} native opens, ${restarts} restarts`);
});

test("what has changed since it was staged goes, but for what changed while nobody could write", () => {
	const state = createStagingState(limits);
	let key = 0;
	const open = (change: number): readonly StagingEffect[] =>
		apply(state, { kind: "open", key: ++key, ino: 1, reading: true, eligible: true, sizeBytes: 20, change }, 0);
	const close = (native: boolean): readonly StagingEffect[] => apply(state, { kind: "close", ino: 1, native }, 0);
	const stage = (change: number): void => {
		open(change);
		open(change);
		apply(state, { kind: "copied", ino: 1, done: true }, 0);
		close(false);
		close(false);
	};
	stage(5);
	assert.deepEqual(open(6)[0], { kind: "remove", file: 1 });
	close(false);
	stage(6);
	assert.deepEqual(open(6), [{ kind: "attach", ino: 1, file: 2, change: 6 }]);
	apply(state, { kind: "attached", ino: 1, number: 3 }, 0);
	close(true);
	assert.deepEqual(apply(state, { kind: "tick" }, 50).at(-1), { kind: "look", ino: 1, file: 2, number: 3 });
	// Its mode was changed meanwhile.
	assert.deepEqual(apply(state, { kind: "looked", ino: 1, inUse: false, change: 9 }, 60), [{ kind: "release", ino: 1 }]);
	assert.deepEqual(open(9), [{ kind: "attach", ino: 1, file: 2, change: 9 }]);
});

test("a file is staged at its third open within the time, and evicted when another one needs the room", () => {
	const state = createStagingState({ ...limits, opens: 3 });
	let key = 0;
	const open = (ino: number, nowMs: number, sizeBytes = 60): readonly StagingEffect[] =>
		apply(state, { kind: "open", key: ++key, ino, reading: true, eligible: true, sizeBytes, change: 7 }, nowMs);
	const close = (ino: number): readonly StagingEffect[] => apply(state, { kind: "close", ino, native: false }, 0);
	assert.deepEqual(open(1, 0), [{ kind: "answer", key: 1, number: undefined }]);
	open(1, 1);
	assert.deepEqual(open(1, 2)[1], { kind: "copy", ino: 1, file: 1, sizeBytes: 60, change: 7 });
	apply(state, { kind: "copied", ino: 1, done: true }, 3);
	assert.equal(open(1, 4).length, 1, "ordinary handles are open");
	for (let i = 0; i < 4; i++) close(1);
	for (let i = 0; i < 3; i++) open(2, 10 + i);
	assert.deepEqual([figures(state).stagedFiles, figures(state).stagedBytes], [0, 60], "1 made room for 2");
	assert.equal(open(3, 20, 101).length, 1, "too large");
	for (let i = 0; i < 3; i++) assert.equal(open(4, 2000 * (i + 1), 20).length, 1, "too seldom");
});
