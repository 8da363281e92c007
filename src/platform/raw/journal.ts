/**
 * How the table of a raw disk becomes durable: changes are appended to a journal; when it is full the whole table is written to the copy that is not in use, and
 * the journal begins anew.
 *
 * A page-aligned block: magic 8 · identity 16 · generation u64 · sequence u64 · length u32 · CRC32C u32 (over head and body with this field zero) · body. A copy of the
 * table is such a block with sequence 0; the records of its generation follow it in the journal, from 1 on.
 *
 * Invariants
 *  J1 A record is written only after the one before it is durable: a record that is torn by a power cut is the last.
 *  J2 The copy of the table that counts, and its journal, are not written over before the next copy is durable.
 *  J3 Behind the end of a journal lies no record of its generation; one there means damage, not an end.
 */
import { assert } from "../../base/assert.ts";
import { bytesToLatin1, latin1ToBytes } from "../../base/bytes.ts";
import { FsError, isFsError } from "../../base/errors.ts";
import { ByteReader, ByteWriter } from "../../codec/binary.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { RawDevice } from "./interface.ts";
import { journalAt, type RawLayout, tableAt, unitCount } from "./layout.ts";
import { rawLimits } from "./limits.ts";
import type { Run } from "./free-units.ts";
import { decodeChanges, encodeChanges, RawTable } from "./table.ts";

const magic = "CAIRNDT1";
const headBytes = 8 + 16 + 8 + 8 + 4 + 4;
const lengthAt = headBytes - 8;
const checksumAt = headBytes - 4;

interface Block {
	readonly generation: number;
	readonly sequence: number;
	readonly body: Uint8Array;
	/** With padding. */
	readonly bytes: number;
}

function encodeBlock(layout: RawLayout, generation: number, sequence: number, body: Uint8Array): Uint8Array {
	const out = new ByteWriter(headBytes + body.length);
	out.raw(latin1ToBytes(magic)).raw(layout.identity).u64(generation).u64(sequence).u32(body.length).u32(0).raw(body);
	out.patchU32(checksumAt, crc32c(out.view()));
	const padded = new Uint8Array(Math.ceil(out.length / rawLimits.pageBytes) * rawLimits.pageBytes);
	padded.set(out.finish());
	return padded;
}

/** The block at the start of `bytes`, if there is a whole one of this format. */
function decodeBlock(layout: RawLayout, bytes: Uint8Array): Block | undefined {
	if (bytes.length < headBytes || bytesToLatin1(bytes.subarray(0, 8)) !== magic) return undefined;
	// The checksum first: damaged numbers may be none at all, and the other copy is as good.
	const view = new DataView(bytes.buffer, bytes.byteOffset, headBytes);
	const length = view.getUint32(lengthAt, true);
	if (headBytes + length > bytes.length) return undefined;
	const checked = bytes.slice(0, headBytes + length);
	checked.fill(0, checksumAt, headBytes);
	if (crc32c(checked) !== view.getUint32(checksumAt, true)) return undefined;
	const input = new ByteReader(bytes, "a block of the table");
	input.raw(8);
	if (bytesToLatin1(input.raw(16)) !== bytesToLatin1(layout.identity)) return undefined;
	const generation = input.u64();
	const sequence = input.u64();
	const padded = Math.ceil((headBytes + length) / rawLimits.pageBytes) * rawLimits.pageBytes;
	return { generation, sequence, body: bytes.subarray(headBytes, headBytes + length), bytes: padded };
}

/** As much as the copy says it is long; what is nonsense there is found by the checksum. */
async function readTable(device: RawDevice, layout: RawLayout, copy: 0 | 1): Promise<Block | undefined> {
	const at = tableAt(layout, copy);
	const head = await device.read(at, rawLimits.pageBytes);
	const length = headBytes + new DataView(head.buffer, head.byteOffset).getUint32(lengthAt, true);
	if (length <= head.length) return decodeBlock(layout, head);
	return length <= layout.tableBytes ? decodeBlock(layout, await device.read(at, length)) : undefined;
}

export class RawJournal {
	readonly #device: RawDevice;
	readonly #layout: RawLayout;
	#generation: number;
	#sequence: number;
	#copy: 0 | 1;
	/** Where the next record goes, from the start of the journal. */
	#offset: number;

	private constructor(device: RawDevice, layout: RawLayout, at: { generation: number; sequence: number; copy: 0 | 1; offset: number }) {
		this.#device = device;
		this.#layout = layout;
		this.#generation = at.generation;
		this.#sequence = at.sequence;
		this.#copy = at.copy;
		this.#offset = at.offset;
	}

	static emptyTable(layout: RawLayout): RawTable {
		return new RawTable(unitCount(layout), layout.tableBytes - headBytes - rawLimits.pageBytes);
	}

