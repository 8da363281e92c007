/** READDIR and READDIRPLUS: a stream by cookie; never more than one batch of entries in memory. */
import type { Caller, DirectoryItem, NodeRef } from "../../volume/interface.ts";
import { attributeValidity } from "./door.ts";
import type { Door } from "./door.ts";
import { maxDirectoryBatch, maxDirectoryReplyBytes, preferredIoBytes } from "./limits.ts";
import { ReplyWriter, direntLength, encodeDirent, encodeEntry, entryOutBytes, outHeaderBytes } from "./protocol.ts";

/** A name of average length; only sets how many entries are asked for. */
const usualNameBytes = 16;

export interface DirectoryReply {
	readonly writer: ReplyWriter;
	/** When it was sent. */
	readonly release: () => void;
}

/** Fills a reply of at most `sizeBytes` of entries behind `after`; an empty one is the end. Programs ask for much and most directories are small: the memory is used again. */
export async function readDirectory(
	door: Door,
	caller: Caller,
	node: NodeRef,
	after: number,
	sizeBytes: number,
	plus: boolean,
): Promise<DirectoryReply> {
	const capacityBytes = outHeaderBytes + Math.min(sizeBytes, maxDirectoryReplyBytes);
	const lent = door.readBuffers.take(capacityBytes);
	const writer = new ReplyWriter(lent?.bytes ?? capacityBytes);
	await fill(door, caller, node, after, writer, plus);
	return { writer, release: () => lent?.release() };
}

async function fill(door: Door, caller: Caller, node: NodeRef, after: number, w: ReplyWriter, plus: boolean): Promise<void> {
	let cookie = after;
	for (;;) {
		const limit = Math.min(maxDirectoryBatch, Math.ceil(w.room / direntLength(usualNameBytes, plus)) + 1);
		const items =
			door.now?.readDirectory(caller, node, cookie, limit, plus) ?? (await door.volume.readDirectory(caller, node, cookie, limit, plus));
		for (const item of items) {
			if (direntLength(item.name.length, plus) > w.room) return;
			encodeItem(door, w, item, plus);
			cookie = item.cookie;
		}
		if (items.length < limit || w.room < direntLength(1, plus)) return;
	}
}

function encodeItem(door: Door, w: ReplyWriter, item: DirectoryItem, plus: boolean): void {
	if (plus) {
		// An entry with attributes counts as looked up; "." and "..", and a node that went away meanwhile, come without (node 0).
		const known = item.name === "." || item.name === ".." ? undefined : item.attributes;
		if (known === undefined) w.zeros(entryOutBytes);
		else {
			encodeEntry(w, known, { entryMs: door.entryMs, attributeMs: attributeValidity(door, known.ino) }, preferredIoBytes);
			door.known.told(known.ino);
		}
	}
	encodeDirent(w, { ino: item.ino, cookie: item.cookie, type: item.type, name: item.name });
}
