/**
 * One line of the daemon's log. As text: `2026-11-21T05:12:33.123Z warn  message {"data":…}`. As JSON: one object {time, level, volume, message, …}, where `site` is the id of the place in the source that
 * gave up, `source` the file and line that logged, `request` what the work was begun for, and `data` the rest.
 */
import { formatTime, type Timestamp } from "../base/time.ts";
import type { RequestIdentity } from "../platform/interface.ts";
import { printableDeep } from "./text.ts";

export type LogLevel = "info" | "warn" | "error";
export type LogFormat = "text" | "json";
export type LogData = Record<string, unknown>;

/** Longer data is cut: a log line is for reading. */
const maximumDataChars = 4096;

/** What a line in JSON says besides. */
export interface LogOrigin {
	readonly volume: string;
	/** `volume/native/healer.ts:97`. */
	readonly source: string | undefined;
	readonly request: RequestIdentity | undefined;
}

export function formatLogLine(time: Timestamp, level: LogLevel, message: string, data?: LogData): string {
	let text = data === undefined ? "" : JSON.stringify(printableDeep(data));
	if (text.length > maximumDataChars) text = `${text.slice(0, maximumDataChars)}…`;
	return `${formatTime(time)} ${level.padEnd(5)} ${printableDeep(message).replaceAll("\n", " ")}${text === "" || text === "{}" ? "" : ` ${text}`}\n`;
}

export function formatJsonLine(time: Timestamp, level: LogLevel, message: string, data: LogData = {}, origin: LogOrigin): string {
	const { site, ...rest } = data;
	const { volume, source, request } = origin;
	const line = {
		time: formatTime(time),
		level,
		volume,
		message: cut(message),
		...(site === undefined ? {} : { site }),
		...(source === undefined ? {} : { source }),
		...(request === undefined ? {} : { request }),
	};
	const length = JSON.stringify(rest).length;
	// Cut data would be no JSON any more: its text is.
	const kept = length > maximumDataChars ? { cut: cut(JSON.stringify(printableDeep(rest))) } : rest;
	return `${JSON.stringify(printableDeep({ ...line, ...(length <= 2 ? {} : { data: kept }) }))}\n`;
}

function cut(text: string): string {
	return text.length > maximumDataChars ? `${text.slice(0, maximumDataChars)}…` : text;
}

/** Where a function was called from, by the stack of an error made in it; below `src/`. */
export function callerOf(stack: string | undefined): string | undefined {
	const frame = (stack ?? "").split("\n")[2];
	return /.*\/src\/([^\s():]+:\d+):\d+\)?$/.exec(frame ?? "")?.[1];
}
