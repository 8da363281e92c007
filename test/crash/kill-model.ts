/**
 * What a kill writer does and what must be there afterwards: operations, the journal that says which began and which were acknowledged,
 * and the tree that follows from it. Contents come from numbers, so that a journal of megabytes written is a few kilobytes.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";

export type Operation =
	/** Whole new contents through a temporary name and a rename, the way careful programs save, or in place. `synced`: before the rename, or at the end. */
	| { readonly kind: "save"; readonly path: string; readonly length: number; readonly careful: boolean; readonly synced: boolean }
	| { readonly kind: "write"; readonly path: string; readonly offset: number; readonly length: number }
	| { readonly kind: "append"; readonly path: string; readonly length: number }
	| { readonly kind: "truncate"; readonly path: string; readonly size: number }
	/** fallocate: FALLOC_FL_ZERO_RANGE, or with `hole` FALLOC_FL_PUNCH_HOLE. */
	| { readonly kind: "zero"; readonly path: string; readonly offset: number; readonly length: number; readonly hole: boolean }
	/** copy_file_range of the first `length` bytes of another file. */
	| { readonly kind: "copy"; readonly path: string; readonly from: string; readonly offset: number; readonly length: number }
	| { readonly kind: "rename"; readonly path: string; readonly to: string }
	| { readonly kind: "unlink"; readonly path: string }
	| { readonly kind: "mkdir"; readonly path: string }
	| { readonly kind: "touch"; readonly path: string; readonly seconds: number }
	| { readonly kind: "fsync"; readonly path: string };

/** A line of the journal: an operation is about to begin, was acknowledged, or what was synced looks like that. */
export type JournalLine =
	| { readonly begin: number; readonly operation: Operation }
	| { readonly done: number; readonly sha256?: string }
	/** The daemon is gone: this is how the last call ended. */
	| { readonly ended: string };

/** xorshift32 */
export function randomOf(seed: number): (bound: number) => number {
	let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
	return (bound) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		state >>>= 0;
		return state % bound;
	};
}

/** The bytes that operation `number` of writer `seed` writes. */
export function contents(seed: number, number: number, length: number): Buffer {
	const bytes = Buffer.allocUnsafe(length);
	let state = (Math.imul(seed + 1, 0x85ebca6b) ^ Math.imul(number + 1, 0xc2b2ae35)) >>> 0 || 1;
	for (let at = 0; at < length; at += 4) {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		bytes[at] = state;
		if (at + 1 < length) bytes[at + 1] = state >>> 8;
		if (at + 2 < length) bytes[at + 2] = state >>> 16;
		if (at + 3 < length) bytes[at + 3] = state >>> 24;
	}
	return bytes;
}

export interface ModelFile {
	readonly bytes: Buffer;
	/** Set explicitly by the last operation on it. */
	readonly mtimeSeconds: number | undefined;
}

/** A tree of files: path relative to the writer's folder → what it must be. Folders have no file. */
export class Tree {
	readonly files = new Map<string, ModelFile>();
	readonly folders = new Set<string>();

	clone(): Tree {
		const copy = new Tree();
		for (const [path, file] of this.files) copy.files.set(path, file);
		for (const path of this.folders) copy.folders.add(path);
		return copy;
	}

	apply(seed: number, number: number, operation: Operation): void {
		const { kind, path } = operation;
		const old = this.files.get(path);
		if (kind === "mkdir") this.folders.add(path);
		else if (kind === "unlink") this.files.delete(path);
		else if (kind === "rename") {
			this.files.delete(path);
			this.files.set(operation.to, old as ModelFile);
		} else if (kind === "touch") this.files.set(path, { bytes: (old as ModelFile).bytes, mtimeSeconds: operation.seconds });
		else if (kind === "copy") {
			const bytes = (this.files.get(operation.from) as ModelFile).bytes.subarray(0, operation.length);
			this.files.set(path, { bytes: overwritten((old as ModelFile).bytes, operation.offset, bytes), mtimeSeconds: undefined });
		} else if (kind !== "fsync")
			this.files.set(path, { bytes: changed(seed, number, operation, old?.bytes ?? Buffer.alloc(0)), mtimeSeconds: undefined });
	}
}

function changed(
	seed: number,
	number: number,
	operation: Extract<Operation, { kind: "save" | "write" | "append" | "truncate" | "zero" }>,
	old: Buffer,
): Buffer {
	if (operation.kind === "truncate") {
		const cut = Buffer.alloc(operation.size);
		old.copy(cut);
		return cut;
	}
	if (operation.kind === "zero") {
		const length = operation.hole ? Math.max(0, Math.min(operation.length, old.length - operation.offset)) : operation.length;
		return length === 0 ? old : overwritten(old, operation.offset, Buffer.alloc(length));
	}
	const bytes = contents(seed, number, operation.length);
	if (operation.kind === "save") return bytes;
	return overwritten(old, operation.kind === "append" ? old.length : operation.offset, bytes);
}

function overwritten(old: Buffer, offset: number, bytes: Uint8Array): Buffer {
	const whole = Buffer.alloc(Math.max(old.length, offset + bytes.length));
	old.copy(whole);
	whole.set(bytes, offset);
	return whole;
}

export interface Replayed {
	/** All that was acknowledged. */
	readonly acknowledged: Tree;
	/** The same and the operation that was under way, if one was. */
	readonly attempted: Tree;
	readonly open: Operation | undefined;
	readonly count: number;
	readonly synced: number;
	readonly end: string | undefined;
}

export function sum(bytes: Uint8Array): string {
	return createHash("sha256").update(bytes).digest("hex");
}

export function replay(seed: number, lines: readonly JournalLine[]): Replayed {
	const acknowledged = new Tree();
	let open: { number: number; operation: Operation } | undefined;
	let count = 0;
	let synced = 0;
	let end: string | undefined;
	for (const line of lines) {
		if ("ended" in line) end = line.ended;
		else if ("begin" in line) {
			assert.equal(open, undefined, "operations come one after the other");
			open = { number: line.begin, operation: line.operation };
		} else {
			assert.equal(open?.number, line.done);
			const { operation } = open as { operation: Operation };
			acknowledged.apply(seed, line.done, operation);
			open = undefined;
			count++;
			if (line.sha256 === undefined) continue;
			assert.equal(sum(acknowledged.files.get(operation.path)?.bytes ?? Buffer.alloc(0)), line.sha256, "the journal agrees with the model");
			synced++;
		}
	}
	const attempted = acknowledged.clone();
	if (open !== undefined) attempted.apply(seed, open.number, open.operation);
	return { acknowledged, attempted, open: open?.operation, count, synced, end };
}

/** The last line may be half there only if the writer itself was killed, which nobody does. */
export function parseJournal(text: string): JournalLine[] {
	return text
		.split("\n")
		.filter((line) => line !== "")
		.map((line) => JSON.parse(line) as JournalLine);
}
