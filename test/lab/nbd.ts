/**
 * The serving side of the Network Block Device protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: fixed newstyle, simple replies), as far as Linux's client uses it: bytes in, bytes
 * out, no sockets. Everything is big-endian.
 */

/** What is behind an export name. Offsets and lengths are multiples of 512. */
export interface Exported {
	readonly sizeBytes: number;
	read(offset: number, lengthBytes: number): Buffer;
	/** `forced` (FUA): durable before the reply. */
	write(offset: number, bytes: Buffer, forced: boolean): void;
	flush(): void;
}

const magic = {
	server: 0x4e42444d41474943n,
	option: 0x49484156454f5054n,
	optionReply: 0x3e889045565a9n,
	request: 0x25609513,
	reply: 0x67446698,
};
const handshakeFlags = 1 | 2; // NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES
/** NBD_FLAG_HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES. */
const transmissionFlags = 1 | 4 | 8 | 32 | 64;
const option = { exportName: 1, abort: 2, info: 6, go: 7 } as const;
const optionReply = { ack: 1, info: 3, unsupported: 0x8000_0001, unknown: 0x8000_0006 } as const;
const command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6 } as const;
const forcedFlag = 1;
const invalid = 22;
/** Linux sends no more than its max_sectors_kb; beyond is nonsense. */
const mostBytes = 64 * 1024 * 1024;
const mostTrimmedBytes = 1 << 20;

/** One connection. `find` says what is behind a name that the client asked for, `send` takes what goes to it, `close` ends it. */
export class NbdConnection {
	readonly #find: (name: string) => Exported | undefined;
	readonly #send: (bytes: Buffer) => void;
	readonly #close: () => void;
	#pieces: Buffer[] = [];
	#bytes = 0;
	#state: "flags" | "options" | "requests" | "closed" = "flags";
	#noZeroes = false;
	#export: Exported | undefined;

	constructor(find: (name: string) => Exported | undefined, send: (bytes: Buffer) => void, close: () => void) {
		this.#find = find;
		this.#send = send;
		this.#close = close;
		const hello = Buffer.alloc(18);
		hello.writeBigUInt64BE(magic.server, 0);
		hello.writeBigUInt64BE(magic.option, 8);
		hello.writeUInt16BE(handshakeFlags, 16);
		send(hello);
	}

	receive(bytes: Buffer): void {
		this.#pieces.push(bytes);
		this.#bytes += bytes.length;
		while (this.#step());
	}

	/** Nothing that has come or will come is performed any more. */
	stop(): void {
		this.#state = "closed";
	}

	/** The next `lengthBytes`, which stay there; undefined: they have not come yet. */
	#peek(lengthBytes: number): Buffer | undefined {
		if (this.#bytes < lengthBytes) return undefined;
		if ((this.#pieces[0]?.length ?? 0) < lengthBytes) this.#pieces = [Buffer.concat(this.#pieces)];
		return this.#pieces[0]?.subarray(0, lengthBytes) ?? Buffer.alloc(0);
	}

	#take(lengthBytes: number): void {
		const first = this.#pieces[0] as Buffer;
		if (first.length === lengthBytes) this.#pieces.shift();
		else this.#pieces[0] = first.subarray(lengthBytes);
		this.#bytes -= lengthBytes;
	}

	#end(): false {
		this.#state = "closed";
		this.#close();
		return false;
	}

	/** One message. False: nothing whole is there. */
	#step(): boolean {
		if (this.#state === "flags") return this.#clientFlags();
		if (this.#state === "options") return this.#option();
		return this.#state === "requests" && this.#request();
	}

	#clientFlags(): boolean {
		const flags = this.#peek(4);
		if (flags === undefined) return false;
		this.#noZeroes = (flags.readUInt32BE(0) & 2) !== 0;
		this.#take(4);
		this.#state = "options";
		return true;
	}

	#option(): boolean {
		const head = this.#peek(16);
		if (head === undefined) return false;
		const lengthBytes = head.readUInt32BE(12);
		if (head.readBigUInt64BE(0) !== magic.option || lengthBytes > 4096) return this.#end();
		const all = this.#peek(16 + lengthBytes);
		if (all === undefined) return false;
		const kind = all.readUInt32BE(8);
		const data = all.subarray(16);
		this.#take(all.length);
		if (kind === option.exportName) return this.#exportName(data.toString("utf8"));
		if (kind === option.go || kind === option.info) this.#go(kind, data);
		else this.#answerOption(kind, kind === option.abort ? optionReply.ack : optionReply.unsupported);
		return kind === option.abort ? this.#end() : true;
	}

