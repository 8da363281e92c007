/**
 * What changes a file's map without bytes to write: fallocate, copies that share chunks; and where its data lies.
 *
 * Each begins by sealing what is dirty (invariant V7 of data.ts), so that the map alone says what the file is; writers of the file wait meanwhile.
 */
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import type { Ino, Inode, IntentKind, RecordTransaction } from "../../records/interface.ts";
import { inodeRecord } from "../../records/kinds.ts";
import { coverage, map as mapExtents, seek as seekExtents, share as shareExtents } from "../../storage/extents.ts";
import type { Coverage, Redundancy } from "../../storage/interface.ts";
import { parseRedundancy, tolerance } from "../../storage/redundancy.ts";
import type { AllocateMode } from "../interface.ts";
import type { Core } from "./core.ts";
import { type FileData, requireInode, startMapWork } from "./data.ts";
import { limits } from "./limits.ts";

/** Makes sure of space for bytes that are to be reserved, or throws ENOSPC; the claim ends when the function it answers is called. */
export type ClaimSpace = (bytes: number) => Promise<() => void>;

const intentKindOf: Readonly<Record<AllocateMode, Exclude<IntentKind, "truncate">>> = {
	allocate: "reserve",
	"allocate-keep-size": "reserve",
	punch: "punch",
	zero: "zero",
	"zero-keep-size": "zero",
};

export class FileRanges {
	readonly #core: Core;
	readonly #data: FileData;
	readonly #claim: ClaimSpace;

	constructor(core: Core, data: FileData, claim: ClaimSpace) {
		this.#core = core;
		this.#data = data;
		this.#claim = claim;
	}

	// ── fallocate ────────────────────────────────────────────────────────────────────────────────────────────────

