/** TCP and UDP of a simulated machine: everybody is on one host, and addresses are only told. Connections end with their process. */
import { FsError } from "../../base/errors.ts";
import type { DatagramSocket, Listener, Network, Peer, TcpConnection } from "../interface.ts";
import type { SimHost } from "./host.ts";
import { simLimits } from "./limits.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

const loopback = "127.0.0.1";

interface Bound {
	readonly owner: Owner;
	readonly accept?: (connection: SimTcpConnection) => void;
	readonly deliver?: (bytes: Uint8Array, from: Peer) => void;
}

/** Ports of a machine, `tcp/2049`, over all its processes. */
export class SimPorts {
	readonly #bound = new Map<string, Bound>();
	#nextPort = simLimits.firstFreePort;

	/** @throws FsError EBUSY. */
	bind(kind: "tcp" | "udp", port: number, bound: Bound): number {
		const chosen = port === 0 ? this.#nextPort++ : port;
		const key = `${kind}/${chosen}`;
		if (this.#bound.get(key)?.owner.alive)
			throw new FsError("EBUSY", "platform.sim-port", `somebody listens on port ${chosen} already: choose another one`, { port: chosen });
		this.#bound.set(key, bound);
		return chosen;
	}

	free(kind: "tcp" | "udp", port: number, bound: Bound): void {
		if (this.#bound.get(`${kind}/${port}`) === bound) this.#bound.delete(`${kind}/${port}`);
	}

	get(kind: "tcp" | "udp", port: number): Bound | undefined {
		const bound = this.#bound.get(`${kind}/${port}`);
		return bound?.owner.alive ? bound : undefined;
	}

	/** For the near end of a connection. */
	takePort(): number {
		return this.#nextPort++;
	}
}

export class SimNetwork implements Network {
	readonly #ports: SimPorts;
	readonly #scheduler: Scheduler;
	readonly #owner: Owner;
	readonly #connections = new Set<SimTcpConnection>();

	constructor(host: SimHost, scheduler: Scheduler, owner: Owner) {
		this.#ports = host.ports;
		this.#scheduler = scheduler;
		this.#owner = owner;
	}

	async listenTcp(
		_address: string,
		port: number,
		onConnection: (connection: TcpConnection) => void,
	): Promise<Listener & { readonly port: number }> {
		await this.#turn();
		const accepted = new Set<SimTcpConnection>();
		const bound: Bound = {
			owner: this.#owner,
			accept: (connection) => {
				accepted.add(connection);
				this.#connections.add(connection);
				onConnection(connection);
			},
		};
		const chosen = this.#ports.bind("tcp", port, bound);
		const close = async (): Promise<void> => {
			this.#ports.free("tcp", chosen, bound);
			for (const connection of accepted) connection.destroy();
			await this.#turn();
		};
		return { port: chosen, close };
	}

	async connectTcp({ port }: Peer): Promise<TcpConnection> {
		await this.#turn();
		const bound = this.#ports.get("tcp", port);
		if (bound?.accept === undefined) throw new FsError("ENOTCONN", "platform.sim-tcp-refused", `nobody listens on port ${port}`, { port });
		const here = new SimTcpConnection(this.#scheduler, this.#owner, { address: loopback, port });
		const there = new SimTcpConnection(this.#scheduler, bound.owner, { address: loopback, port: this.#ports.takePort() });
		here.peer = there;
		there.peer = here;
		this.#connections.add(here);
		this.#scheduler.at(0, bound.owner, () => {
			if (this.#ports.get("tcp", port) === bound) bound.accept?.(there);
			else there.destroy();
		});
		return here;
	}

	async bindUdp(_address: string, port: number, onDatagram: (bytes: Uint8Array, from: Peer) => void): Promise<DatagramSocket> {
		await this.#turn();
		const bound: Bound = { owner: this.#owner, deliver: onDatagram };
		const chosen = this.#ports.bind("udp", port, bound);
		return {
			port: chosen,
			send: async (bytes, to) => {
				const target = this.#ports.get("udp", to.port);
				const copy = bytes.slice();
				if (target)
					this.#scheduler.at(simLimits.hostLatencyMs, target.owner, () => target.deliver?.(copy, { address: loopback, port: chosen }));
				await this.#turn();
			},
			close: async () => {
				this.#ports.free("udp", chosen, bound);
				await this.#turn();
			},
		};
	}

	/** The process died: the other ends learn of it. */
	die(): void {
		for (const connection of this.#connections) connection.destroy();
		this.#connections.clear();
	}

	#turn(): Promise<void> {
		return this.#scheduler.delay(simLimits.hostLatencyMs, this.#owner);
	}
}

type Arrival = { readonly bytes: Uint8Array; readonly taken: () => void };

class SimTcpConnection implements TcpConnection {
	readonly remote: Peer;
	readonly local = loopback;
	readonly owner: Owner;
	readonly #scheduler: Scheduler;
	peer: SimTcpConnection | undefined;
	#open = true;
	#paused = false;
	#ended = false;
	#endTold = false;
	#onData: ((bytes: Uint8Array) => void) | undefined;
	#onClose: (() => void) | undefined;
	/** Arrived and not taken: before anybody listened, or while paused. */
	#waiting: Arrival[] = [];
	#waitingBytes = 0;

	constructor(scheduler: Scheduler, owner: Owner, remote: Peer) {
		this.#scheduler = scheduler;
		this.owner = owner;
		this.remote = remote;
	}

	onData(fn: (bytes: Uint8Array) => void): void {
		this.#onData = fn;
		this.#later();
	}

	onClose(fn: () => void): void {
		this.#onClose = fn;
		this.#later();
	}

	write(bytes: Uint8Array): Promise<void> {
		return this.writeParts([bytes]);
	}

	async writeParts(parts: readonly Uint8Array[]): Promise<void> {
		const { peer } = this;
		if (!this.#open || peer === undefined) throw new FsError("ENOTCONN", "platform.sim-tcp-write", "the connection is closed");
		const copies = parts.map((part) => part.slice());
		const taken = copies.map((bytes) => new Promise<void>((resolve) => peer.#arrive({ bytes, taken: resolve })));
		await Promise.all(taken);
		await this.#scheduler.delay(simLimits.hostLatencyMs, this.owner);
	}

	pause(): void {
		this.#paused = true;
	}

	resume(): void {
		this.#paused = false;
		this.#later();
	}

	close(): void {
		this.destroy();
	}

	destroy(): void {
		if (!this.#open) return;
		this.#open = false;
		this.#scheduler.at(simLimits.hostLatencyMs, this.owner, () => this.#end(true));
		const { peer } = this;
		if (peer === undefined) return;
		this.#scheduler.at(simLimits.hostLatencyMs, peer.owner, () => {
			peer.#open = false;
			peer.#end(false);
		});
	}

	#arrive(arrival: Arrival): void {
		this.#scheduler.at(simLimits.hostLatencyMs, this.owner, () => {
			if (this.#ended) {
				arrival.taken();
				return;
			}
			this.#waiting.push(arrival);
			this.#waitingBytes += arrival.bytes.length;
			// What is in the buffers between is out of the writer's hands.
			if (this.#waitingBytes <= simLimits.socketBufferBytes) arrival.taken();
			this.#deliver();
		});
	}

	#later(): void {
		this.#scheduler.at(0, this.owner, () => this.#deliver());
	}

	#deliver(): void {
		while (!this.#paused && this.#onData !== undefined) {
			const arrival = this.#waiting.shift();
			if (arrival === undefined) break;
			this.#waitingBytes -= arrival.bytes.length;
			arrival.taken();
			this.#onData(arrival.bytes);
		}
		if (!this.#ended || this.#endTold || this.#waiting.length > 0 || this.#onClose === undefined) return;
		this.#endTold = true;
		this.#onClose();
	}

	/** `drop`: nobody here wants what has arrived. */
	#end(drop: boolean): void {
		this.#ended = true;
		if (drop) for (const { taken } of this.#waiting.splice(0)) taken();
		this.#deliver();
	}
}
