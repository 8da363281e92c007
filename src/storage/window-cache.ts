/**
 * Verified windows of shards in memory. Whole windows, which are most, lie in slabs that are never freed: what comes and goes with every read would keep the
 * garbage collector busy for longer than the reads take.
 *
 * Invariants
 *  W1 A slot belongs to one key or is free.
 *  W2 What `get` answers is true until the next `set` or `delete`: it is copied before anything else happens.
 */
import { LruCache } from "../base/bounded.ts";
import { limits } from "./limits.ts";

const { windowBytes } = limits;

export class WindowCache {
	/** Key → slot. */
	readonly #whole: LruCache<string, number>;
	/** Windows at the end of shards. */
	readonly #partial: LruCache<string, Uint8Array>;
	readonly #slots: number;
	readonly #slabs: Uint8Array[] = [];
	readonly #free: number[] = [];
	#used = 0;

	constructor(cacheBytes: number) {
		this.#slots = Math.floor((cacheBytes * limits.wholeWindows) / windowBytes);
		this.#whole = new LruCache(this.#slots);
		this.#partial = new LruCache(Math.floor(cacheBytes * (1 - limits.wholeWindows)));
	}

	get(key: string): Uint8Array | undefined {
		const slot = this.#whole.get(key);
		return slot === undefined ? this.#partial.get(key) : this.#bytesOf(slot);
	}

	/** Copies the bytes. */
	set(key: string, bytes: Uint8Array): void {
		this.delete(key);
		if (bytes.length !== windowBytes) {
			this.#partial.set(key, bytes.slice(), bytes.length + limits.windowOverheadBytes);
			return;
		}
		const slot = this.#take();
		if (slot === undefined) return;
		this.#bytesOf(slot).set(bytes);
		this.#whole.set(key, slot, 1);
	}

	delete(key: string): void {
		const slot = this.#whole.get(key);
		if (slot !== undefined) this.#free.push(slot);
		this.#whole.delete(key);
		this.#partial.delete(key);
	}

	#take(): number | undefined {
		return this.#free.pop() ?? (this.#used < this.#slots ? this.#used++ : this.#whole.dropOldest());
	}

	#bytesOf(slot: number): Uint8Array {
		const slab = Math.floor(slot / limits.slabWindows);
		const at = (slot % limits.slabWindows) * windowBytes;
		this.#slabs[slab] ??= new Uint8Array(limits.slabWindows * windowBytes);
		return (this.#slabs[slab] as Uint8Array).subarray(at, at + windowBytes);
	}
}
