/**
 * The control protocol: one JSON object per line over the UNIX socket of a volume. Client: {id, verb, arguments}. Daemon: any
 * number of {id, progress}, then {id, result} or {id, error: {code, site, message, exitCode}}. Only root (the owner of the
 * socket, mode 0600) can connect.
 *
 * Invariants
 *  C1 Every request with a readable id gets exactly one result or error; progress comes only before it.
 *  C2 Lines, connections and calls are bounded; who exceeds a bound loses the connection (lines) or is told so (calls).
 *  C3 Of progress that a client does not read in time only the newest is kept.
 */
import { Deferred } from "../base/async.ts";
import { concatBytes } from "../base/bytes.ts";
import type { ErrorCode } from "../base/errors.ts";
import { FsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Clock, Connection, Listener, RequestScope, Sockets } from "../platform/interface.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { callsPerConnection, controlConnections, controlDrainMs, replyLineBytes, requestLineBytes } from "./limits.ts";
import { printable, printableDeep } from "./text.ts";

export type Arguments = Readonly<Record<string, unknown>>;

/** Answers one verb. @throws FsError EINVAL for an unknown verb or wrong arguments. */
export type VerbHandler = (verb: string, given: Arguments, progress: (value: unknown) => void) => Promise<unknown>;

interface Message {
	readonly id?: unknown;
	readonly verb?: unknown;
	readonly arguments?: unknown;
	readonly progress?: unknown;
	readonly result?: unknown;
	readonly error?: { readonly code?: unknown; readonly site?: unknown; readonly message?: unknown; readonly exitCode?: unknown };
}

/** Bytes in pieces to lines. */
export class LineSplitter {
	readonly #limitBytes: number;
	#parts: Uint8Array[] = [];
	#length = 0;

	constructor(limitBytes: number) {
		this.#limitBytes = limitBytes;
	}

	/** The lines that are complete now. @throws FsError E2BIG for a line beyond the limit. */
	push(bytes: Uint8Array): string[] {
		const lines: string[] = [];
		let from = 0;
		for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
			this.#keep(bytes.subarray(from, end));
			lines.push(new TextDecoder().decode(concatBytes(this.#parts)));
			this.#parts = [];
			this.#length = 0;
			from = end + 1;
		}
		// A copy: the piece belongs to the socket.
		if (from < bytes.length) this.#keep(bytes.slice(from));
		return lines;
	}

	#keep(part: Uint8Array): void {
		this.#length += part.length;
		if (this.#length > this.#limitBytes) {
			throw new FsError("E2BIG", "control.line", `a line of the control protocol is longer than ${this.#limitBytes} bytes`);
		}
		this.#parts.push(part);
	}
}

function parse(line: string): Message | undefined {
	try {
		const value: unknown = JSON.parse(line);
		return typeof value === "object" && value !== null ? (value as Message) : undefined;
	} catch {
		return undefined;
	}
}

const encode = (message: Message): Uint8Array => new TextEncoder().encode(`${JSON.stringify(message)}\n`);

function encodeError(id: unknown, error: unknown): Uint8Array {
	const { code, site, message } = toFsError(error, "control.verb");
	return encode({ id, error: { code, site, message: printable(message), exitCode: exitCodeOf(error) } });
}

// ── the daemon's side ────────────────────────────────────────────────────────────────────────────────────────────

export interface ControlOptions {
	readonly socketPath: string;
}

export interface ControlModules {
	readonly sockets: Sockets;
	readonly clock: Clock;
	readonly logger: Logger;
	readonly handler: VerbHandler;
	readonly requests?: RequestScope | undefined;
}

export class ControlServer {
	readonly #options: ControlOptions;
	readonly #modules: ControlModules;
	readonly #connections = new Set<ControlConnection>();
	#accepted = 0;
	#listener: Listener | undefined;

	constructor(options: ControlOptions, modules: ControlModules) {
		this.#options = options;
		this.#modules = modules;
	}

	/** @throws FsError EBUSY when another daemon answers there. */
	async listen(): Promise<void> {
		this.#listener = await this.#modules.sockets.listen(this.#options.socketPath, (connection) => this.#accept(connection));
	}

