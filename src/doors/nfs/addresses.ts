/** IP addresses and ranges of them (CIDR, RFC 4632 and RFC 4291), as text and as numbers. */
import { FsError } from "../../base/errors.ts";

/** 4 or 16 bytes. */
type Address = readonly number[];

export interface Range {
	readonly address: Address;
	readonly prefixBits: number;
}

export function parseAddress(text: string): Address | undefined {
	return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): Address | undefined {
	const parts = text.split(".");
	if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
	return parts.map(Number);
}

function parseIpv6(text: string): Address | undefined {
	const halves = text.split("%")[0]?.split("::") ?? [];
	if (halves.length > 2) return undefined;
	const groups = halves.map(parseGroups);
	const [before, after] = groups;
	if (before === undefined) return undefined;
	if (halves.length === 1) return before.length === 16 ? before : undefined;
	if (after === undefined || before.length + after.length > 14) return undefined;
	return [...before, ...new Array<number>(16 - before.length - after.length).fill(0), ...after];
}

/** `2001:db8` or `ffff:192.0.2.1` as bytes. */
function parseGroups(text: string): Address | undefined {
	if (text === "") return [];
	const bytes: number[] = [];
	const parts = text.split(":");
	for (const [i, part] of parts.entries()) {
		const ipv4 = i === parts.length - 1 && part.includes(".") ? parseIpv4(part) : undefined;
		if (ipv4 !== undefined) bytes.push(...ipv4);
		else if (/^[0-9a-f]{1,4}$/i.test(part)) bytes.push(Number.parseInt(part, 16) >> 8, Number.parseInt(part, 16) & 255);
		else return undefined;
	}
	return bytes;
}

/** `192.0.2.0/24`, `2001:db8::/32`, or one address. @throws FsError EINVAL. */
export function parseRange(text: string): Range {
	const [first = "", bits, ...rest] = text.split("/");
	const address = parseAddress(first);
	const wrong = (why: string): FsError =>
		new FsError("EINVAL", "nfs.range", `"${text}" is no range of addresses (${why}): write 192.0.2.0/24, 2001:db8::/32 or one address`);
	if (address === undefined || rest.length > 0) throw wrong("no such address");
	const most = address.length * 8;
	const prefixBits = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
	if (prefixBits < 0 || prefixBits > most) throw wrong(`a prefix has 0 to ${most} bits`);
	const beyond = address.findIndex((byte, i) => (byte & (255 >> Math.min(8, Math.max(0, prefixBits - i * 8)))) !== 0);
	if (beyond >= 0) throw wrong("bits behind the prefix are set: is the prefix too short?");
	return { address, prefixBits };
}

export function formatRange({ address, prefixBits }: Range): string {
	const isWhole = prefixBits === address.length * 8;
	return `${formatAddress(address)}${isWhole ? "" : `/${prefixBits}`}`;
}

/** RFC 5952: the longest run of zero groups is left out. */
function formatAddress(address: Address): string {
	if (address.length === 4) return address.join(".");
	const groups = Array.from({ length: 8 }, (_, i) => (((address[2 * i] as number) << 8) | (address[2 * i + 1] as number)).toString(16));
	let [from, length] = [0, 0];
	for (let at = 0; at < 8; at++) {
		let end = at;
		while (end < 8 && groups[end] === "0") end++;
		if (end - at > length) [from, length] = [at, end - at];
	}
	if (length < 2) return groups.join(":");
	return `${groups.slice(0, from).join(":")}::${groups.slice(from + length).join(":")}`;
}

export function inRanges(address: string, ranges: readonly Range[]): boolean {
	const bytes = parseAddress(address);
	return bytes !== undefined && ranges.some((range) => isInside(bytes, range));
}

function isInside(bytes: Address, { address, prefixBits }: Range): boolean {
	if (bytes.length !== address.length) return false;
	return address.every((byte, i) => {
		const kept = Math.min(8, Math.max(0, prefixBits - i * 8));
		return ((byte ^ (bytes[i] as number)) & (255 << (8 - kept)) & 255) === 0;
	});
}

export function isLoopback(address: string): boolean {
	return address === "::1" || (address.startsWith("127.") && parseIpv4(address) !== undefined);
}