	#exportName(name: string): boolean {
		this.#export = this.#find(name);
		if (this.#export === undefined) return this.#end();
		const answer = Buffer.alloc(this.#noZeroes ? 10 : 134);
		answer.writeBigUInt64BE(BigInt(this.#export.sizeBytes), 0);
		answer.writeUInt16BE(transmissionFlags, 8);
		this.#send(answer);
		this.#state = "requests";
		return true;
	}

	#go(kind: number, data: Buffer): void {
		const found = this.#find(data.subarray(4, 4 + data.readUInt32BE(0)).toString("utf8"));
		if (found === undefined) {
			this.#answerOption(kind, optionReply.unknown);
			return;
		}
		const info = Buffer.alloc(12);
		info.writeBigUInt64BE(BigInt(found.sizeBytes), 2);
		info.writeUInt16BE(transmissionFlags, 10);
		this.#answerOption(kind, optionReply.info, info);
		this.#answerOption(kind, optionReply.ack);
		if (kind !== option.go) return;
		this.#export = found;
		this.#state = "requests";
	}

	#answerOption(kind: number, type: number, data: Buffer = Buffer.alloc(0)): void {
		const head = Buffer.alloc(20);
		head.writeBigUInt64BE(magic.optionReply, 0);
		head.writeUInt32BE(kind, 8);
		head.writeUInt32BE(type, 12);
		head.writeUInt32BE(data.length, 16);
		this.#send(Buffer.concat([head, data]));
	}

	#request(): boolean {
		const head = this.#peek(28);
		if (head === undefined) return false;
		if (head.readUInt32BE(0) !== magic.request) return this.#end();
		const kind = head.readUInt16BE(6);
		const lengthBytes = head.readUInt32BE(24);
		if (lengthBytes > mostBytes && kind !== command.trim) return this.#end();
		const all = this.#peek(28 + (kind === command.write ? lengthBytes : 0));
		if (all === undefined) return false;
		this.#take(all.length);
		if (kind === command.disconnect) return this.#end();
		this.#perform(all, kind, Number(all.readBigUInt64BE(16)), lengthBytes);
		return true;
	}

	#perform(request: Buffer, kind: number, offset: number, lengthBytes: number): void {
		const to = this.#export as Exported;
		const isForced = (request.readUInt16BE(4) & forcedFlag) !== 0;
		const isInside = offset + lengthBytes <= to.sizeBytes && offset % 512 === 0 && lengthBytes % 512 === 0;
		let error = isInside ? 0 : invalid;
		let data: Buffer | undefined;
		if (error !== 0) data = undefined;
		else if (kind === command.read) data = to.read(offset, lengthBytes);
		else if (kind === command.write) to.write(offset, Buffer.from(request.subarray(28)), isForced);
		else if (kind === command.flush) to.flush();
		// What is trimmed may read as anything: it reads as noise, so that nobody relies on it, or where it is much as before.
		else if (kind === command.trim) to.write(offset, Buffer.alloc(lengthBytes > mostTrimmedBytes ? 0 : lengthBytes, 0xa5), isForced);
		else if (kind === command.writeZeroes) to.write(offset, Buffer.alloc(lengthBytes), isForced);
		else error = invalid;
		const answer = Buffer.alloc(16);
		answer.writeUInt32BE(magic.reply, 0);
		answer.writeUInt32BE(error, 4);
		request.copy(answer, 8, 8, 16);
		this.#send(data === undefined ? answer : Buffer.concat([answer, data]));
	}
}
