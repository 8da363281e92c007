/**
 * Which units are free.
 *
 * Invariants
 *  U1 Free runs are sorted, do not touch or overlap, and lie on the disk.
 *  U2 A unit is given out once until it is given back, and given back once.
 */
import { assert } from "../../base/assert.ts";

export interface Run {
	readonly unit: number;
	readonly count: number;
}

export class FreeUnits {
	readonly #starts: number[] = [];
	readonly #ends: number[] = [];
	#count = 0;

	constructor(units: number) {
		this.#starts.push(0);
		this.#ends.push(units);
		this.#count = units;
	}

	get count(): number {
		return this.#count;
	}

	/** Index of the first run that ends behind `unit`. */
	#locate(unit: number): number {
		let low = 0;
		let high = this.#ends.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if ((this.#ends[middle] as number) <= unit) low = middle + 1;
			else high = middle;
		}
		return low;
	}

	/** True when all of it was free and is taken now. */
	takeAt(unit: number, count: number): boolean {
		const i = this.#locate(unit);
		const start = this.#starts[i];
		const end = this.#ends[i];
		if (start === undefined || end === undefined || start > unit || end < unit + count) return false;
		const left = start < unit ? [[start, unit] as const] : [];
		const right = unit + count < end ? [[unit + count, end] as const] : [];
		const rest = [...left, ...right];
		this.#starts.splice(i, 1, ...rest.map(([from]) => from));
		this.#ends.splice(i, 1, ...rest.map(([, to]) => to));
		this.#count -= count;
		return true;
	}

	/** `count` units, following `after` where that is free, in as few runs as can be. Undefined: there are not that many. */
	take(count: number, after: number | undefined): Run[] | undefined {
		if (count > this.#count) return undefined;
		const runs: Run[] = [];
		let left = count;
		const grab = (unit: number, units: number): void => {
			const taken = this.takeAt(unit, units);
			assert(taken, "U2: free units can be taken");
			runs.push({ unit, count: units });
			left -= units;
		};
		if (after !== undefined) {
			const i = this.#locate(after);
			const end = this.#ends[i];
			if (this.#starts[i] !== undefined && (this.#starts[i] as number) <= after && end !== undefined)
				grab(after, Math.min(left, end - after));
		}
		while (left > 0) {
			const i = this.#longEnough(left);
			grab(this.#starts[i] as number, Math.min(left, (this.#ends[i] as number) - (this.#starts[i] as number)));
		}
		return runs;
	}

	/** The first run that is long enough, else the longest. */
	#longEnough(count: number): number {
		let longest = 0;
		for (let i = 0; i < this.#starts.length; i++) {
			const length = (this.#ends[i] as number) - (this.#starts[i] as number);
			if (length >= count) return i;
			if (length > (this.#ends[longest] as number) - (this.#starts[longest] as number)) longest = i;
		}
		return longest;
	}

	give({ unit, count }: Run): void {
		const i = this.#locate(unit);
		assert(i === this.#starts.length || (this.#starts[i] as number) >= unit + count, "U2: units are given back once");
		const joinsLeft = i > 0 && this.#ends[i - 1] === unit;
		const joinsRight = this.#starts[i] === unit + count;
		const from = joinsLeft ? (this.#starts[i - 1] as number) : unit;
		const to = joinsRight ? (this.#ends[i] as number) : unit + count;
		const at = joinsLeft ? i - 1 : i;
		const gone = (joinsLeft ? 1 : 0) + (joinsRight ? 1 : 0);
		this.#starts.splice(at, gone, from);
		this.#ends.splice(at, gone, to);
		this.#count += count;
	}
}
