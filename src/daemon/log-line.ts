/** One line of the daemon's log: `2026-11-21T05:12:33.123Z warn  message {"data":…}`. */
import type { Timestamp } from "../base/time.ts";
import { printableDeep } from "./text.ts";

export type LogLevel = "info" | "warn" | "error";

/** Longer data is cut: a log line is for reading. */
const maximumDataChars = 4096;

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

export function formatTime({ seconds, nanoseconds }: Timestamp): string {
	const days = Math.floor(seconds / 86_400);
	const { year, month, day } = civilFromDays(days);
	const second = seconds - days * 86_400;
	const clock = `${pad(Math.floor(second / 3600), 2)}:${pad(Math.floor(second / 60) % 60, 2)}:${pad(second % 60, 2)}`;
	return `${pad(year, 4)}-${pad(month, 2)}-${pad(day, 2)}T${clock}.${pad(Math.floor(nanoseconds / 1e6), 3)}Z`;
}

export function formatLogLine(time: Timestamp, level: LogLevel, message: string, data?: Record<string, unknown>): string {
	let text = data === undefined ? "" : JSON.stringify(printableDeep(data));
	if (text.length > maximumDataChars) text = `${text.slice(0, maximumDataChars)}…`;
	return `${formatTime(time)} ${level.padEnd(5)} ${printableDeep(message).replaceAll("\n", " ")}${text === "" || text === "{}" ? "" : ` ${text}`}\n`;
}
