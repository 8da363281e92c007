/**
 * Written, acknowledged, not yet sealed: the dirty store (`DirtyStore`). Bytes lie in the ring (ring.ts); what of them counts, and for
 * which range of which file, is held here in two layers per inode.
 *
 * Invariants
 *  D1 At most one capture of an inode is out at any time.
 *  D2 Ring entries are in order of their write number; the tail moves over entries whose bytes no layer refers to.
 *  D3 Replay takes an entry only if its number is > the inode's sealedThrough.
 *  D4 An entry is valid only when its checksum, volume and incarnation match; the first that is not ends the replay.
 *  D5 Every byte written and not sealed, truncated or overwritten since is in exactly one piece of one layer; reads see active over
 *     sealing.
 *  D6 Whatever makes the bytes of an entry superfluous outside this store (a seal, a truncation, a removal) is committed, and has raised
 *     the inode's sealedThrough, before the store is told: afterwards their place may be written over.
 *  D7 Beside a capture, pending records are made only when they hold all that it holds: a record raises sealedThrough over everything written before it.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Timestamp } from "../base/time.ts";
import type { Clock, Memory, SimulationHooks } from "../platform/interface.ts";
import type { Ino, Pending } from "../records/interface.ts";
import type { Captured, DirtyAttributes, DirtyPiece, DirtyRun, DirtyStore } from "./interface.ts";
import { dirtyLimits } from "./limits.ts";
import { PieceMap } from "./piece-map.ts";
import type { Piece, PieceHooks } from "./piece-map.ts";
import { firstNumber, Ring } from "./ring.ts";
import type { FoundEntry, RingEntry, RingOptions } from "./ring.ts";

export type DirtyOptions = RingOptions;

export interface DirtyModules {
	readonly memory: Memory;
	readonly clock: Pick<Clock, "monotonicMs">;
	readonly simulation?: SimulationHooks;
}

/**
 * Takes over what an earlier incarnation left in `memory`: from then on the ring names this incarnation, and still holds everything. Then
 * `recover`, then writes.
 */
export function createDirtyStore(options: DirtyOptions, modules: DirtyModules): RingDirtyStore {
	return new RingDirtyStore(options, modules);
}

interface Totals {
	bytes: number;
	pieces: number;
}

/** A class: there are as many as files that somebody writes, and closures for each would cost more than what they tell. */
class Layer implements PieceHooks {
	readonly map: PieceMap;
	/** Pieces that no pending record holds. */
	readonly unlogged = new Set<Piece>();
	/** Of the oldest write in it. */
	sinceMs: number;
	/** Of the newest write in it; undefined when a time was set explicitly since. */
	mtime: Timestamp | undefined;
	readonly #totals: Totals;
	readonly #ring: Ring;

	constructor(totals: Totals, ring: Ring, sinceMs: number) {
		this.#totals = totals;
		this.#ring = ring;
		this.sinceMs = sinceMs;
		this.map = new PieceMap(this);
	}

	added(piece: Piece): void {
		this.#totals.pieces++;
		if (piece.entry !== undefined) piece.entry.references++;
		if (!piece.logged) this.unlogged.add(piece);
	}

	removed(piece: Piece): void {
		this.#totals.pieces--;
		this.unlogged.delete(piece);
		if (piece.entry !== undefined) this.#ring.release(piece.entry);
	}

	grown(bytes: number): void {
		this.#totals.bytes += bytes;
	}
}

interface State {
	readonly ino: Ino;
	active: Layer | undefined;
	sealing: Layer | undefined;
	captured: Captured | undefined;
	/** Ids of pending records in metadata. */
	pendings: readonly number[];
	newest: RingEntry | undefined;
}

export class RingDirtyStore implements DirtyStore {
	readonly #ring: Ring;
	readonly #memory: Memory;
	readonly #clock: Pick<Clock, "monotonicMs">;
	readonly #simulation: SimulationHooks | undefined;
	readonly #states = new Map<Ino, State>();
	readonly #lastNumber: number;
	#lastWrite: number;
	readonly #totals: Totals = { bytes: 0, pieces: 0 };
	#ready: boolean;

	constructor(options: DirtyOptions, modules: DirtyModules) {
		this.#memory = modules.memory;
		this.#clock = modules.clock;
		this.#simulation = modules.simulation;
		this.#ring = new Ring(options, modules.memory);
		this.#lastWrite = Math.max(this.#ring.lastNumber, firstNumber(options.incarnation));
		this.#lastNumber = firstNumber(options.incarnation + 1) - 1;
		this.#ready = this.#ring.found.length === 0;
	}

	get lastWrite(): number {
		return this.#lastWrite;
	}

	get bytes(): number {
		return this.#totals.bytes;
	}

	// ── writes ───────────────────────────────────────────────────────────────────────────────────────────────────

