/** Byte strings on their way to people: UTF-8 where they are, untouched where not. */
import { latin1ToBytes } from "../base/bytes.ts";

/** A byte string (one char per byte) that holds UTF-8 becomes text; anything else stays as it is. */
export function printable(text: string): string {
	let high = false;
	for (let i = 0; i < text.length; i++) {
		const code = text.charCodeAt(i);
		if (code > 0xff) return text;
		if (code > 0x7f) high = true;
	}
	if (!high) return text;
	try {
		return new TextDecoder("utf-8", { fatal: true }).decode(latin1ToBytes(text));
	} catch {
		return text;
	}
}

/** The same for every string in a JSON value. */
export function printableDeep<T>(value: T): T {
	if (typeof value === "string") return printable(value) as T;
	if (Array.isArray(value)) return value.map((item: unknown) => printableDeep(item)) as T;
	if (value === null || typeof value !== "object") return value;
	return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, printableDeep(item as unknown)])) as T;
}
