/** Text for people: sizes, durations, tables, colours. */
import { parseTime, type Timestamp } from "../base/time.ts";

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** 1536 → `1.5 KiB`. */
export function formatBytes(bytes: number | null | undefined): string {
	if (bytes === null || bytes === undefined) return "unknown";
	let value = bytes;
	let unit = 0;
	while (value >= 1024 && unit < units.length - 1) {
		value /= 1024;
		unit++;
	}
	return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** 1 → `1 disk`, 2 → `2 disks`. */
export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** 95 → `1 min 35 s`. */
export function formatDuration(seconds: number): string {
	const whole = Math.max(0, Math.round(seconds));
	if (whole < 60) return `${whole} s`;
	if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
	return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** How long ago a time of JSON answers was: `3 h 5 min ago`. */
export function formatAge(time: string, now: Timestamp): string {
	return `${formatDuration(Math.max(0, now.seconds - (parseTime(time) ?? now.seconds)))} ago`;
}

export type Colour = "green" | "yellow" | "red" | "bold" | "dim";
export type Paint = (colour: Colour, text: string) => string;

const codes: Readonly<Record<Colour, number>> = { green: 32, yellow: 33, red: 31, bold: 1, dim: 2 };

export const plain: Paint = (_colour, text) => text;
export const coloured: Paint = (colour, text) => `\u001b[${codes[colour]}m${text}\u001b[0m`;

/** States of disks and volumes in traffic-light colours. */
export function paintState(state: string, paint: Paint): string {
	if (["healthy", "running"].includes(state)) return paint("green", state);
	if (["failed", "missing"].includes(state)) return paint("red", state);
	return state === "stopped" ? paint("dim", state) : paint("yellow", state);
}

/** What a cell takes on the screen. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes begin with one
const visible = (text: string): number => [...text.replaceAll(/\u001b\[\d+m/g, "")].length;

/** Columns as wide as their widest cell; numbers (cells of `right` columns) flush right. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[], right: readonly number[] = []): string {
	const all = [head, ...rows];
	const widths = head.map((_, column) => Math.max(...all.map((row) => visible(row[column] ?? ""))));
	const lines = all.map((row) =>
		widths
			.map((width, column) => {
				const cell = row[column] ?? "";
				const fill = " ".repeat(width - visible(cell));
				return right.includes(column) ? fill + cell : cell + fill;
			})
			.join("  ")
			.trimEnd(),
	);
	return lines.map((line) => `${line}\n`).join("");
}