	hasRoom(lengthBytes: number): boolean {
		// A write in the middle of a piece makes two more of it.
		return this.#totals.pieces + 2 <= dirtyLimits.pieces && this.#states.size < dirtyLimits.inodes && this.#ring.hasRoom(lengthBytes);
	}

	room(): Promise<void> {
		return this.#ring.moved();
	}

	write(ino: Ino, offset: number, bytes: Uint8Array, now: Timestamp): void {
		assert(this.#ready, "what an earlier incarnation left is recovered before the first write");
		if (bytes.length === 0) return;
		assert(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + bytes.length), `a write at ${offset}`);
		if (this.#lastWrite === this.#lastNumber) {
			throw new FsError("EIO", "storage.write-numbers", "this mount has used up its write numbers: unmount the volume and mount it again");
		}
		const entry = this.#ring.append(this.#lastWrite + 1, ino, offset, bytes, now);
		this.#lastWrite++;
		this.#take(this.#state(ino), entry, offset, now);
		this.#ring.release(entry);
	}

	/** The entry's bytes become part of the active layer. */
	#take(state: State, entry: RingEntry, offset: number, time: Timestamp): void {
		const layer = this.#active(state);
		const { number, lengthBytes } = entry;
		const at = this.#ring.dataAt(entry);
		layer.map.put({ offset, end: offset + lengthBytes, source: this.#ring.data, at, entry, number, logged: false });
		layer.mtime = time;
		state.newest = entry;
	}

	#state(ino: Ino): State {
		let state = this.#states.get(ino);
		if (state === undefined) {
			state = { ino, active: undefined, sealing: undefined, captured: undefined, pendings: [], newest: undefined };
			this.#states.set(ino, state);
		}
		return state;
	}