	allocate(ino: Ino, mode: AllocateMode, offset: number, lengthBytes: number): Promise<void> {
		return this.#data.exclusive(ino, async () => {
			await this.#data.sealLocked(ino);
			const kind = intentKindOf[mode];
			if (kind === "punch") await this.#change(ino, kind, offset, offset + lengthBytes, false);
			else {
				await this.#data.outOfLine(ino);
				await this.#reserve(ino, kind, offset, offset + lengthBytes, mode === "allocate" || mode === "zero");
			}
		});
	}

	async #reserve(ino: Ino, kind: "reserve" | "zero", from: number, to: number, grows: boolean): Promise<void> {
		const there = await this.cover(ino, from, to - from);
		const kept = there.reservedBytes + (kind === "reserve" ? there.dataBytes : 0);
		const letGo = await this.#claim(to - from - kept);
		try {
			await this.#change(ino, kind, from, to, grows);
		} finally {
			letGo();
		}
	}

	async #change(ino: Ino, kind: IntentKind, from: number, to: number, grows: boolean): Promise<void> {
		const { result } = await this.#core.transact((tx, context, effects) => {
			const inode = requireInode(tx, ino);
			// What a growth uncovers are zeros at any moment of the work: the size can come first.
			const size = grows ? Math.max(inode.size, to) : inode.size;
			const inline = kind === "punch" ? blanked(inode.inline, from, to) : inode.inline;
			return startMapWork(tx, context, effects, changed({ ...inode, size, inline }, context.now), { kind, from, to });
		});
		await this.#data.finishWork(result);
	}

	/** What a range of the map consists of; what is dirty is not looked at. */
	async cover(ino: Ino, offset: number, lengthBytes: number): Promise<Coverage> {
		const end = offset + lengthBytes;
		let sum: Coverage = { dataBytes: 0, reservedBytes: 0, doneTo: offset };
		while (sum.doneTo < end) {
			const { dataBytes, reservedBytes, doneTo } = sum;
			const next = await this.#core.view((tx) => coverage(tx, ino, doneTo, end - doneTo));
			sum = { dataBytes: dataBytes + next.dataBytes, reservedBytes: reservedBytes + next.reservedBytes, doneTo: next.doneTo };
		}
		return sum;
	}

	// ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * Whether a copy had better go through memory: what is small and not sealed yet would cost a seal before it could be shared, what is inline or smaller than a block gains
	 * nothing.
	 */
	async copiesBytes(source: Ino, offset: number, lengthBytes: number, target: Ino): Promise<boolean> {
		if (lengthBytes < limits.sharedBytes) return true;
		const [from, to] = await this.#core.view((tx) => [requireInode(tx, source), requireInode(tx, target)]);
		const dirty = (ino: Ino): boolean => this.#core.dirty.has(ino);
		if (from.inline !== undefined && !dirty(source)) return true;
		if (lengthBytes > limits.chunkBytes) return false;
		const inlineTarget = to.inline !== undefined && to.inline.length > 0;
		return inlineTarget || dirty(target) || this.#core.dirty.overlay(source, offset, lengthBytes).length > 0;
	}

	/**
	 * Makes a range of `target` be what a range of `source` is, by naming the same chunks. Answers how many bytes are done: fewer where the source ends or the work would take very
	 * long; 0 also where the source turned out to be inline, or lies less safely than the target asks for.
	 */
	share(source: Ino, sourceOffset: number, target: Ino, targetOffset: number, lengthBytes: number): Promise<number> {
		const work = async (): Promise<number> => {
			await this.#data.sealLocked(target);
			if (source !== target) await this.#data.sealLocked(source);
			await this.#data.outOfLine(target);
			let done = 0;
			for (let step = 0; step < limits.shareSteps && done < lengthBytes; step++) {
				const shared = await this.#shareStep(source, sourceOffset + done, target, targetOffset + done, lengthBytes - done);
				if (shared === 0) break;
				done += shared;
			}
			return done;
		};
		return this.#data.exclusive(target, work, source);
	}

	async #shareStep(source: Ino, sourceOffset: number, target: Ino, targetOffset: number, lengthBytes: number): Promise<number> {
		const { result } = await this.#core.transact((tx, context, effects) => {
			const from = requireInode(tx, source);
			const to = requireInode(tx, target);
			const wanted = this.#core.redundancyOf(to.protection);
			const length = safeLength(tx, source, sourceOffset, Math.min(lengthBytes, from.size - sourceOffset), wanted);
			if (from.inline !== undefined || length <= 0) return 0;
			assert(to.inline === undefined, "V5: inline beside extents");
			// Room for the inode, the head and the volume record.
			const budget = limits.transactionChanges - 3;
			const { doneBytes, storedDelta } = shareExtents(
				tx,
				context,
				effects,
				{ ino: source, offset: sourceOffset },
				{ ino: target, offset: targetOffset },
				length,
				budget,
			);
			assert(doneBytes > 0, "a copy gets somewhere");
			const size = Math.max(to.size, targetOffset + doneBytes);
			tx.put(inodeRecord, changed({ ...to, size, storedBytes: to.storedBytes + storedDelta }, context.now), target);
			return doneBytes;
		});
		return result;
	}

	// ── holes ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** lseek(2) with SEEK_DATA or SEEK_HOLE: what is dirty is data, what is reserved is a hole. @throws FsError ENXIO. */
	async seek(ino: Ino, offset: number, what: "data" | "hole"): Promise<number> {
		for (let at = offset; ; ) {
			const from = at;
			const step = await this.#core.view((tx) => (what === "data" ? this.#findData(tx, ino, from) : this.#findHole(tx, ino, from)));
			if (step.found) return step.doneTo;
			at = step.doneTo;
		}
	}

	#sizeFor(inode: Inode, at: number): number {
		const size = this.#data.sizeOf(inode);
		if (at >= size) throw new FsError("ENXIO", "volume.seek", `there is nothing at or behind ${at} in inode ${inode.ino}`);
		return size;
	}

	#findData(tx: RecordTransaction, ino: Ino, at: number): Found {
		const inode = requireInode(tx, ino);
		const size = this.#sizeFor(inode, at);
		if (at < (inode.inline?.length ?? 0)) return { found: true, doneTo: at };
		const reach = Math.min(size, this.#core.dirty.attributes(ino)?.end ?? 0);
		const dirty = at < reach ? this.#core.dirty.overlay(ino, at, reach - at)[0]?.offset : undefined;
		const end = Math.min(size, dirty ?? size);
		const sealed = seekExtents(tx, ino, at, end, "data");
		return sealed.found || sealed.doneTo < end || dirty === undefined ? sealed : { found: true, doneTo: dirty };
	}

	#findHole(tx: RecordTransaction, ino: Ino, at: number): Found {
		const inode = requireInode(tx, ino);
		const size = this.#sizeFor(inode, at);
		const end = Math.min(size, at + limits.seekWindowBytes);
		const dirty = this.#core.dirty.overlay(ino, at, end - at);
		const inline = inode.inline?.length ?? 0;
		let position = Math.max(at, Math.min(inline, end));
		let next = 0;
		for (let looks = 0; looks < limits.seekLooks && position < end; looks++) {
			const sealed = seekExtents(tx, ino, position, end, "hole");
			position = sealed.doneTo;
			while (next < dirty.length && endOf(dirty[next]) <= position) next++;
			const piece = dirty[next];
			if (piece !== undefined && piece.offset <= position) position = Math.min(end, endOf(piece));
			else if (sealed.found) return { found: true, doneTo: position };
		}
		// The end of the file is a hole.
		return { found: position === size, doneTo: position };
	}
}

interface Found {
	readonly found: boolean;
	/** Where it is, or where to go on looking. */
	readonly doneTo: number;
}

function endOf(piece: { readonly offset: number; readonly bytes: Uint8Array } | undefined): number {
	return piece === undefined ? 0 : piece.offset + piece.bytes.length;
}

function changed(inode: Inode, now: Inode["mtime"]): Inode {
	return { ...inode, mtime: now, ctime: now, change: inode.change + 1, dataGeneration: inode.dataGeneration + 1 };
}

function blanked(inline: Uint8Array | undefined, from: number, to: number): Uint8Array | undefined {
	return inline?.slice().fill(0, Math.min(from, inline.length), Math.min(to, inline.length));
}

/** T5 of protector.ts: what can be shared of a range from its beginning with a file that asks for so much. The rest is to be written again. */
function safeLength(tx: RecordTransaction, source: Ino, offset: number, lengthBytes: number, wanted: Redundancy): number {
	const window = Math.min(lengthBytes, limits.conversionWindowBytes);
	if (window <= 0) return 0;
	const weak = mapExtents(tx, source, offset, window).find(({ segment }) => tolerance(parseRedundancy(segment.target)) < tolerance(wanted));
	return weak === undefined ? window : weak.offset - offset;
}
