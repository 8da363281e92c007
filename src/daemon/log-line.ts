/** One line of the daemon's log: `2026-11-21T05:12:33.123Z warn  message {"data":…}`. */
import { formatTime, type Timestamp } from "../base/time.ts";
import { printableDeep } from "./text.ts";

export type LogLevel = "info" | "warn" | "error";

/** Longer data is cut: a log line is for reading. */
const maximumDataChars = 4096;

export function formatLogLine(time: Timestamp, level: LogLevel, message: string, data?: Record<string, unknown>): string {
	let text = data === undefined ? "" : JSON.stringify(printableDeep(data));
	if (text.length > maximumDataChars) text = `${text.slice(0, maximumDataChars)}…`;
	return `${formatTime(time)} ${level.padEnd(5)} ${printableDeep(message).replaceAll("\n", " ")}${text === "" || text === "{}" ? "" : ` ${text}`}\n`;
}
