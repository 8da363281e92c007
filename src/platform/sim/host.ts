/** Host files and UNIX sockets of a simulated machine. Files are durable once written; sockets end with their process. */
import { FsError } from "../../base/errors.ts";
import type { Connection, HostFiles, Listener, Sockets } from "../interface.ts";
import { simLimits } from "./limits.ts";
import { SimPorts } from "./network.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

/** What survives processes: files and folders by absolute path, and which sockets were bound. */
export class SimHost {
	readonly files = new Map<string, Uint8Array>();
	readonly folders = new Set<string>(["/"]);
	readonly sockets = new Map<string, SimListener>();
	readonly ports = new SimPorts();

	makeFolder(path: string): void {
		for (let at = path; at !== "/"; at = parentOf(at)) {
			if (this.files.has(at) || this.sockets.has(at)) throw new FsError("ENOTDIR", "platform.sim-host-folder", `${at} is not a folder`);
			this.folders.add(at);
		}
	}

	kind(path: string): "file" | "directory" | "socket" | undefined {
		if (this.files.has(path)) return "file";
		if (this.folders.has(path)) return "directory";
		return this.sockets.has(path) ? "socket" : undefined;
	}

	list(path: string): string[] {
		const all = [...this.files.keys(), ...this.folders, ...this.sockets.keys()];
		const inside = all.filter((name) => name !== "/" && parentOf(name) === path);
		return inside.map((name) => name.slice(name.lastIndexOf("/") + 1)).sort();
	}
}

export class SimHostFiles implements HostFiles {
	readonly #host: SimHost;
	readonly #scheduler: Scheduler;
	readonly #owner: Owner;

	constructor(host: SimHost, scheduler: Scheduler, owner: Owner) {
		this.#host = host;
		this.#scheduler = scheduler;
		this.#owner = owner;
	}

