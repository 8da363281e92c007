/** A point in time as file attributes carry it: two numbers, so that nanoseconds need no BigInt. */
export interface Timestamp {
	/** Seconds since 1970, may be negative, integral. */
	readonly seconds: number;
	/** 0 .. 999,999,999. */
	readonly nanoseconds: number;
}

export const timeZero: Timestamp = { seconds: 0, nanoseconds: 0 };

export function compareTime(a: Timestamp, b: Timestamp): number {
	return a.seconds - b.seconds || a.nanoseconds - b.nanoseconds;
}
