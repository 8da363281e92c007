/**
 * Serves RPC programs on TCP and UDP.
 *
 * Invariants
 *  T1 Bounded: connections, calls under way (of one connection and of all), bytes of calls, bytes of replies, from the begin of the call until the client has taken them. At a bound calls wait and the connection is not read until there is
 *     room again; what goes on holding a bound is closed.
 *  T2 A connection that stands still holds up no other one.
 *  T3 What a client sends that is no call closes its connection, and no other.
 *  T4 After `stop` no call is under way, and none is answered.
 */
import { Deferred, Signal } from "../../base/async.ts";
import { BufferPool } from "../../base/buffer-pool.ts";
import { isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import { paddedBytes } from "../../codec/xdr.ts";
import type { Clock, DatagramSocket, Listener, Peer, Platform, TcpConnection } from "../../platform/interface.ts";
import {
	fullLogs,
	idleConnectionMs,
	keptPoolBytes,
	maxCalls,
	maxCallBytes,
	maxCallsOfConnection,
	maxConnections,
	maxDatagramCalls,
	maxReplyBytes,
	maxReplyBytesOfConnection,
	maxTransferBytes,
	plainReplyBytes,
	pooledFromBytes,
	slowClientMs,
	stuckMs,
} from "./limits.ts";
import type { CallContext, Procedure, Program } from "./program.ts";
import { RecordReader, recordMark } from "./record-marking.ts";
import { type Reply, ReplyCache } from "./reply-cache.ts";
import { acceptStatus, beginReply, decodeCall, encodeFailure, encodeProgramMismatch, type RpcCall } from "./rpc.ts";

export interface RpcModules {
	readonly platform: Platform;
	readonly logger: Logger;
}

export interface ConnectionStatus {
	readonly address: string;
	readonly port: number;
	readonly calls: number;
	readonly idleMs: number;
}

export interface RpcCounters {
	/** By procedure: `nfs3.READ`. */
	readonly calls: ReadonlyMap<string, number>;
	readonly repeated: number;
	readonly refusedConnections: number;
	/** The most that replies took at once, as it was set aside for them. */
	readonly mostReplyBytes: number;
}

const nothing = new Uint8Array(0);

export class RpcServer {
	readonly #programs: ReadonlyMap<number, Program>;
	readonly #platform: Platform;
	readonly #logger: Logger;
	readonly #replies = new ReplyCache();
	/** Of large calls. */
	readonly #records = new BufferPool({ fromBytes: pooledFromBytes, keptBytes: keptPoolBytes, shared: false });
	readonly #connections = new Set<ServerConnection>();
	readonly #listeners: Listener[] = [];
	readonly #calls = new Map<string, number>();
	readonly #idle = new Signal();
	#underWay = 0;
	#bytesUnderWay = 0;
	#replyBytes = 0;
	#mostReplyBytes = 0;
	/** Connections with calls that wait for room; whose turn it is comes first. */
	readonly #waiting = new Set<ServerConnection>();
	#watching = false;
	#cancelWatch: () => void = () => {};
	#datagrams = 0;
	#refused = 0;
	#faults = 0;
	#stopping = false;
	#cancelSweep: () => void = () => {};

	constructor(programs: readonly Program[], { platform, logger }: RpcModules) {
		this.#programs = new Map(programs.map((program) => [program.number, program]));
		this.#platform = platform;
		this.#logger = logger;
		this.#sweepLater();
	}

	// ── sockets ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** @throws FsError EBUSY, EACCES, EINVAL. */
	async listenTcp(address: string, port: number): Promise<Listener & { readonly port: number }> {
		const listener = await this.#platform.network.listenTcp(address, port, (connection) => this.#accept(connection));
		this.#listeners.push(listener);
		return listener;
	}

	/** Programs that are served over UDP. @throws as listenTcp. */
	async listenUdp(address: string, port: number): Promise<DatagramSocket> {
		const socket = await this.#platform.network.bindUdp(address, port, (bytes, from) => void this.#datagram(socket, bytes, from));
		this.#listeners.push(socket);
		return socket;
	}

	/** Closes a listener and its connections. */
	async close(listener: Listener): Promise<void> {
		const at = this.#listeners.indexOf(listener);
		if (at >= 0) this.#listeners.splice(at, 1);
		await listener.close();
	}

	#accept(connection: TcpConnection): void {
		if (this.#stopping || (this.#connections.size >= maxConnections && !this.#makeRoom())) {
			this.#refused++;
			connection.destroy();
			return;
		}
		const served = new ServerConnection(connection, this.#platform.clock, this.#records, {
			replyBytes: (message) => this.#replyBytesOf(message),
			hasRoom: (bytes) => !this.#isFull && this.#replyBytes + bytes <= maxReplyBytes,
			waits: (waits) => this.#setWaiting(served, waits),
			call: (record, replyBytes) => this.#fromConnection(served, record, replyBytes),
			closed: () => {
				this.#connections.delete(served);
				this.#waiting.delete(served);
			},
			garbage: (error) => this.#fault("a client sent what is no call: its connection is closed", error, connection.remote),
		});
		this.#connections.add(served);
	}

	/** The connection that was idle for longest goes; clients connect again when they have something to say. */
	#makeRoom(): boolean {
		const idle = [...this.#connections].filter((one) => one.isIdle).sort((a, b) => a.usedMs - b.usedMs)[0];
		idle?.destroy();
		return idle !== undefined;
	}

	#sweepLater(): void {
		this.#cancelSweep = this.#platform.clock.after(stuckMs / 2, () => {
			const now = this.#platform.clock.monotonicMs();
			for (const connection of [...this.#connections]) if (connection.isStuck(now)) connection.destroy();
			if (!this.#stopping) this.#sweepLater();
		});
	}

	// ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────

	/** What is set aside for the reply. Only looks at the words of the call that stand at fixed places: what is wrong with it is found out later. */
	#replyBytesOf(message: Uint8Array): number {
		if (message.length < 28) return plainReplyBytes;
		const view = new DataView(message.buffer, message.byteOffset, message.length);
		const procedure = this.#programs.get(view.getUint32(12))?.versions.get(view.getUint32(16))?.[view.getUint32(20)];
		if (procedure?.counted !== true) return plainReplyBytes;
		return plainReplyBytes + Math.min(maxTransferBytes, view.getUint32(message.length - 4));
	}

	#setWaiting(connection: ServerConnection, waits: boolean): void {
		this.#waiting.delete(connection);
		if (!waits) return;
		this.#waiting.add(connection);
		if (this.#watching) return;
		this.#watching = true;
		this.#cancelWatch = this.#platform.clock.after(slowClientMs / 2, () => this.#makeWay());
	}

	/** T2: who takes nothing must not keep the room that others wait for. */
	#makeWay(): void {
		this.#watching = false;
		const now = this.#platform.clock.monotonicMs();
		const isShort = this.#isFull || this.#replyBytes + maxTransferBytes + plainReplyBytes > maxReplyBytes;
		if (isShort) for (const connection of [...this.#connections]) if (connection.stalledMs(now) >= slowClientMs) connection.destroy();
		const [next] = this.#waiting;
		if (next !== undefined && !this.#stopping) this.#setWaiting(next, true);
	}

	/** In turn: each that goes on waiting goes to the end. */
	#letWaitingBegin(): void {
		for (const connection of [...this.#waiting]) connection.begin();
	}

	// ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

	#fromConnection(connection: ServerConnection, { message, release }: CallRecord, replyBytes: number): void {
		const answering = this.#answer(message, { peer: connection.remote, local: connection.local, transport: "tcp" });
		if (release !== undefined) answering.then(release, release);
		const work = answering.then(
			(reply) => (reply === undefined ? undefined : connection.reply(reply)),
			(error: unknown) => {
				// Not answered: the client sends it again, to whoever serves then.
				if (!isFsError(error, "ENOTCONN")) this.#fault("a call met a fault of the server", error, connection.remote);
				connection.destroy();
			},
		);
		this.#begin(message.length, replyBytes);
		void work.finally(() => {
			connection.done(replyBytes);
			this.#end(message.length, replyBytes);
		});
	}

	#begin(bytes: number, replyBytes: number): void {
		this.#underWay++;
		this.#bytesUnderWay += bytes;
		this.#replyBytes += replyBytes;
		this.#mostReplyBytes = Math.max(this.#mostReplyBytes, this.#replyBytes);
		if (this.#isFull) for (const connection of this.#connections) connection.hold(true);
	}

	get #isFull(): boolean {
		return this.#underWay >= maxCalls || this.#bytesUnderWay >= maxCallBytes;
	}

	#end(bytes: number, replyBytes: number): void {
		const wasFull = this.#isFull;
		this.#underWay--;
		this.#bytesUnderWay -= bytes;
		this.#replyBytes -= replyBytes;
		if (wasFull && !this.#isFull && !this.#stopping) for (const connection of this.#connections) connection.hold(false);
		if (!this.#stopping) this.#letWaitingBegin();
		if (this.#underWay === 0) this.#idle.notifyAll();
	}

	async #datagram(socket: DatagramSocket, bytes: Uint8Array, from: Peer): Promise<void> {
		// Datagrams may be lost: those that come in a flood are.
		if (this.#stopping || this.#datagrams >= maxDatagramCalls) return;
		this.#datagrams++;
		try {
			const reply = await this.#answer(bytes, { peer: from, local: "", transport: "udp" });
			if (reply !== undefined) await socket.send(join(reply.parts), from);
		} catch (error) {
			// No call, or an answer that does not fit into a datagram: silence, as who sends forged datagrams must learn nothing.
			if (!isFsError(error, "CORRUPT") && !isFsError(error, "EINVAL")) this.#fault("a datagram met a fault of the server", error, from);
		} finally {
			this.#datagrams--;
		}
	}

	/** @throws FsError CORRUPT: it is no call. */
	async #answer(message: Uint8Array, from: Omit<CallContext, "credential" | "message">): Promise<Reply | undefined> {
		const call = decodeCall(message);
		if ("refusal" in call) return whole(call.refusal);
		const program = this.#programs.get(call.program);
		if (program === undefined || !program.transports.includes(from.transport))
			return whole(encodeFailure(call.xid, acceptStatus.programUnavailable));
		const procedures = program.versions.get(call.version);
		if (procedures === undefined) {
			const versions = [...program.versions.keys()];
			return whole(encodeProgramMismatch(call.xid, Math.min(...versions), Math.max(...versions)));
		}
		const procedure = procedures[call.procedure];
		if (procedure === undefined) return whole(encodeFailure(call.xid, acceptStatus.procedureUnavailable));
		this.#count(program.number, call.version, procedure.name);
		const context: CallContext = { ...from, credential: call.credential, message };
		if (procedure.once !== true) return this.#run(call, procedure, context);
		return this.#replies.answer(from.peer.address, message, () => this.#run(call, procedure, context));
	}

	async #run(call: RpcCall, procedure: Procedure, context: CallContext): Promise<Reply> {
		const writer = beginReply(call.xid);
		try {
			const { body, release, keep = true } = (await procedure.run(call.reader, writer, context)) ?? {};
			if (body === undefined) return { parts: [writer.finish()], keep };
			const padding = paddedBytes(body.length) - body.length;
			return { parts: [writer.finish(), body, padding === 0 ? nothing : new Uint8Array(padding)], keep, release };
		} catch (error) {
			if (isFsError(error) && error.site === "codec.xdr") return whole(encodeFailure(call.xid, acceptStatus.garbageArguments));
			if (isFsError(error, "ENOTCONN")) throw error;
			this.#fault(`${procedure.name} met a fault of the server`, error, context.peer);
			return { ...whole(encodeFailure(call.xid, acceptStatus.systemError)), keep: false };
		}
	}

	#count(program: number, version: number, name: string): void {
		const key = `${program}.${version}.${name}`;
		this.#calls.set(key, (this.#calls.get(key) ?? 0) + 1);
	}

	/** Strangers must not be able to fill the log. */
	#fault(what: string, error: unknown, { address, port }: Peer): void {
		this.#faults++;
		if (this.#faults > fullLogs && this.#faults % 1000 !== 0) return;
		const { site, message } = toFsError(error, "nfs.fault");
		const stack = isFsError(error) || !(error instanceof Error) ? {} : { stack: error.stack };
		this.#logger.warn(what, { address, port, site, message, count: this.#faults, ...stack });
	}

	// ── looking and ending ───────────────────────────────────────────────────────────────────────────────────────

	connections(): readonly ConnectionStatus[] {
		const now = this.#platform.clock.monotonicMs();
		return [...this.#connections].map((one) => ({ ...one.remote, calls: one.calls, idleMs: Math.round(now - one.usedMs) }));
	}

	counters(): RpcCounters {
		return { calls: this.#calls, repeated: this.#replies.hits, refusedConnections: this.#refused, mostReplyBytes: this.#mostReplyBytes };
	}

	/** Calls that are under way end first; their replies are lost with the connections. */
	async stop(): Promise<void> {
		this.#stopping = true;
		this.#cancelSweep();
		this.#cancelWatch();
		for (const connection of this.#connections) connection.hold(true);
		while (this.#underWay > 0) await this.#idle.wait();
		await Promise.all(this.#listeners.splice(0).map((listener) => listener.close()));
	}
}

function whole(message: Uint8Array): Reply {
	return { parts: [message], keep: true };
}

function join(parts: readonly Uint8Array[]): Uint8Array {
	if (parts.length === 1) return parts[0] as Uint8Array;
	const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
	let at = 0;
	for (const part of parts) {
		all.set(part, at);
		at += part.length;
	}
	return all;
}

/** The mark goes before the first part, which is short. */
function inRecord([head = nothing, ...rest]: readonly Uint8Array[], lengthBytes: number): Uint8Array[] {
	const marked = new Uint8Array(4 + head.length);
	marked.set(recordMark(lengthBytes));
	marked.set(head, 4);
	return [marked, ...rest.filter((part) => part.length > 0)];
}

interface CallRecord {
	readonly message: Uint8Array;
	/** It lies in a borrowed buffer. */
	readonly release: (() => void) | undefined;
}

interface ConnectionEvents {
	/** What has to be set aside for the reply to a call. */
	readonly replyBytes: (message: Uint8Array) => number;
	readonly hasRoom: (replyBytes: number) => boolean;
	/** Whether calls that have come wait for room. */
	readonly waits: (waits: boolean) => void;
	readonly call: (record: CallRecord, replyBytes: number) => void;
	readonly closed: () => void;
	readonly garbage: (error: unknown) => void;
}

class ServerConnection {
	readonly remote: Peer;
	readonly local: string;
	usedMs: number;
	/** Calls since it was made. */
	calls = 0;
	readonly #connection: TcpConnection;
	readonly #clock: Clock;
	readonly #events: ConnectionEvents;
	readonly #reader: RecordReader;
	#underWay = 0;
	/** Calls that have come and not begun: what had been read already when there was no more room. */
	readonly #waiting: CallRecord[] = [];
	/** Set aside for replies. */
	#setAsideBytes = 0;
	/** Of replies that the kernel has not taken. */
	#replyBytes = 0;
	/** When it began to wait for the client: for the rest of a record, or to take a reply. */
	#waitsSinceMs: number | undefined;
	#held = false;
	#paused = false;
	#closed = false;
	/** Replies on their way; what the client has not taken by the end it never takes. */
	readonly #untaken = new Set<Deferred<boolean>>();

	constructor(connection: TcpConnection, clock: Clock, pool: BufferPool, events: ConnectionEvents) {
		this.#connection = connection;
		this.remote = connection.remote;
		this.local = connection.local;
		this.#clock = clock;
		this.#events = events;
		this.usedMs = clock.monotonicMs();
		this.#reader = new RecordReader((message, release) => void this.#waiting.push({ message, release }), pool);
		connection.onClose(() => this.#end());
		connection.onData((bytes) => this.#receive(bytes));
	}

	get isIdle(): boolean {
		return this.#underWay === 0 && this.#waiting.length === 0 && !this.#reader.unfinished && this.#replyBytes === 0;
	}

	/** How long it has taken nothing of a reply that waits for it. */
	stalledMs(nowMs: number): number {
		return this.#replyBytes === 0 || this.#waitsSinceMs === undefined ? 0 : nowMs - this.#waitsSinceMs;
	}

	/** It waits for its client for longer than any network takes, or nobody has said anything for very long. */
	isStuck(nowMs: number): boolean {
		const waits = this.#waitsSinceMs !== undefined && nowMs - this.#waitsSinceMs > stuckMs;
		return waits || (this.isIdle && nowMs - this.usedMs > idleConnectionMs);
	}

	#receive(bytes: Uint8Array): void {
		if (this.#closed) return;
		this.usedMs = this.#clock.monotonicMs();
		// It goes on sending: what it is in the middle of is not stuck.
		this.#waitsSinceMs = undefined;
		try {
			this.#reader.feed(bytes);
		} catch (error) {
			this.#events.garbage(error);
			this.destroy();
			return;
		}
		this.begin();
	}

	/** Calls that wait, as far as there is room. */
	begin(): void {
		const hadToWait = this.#waiting.length > 0;
		for (let record = this.#waiting[0]; record !== undefined; record = this.#waiting[0]) {
			const bytes = this.#events.replyBytes(record.message);
			if (this.#closed || this.#held || !this.#hasRoom(bytes) || !this.#events.hasRoom(bytes)) break;
			this.#waiting.shift();
			this.calls++;
			this.#underWay++;
			this.#setAsideBytes += bytes;
			this.#events.call(record, bytes);
		}
		if (hadToWait && !this.#closed) this.#events.waits(this.#waiting.length > 0);
		this.#look();
	}

	#hasRoom(replyBytes: number): boolean {
		return this.#underWay < maxCallsOfConnection && this.#setAsideBytes + replyBytes <= maxReplyBytesOfConnection;
	}

	async reply({ parts, release }: Reply): Promise<void> {
		if (this.#closed) return;
		const bytes = parts.reduce((sum, part) => sum + part.length, 0);
		this.#replyBytes += bytes;
		this.#look();
		const isTaken = await this.#taken(inRecord(parts, bytes));
		// What was not taken, the kernel may still be reading.
		if (isTaken) release?.();
		this.usedMs = this.#clock.monotonicMs();
		this.#replyBytes -= bytes;
		this.#waitsSinceMs = undefined;
		this.#look();
	}

	/** Resolves when the kernel has it (true), or the client is gone: it sends the call again. */
	async #taken(parts: readonly Uint8Array[]): Promise<boolean> {
		const taken = new Deferred<boolean>();
		this.#untaken.add(taken);
		this.#connection.writeParts(parts).then(
			() => taken.resolve(true),
			() => taken.resolve(false),
		);
		const isTaken = await taken.promise;
		this.#untaken.delete(taken);
		return isTaken;
	}

	/** A call that came here has ended. */
	done(replyBytes: number): void {
		this.#underWay--;
		this.#setAsideBytes -= replyBytes;
		this.begin();
	}

	/** The server as a whole is full, or not any more. */
	hold(held: boolean): void {
		this.#held = held;
		if (held) this.#look();
		else this.begin();
	}

	/** Reads or does not, and notes whether it waits for the client. */
	#look(): void {
		if (this.#closed) return;
		const pause = this.#held || this.#waiting.length > 0 || this.#underWay >= maxCallsOfConnection;
		if (pause !== this.#paused) {
			this.#paused = pause;
			if (pause) this.#connection.pause();
			else this.#connection.resume();
		}
		const waits = this.#replyBytes > 0 || (this.#reader.unfinished && !pause);
		if (!waits) this.#waitsSinceMs = undefined;
		else this.#waitsSinceMs ??= this.#clock.monotonicMs();
	}

	destroy(): void {
		this.#connection.destroy();
		this.#end();
	}

	#end(): void {
		if (this.#closed) return;
		this.#closed = true;
		for (const reply of this.#untaken) reply.resolve(false);
		this.#events.closed();
	}
}
