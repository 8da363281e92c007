/** READDIR and READDIRPLUS. Positions are the volume's, which never change their meaning: the verifier is one for all directories. */
import { equalBytes } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import type { XdrWriter } from "../../codec/xdr.ts";
import type { DirectoryItem } from "../../volume/interface.ts";
import { directoryReplyHeadBytes, maxDirectoryBatch, maxDirectoryReplyBytes } from "./limits.ts";
import { entryBytes, writePostAttributes, writePostHandle } from "./nfs3.ts";
import type { NfsState, Target } from "./nfs-server.ts";

export interface DirectoryRequest {
	/** 0: from the start. */
	readonly cookie: number;
	readonly verifier: Uint8Array;
	/** Of the whole reply. */
	readonly countBytes: number;
}

export interface DirectoryPlusRequest extends DirectoryRequest {
	/** Of names and positions alone. */
	readonly namesBytes: number;
}

export function readDirectory(state: NfsState, target: Target, request: DirectoryRequest, writer: XdrWriter): Promise<void> {
	return fill(state, target, { ...request, namesBytes: request.countBytes }, writer, false);
}

export function readDirectoryPlus(state: NfsState, target: Target, request: DirectoryPlusRequest, writer: XdrWriter): Promise<void> {
	return fill(state, target, request, writer, true);
}

async function fill(state: NfsState, target: Target, request: DirectoryPlusRequest, writer: XdrWriter, plus: boolean): Promise<void> {
	checkPosition(state, request);
	const room = new Room(request, plus);
	writePostAttributes(writer, target.attributes, target.fsid);
	writer.fixed(state.cookieVerifier);
	const isEnd = await fillEntries(state, target, request.cookie, room, writer, plus);
	writer.bool(false).bool(isEnd);
}

/** Answers whether the directory ends there. @throws FsError ERANGE: not one entry fits. */
async function fillEntries(
	state: NfsState,
	target: Target,
	cookie: number,
	room: Room,
	writer: XdrWriter,
	plus: boolean,
): Promise<boolean> {
	for (let after = cookie; ; ) {
		const items = await state.volume.readDirectory(target.caller, target.node, after, Math.min(maxDirectoryBatch, room.entries), plus);
		if (items.length === 0) return true;
		for (const item of items) {
			if (!room.take(item.name)) return false;
			writeEntry(state, target, item, writer, plus);
			after = item.cookie;
		}
	}
}

/** @throws FsError EINVAL (BAD_COOKIE). */
function checkPosition(state: NfsState, { cookie, verifier }: DirectoryRequest): void {
	const isKnown = cookie === 0 || (Number.isSafeInteger(cookie) && equalBytes(verifier, state.cookieVerifier));
	if (!isKnown) throw new FsError("EINVAL", "nfs.bad-cookie", `position ${cookie} is not of this volume`);
}

/** What fits into a reply. */
class Room {
	readonly #plus: boolean;
	#bytes: number;
	#namesBytes: number;
	#count = 0;

	constructor({ countBytes, namesBytes }: DirectoryPlusRequest, plus: boolean) {
		this.#plus = plus;
		this.#bytes = Math.min(countBytes, maxDirectoryReplyBytes) - directoryReplyHeadBytes;
		this.#namesBytes = Math.min(namesBytes, maxDirectoryReplyBytes);
	}

	/** At most so many more entries fit. */
	get entries(): number {
		return Math.max(1, Math.floor(this.#bytes / entryBytes("a", this.#plus)) + 1);
	}

	/** False: full. @throws FsError ERANGE: and nothing is in it yet. */
	take(name: string): boolean {
		this.#bytes -= entryBytes(name, this.#plus);
		this.#namesBytes -= entryBytes(name, false);
		const fits = this.#bytes >= 0 && (this.#namesBytes >= 0 || (this.#plus && this.#count === 0));
		if (!fits && this.#count === 0) throw new FsError("ERANGE", "nfs.readdir-small", "the reply has no room for one entry");
		this.#count++;
		return fits;
	}
}

function writeEntry(
	state: NfsState,
	{ entry, node, attributes: own, fsid }: Target,
	item: DirectoryItem,
	writer: XdrWriter,
	plus: boolean,
): void {
	// Above the root of an export there is nothing for its clients.
	const isTop = item.name === ".." && node.ino === entry.rootIno;
	const attributes = isTop ? own : item.attributes;
	writer
		.bool(true)
		.u64(isTop ? node.ino : item.ino)
		.text(item.name)
		.u64(item.cookie);
	if (!plus) return;
	writePostAttributes(writer, attributes, fsid);
	if (attributes === undefined) writer.bool(false);
	else writePostHandle(writer, state.handleOf(entry, attributes));
}
