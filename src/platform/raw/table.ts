/**
 * The table of a raw disk: its files, and which units hold them. In memory; `journal.ts` makes it durable.
 *
 * Invariants
 *  T1 A unit is free, or belongs to one file, or was let go of by a change that is not durable yet.
 *  T2 Extents of a file are sorted, do not overlap, and neighbours that continue each other are one.
 *  T3 Every change is in `changes` until it was taken for the journal: replayed over the table that was durable before, they give this one.
 *  T4 The table as bytes fits its place: what would make it longer is refused (ENOSPC).
 */
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import { type ByteReader, ByteWriter } from "../../codec/binary.ts";
import { FreeUnits, type Run } from "./free-units.ts";

export interface Extent {
	/** In the file, counted in units. */
	readonly at: number;
	/** On the disk. */
	readonly unit: number;
	readonly count: number;
}

export interface RawFile {
	readonly name: string;
	sizeBytes: number;
	extents: Extent[];
	removed: boolean;
}

export type Change =
	| { readonly kind: "create" | "remove"; readonly name: string }
	| { readonly kind: "size"; readonly name: string; readonly sizeBytes: number }
	| ({ readonly kind: "map"; readonly name: string } & Extent)
	| { readonly kind: "unmap"; readonly name: string; readonly at: number; readonly count: number };

const kinds = ["create", "remove", "size", "map", "unmap"] as const;
const extentBytes = 12;
const fileBytes = 4 + 8 + 4;

export class RawTable {
	readonly files = new Map<string, RawFile>();
	readonly #free: FreeUnits;
	readonly #units: number;
	readonly #mostBytes: number;
	#bytes = 0;
	#changes: Change[] = [];
	/** Let go of by changes that are in #changes. */
	#released: Run[] = [];

	constructor(units: number, mostBytes: number) {
		this.#units = units;
		this.#mostBytes = mostBytes;
		this.#free = new FreeUnits(units);
	}

	get freeUnits(): number {
		return this.#free.count;
	}

	/** Free as soon as the changes so far are durable. */
	get releasedUnits(): number {
		return this.#released.reduce((sum, run) => sum + run.count, 0);
	}

	get changed(): boolean {
		return this.#changes.length > 0;
	}

	/** T3. The runs are free when the changes are durable: give them to `free` then. */
	takeChanges(): { readonly changes: readonly Change[]; readonly released: readonly Run[] } {
		const taken = { changes: this.#changes, released: this.#released };
		this.#changes = [];
		this.#released = [];
		return taken;
	}

	free(runs: readonly Run[]): void {
		for (const run of runs) this.#free.give(run);
	}

	create(name: string): RawFile {
		const bytes = fileBytes + name.length;
		this.#refuseFull(bytes);
		const file: RawFile = { name, sizeBytes: 0, extents: [], removed: false };
		this.files.set(name, file);
		this.#bytes += bytes;
		this.#changes.push({ kind: "create", name });
		return file;
	}

	remove(file: RawFile): void {
		assert(!file.removed, "a file is removed once");
		file.removed = true;
		this.files.delete(file.name);
		this.#bytes -= fileBytes + file.name.length + extentBytes * file.extents.length;
		this.#changes.push({ kind: "remove", name: file.name });
		for (const { unit, count } of file.extents) this.#released.push({ unit, count });
		file.extents = [];
	}

	setSize(file: RawFile, sizeBytes: number): void {
		if (file.sizeBytes === sizeBytes) return;
		file.sizeBytes = sizeBytes;
		// Only the last of many sizes counts.
		const last = this.#changes.at(-1);
		if (last?.kind === "size" && last.name === file.name) this.#changes.pop();
		this.#changes.push({ kind: "size", name: file.name, sizeBytes });
	}

	/** @throws FsError ENOSPC `platform.raw-table-full`: so many more units might not fit the table. */
	checkRoom(units: number): void {
		// At worst each unit lies by itself.
		this.#refuseFull(extentBytes * units);
	}

	/** Puts free units under [at, at + count) of the file, which has none there. There are that many, and room for them in the table. */
	map(file: RawFile, at: number, count: number): void {
		const before = file.extents.findLast((extent) => extent.at + extent.count <= at);
		const after = before === undefined ? undefined : before.unit + before.count;
		const runs = this.#free.take(count, after);
		assert(runs !== undefined, "there are that many free units");
		let from = at;
		for (const { unit, count: units } of runs) {
			const extent = { at: from, unit, count: units };
			this.#insert(file, extent);
			this.#changes.push({ kind: "map", name: file.name, ...extent });
			from += units;
		}
	}

	#insert(file: RawFile, extent: Extent): void {
		const { extents } = file;
		const i = extents.findLastIndex((one) => one.at < extent.at) + 1;
		const left = extents[i - 1];
		const right = extents[i];
		assert(!left || left.at + left.count <= extent.at, "T2: no units lie there yet");
		assert(!right || extent.at + extent.count <= right.at, "T2: no units lie there yet");
		const joinsLeft = left !== undefined && continues(left, extent);
		const joinsRight = right !== undefined && continues(extent, right);
		const whole = {
			at: joinsLeft ? left.at : extent.at,
			unit: joinsLeft ? left.unit : extent.unit,
			count: (joinsLeft ? left.count : 0) + extent.count + (joinsRight ? right.count : 0),
		};
		const gone = (joinsLeft ? 1 : 0) + (joinsRight ? 1 : 0);
		extents.splice(joinsLeft ? i - 1 : i, gone, whole);
		this.#bytes += extentBytes * (1 - gone);
	}

