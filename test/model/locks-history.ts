/** Random histories of locks, played to the lock core and to the oracle side by side. */
import assert from "node:assert/strict";
import { apply, createLockState, holdsOf, type LockState } from "../../src/locks/core.ts";
import type { Effect, Hold, Owner, Request } from "../../src/locks/interface.ts";
import { lockLimits } from "../../src/locks/limits.ts";
import { familyOf, isExclusive, type LockClass, type LockFamily } from "../../src/locks/matrix.ts";
import { next, overlaps, type Position, position, previous, type Range, sameRange, toEnd } from "../../src/locks/range.ts";
import { Prng } from "../../src/platform/sim/prng.ts";
import { LockOracle } from "./locks-oracle.ts";

/** Where the single bytes of a history begin: at both ends of u64, and where numbers stop being exact. */
const bases: readonly Position[] = [0, 1, 2 ** 32 - 5, 2 ** 53 - 6, 2n ** 63n - 6n, 2n ** 64n - 11n];
const cells = 12;
const firstIno = 7;

const owners: readonly Owner[] = (["fuse", "fuse", "fuse", "nfs", "nfs", "smb", "smb"] as const).map((door, at) => ({
	id: `${door}:${at}`,
	client: `${door}-client-${at % 2}`,
	door,
	pid: at,
}));

type PlainHold = { readonly class: LockClass; readonly owner: { readonly id: string }; readonly range: Range };

/** In any order, each as often. */
function sameHolds(some: readonly PlainHold[], others: readonly PlainHold[]): boolean {
	const left = [...others];
	const isSame = (a: PlainHold, b: PlainHold): boolean => a.class === b.class && a.owner.id === b.owner.id && sameRange(a.range, b.range);
	for (const one of some) {
		const at = left.findIndex((other) => isSame(one, other));
		if (at === -1) return false;
		left.splice(at, 1);
	}
	return left.length === 0;
}

export class LockHistory {
	readonly #state: LockState = createLockState(lockLimits);
	/** What a successor would know: only what "set" and "clear" told it. */
	readonly #mirror: LockState = createLockState(lockLimits);
	/** One for each file. */
	readonly #oracles: readonly LockOracle[];
	/** The file of this step. */
	#ino = firstIno;
	readonly #random: Prng;
	/** The first byte of each cell; the last cell goes on to the end. */
	readonly #starts: Position[] = [];
	/** Each cell by itself. */
	readonly #cells: readonly Range[];
	readonly #what: string;
	/** How often each answer was given, "granted" split by whether it was waited for. */
	readonly tally = new Map<string, number>();
	readonly #waited = new Set<string>();
	#nextKey = 1;
	#nowMs = 0;
	#log: string[] = [];

	/** Several files have the same owners: who waits in one may be waited for in another. */
	constructor(seed: number, files = 1) {
		this.#random = new Prng(seed, "locks");
		this.#oracles = Array.from({ length: files }, () => new LockOracle(cells));
		for (const oracle of this.#oracles) oracle.files = this.#oracles;
		this.#what = `seed ${seed}`;
		let at = this.#random.pick(bases);
		for (let i = 0; i < cells; i++) {
			this.#starts.push(i === 0 ? 0 : at);
			at = i === 0 && at === 0 ? 1 : i === 0 ? at : next(at);
		}
		this.#cells = this.#starts.map((_, i) => this.#range(i, i));
	}

	get #oracle(): LockOracle {
		return this.#oracles[this.#ino - firstIno] as LockOracle;
	}

	play(steps: number): void {
		try {
			for (let step = 0; step < steps; step++) this.#step();
		} catch (error) {
			throw new Error(`${this.#what}, after\n${this.#log.slice(-40).join("\n")}`, { cause: error });
		}
	}

