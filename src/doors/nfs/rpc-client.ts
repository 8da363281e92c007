/** Calls to programs of other machines: the port is asked of their port mapper, each call has a connection of its own, and a bound for everything together. */
import { Deferred } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Clock, DatagramSocket, Network, Peer, TcpConnection } from "../../platform/interface.ts";
import { datagramAgainMs, maxAuthBytes } from "./limits.ts";
import { portMapperPort, portMapperProgram, portOfUniversal, protocolNumbers } from "./port-mapper.ts";
import { RecordReader, recordMark } from "./record-marking.ts";
import { beginCall, decodeReply, requireSuccess } from "./rpc.ts";

export type Transport = "tcp" | "udp";

export interface RemoteProgram {
	readonly address: string;
	readonly program: number;
	readonly version: number;
	readonly transport: Transport;
}

export interface RemoteCall<T> {
	readonly procedure: number;
	/** `local`: the address of this machine that the other one sees; "" over UDP. */
	readonly write: (writer: XdrWriter, local: string) => void;
	readonly read: (reader: XdrReader) => T;
}

export type CallOutcome<T> =
	| { readonly kind: "answered"; readonly value: T }
	/** `sent`: it may have been carried out all the same. */
	| { readonly kind: "failed"; readonly sent: boolean; readonly error: FsError };

/** One exchange under way. */
interface Exchange {
	readonly xid: number;
	readonly message: (local: string) => Uint8Array;
	readonly answer: Deferred<Uint8Array>;
	sent: boolean;
}

export class RpcClient {
	readonly #network: Network;
	readonly #clock: Clock;
	#xid: number;

	constructor({ network, clock }: { readonly network: Network; readonly clock: Clock }, firstXid: number) {
		this.#network = network;
		this.#clock = clock;
		this.#xid = firstXid >>> 0;
	}

	/** Never rejects. */
	async call<T>(to: RemoteProgram, call: RemoteCall<T>, timeoutMs: number): Promise<CallOutcome<T>> {
		const endsAtMs = this.#clock.monotonicMs() + timeoutMs;
		let exchange: Exchange | undefined;
		try {
			const port = await this.#portOf(to, timeoutMs);
			exchange = this.#begin(to.program, to.version, call);
			const leftMs = Math.max(1, endsAtMs - this.#clock.monotonicMs());
			const reply = await this.#exchange(exchange, { address: to.address, port }, to.transport, leftMs);
			return { kind: "answered", value: call.read(requireSuccess(decodeReply(reply), to.address)) };
		} catch (error) {
			return { kind: "failed", sent: exchange?.sent ?? false, error: toFsError(error, "nfs.rpc-client") };
		}
	}

	/** Whether a program answers its procedure 0 on a port. */
	async answers(peer: Peer, { program, version, transport }: Omit<RemoteProgram, "address">, timeoutMs: number): Promise<boolean> {
		const exchange = this.#begin(program, version, { procedure: 0, write: () => {}, read: () => {} });
		try {
			return decodeReply(await this.#exchange(exchange, peer, transport, timeoutMs)).status !== undefined;
		} catch {
			return false;
		}
	}

	#begin(program: number, version: number, { procedure, write }: RemoteCall<unknown>): Exchange {
		this.#xid = (this.#xid + 1) >>> 0;
		const xid = this.#xid;
		const message = (local: string): Uint8Array => {
			const writer = beginCall({ xid, program, version, procedure, credential: { flavor: "none" } });
			write(writer, local);
			return writer.finish();
		};
		return { xid, message, answer: new Deferred<Uint8Array>(), sent: false };
	}

	/** RFC 1833: version 2 for IPv4, version 4 for IPv6. @throws FsError ENOTCONN: the program is not there. */
	async #portOf({ address, program, version, transport }: RemoteProgram, timeoutMs: number): Promise<number> {
		const call = address.includes(":") ? askAddress(program, version, transport) : askPort(program, version, transport);
		const exchange = this.#begin(portMapperProgram, address.includes(":") ? 4 : 2, call);
		const reply = await this.#exchange(exchange, { address, port: portMapperPort }, transport, timeoutMs);
		const port = call.read(requireSuccess(decodeReply(reply), "port mapper"));
		if (port > 0 && port <= 65_535) return port;
		throw new FsError("ENOTCONN", "nfs.no-program", `${address} does not serve program ${program} version ${version} over ${transport}`);
	}

