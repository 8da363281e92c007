/** TCP and UDP. */
import dgram from "node:dgram";
import net from "node:net";
import { FsError, toFsError } from "../../base/errors.ts";
import type { DatagramSocket, Listener, Network, Peer, TcpConnection } from "../interface.ts";
import { Awake } from "./awake.ts";
import type { CpuLatency } from "./cpu-latency.ts";
import { plainAddress, RealTcpConnection } from "./connection.ts";
import { realLimits } from "./limits.ts";

export class RealNetwork implements Network {
	/** Undefined: the event loop sleeps between two calls. */
	readonly #awake: Awake | undefined;

	constructor(waitAwake = true, cpuLatency?: CpuLatency) {
		this.#awake = waitAwake ? new Awake(cpuLatency) : undefined;
	}

	async listenTcp(
		address: string,
		port: number,
		onConnection: (connection: TcpConnection) => void,
	): Promise<Listener & { readonly port: number }> {
		const open = new Set<net.Socket>();
		const server = net.createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: realLimits.keepAliveMs }, (socket) => {
			open.add(socket);
			socket.once("close", () => open.delete(socket));
			onConnection(new RealTcpConnection(socket, this.#awake));
		});
		await new Promise<void>((resolve, reject) => {
			server.once("error", (error) => reject(bindError(error, address, port)));
			server.listen({ port, host: address, exclusive: true }, resolve);
		});
		const close = async () => {
			const closed = new Promise<void>((resolve) => server.close(() => resolve()));
			for (const socket of open) socket.destroy();
			await closed;
		};
		return { port: (server.address() as net.AddressInfo).port, close };
	}

	connectTcp({ address, port }: Peer): Promise<TcpConnection> {
		return new Promise((resolve, reject) => {
			const data = { address, port };
			const timeOut = () =>
				socket.destroy(new FsError("ETIMEDOUT", "platform.tcp-timeout", `${address} port ${port} did not take the connection`, data));
			const socket = net.connect({ host: address, port, noDelay: true });
			const timer = setTimeout(timeOut, realLimits.connectMs);
			socket.once("connect", () => {
				clearTimeout(timer);
				socket.removeAllListeners("error");
				resolve(new RealTcpConnection(socket));
			});
			socket.once("error", (error: NodeJS.ErrnoException) => {
				clearTimeout(timer);
				const refused = error.code === "ECONNREFUSED";
				if (refused) reject(new FsError("ENOTCONN", "platform.tcp-refused", `nobody listens on ${address} port ${port}`, data, error));
				else reject(toFsError(error, "platform.tcp-connect"));
			});
		});
	}

	async bindUdp(address: string, port: number, onDatagram: (bytes: Uint8Array, from: Peer) => void): Promise<DatagramSocket> {
		const socket = dgram.createSocket({ type: net.isIPv6(address) ? "udp6" : "udp4" });
		await new Promise<void>((resolve, reject) => {
			socket.once("error", (error) => reject(bindError(error, address, port)));
			socket.bind({ address, port, exclusive: true }, resolve);
		});
		socket.removeAllListeners("error");
		// An answer of ICMP to what was sent before: datagrams may be lost.
		socket.on("error", () => {});
		socket.on("message", (bytes, from) =>
			onDatagram(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), {
				address: plainAddress(from.address),
				port: from.port,
			}),
		);
		return new RealDatagramSocket(socket, net.isIPv6(address));
	}
}

class RealDatagramSocket implements DatagramSocket {
	readonly port: number;
	readonly #socket: dgram.Socket;
	readonly #isIpv6: boolean;
	#closed: Promise<void> | undefined;

	constructor(socket: dgram.Socket, isIpv6: boolean) {
		this.#socket = socket;
		this.#isIpv6 = isIpv6;
		this.port = socket.address().port;
	}

	send(bytes: Uint8Array, { address, port }: Peer): Promise<void> {
		const to = this.#isIpv6 && net.isIPv4(address) ? `::ffff:${address}` : address;
		return new Promise((resolve, reject) => {
			if (this.#closed) resolve();
			else
				this.#socket.send(bytes, port, to, (error) => {
					if ((error as NodeJS.ErrnoException | null)?.code !== "EMSGSIZE") resolve();
					else reject(new FsError("EINVAL", "platform.udp-long", `a datagram of ${bytes.length} bytes is too long`, {}, error));
				});
		});
	}

	close(): Promise<void> {
		this.#closed ??= new Promise((resolve) => this.#socket.close(() => resolve()));
		return this.#closed;
	}
}

function bindError(error: NodeJS.ErrnoException, address: string, port: number): FsError {
	const data = { address, port };
	if (error.code === "EADDRINUSE")
		return new FsError(
			"EBUSY",
			"platform.port-taken",
			`somebody listens on port ${port} of ${address} already: choose another one`,
			data,
			error,
		);
	if (error.code === "EADDRNOTAVAIL" || error.code === "ENOTFOUND" || error.code === "EAFNOSUPPORT")
		return new FsError("EINVAL", "platform.address", `${address} is no address of this machine`, data, error);
	if (error.code === "EACCES")
		return new FsError("EACCES", "platform.port-privileged", `port ${port} is for root: choose one above 1023`, data, error);
	return toFsError(error, "platform.bind");
}
