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

const pad = (value: number, digits: number): string => String(value).padStart(digits, "0");

/** Days since 1970-01-01 to year, month, day of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms"). */
export function civilFromDays(days: number): { readonly year: number; readonly month: number; readonly day: number } {
	const shifted = days + 719_468;
	const era = Math.floor(shifted / 146_097);
	const dayOfEra = shifted - era * 146_097;
	const yearOfEra = Math.floor(
		(dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
	);
	const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
	const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153);
	const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
	return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day: dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1 };
}

/** ISO 8601 with milliseconds, in UTC. */
export function formatTime({ seconds, nanoseconds }: Timestamp): string {
	const days = Math.floor(seconds / 86_400);
	const { year, month, day } = civilFromDays(days);
	const second = seconds - days * 86_400;
	const clock = `${pad(Math.floor(second / 3600), 2)}:${pad(Math.floor(second / 60) % 60, 2)}:${pad(second % 60, 2)}`;
	return `${pad(year, 4)}-${pad(month, 2)}-${pad(day, 2)}T${clock}.${pad(Math.floor(nanoseconds / 1e6), 3)}Z`;
}

/** Seconds since 1970 of what `formatTime` gave; its milliseconds are left out. Undefined: it is no such text. */
export function parseTime(text: string): number | undefined {
	const parts = /^(\d{4,})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.\d{3}Z$/.exec(text);
	if (parts === null) return undefined;
	const [year, month, day, hour, minute, second] = parts.slice(1).map(Number) as [number, number, number, number, number, number];
	return daysFromCivil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
}

/** The inverse of `civilFromDays`, by the same source. */
function daysFromCivil(year: number, month: number, day: number): number {
	const shifted = month <= 2 ? year - 1 : year;
	const era = Math.floor(shifted / 400);
	const yearOfEra = shifted - era * 400;
	const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
	const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
	return era * 146_097 + dayOfEra - 719_468;
}