	async #exchange(exchange: Exchange, peer: Peer, transport: Transport, timeoutMs: number): Promise<Uint8Array> {
		const { answer } = exchange;
		answer.promise.catch(() => {});
		const late = (): void =>
			answer.reject(new FsError("ETIMEDOUT", "nfs.rpc-timeout", `${peer.address} port ${peer.port} did not answer in time`));
		const cancel = this.#clock.after(timeoutMs, late);
		try {
			return await (transport === "tcp" ? this.#overTcp(exchange, peer) : this.#overUdp(exchange, peer));
		} finally {
			cancel();
		}
	}

	async #overTcp(exchange: Exchange, peer: Peer): Promise<Uint8Array> {
		const { answer, message } = exchange;
		const connecting = this.#network.connectTcp(peer);
		let connection: TcpConnection | undefined;
		let over = false;
		const take = (made: TcpConnection): void => {
			if (over) {
				made.destroy();
				return;
			}
			connection = made;
			const reader = new RecordReader((record) => this.#received(exchange, record));
			made.onData((bytes) => {
				try {
					reader.feed(bytes);
				} catch (error) {
					answer.reject(error);
				}
			});
			made.onClose(() => answer.reject(new FsError("ENOTCONN", "nfs.rpc-closed", `${peer.address} has closed the connection`)));
			const bytes = message(made.local);
			exchange.sent = true;
			made.writeParts([recordMark(bytes.length), bytes]).catch((error: unknown) => answer.reject(error));
		};
		connecting.then(take).catch((error: unknown) => answer.reject(error));
		try {
			return await answer.promise;
		} finally {
			over = true;
			connection?.destroy();
		}
	}

	async #overUdp(exchange: Exchange, peer: Peer): Promise<Uint8Array> {
		const { answer, message } = exchange;
		const from = peer.address.includes(":") ? "::" : "0.0.0.0";
		const socket = await this.#network.bindUdp(from, 0, (bytes, sender) => {
			if (sender.address === peer.address && sender.port === peer.port) this.#received(exchange, bytes);
		});
		const cancel = this.#sendAgain(socket, peer, message(""), answer);
		exchange.sent = true;
		try {
			return await answer.promise;
		} finally {
			cancel();
			await socket.close();
		}
	}

	/** Datagrams are lost. */
	#sendAgain(socket: DatagramSocket, peer: Peer, bytes: Uint8Array, answer: Deferred<Uint8Array>): () => void {
		let cancel: () => void = () => {};
		const send = (): void => {
			socket.send(bytes, peer).catch((error: unknown) => answer.reject(error));
			cancel = this.#clock.after(datagramAgainMs, send);
		};
		send();
		return () => cancel();
	}

	#received({ xid, answer }: Exchange, reply: Uint8Array): void {
		if (reply.length >= 4 && new DataView(reply.buffer, reply.byteOffset, 4).getUint32(0) === xid) answer.resolve(reply.slice());
	}
}

function askPort(program: number, version: number, transport: Transport): RemoteCall<number> {
	return {
		procedure: 3,
		write: (writer) => void writer.u32(program).u32(version).u32(protocolNumbers[transport]).u32(0),
		read: (reader) => reader.u32(),
	};
}

function askAddress(program: number, version: number, transport: Transport): RemoteCall<number> {
	return {
		procedure: 3,
		write: (writer) => void writer.u32(program).u32(version).text(`${transport}6`).text("").text(""),
		read: (reader) => portOfUniversal(reader.text(maxAuthBytes)),
	};
}
