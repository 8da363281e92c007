/**
 * A disk with a volatile write cache: what was written is seen at once and survives a power cut only when a flush has followed, or as much of it as luck has it.
 *
 * Invariants
 *  K1 A read sees the newest write, whatever has become of it.
 *  K2 After `flush`, and after a write with `forced`, the store holds what was written.
 *  K3 After `powerCut` each sector is what it was at its last flush, or what one of the later writes to it made it; sectors are whole.
 */
/** 0 to below its argument. */
type Random = (bound: number) => number;

/** What a disk writes whole, or not at all. */
export const sectorBytes = 512;

/** Where the bytes lie that no power cut takes. */
export interface Store {
	read(offset: number, into: Uint8Array): void;
	write(offset: number, bytes: Uint8Array): void;
}

/** One sector's part of a write. */
interface Version {
	readonly write: number;
	readonly bytes: Uint8Array;
}

/** How a power cut treats what was not flushed: all of it is lost, all has arrived, the first writes have, single writes have, or single sectors of them. */
export const cutModes = ["nothing", "everything", "first", "writes", "sectors"] as const;
export type CutMode = (typeof cutModes)[number];

/** Of writes that were not flushed. A torn one has arrived in some of its sectors. */
export interface CutResult {
	readonly lostWrites: number;
	readonly tornWrites: number;
	readonly keptWrites: number;
	readonly lostBytes: number;
}

/** A real disk's cache is bounded too, and what has been there longest goes to the platter: so much is kept back. */
const mostCachedBytes = 64 * 1024 * 1024;
const runBytes = 1 << 20;

export class VolatileDisk {
	readonly #store: Store;
	/** Sector → versions since its last flush, oldest first. */
	readonly #cached = new Map<number, Version[]>();
	#cachedBytes = 0;
	#writes = 0;

	constructor(store: Store) {
		this.#store = store;
	}

	/** What was written since the last flush. */
	get cachedBytes(): number {
		return this.#cachedBytes;
	}

	/** Whole sectors, here and below. */
	read(offset: number, lengthBytes: number): Buffer {
		const bytes = Buffer.allocUnsafe(lengthBytes);
		this.#store.read(offset, bytes);
		if (this.#cached.size === 0) return bytes;
		for (let at = 0; at < lengthBytes; at += sectorBytes) {
			const newest = this.#cached.get((offset + at) / sectorBytes)?.at(-1);
			if (newest !== undefined) bytes.set(newest.bytes, at);
		}
		return bytes;
	}

	/** Keeps `bytes`: the caller does not change them any more. */
	write(offset: number, bytes: Uint8Array, forced = false): void {
		if (forced) this.#writeThrough(offset, bytes);
		else {
			const write = this.#writes++;
			for (let at = 0; at < bytes.length; at += sectorBytes) {
				const sector = (offset + at) / sectorBytes;
				const version = { write, bytes: bytes.subarray(at, at + sectorBytes) };
				const versions = this.#cached.get(sector);
				if (versions === undefined) this.#cached.set(sector, [version]);
				else versions.push(version);
			}
			this.#cachedBytes += bytes.length;
			if (this.#cachedBytes > mostCachedBytes) this.flush();
		}
	}

	#writeThrough(offset: number, bytes: Uint8Array): void {
		this.#store.write(offset, bytes);
		for (let at = 0; at < bytes.length; at += sectorBytes) this.#cached.delete((offset + at) / sectorBytes);
	}

	/** Everything that was written is in the store. */
	flush(): void {
		this.#settle((versions) => versions.at(-1));
	}

	/** `random` decides what arrives. The disk is empty of un-flushed writes afterwards and can be used on. */
	powerCut(mode: CutMode, random: Random): CutResult {
		const fates = new Map<number, boolean>();
		const boundary = this.#writes === 0 ? 0 : random(this.#writes + 1);
		const fateOf = (write: number): boolean => {
			const known = fates.get(write);
			if (known !== undefined) return known;
			const fate = mode === "first" ? write < boundary : random(2) === 0;
			fates.set(write, fate);
			return fate;
		};
		const arrives = (write: number): boolean => {
			if (mode === "nothing" || mode === "everything") return mode === "everything";
			return mode === "sectors" ? random(2) === 0 : fateOf(write);
		};
		const sectors = new Map<number, { arrived: number; lost: number }>();
		this.#settle((versions) => {
			let newest: Version | undefined;
			for (const version of versions) {
				const has = arrives(version.write);
				if (has) newest = version;
				const count = sectors.get(version.write) ?? { arrived: 0, lost: 0 };
				count[has ? "arrived" : "lost"]++;
				sectors.set(version.write, count);
			}
			return newest;
		});
		const counts = [...sectors.values()];
		return {
			lostWrites: counts.filter(({ arrived }) => arrived === 0).length,
			tornWrites: counts.filter(({ arrived, lost }) => arrived > 0 && lost > 0).length,
			keptWrites: counts.filter(({ lost }) => lost === 0).length,
			lostBytes: counts.reduce((sum, { lost }) => sum + lost * sectorBytes, 0),
		};
	}

	/** Writes what `choose` takes of each sector's versions, neighbours together; nothing is cached any more. */
	#settle(choose: (versions: readonly Version[]) => Version | undefined): void {
		const sectors = [...this.#cached.keys()].sort((a, b) => a - b);
		let run: Uint8Array[] = [];
		let start = 0;
		const end = (): void => {
			if (run.length > 0) this.#store.write(start * sectorBytes, run.length === 1 ? (run[0] as Uint8Array) : Buffer.concat(run));
			run = [];
		};
		for (const sector of sectors) {
			const version = choose(this.#cached.get(sector) as Version[]);
			if (version === undefined) continue;
			if (sector !== start + run.length || run.length * sectorBytes >= runBytes) end();
			if (run.length === 0) start = sector;
			run.push(version.bytes);
		}
		end();
		this.#cached.clear();
		this.#cachedBytes = 0;
		this.#writes = 0;
	}
}
