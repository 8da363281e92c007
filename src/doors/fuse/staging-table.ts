/**
 * Which inodes are held for the kernel's own reads, in memory that outlives the process: a successor answers opens with the same numbers, and holds the same inodes, before it serves anything. The process may be killed between any
 * two stores.
 *
 * Memory: 32 bytes of header {magic u32, version u32, capacity u32, CRC32C of the 12 bytes before u32, newest number u32, zeros}, then 32 bytes for each inode: state u32 (0 = free, 1 = bound, 2 = held), number u32, file u32, zero u32, ino u64, size u64. Little-endian.
 *
 * Invariants
 *  B1 A place counts exactly while its state word is not 0; the word is stored last when an inode is held, and first when it is let go.
 *  B2 An inode is in the table before its first native handle is answered, and until it is released; its handles are native while it is bound, and ordinary otherwise.
 */
import { assert } from "../../base/assert.ts";
import { equalBytes } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { crc32c } from "../../codec/checksum.ts";

const magic = 0x3153_4443; // "CDS1"
const formatVersion = 1;
const headerBytes = 32;
const headerChecked = 16;
const newestWord = 4;
const entryBytes = 32;

export interface HeldStaged {
	readonly ino: number;
	readonly file: number;
	readonly sizeBytes: number;
	readonly number: number;
	readonly bound: boolean;
}

const states = { bound: 1, held: 2 } as const;

export const stagingTableBytes = (files: number): number => headerBytes + files * entryBytes;

export function stagingLost(): FsError {
	const message = "which files the kernel reads by itself is not known to this version of Cairn: it cannot take the mount over";
	return new FsError("REFUSED", "fuse.staging-lost", message);
}

export class StagingTable {
	readonly #words: Uint32Array;
	readonly #places = new Map<number, number>();
	readonly #free: number[] = [];

	/** `existed`: the memory is a predecessor's. @throws FsError REFUSED when it is not what this program writes. */
	constructor(memory: Uint8Array, existed: boolean) {
		this.#words = new Uint32Array(memory.buffer, memory.byteOffset, Math.floor(memory.length / 4));
		const capacity = Math.floor((memory.length - headerBytes) / entryBytes);
		const header = encodeHeader(capacity);
		if (!existed) memory.set(header);
		else if (!equalBytes(memory.subarray(0, headerChecked), header)) throw stagingLost();
		for (let place = capacity - 1; place >= 0; place--) {
			if (this.#word(place, 0) > states.held) throw stagingLost();
			if (this.#word(place, 0) === 0) this.#free.push(place);
			else this.#places.set(this.#read(place).ino, place);
		}
	}

	#word(place: number, at: number): number {
		return this.#words[(headerBytes + place * entryBytes) / 4 + at] as number;
	}

	#read(place: number): HeldStaged {
		const word = (at: number): number => this.#word(place, at);
		const wide = (at: number): number => word(at) + word(at + 1) * 0x1_0000_0000;
		return { bound: word(0) === states.bound, number: word(1), file: word(2), ino: wide(4), sizeBytes: wide(6) };
	}

	/** The kernel counts up: numbers above this one were got by a process that did not live to write them down. */
	get newest(): number {
		return this.#words[newestWord] as number;
	}

	all(): readonly HeldStaged[] {
		return [...this.#places.values()].map((place) => this.#read(place));
	}

	/** Held; one that was there may have got another number, and be bound or not. */
	set({ ino, file, sizeBytes, number, bound }: HeldStaged): void {
		const state = bound ? states.bound : states.held;
		const place = this.#places.get(ino) ?? this.#free.pop();
		assert(place !== undefined, "there is a place for each staged file");
		const at = (headerBytes + place * entryBytes) / 4;
		this.#words[newestWord] = Math.max(this.newest, number);
		if (this.#places.has(ino)) {
			// Nothing else of it changes while it is held. The number first: it counts when it is bound.
			Atomics.store(this.#words, at + 1, number);
			Atomics.store(this.#words, at, state);
			return;
		}
		this.#places.set(ino, place);
		this.#words.set([number, file, 0, ...split(ino), ...split(sizeBytes)], at + 1);
		Atomics.store(this.#words, at, state);
	}

	/** Of one that is not there: fine. */
	remove(ino: number): void {
		const place = this.#places.get(ino);
		if (place === undefined) return;
		Atomics.store(this.#words, (headerBytes + place * entryBytes) / 4, 0);
		this.#places.delete(ino);
		this.#free.push(place);
	}
}

function split(value: number): readonly [number, number] {
	return [value % 0x1_0000_0000, Math.floor(value / 0x1_0000_0000)];
}

function encodeHeader(capacity: number): Uint8Array {
	const bytes = new Uint8Array(headerChecked);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, magic, true);
	view.setUint32(4, formatVersion, true);
	view.setUint32(8, capacity, true);
	view.setUint32(12, crc32c(bytes.subarray(0, 12)), true);
	return bytes;
}