	/** The socket's name is gone: listen under it again. Calls under way go on. */
	async listenAgain(): Promise<void> {
		const old = this.#listener;
		await this.listen();
		void old?.close().catch((error: unknown) => this.#modules.logger.warn("closing the old control socket", { error: String(error) }));
	}

	#accept(connection: Connection): void {
		if (this.#connections.size >= controlConnections) {
			this.#modules.logger.warn("too many control connections", { limit: controlConnections });
			connection.close();
			return;
		}
		const served = new ControlConnection(connection, ++this.#accepted, this.#modules);
		this.#connections.add(served);
		connection.onClose(() => this.#connections.delete(served));
	}

	/** Gives answers that are ready a moment to be read, then closes everything. */
	async close(): Promise<void> {
		const idle = Promise.all([...this.#connections].map((connection) => connection.idle()));
		await Promise.race([idle, this.#modules.clock.sleep(controlDrainMs)]);
		for (const connection of this.#connections) connection.close();
		await this.#listener?.close();
	}
}

class ControlConnection {
	readonly #connection: Connection;
	/** Of the server's connections, in the order of their coming. */
	readonly #number: number;
	readonly #modules: ControlModules;
	readonly #lines = new LineSplitter(requestLineBytes);
	readonly #calls = new Set<Promise<void>>();

	constructor(connection: Connection, number: number, modules: ControlModules) {
		this.#connection = connection;
		this.#number = number;
		this.#modules = modules;
		connection.onData((bytes) => this.#receive(bytes));
	}

	async idle(): Promise<void> {
		await Promise.all(this.#calls);
	}

	close(): void {
		this.#connection.close();
	}

	#receive(bytes: Uint8Array): void {
		try {
			for (const line of this.#lines.push(bytes)) this.#begin(line);
		} catch (error) {
			this.#modules.logger.warn("a control client was cut off", { error: String(error) });
			this.#connection.close();
		}
	}

	#begin(line: string): void {
		const message = parse(line);
		if (typeof message?.id !== "number" || typeof message.verb !== "string") {
			throw new FsError("EINVAL", "control.request", "a line that is no request of the control protocol");
		}
		const { id, verb } = message;
		const run = () => this.#run(id as number, verb as string, message.arguments);
		const { requests } = this.#modules;
		const started = requests === undefined ? run() : requests.run({ door: "control", id: `${this.#number}.${id}`, operation: verb }, run);
		const call = started.catch(() => {});
		this.#calls.add(call);
		void call.then(() => this.#calls.delete(call));
	}

	async #run(id: number, verb: string, given: unknown): Promise<void> {
		const progress = new NewestOnly((value) => this.#connection.write(encode({ id, progress: printableDeep(value) })));
		let reply: Uint8Array;
		try {
			if (this.#calls.size >= callsPerConnection) {
				throw new FsError("EAGAIN", "control.calls", `more than ${callsPerConnection} calls at once on one connection`);
			}
			const named = typeof given === "object" && given !== null ? (given as Arguments) : {};
			const result = await this.#modules.handler(verb, named, (value) => progress.offer(value));
			reply = encode({ id, result: printableDeep(result ?? {}) });
			if (reply.length > replyLineBytes) throw new FsError("E2BIG", "control.reply", `the answer to ${verb} is too long`);
		} catch (error) {
			this.#modules.logger.warn(`${verb} failed`, { error: String(error), site: toFsError(error, "control.verb").site });
			reply = encodeError(id, error);
		}
		await progress.finish();
		await this.#connection.write(reply);
	}
}

/** Sends one value at a time; what comes meanwhile replaces what waits. */
class NewestOnly {
	readonly #send: (value: unknown) => Promise<void>;
	#sending: Promise<void> | undefined;
	#next: { readonly value: unknown } | undefined;
	#over = false;

	constructor(send: (value: unknown) => Promise<void>) {
		this.#send = send;
	}

	offer(value: unknown): void {
		if (this.#over) return;
		this.#next = { value };
		this.#sending ??= this.#drain();
	}

	async #drain(): Promise<void> {
		// The client may be gone; the verb goes on, and its reply meets the same end.
		try {
			for (let next = this.#next; next; next = this.#next) {
				this.#next = undefined;
				await this.#send(next.value);
			}
		} catch {
			this.#over = true;
		}
		this.#sending = undefined;
	}

	async finish(): Promise<void> {
		this.#over = true;
		this.#next = undefined;
		await this.#sending;
	}
}

// ── the client's side ────────────────────────────────────────────────────────────────────────────────────────────

interface PendingCall {
	readonly answer: Deferred<unknown>;
	readonly onProgress: (value: unknown) => void;
}

export class ControlClient {
	readonly #connection: Connection;
	readonly #lines = new LineSplitter(replyLineBytes);
	readonly #pending = new Map<number, PendingCall>();
	readonly #closed = new Deferred<void>();
	#lastId = 0;

	constructor(connection: Connection) {
		this.#connection = connection;
		connection.onData((bytes) => this.#receive(bytes));
		connection.onClose(() => this.#lost(unreachable("the daemon closed the connection before it answered: see its log")));
	}

	/** Resolves when the connection is over: the daemon has ended. */
	get closed(): Promise<void> {
		return this.#closed.promise;
	}

	/** @throws FsError of the daemon, or ENOTCONN `control.unreachable` when it went away. */
	async call(verb: string, given: Arguments = {}, onProgress: (value: unknown) => void = () => {}): Promise<unknown> {
		if (this.#closed.settled) throw unreachable("the daemon has closed the connection");
		const id = ++this.#lastId;
		const answer = new Deferred<unknown>();
		this.#pending.set(id, { answer, onProgress });
		await this.#connection
			.write(encode({ id, verb, arguments: given }))
			.catch((error: unknown) => this.#lost(unreachable("the daemon does not take requests", error)));
		return answer.promise;
	}

	close(): void {
		this.#connection.close();
	}

	#receive(bytes: Uint8Array): void {
		try {
			for (const line of this.#lines.push(bytes)) this.#take(parse(line));
		} catch (error) {
			this.#lost(error);
			this.#connection.close();
		}
	}

	#take(message: Message | undefined): void {
		const pending = typeof message?.id === "number" ? this.#pending.get(message.id) : undefined;
		if (!message || !pending)
			throw new FsError("EIO", "control.reply-line", "the daemon answered something that is no reply: is it of another version?");
		if ("progress" in message) {
			pending.onProgress(message.progress);
			return;
		}
		this.#pending.delete(message.id as number);
		if (message.error) pending.answer.reject(decodeError(message.error));
		else pending.answer.resolve(message.result);
	}

	#lost(error: unknown): void {
		for (const { answer } of this.#pending.values()) answer.reject(error);
		this.#pending.clear();
		if (!this.#closed.settled) this.#closed.resolve();
	}
}

function decodeError(error: NonNullable<Message["error"]>): FsError {
	const text = (value: unknown, otherwise: string) => (typeof value === "string" ? value : otherwise);
	const exitCode = typeof error.exitCode === "number" ? error.exitCode : 1;
	const message = text(error.message, "the daemon failed without saying why");
	return new FsError(text(error.code, "EIO") as ErrorCode, text(error.site, "control.error"), message, { exitCode });
}

function unreachable(message: string, cause?: unknown): FsError {
	return new FsError("ENOTCONN", "control.unreachable", message, {}, cause);
}

/** Undefined when no daemon listens there. @throws FsError when one is there but does not take the connection. */
export async function connectControl(socketPath: string, sockets: Sockets): Promise<ControlClient | undefined> {
	try {
		return new ControlClient(await sockets.connect(socketPath));
	} catch (error) {
		const { code } = toFsError(error, "control.connect");
		if (code === "ENOENT" || code === "ENOTCONN") return undefined;
		if (code === "EACCES" || code === "EPERM") {
			throw new FsError(
				"EACCES",
				"control.forbidden",
				`only root may talk to the daemon behind ${socketPath}: run the command as root`,
				{},
				error,
			);
		}
		throw unreachable(`the daemon behind ${socketPath} does not answer: ${toFsError(error, "control.connect").message}`, error);
	}
}