	async read(path: string): Promise<Uint8Array | undefined> {
		const at = await this.#turn(path);
		if (this.#host.folders.has(at)) throw new FsError("EISDIR", "platform.sim-host-read", `${at} is a folder`);
		return this.#host.files.get(at)?.slice();
	}

	async write(path: string, bytes: Uint8Array): Promise<void> {
		const copy = bytes.slice();
		const at = await this.#turn(path);
		if (this.#host.folders.has(at)) throw new FsError("EISDIR", "platform.sim-host-write", `${at} is a folder`);
		this.#host.makeFolder(parentOf(at));
		this.#host.files.set(at, copy);
	}

	async list(path: string): Promise<string[]> {
		return this.#host.list(await this.#turn(path));
	}

	async remove(path: string): Promise<void> {
		const at = await this.#turn(path);
		if (this.#host.list(at).length > 0) throw new FsError("ENOTEMPTY", "platform.sim-host-remove", `the folder ${at} is not empty`);
		this.#host.files.delete(at);
		this.#host.folders.delete(at);
		this.#host.sockets.delete(at);
	}

	async probe(path: string): Promise<void> {
		if (this.#host.kind(await this.#turn(path)) === undefined) throw new FsError("ENOENT", "platform.sim-probe", `${path} does not exist`);
	}

	async kind(path: string): Promise<"file" | "directory" | "socket" | "other" | undefined> {
		return this.#host.kind(await this.#turn(path));
	}

	async makeFolder(path: string): Promise<void> {
		this.#host.makeFolder(await this.#turn(path));
	}

	async #turn(path: string): Promise<string> {
		await this.#scheduler.delay(simLimits.hostLatencyMs, this.#owner);
		return normalise(path);
	}
}

export interface SimListener {
	readonly owner: Owner;
	readonly accept: (connection: Connection) => void;
}

export class SimSockets implements Sockets {
	readonly #host: SimHost;
	readonly #scheduler: Scheduler;
	readonly #owner: Owner;
	readonly #connections = new Set<SimConnection>();

	constructor(host: SimHost, scheduler: Scheduler, owner: Owner) {
		this.#host = host;
		this.#scheduler = scheduler;
		this.#owner = owner;
	}

	async listen(path: string, onConnection: (connection: Connection) => void): Promise<Listener> {
		await this.#scheduler.delay(simLimits.hostLatencyMs, this.#owner);
		const at = normalise(path);
		if (this.#host.sockets.get(at)?.owner.alive) {
			throw new FsError("EBUSY", "platform.sim-listen-busy", `somebody listens on ${at} already; stop the other daemon first`);
		}
		if (!this.#host.folders.has(parentOf(at))) throw new FsError("ENOENT", "platform.sim-listen", `no folder for the socket ${at}`);
		const accept = (connection: Connection) => {
			this.#connections.add(connection as SimConnection);
			onConnection(connection);
		};
		const listener: SimListener = { owner: this.#owner, accept };
		this.#host.sockets.set(at, listener);
		const close = async () => {
			await this.#scheduler.delay(simLimits.hostLatencyMs, this.#owner);
			if (this.#host.sockets.get(at) === listener) this.#host.sockets.delete(at);
		};
		return { close };
	}

	/** A port is the socket `/tcp/PORT` of the simulated machine. */
	async listenPort(port: number, onConnection: (connection: Connection) => void): Promise<Listener & { readonly port: number }> {
		this.#host.makeFolder("/tcp");
		return { port, ...(await this.listen(`/tcp/${port}`, onConnection)) };
	}

	async connect(path: string): Promise<Connection> {
		await this.#scheduler.delay(simLimits.hostLatencyMs, this.#owner);
		const at = normalise(path);
		const listener = this.#host.sockets.get(at);
		if (listener === undefined) throw new FsError("ENOENT", "platform.sim-connect", `no socket ${at}`);
		if (!listener.owner.alive) throw new FsError("ENOTCONN", "platform.sim-connect-refused", `nobody listens on ${at}`);
		const here = new SimConnection(this.#scheduler, this.#owner);
		const there = new SimConnection(this.#scheduler, listener.owner);
		here.peer = there;
		there.peer = here;
		this.#connections.add(here);
		this.#scheduler.at(0, listener.owner, () => listener.accept(there));
		return here;
	}

	/** The process died: the other ends learn of it. */
	die(): void {
		for (const connection of this.#connections) connection.hangUp();
		this.#connections.clear();
	}
}

class SimConnection implements Connection {
	readonly owner: Owner;
	readonly #scheduler: Scheduler;
	peer: SimConnection | undefined;
	#open = true;
	#onData: ((bytes: Uint8Array) => void) | undefined;
	#onClose: (() => void) | undefined;
	/** Arrived before anybody listened. */
	#early: Uint8Array[] = [];
	#ended = false;
	#endTold = false;

	constructor(scheduler: Scheduler, owner: Owner) {
		this.#scheduler = scheduler;
		this.owner = owner;
	}

	onData(fn: (bytes: Uint8Array) => void): void {
		this.#scheduler.at(0, this.owner, () => {
			this.#onData = fn;
			for (const bytes of this.#early.splice(0)) fn(bytes);
			this.#tellEnd();
		});
	}

	onClose(fn: () => void): void {
		this.#onClose = fn;
		if (this.#ended) this.#scheduler.at(0, this.owner, () => this.#tellEnd());
	}

	async write(bytes: Uint8Array): Promise<void> {
		const peer = this.peer;
		if (!this.#open || peer === undefined) throw new FsError("ENOTCONN", "platform.sim-socket-write", "the connection is closed");
		const copy = bytes.slice();
		this.#scheduler.at(simLimits.hostLatencyMs, peer.owner, () => peer.#receive(copy));
		await this.#scheduler.delay(simLimits.hostLatencyMs, this.owner);
	}

	close(): void {
		if (!this.#open) return;
		this.hangUp();
		this.#scheduler.at(simLimits.hostLatencyMs, this.owner, () => this.#end());
	}

	hangUp(): void {
		if (!this.#open) return;
		this.#open = false;
		const peer = this.peer;
		if (peer === undefined) return;
		this.#scheduler.at(simLimits.hostLatencyMs, peer.owner, () => {
			peer.#open = false;
			peer.#end();
		});
	}

	#receive(bytes: Uint8Array): void {
		if (this.#ended) return;
		if (this.#onData === undefined) this.#early.push(bytes);
		else this.#onData(bytes);
	}

	#end(): void {
		this.#ended = true;
		this.#tellEnd();
	}

	/** Once, after the last data was taken. */
	#tellEnd(): void {
		if (!this.#ended || this.#endTold || this.#early.length > 0 || this.#onClose === undefined) return;
		this.#endTold = true;
		this.#onClose();
	}
}

function normalise(path: string): string {
	const parts = path.split("/").filter((part) => part !== "" && part !== ".");
	return `/${parts.join("/")}`;
}

function parentOf(path: string): string {
	return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}