	#active(state: State): Layer {
		state.active ??= this.#layer();
		return state.active;
	}

	#layer(): Layer {
		return new Layer(this.#totals, this.#ring, this.#clock.monotonicMs());
	}

	/** Nothing left to know about it: forgotten. */
	#tidy(state: State): void {
		if (state.active?.map.empty) state.active = undefined;
		if (state.active === undefined && state.captured === undefined && state.pendings.length === 0) this.#states.delete(state.ino);
		this.#ring.wake();
	}

	// ── reads ────────────────────────────────────────────────────────────────────────────────────────────────────

	attributes(ino: Ino): DirtyAttributes | undefined {
		const state = this.#states.get(ino);
		if (state === undefined) return undefined;
		const { active, sealing } = state;
		return {
			end: Math.max(active?.map.end ?? 0, sealing?.map.end ?? 0),
			mtime: active?.mtime ?? sealing?.mtime,
			bytes: (active?.map.bytes ?? 0) + (sealing?.map.bytes ?? 0),
			newest: state.newest?.number ?? 0,
		};
	}

	overlay(ino: Ino, offset: number, length: number): DirtyPiece[] {
		const state = this.#states.get(ino);
		if (state === undefined || length === 0) return [];
		const end = offset + length;
		const upper = state.active?.map.within(offset, end) ?? [];
		if (state.sealing === undefined) return upper.map((piece) => view(piece, offset, end));
		const parts: DirtyPiece[] = [];
		let position = offset;
		for (const piece of upper) {
			pushWithin(parts, state.sealing.map, position, Math.max(position, piece.offset));
			parts.push(view(piece, offset, end));
			position = piece.end;
		}
		pushWithin(parts, state.sealing.map, position, Math.max(position, end));
		return parts;
	}

	has(ino: Ino): boolean {
		return this.#states.has(ino);
	}

	dirtyInodes(): { readonly ino: Ino; readonly sinceMs: number; readonly bytes: number }[] {
		const list: { ino: Ino; sinceMs: number; bytes: number }[] = [];
		for (const { ino, active, sealing } of this.#states.values()) {
			const sinceMs = sealing?.sinceMs ?? active?.sinceMs ?? 0;
			list.push({ ino, sinceMs, bytes: (active?.map.bytes ?? 0) + (sealing?.map.bytes ?? 0) });
		}
		return list.sort((a, b) => a.sinceMs - b.sinceMs);
	}

	stalledBy(): Ino | undefined {
		return this.#ring.oldest?.ino;
	}

	// ── seals ────────────────────────────────────────────────────────────────────────────────────────────────────

	capture(ino: Ino): Captured | undefined {
		const state = this.#states.get(ino);
		if (state === undefined) return undefined;
		assert(state.captured === undefined, `D1: inode ${ino} is being sealed already`);
		const layer = this.#active(state);
		state.sealing = layer;
		state.active = undefined;
		const attributes: DirtyAttributes = {
			end: layer.map.end,
			bytes: layer.map.bytes,
			newest: state.newest?.number ?? 0,
			// Asked when the seal commits: a time that was set meanwhile stays.
			get mtime() {
				return layer.mtime;
			},
		};
		// Everything written to the inode so far is in here or was overwritten: the newest number of all covers it.
		const through = this.#lastWrite;
		const pieces = merged(layer.map.all());
		const isLogged = layer.unlogged.size === 0;
		state.captured = { ino, pieces, bytes: layer.map.bytes, attributes, through, pendings: state.pendings, isLogged };
		return state.captured;
	}

	committed(captured: Captured): void {
		const { state, sealing } = this.#sealed(captured);
		sealing.map.clear();
		const gone = new Set(captured.pendings);
		state.pendings = state.pendings.filter((id) => !gone.has(id));
		this.#tidy(state);
	}

	restored(captured: Captured): void {
		const { state, sealing } = this.#sealed(captured);
		const above = state.active;
		state.active = sealing;
		if (above !== undefined) {
			const isTurned = this.#simulation?.planted("failed-seal-on-top") === true;
			const [lower, upper] = isTurned ? [above, sealing] : [sealing, above];
			for (const piece of upper.map.all()) lower.map.put({ ...piece });
			lower.mtime = above.mtime ?? sealing.mtime;
			upper.map.clear();
			state.active = lower;
		}
		this.#tidy(state);
	}

	/** Ends the capture. */
	#sealed(captured: Captured): { state: State; sealing: Layer } {
		const state = this.#states.get(captured.ino);
		assert(
			state !== undefined && state.captured === captured && state.sealing !== undefined,
			`D1: no such capture of inode ${captured.ino}`,
		);
		const { sealing } = state;
		state.captured = undefined;
		state.sealing = undefined;
		return { state, sealing };
	}

	// ── truncation, removal, times ───────────────────────────────────────────────────────────────────────────────

	truncate(ino: Ino, size: number): void {
		const state = this.#quiet(ino, "truncated");
		if (state === undefined) return;
		state.pendings = [];
		const { active } = state;
		if (active !== undefined) {
			active.map.cut(size, Number.MAX_SAFE_INTEGER);
			for (const piece of active.map.all()) {
				piece.logged = false;
				active.unlogged.add(piece);
			}
		}
		this.#tidy(state);
	}

	drop(ino: Ino): void {
		const state = this.#quiet(ino, "dropped");
		if (state === undefined) return;
		state.pendings = [];
		state.active?.map.clear();
		this.#tidy(state);
	}

	/** The state of an inode of which no capture is out. */
	#quiet(ino: Ino, what: string): State | undefined {
		const state = this.#states.get(ino);
		assert(state?.captured === undefined, `D1: inode ${ino} is ${what} while it is being sealed`);
		return state;
	}

	clearTime(ino: Ino): void {
		const state = this.#states.get(ino);
		if (state === undefined) return;
		if (state.active !== undefined) state.active.mtime = undefined;
		if (state.sealing !== undefined && !this.#simulation?.planted("set-time-lost")) state.sealing.mtime = undefined;
		if (state.newest !== undefined) this.#ring.markTimeSet(state.newest);
	}

	// ── pending records ──────────────────────────────────────────────────────────────────────────────────────────

	unlogged(ino: Ino): { readonly pieces: readonly DirtyPiece[]; readonly bytes: number; readonly through: number } | undefined {
		const active = this.#loggable(ino)?.active;
		if (active === undefined || active.unlogged.size === 0) return undefined;
		const found = [...active.unlogged].sort((a, b) => a.offset - b.offset);
		const bytes = found.reduce((sum, piece) => sum + piece.end - piece.offset, 0);
		const pieces = merged(found);
		// Little is copied, so that a write that comes before the transaction cannot pull the bytes away.
		const stable =
			bytes > dirtyLimits.loggedCopyBytes ? pieces : pieces.map((piece) => ({ offset: piece.offset, bytes: piece.bytes.slice() }));
		return { pieces: stable, bytes, through: this.#lastWrite };
	}

	logged(ino: Ino, pendingIds: readonly number[], through: number): void {
		if (pendingIds.length === 0) return;
		const state = this.#loggable(ino);
		assert(state !== undefined, `inode ${ino} has pending records and nothing dirty`);
		state.pendings = [...state.pendings, ...pendingIds];
		for (const piece of state.active?.unlogged ?? []) {
			if (piece.number > through) continue;
			piece.logged = true;
			state.active?.unlogged.delete(piece);
		}
	}

	/** D7. */
	#loggable(ino: Ino): State | undefined {
		const state = this.#states.get(ino);
		assert(state?.captured === undefined || state.captured.isLogged, `D7: inode ${ino} is logged beside a seal of what is not`);
		return state;
	}

	pendings(ino: Ino): readonly number[] {
		return this.#states.get(ino)?.pendings ?? [];
	}

	// ── after a crash ────────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * Before `recover`: inodes of which the ring holds writes of earlier incarnations. Whoever recovers wants to know how far these are
	 * sealed.
	 */
	ringInodes(): Ino[] {
		return [...new Set(this.#ring.found.map((found) => found.entry.ino))];
	}

	recover(
		pendings: readonly Pending[],
		isNewer: (ino: Ino, writeNumber: number) => boolean,
	): { readonly replayed: number; readonly skipped: number } {
		assert(this.#states.size === 0, "recovery comes first");
		for (const pending of [...pendings].sort((a, b) => a.id - b.id)) this.#recoverPending(pending);
		let replayed = 0;
		const { found: entries } = this.#ring;
		for (const found of entries) {
			if (!isNewer(found.entry.ino, found.entry.number)) continue;
			this.#recoverEntry(found);
			replayed++;
		}
		this.#ready = true;
		this.#ring.settle();
		return { replayed, skipped: entries.length - replayed };
	}

	#recoverPending(pending: Pending): void {
		const { ino, id, pieces } = pending;
		const state = this.#state(ino);
		state.pendings = [...state.pendings, id];
		for (const { offset, bytes } of pieces)
			this.#active(state).map.put({ offset, end: offset + bytes.length, source: bytes, at: 0, entry: undefined, number: 0, logged: true });
	}

	#recoverEntry(found: FoundEntry): void {
		const state = this.#state(found.entry.ino);
		// Held while it is taken in, so that covering older entries does not move the tail over it.
		found.entry.references++;
		this.#take(state, found.entry, found.offset, found.time);
		found.entry.references--;
		if (found.timeSet) this.#active(state).mtime = undefined;
	}

	async close(): Promise<void> {
		await this.#memory.close();
	}
}

// ── pieces for others ────────────────────────────────────────────────────────────────────────────────────────────

function view(piece: Piece, from: number, to: number): DirtyPiece {
	const offset = Math.max(from, piece.offset);
	const end = Math.min(to, piece.end);
	const at = piece.at + offset - piece.offset;
	return { offset, bytes: piece.source.subarray(at, at + end - offset) };
}

function pushWithin(parts: DirtyPiece[], map: PieceMap, from: number, to: number): void {
	if (from < to) for (const piece of map.within(from, to)) parts.push(view(piece, from, to));
}

/** Adjoining pieces as one, up to `dirtyLimits.mergedBytes`; larger pieces stay as they are. */
function merged(pieces: readonly Piece[]): DirtyPiece[] {
	const runs: DirtyPiece[] = [];
	const last: LastJoined = { run: undefined, bytes: undefined };
	for (let first = 0; first < pieces.length; ) {
		const start = pieces[first] as Piece;
		let behind = first + 1;
		for (; behind < pieces.length; behind++) {
			const next = pieces[behind] as Piece;
			if (next.offset !== (pieces[behind - 1] as Piece).end || next.end - start.offset > dirtyLimits.mergedBytes) break;
		}
		runs.push(behind === first + 1 ? view(start, start.offset, start.end) : new Run(pieces.slice(first, behind), last));
		first = behind;
	}
	return runs;
}

/** The run that was joined last: users look at the bytes of one piece several times, then go on to the next. */
interface LastJoined {
	run: Run | undefined;
	bytes: Uint8Array | undefined;
}

/**
 * Several pieces one behind the other, put together when somebody looks: a capture may be as large as the ring, copies of all of it would
 * not fit.
 */
class Run implements DirtyPiece, DirtyRun {
	readonly offset: number;
	readonly lengthBytes: number;
	readonly #pieces: readonly Piece[];
	readonly #last: LastJoined;

	constructor(pieces: readonly Piece[], last: LastJoined) {
		this.offset = (pieces[0] as Piece).offset;
		this.lengthBytes = (pieces[pieces.length - 1] as Piece).end - this.offset;
		this.#pieces = pieces;
		this.#last = last;
	}

	get run(): DirtyRun {
		return this;
	}

	get bytes(): Uint8Array {
		if (this.#last.run !== this || this.#last.bytes === undefined) {
			this.#last.bytes = this.#join();
			this.#last.run = this;
		}
		return this.#last.bytes;
	}

	#join(): Uint8Array {
		const bytes = new Uint8Array(this.lengthBytes);
		this.copy(0, bytes);
		return bytes;
	}

	copy(from: number, into: Uint8Array): void {
		const [start, end] = [this.offset + from, this.offset + from + into.length];
		assert(from >= 0 && end <= this.offset + this.lengthBytes, "a part of the run is copied");
		for (const piece of this.#pieces) {
			if (piece.end <= start) continue;
			if (piece.offset >= end) break;
			const { offset, bytes } = view(piece, start, end);
			into.set(bytes, offset - start);
		}
	}
}