	#range(first: number, last: number): Range {
		const end = last === cells - 1 ? toEnd : previous(this.#starts[last + 1] as Position);
		return { start: position(this.#starts[first] as Position), end };
	}

	#step(): void {
		this.#nowMs += this.#random.below(50);
		if (this.#oracles.length > 1) this.#ino = firstIno + this.#random.below(this.#oracles.length);
		const owner = this.#random.pick(owners);
		const family = this.#familyFor(owner);
		const [first, last] = this.#cellsFor(family);
		const dice = this.#random.below(100);
		this.#oracle.events = [];
		let effects: readonly Effect[];
		if (dice < 58) effects = this.#request(owner, family, first, last);
		else if (dice < 82) {
			this.#log.push(`unlock ${this.#ino} ${owner.id} ${family} ${first}-${last}`);
			this.#oracle.unlock(owner.id, { family, exclusive: false, first, last });
			effects = apply(this.#state, { kind: "unlock", ino: this.#ino, owner, family, range: this.#range(first, last) }, this.#nowMs);
		} else if (dice < 92) {
			const key = this.#random.pick([...this.#oracle.queue.map((r) => r.key), "none"]);
			this.#log.push(`cancel ${key}`);
			this.#oracle.cancel(key);
			effects = apply(this.#state, { kind: "cancel", key }, this.#nowMs);
		} else effects = this.#dropOwner(owner, family);
		this.#compare(effects);
	}

	#familyFor(owner: Owner): LockFamily {
		if (owner.door !== "fuse") return owner.door === "nfs" ? "nfs" : "smb";
		return this.#random.below(4) === 0 ? "flock" : "fcntl";
	}

	#cellsFor(family: LockFamily): readonly [number, number] {
		if (family === "flock" || this.#random.below(6) === 0) return [0, cells - 1];
		const a = this.#random.below(cells);
		const b = Math.min(cells - 1, a + this.#random.below(4));
		return [a, b];
	}

	#request(owner: Owner, family: LockFamily, first: number, last: number): readonly Effect[] {
		const exclusive = this.#random.below(2) === 0;
		const patient = this.#random.below(2) === 0;
		const victim = family === "fcntl" || family === "nfs";
		const key = `k${this.#nextKey++}`;
		this.#log.push(`${key} ${this.#ino} ${owner.id} ${family} ${exclusive ? "X" : "S"} ${first}-${last}${patient ? " waits" : ""}`);
		this.#oracle.request({ key, owner: owner.id, family, exclusive, first, last, patient, victim, arrival: this.#nextKey });
		const lock: LockClass = `${family}-${exclusive ? "exclusive" : "shared"}`;
		const range = this.#range(first, last);
		const want = { kind: "range", class: lock, range, handle: undefined } as const;
		const request: Request = { kind: "request", ino: this.#ino, key, owner, want, patient, victim, deadlineMs: undefined };
		return apply(this.#state, request, this.#nowMs);
	}

	#dropOwner(owner: Owner, family: LockFamily): readonly Effect[] {
		this.#log.push(`drop ${this.#ino} ${owner.id}`);
		// The oracle drops all families of the owner at once; the core settles after each, so the one that holds nothing goes first.
		const order: LockFamily[] = family === "flock" ? ["fcntl", "flock"] : owner.door === "fuse" ? ["fcntl", "flock"] : [family];
		const has = (one: LockFamily): boolean =>
			holdsOf(this.#state, this.#ino).some((h) => h.owner.id === owner.id && familyOf(h.class) === one);
		const filled = order.filter(has);
		if (filled.length > 1) return [];
		this.#oracle.dropOwner(owner.id);
		return apply(this.#state, { kind: "drop-owner", ino: this.#ino, owner: owner.id, family: filled[0] ?? family }, this.#nowMs);
	}

	#compare(effects: readonly Effect[]): void {
		const events: string[] = [];
		for (const effect of effects) {
			if (effect.kind === "granted" || effect.kind === "waiting") events.push(`${effect.kind} ${effect.key}`);
			else if (effect.kind === "refused") events.push(`refused ${effect.key} ${effect.code}`);
			else this.#mirrorEffect(effect);
		}
		if (events.join("\n") !== this.#oracle.events.join("\n")) assert.deepEqual(events, this.#oracle.events);
		for (const event of events) this.#count(event);
		for (const [at, oracle] of this.#oracles.entries()) {
			this.#compareCells(firstIno + at, oracle);
			this.#checkOrder(firstIno + at, oracle);
			assert.ok(sameHolds(holdsOf(this.#mirror, firstIno + at), holdsOf(this.#state, firstIno + at)), "effects tell all that has changed");
		}
		this.#checkCounts();
	}

	#count(event: string): void {
		const [kind, key, code] = event.split(" ") as [string, string, string | undefined];
		if (kind === "waiting") this.#waited.add(key);
		const name = kind === "granted" && this.#waited.has(key) ? "granted at last" : (code ?? kind);
		this.tally.set(name, (this.tally.get(name) ?? 0) + 1);
	}

	#mirrorEffect(effect: Effect): void {
		if (effect.kind === "set") {
			const { sinceMs, ...hold } = effect.hold;
			apply(this.#mirror, { kind: "restore", ino: effect.ino, hold, sinceMs }, 0);
		} else if (effect.kind === "clear") {
			const owner = owners.find(({ id }) => id === effect.owner) as Owner;
			apply(this.#mirror, { kind: "unlock", ino: effect.ino, owner, family: effect.family, range: effect.range }, 0);
		}
	}

	#compareCells(ino: number, oracle: LockOracle): void {
		const byFamily = (families: readonly LockFamily[]): readonly Hold[] =>
			holdsOf(this.#state, ino).filter((hold) => families.includes(familyOf(hold.class)));
		const ranges = byFamily(["fcntl", "nfs"]);
		for (const [i, byte] of this.#cells.entries()) {
			const wanted = oracle.bytes[i] as ReadonlyMap<string, boolean>;
			let found = 0;
			for (const { owner, class: held, range } of ranges) {
				if (range.start > byte.end || byte.start > range.end) continue;
				found++;
				assert.equal(wanted.get(owner.id), isExclusive(held), `cell ${i}, ${owner.id}`);
			}
			// As many as there are, none of an owner twice (L2): all of them are there.
			assert.equal(found, wanted.size, `locks of cell ${i}`);
			if (found > 1) assert.equal(new Set(ranges.filter((h) => overlaps(h.range, byte)).map((h) => h.owner.id)).size, found, "L2");
		}
		const flocks = byFamily(["flock"]);
		for (const { owner, class: held } of flocks) assert.equal(oracle.flocks.get(owner.id), isExclusive(held), owner.id);
		assert.equal(flocks.length, oracle.flocks.size, "flocks");
		const smb = byFamily(["smb"]);
		const wanted = oracle.smb.map(({ owner, exclusive, first, last }) => {
			const id = owner;
			const range = this.#range(first, last);
			return { class: `smb-${exclusive ? "exclusive" : "shared"}`, owner: { id }, range } as const;
		});
		assert.ok(sameHolds(smb, wanted), "locks of SMB");
	}

	/** L2 and L4 of the table itself. */
	#checkOrder(ino: number, oracle: LockOracle): void {
		const holds = holdsOf(this.#state, ino);
		for (const a of holds) {
			for (const b of holds) {
				if (a === b || a.owner.id !== b.owner.id || familyOf(a.class) === "smb" || a.class !== b.class) continue;
				const apart = a.range.end === toEnd ? false : next(a.range.end) < b.range.start;
				const before = b.range.end === toEnd ? false : next(b.range.end) < a.range.start;
				assert.ok(apart || before, "L2: locks of one kind touch");
				assert.ok(!sameRange(a.range, b.range));
			}
		}
		const queue = this.#state.resources.get(ino)?.queue ?? [];
		assert.equal(queue.length, oracle.queue.length, "L5");
		for (const [at, { request }] of queue.entries()) assert.equal(request.key, oracle.queue[at]?.key, "L5");
		assert.equal(this.#state.resources.has(ino), holds.length > 0 || queue.length > 0, "L3");
	}

	/** L4. */
	#checkCounts(): void {
		const held = this.#oracles.reduce((sum, _, at) => sum + holdsOf(this.#state, firstIno + at).length, 0);
		assert.equal(this.#state.total, held, "L4");
		let counted = 0;
		for (const count of this.#state.byClient.values()) counted += count;
		assert.equal(counted, held, "L4");
		assert.equal(
			this.#state.waiters.size,
			this.#oracles.reduce((sum, { queue }) => sum + queue.length, 0),
			"L4",
		);
	}
}