	/** Takes the units out from under [at, at + count). */
	unmap(file: RawFile, at: number, count: number): void {
		const end = at + count;
		if (!file.extents.some((one) => one.at < end && at < one.at + one.count)) return;
		this.#refuseFull(extentBytes);
		const kept: Extent[] = [];
		for (const one of file.extents) {
			const from = Math.max(one.at, at);
			const to = Math.min(one.at + one.count, end);
			if (from >= to) {
				kept.push(one);
				continue;
			}
			if (one.at < from) kept.push({ at: one.at, unit: one.unit, count: from - one.at });
			if (to < one.at + one.count) kept.push({ at: to, unit: one.unit + to - one.at, count: one.at + one.count - to });
			this.#released.push({ unit: one.unit + from - one.at, count: to - from });
		}
		this.#bytes += extentBytes * (kept.length - file.extents.length);
		file.extents = kept;
		this.#changes.push({ kind: "unmap", name: file.name, at, count });
	}

	#refuseFull(moreBytes: number): void {
		if (this.#bytes + moreBytes + extentBytes <= this.#mostBytes) return;
		throw new FsError("ENOSPC", "platform.raw-table-full", `the disk is too fragmented: its table of ${this.files.size} files is full`);
	}

	// ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

	encode(): Uint8Array {
		const out = new ByteWriter(this.#bytes + 64);
		out.u32(this.files.size);
		for (const { name, sizeBytes, extents } of this.files.values()) {
			out.text(name).u64(sizeBytes).u32(extents.length);
			for (const { at, unit, count } of extents) out.u32(at).u32(unit).u32(count);
		}
		return out.finish();
	}

	/** Into an empty table. @throws FsError CORRUPT. */
	load(input: ByteReader): void {
		for (let left = input.u32(); left > 0; left--) {
			const name = input.text();
			const sizeBytes = input.u64();
			this.#replay({ kind: "create", name }, input);
			for (let extents = input.u32(); extents > 0; extents--) {
				this.#replay({ kind: "map", name, at: input.u32(), unit: input.u32(), count: input.u32() }, input);
			}
			this.#replay({ kind: "size", name, sizeBytes }, input);
		}
	}

	/** @throws FsError CORRUPT. */
	replay(changes: readonly Change[], input: ByteReader): void {
		for (const change of changes) this.#replay(change, input);
	}

	/** What was durable is free at once. */
	#replay(change: Change, input: ByteReader): void {
		const file = this.files.get(change.name);
		if (change.kind === "create") {
			if (file) throw input.corrupt(`file ${change.name} is made twice`);
			this.create(change.name);
		} else if (!file) throw input.corrupt(`no file ${change.name}`);
		else if (change.kind === "remove") this.remove(file);
		else if (change.kind === "size") this.setSize(file, change.sizeBytes);
		else if (change.kind === "unmap") this.unmap(file, change.at, change.count);
		else if (change.kind === "map") {
			const overlaps = file.extents.some((one) => one.at < change.at + change.count && change.at < one.at + one.count);
			const inside = change.count > 0 && change.unit + change.count <= this.#units;
			if (overlaps || !inside || !this.#free.takeAt(change.unit, change.count))
				throw input.corrupt(`units of ${change.name} are taken twice`);
			this.#insert(file, { at: change.at, unit: change.unit, count: change.count });
		}
		this.free(this.takeChanges().released);
	}
}

function continues(a: Extent, b: Extent): boolean {
	return a.at + a.count === b.at && a.unit + a.count === b.unit;
}

export function encodeChanges(changes: readonly Change[]): Uint8Array {
	const out = new ByteWriter(64 * changes.length + 16);
	out.u32(changes.length);
	for (const change of changes) {
		out.u8(kinds.indexOf(change.kind)).text(change.name);
		if (change.kind === "size") out.u64(change.sizeBytes);
		else if (change.kind === "map") out.u32(change.at).u32(change.unit).u32(change.count);
		else if (change.kind === "unmap") out.u32(change.at).u32(change.count);
	}
	return out.finish();
}

/** @throws FsError CORRUPT. */
export function decodeChanges(input: ByteReader): Change[] {
	const changes: Change[] = [];
	for (let left = input.u32(); left > 0; left--) {
		const kind = kinds[input.u8()];
		const name = input.text();
		if (kind === "create" || kind === "remove") changes.push({ kind, name });
		else if (kind === "size") changes.push({ kind, name, sizeBytes: input.u64() });
		else if (kind === "map") changes.push({ kind, name, at: input.u32(), unit: input.u32(), count: input.u32() });
		else if (kind === "unmap") changes.push({ kind, name, at: input.u32(), count: input.u32() });
		else throw input.corrupt("an unknown change");
	}
	return changes;
}