	/** An empty table, durable when it resolves. */
	static async format(device: RawDevice, layout: RawLayout): Promise<{ readonly journal: RawJournal; readonly table: RawTable }> {
		const table = RawJournal.emptyTable(layout);
		await device.write(tableAt(layout, 0), [encodeBlock(layout, 1, 0, table.encode())]);
		await device.sync("platform.raw-format");
		return { journal: new RawJournal(device, layout, { generation: 1, sequence: 0, copy: 0, offset: 0 }), table };
	}

	/** @throws FsError CORRUPT `platform.raw-table`: what is where cannot be told any more. */
	static async load(device: RawDevice, layout: RawLayout): Promise<{ readonly journal: RawJournal; readonly table: RawTable }> {
		const blocks = [await readTable(device, layout, 0), await readTable(device, layout, 1)];
		const copy = (blocks[1]?.generation ?? 0) > (blocks[0]?.generation ?? 0) ? 1 : 0;
		const block = blocks[copy];
		if (block === undefined) throw damaged(device, "both copies of its table are damaged");
		const table = RawJournal.emptyTable(layout);
		try {
			table.load(new ByteReader(block.body, `the table of ${device.path}`));
			const { offset, sequence } = replay(await device.read(journalAt, layout.journalBytes), layout, block.generation, table, device);
			return { journal: new RawJournal(device, layout, { generation: block.generation, sequence, copy, offset }), table };
		} catch (error) {
			throw isFsError(error, "CORRUPT") || isFsError(error, "ENOSPC") ? damaged(device, error.message) : error;
		}
	}

	/**
	 * Everything written to the device before this call, and the changes of the table so far, are durable when it resolves. Answers the units that are free now.
	 * After an error nobody knows what is durable.
	 * @param anew what lies on the device is damaged: the whole table is written.
	 */
	async commit(table: RawTable, site: string, anew = false): Promise<readonly Run[]> {
		const { changes, released } = table.takeChanges();
		const record =
			changes.length === 0 ? undefined : encodeBlock(this.#layout, this.#generation, this.#sequence + 1, encodeChanges(changes));
		const isFull = record !== undefined && this.#offset + record.length > this.#layout.journalBytes;
		const whole = isFull || anew ? encodeBlock(this.#layout, this.#generation + 1, 0, table.encode()) : undefined;
		// First the data: a file never shows what its units held before.
		await this.#device.sync(site);
		if (whole !== undefined) await this.#writeTable(whole);
		else if (record !== undefined) await this.#append(record);
		return released;
	}

	/** Whether `load` would find now what was written. Not while a commit runs. */
	async isWhole(): Promise<boolean> {
		await this.#device.uncache(tableAt(this.#layout, this.#copy), this.#layout.tableBytes);
		await this.#device.uncache(journalAt, this.#layout.journalBytes);
		const block = await readTable(this.#device, this.#layout, this.#copy);
		if (block?.generation !== this.#generation || block.sequence !== 0) return false;
		const bytes = await this.#device.read(journalAt, this.#offset);
		let sequence = 0;
		for (let at = 0; at < bytes.length; ) {
			const record = decodeBlock(this.#layout, bytes.subarray(at));
			if (record?.generation !== this.#generation || record.sequence !== sequence + 1) return false;
			sequence++;
			at += record.bytes;
		}
		return sequence === this.#sequence;
	}

	/** J1 */
	async #append(record: Uint8Array): Promise<void> {
		await this.#device.write(journalAt + this.#offset, [record]);
		await this.#device.sync("platform.raw-journal");
		this.#offset += record.length;
		this.#sequence++;
	}

	/** J2 */
	async #writeTable(block: Uint8Array): Promise<void> {
		const copy = this.#copy === 0 ? 1 : 0;
		assert(block.length <= this.#layout.tableBytes, "T4: the table fits its place");
		await this.#device.write(tableAt(this.#layout, copy), [block]);
		await this.#device.sync("platform.raw-table");
		this.#copy = copy;
		this.#generation++;
		this.#sequence = 0;
		this.#offset = 0;
	}
}

function replay(
	bytes: Uint8Array,
	layout: RawLayout,
	generation: number,
	table: RawTable,
	device: RawDevice,
): { offset: number; sequence: number } {
	let offset = 0;
	let sequence = 0;
	for (;;) {
		const block = decodeBlock(layout, bytes.subarray(offset));
		if (block === undefined || block.generation !== generation || block.sequence !== sequence + 1) break;
		const input = new ByteReader(block.body, `the journal of ${device.path}`);
		table.replay(decodeChanges(input), input);
		offset += block.bytes;
		sequence++;
	}
	// J3
	for (let at = offset; at < bytes.length; at += rawLimits.pageBytes) {
		const stray = decodeBlock(layout, bytes.subarray(at));
		if (stray?.generation === generation && stray.sequence > sequence)
			throw damaged(device, `record ${sequence + 1} of its journal is damaged`);
	}
	return { offset, sequence };
}

function damaged(device: RawDevice, why: string): FsError {
	return new FsError("CORRUPT", "platform.raw-table", `${device.path} cannot be read: ${why}`, { path: device.path });
}
