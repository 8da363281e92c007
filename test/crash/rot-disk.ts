/** Flips bytes of a directory disk behind the volume's back, and tells what that hits: whole blocks of 4 KiB, each byte of them changed, chosen at random. */
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { decodeHeader, fragmentLength } from "../../src/storage/fragment.ts";

const blockBytes = 4096;

export interface Flipped {
	readonly blocks: number;
	/** Fragments with a flipped block, by file and place. */
	readonly fragments: number;
}

interface Fragment {
	readonly file: string;
	readonly offset: number;
	readonly blocks: number;
}

/** `part` of the blocks of all fragments on the disk, at least one. */
export function flipFragments(disk: string, part: number, random: (bound: number) => number): Flipped {
	const fragments = readdirSync(join(disk, "pack")).flatMap((name) => fragmentsOf(join(disk, "pack", name)));
	const total = fragments.reduce((sum, { blocks }) => sum + blocks, 0);
	const chosen = chooseSome(total, part, random);
	let first = 0;
	let hit = 0;
	for (const { file, offset, blocks } of fragments) {
		const own = chosen.filter((block) => block >= first && block < first + blocks).map((block) => offset + (block - first) * blockBytes);
		flip(file, own, random);
		if (own.length > 0) hit++;
		first += blocks;
	}
	return { blocks: chosen.length, fragments: hit };
}

/** `part` of the blocks of every other file of the disk, at least one of each. Answers how many. */
export function flipOthers(disk: string, part: number, random: (bound: number) => number): number {
	let blocks = 0;
	for (const name of readdirSync(disk, { recursive: true, encoding: "utf8" })) {
		const file = join(disk, name);
		if (name.startsWith("pack") || !statSync(file).isFile() || statSync(file).size === 0) continue;
		const chosen = chooseSome(Math.ceil(statSync(file).size / blockBytes), part, random);
		flip(
			file,
			chosen.map((block) => block * blockBytes),
			random,
		);
		blocks += chosen.length;
	}
	return blocks;
}

function chooseSome(total: number, part: number, random: (bound: number) => number): number[] {
	const chosen = new Set<number>();
	while (chosen.size < Math.max(1, Math.floor(total * part))) chosen.add(random(total));
	return [...chosen].sort((a, b) => a - b);
}

/** Every fragment begins with a header on a block's boundary; holes lie between. */
function fragmentsOf(file: string): Fragment[] {
	const handle = openSync(file, "r");
	const found: Fragment[] = [];
	const block = Buffer.alloc(blockBytes);
	for (let offset = 0; readSync(handle, block, 0, blockBytes, offset) === blockBytes; ) {
		const header = block.toString("latin1", 0, 8) === "CAIRNFR1" ? Buffer.alloc(block.readUInt32LE(12)) : undefined;
		if (header !== undefined) readSync(handle, header, 0, header.length, offset);
		const lengthBytes = header === undefined ? 0 : fragmentLength(decodeHeader(header).shardBytes);
		if (lengthBytes > 0) found.push({ file, offset, blocks: lengthBytes / blockBytes });
		offset += Math.max(blockBytes, lengthBytes);
	}
	closeSync(handle);
	return found;
}

function flip(file: string, offsets: readonly number[], random: (bound: number) => number): void {
	if (offsets.length === 0) return;
	const handle = openSync(file, "r+");
	const block = Buffer.alloc(blockBytes);
	for (const offset of offsets) {
		const count = readSync(handle, block, 0, blockBytes, offset);
		for (let at = 0; at < count; at++) block[at] = (block[at] as number) ^ (1 + random(255));
		writeSync(handle, block, 0, count, offset);
	}
	closeSync(handle);
}
