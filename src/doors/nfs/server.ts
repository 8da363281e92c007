/** The NFS door: MOUNT, NFS version 3, NLM, NSM and a port mapper on one port, over TCP; all but NFS itself over UDP too. Nothing listens before `listen`. */
import { shownText } from "../../base/bytes.ts";
import { isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { Listener, Platform } from "../../platform/interface.ts";
import type { ClientLocks, GraceStatus, Volume } from "../../volume/interface.ts";
import type { LiveExport } from "./exports.ts";
import { pingMs, registerAgainMs, stopMs } from "./limits.ts";
import { createMountProgram, MountList, mountProgram } from "./mount-program.ts";
import { nfsProgram } from "./nfs3.ts";
import { NlmCallbacks } from "./nlm-callbacks.ts";
import { nlmProgram } from "./nlm.ts";
import { createNlmProgram } from "./nlm-program.ts";
import { createNsmProgram, NsmNotices, nsmProgram } from "./nsm.ts";
import { NfsProcedures } from "./nfs-procedures.ts";
import { type Change, type NfsOptions, NfsState } from "./nfs-server.ts";
import { createPortMapper, portMapperPort, portMapperProgram, type Registration, registrationsOf } from "./port-mapper.ts";
import type { Program } from "./program.ts";
import { RpcClient } from "./rpc-client.ts";
import { type ConnectionStatus, type RpcCounters, RpcServer } from "./rpc-server.ts";
import { type AddressFamily, type FamilyRegistration, overFamilies, register, unregister } from "./rpcbind.ts";

export type { Change } from "./nfs-server.ts";

export type PortMapperKind = "none" | "own" | "system";

export interface NfsServerModules {
	readonly volume: Volume;
	readonly clientLocks: ClientLocks;
	readonly platform: Platform;
	readonly logger: Logger;
	/** Resolves when copies of what has changed are gone elsewhere, or after a bounded time. */
	readonly changed: (change: Change) => Promise<void>;
}

export interface ListenOptions {
	/** False: this machine alone. */
	readonly wide: boolean;
	/** 0: any free one. */
	readonly port: number;
	/** Own: listens on port 111 too. System: tells the rpcbind of this machine. */
	readonly portMapper: PortMapperKind;
}

export interface NfsStatus {
	/** 0: nothing listens. */
	readonly port: number;
	readonly wide: boolean;
	readonly portMapper: PortMapperKind;
	/** What rpcbind has from other programs of this machine, so that clients do not find ours: nfs, mount, nlm (locks), nsm. */
	readonly takenByOthers: readonly string[];
	/** Why clients do not find the lock manager (they mount with nolock, and their locks are their own); "": they find it. */
	readonly locksUnfound: string;
	readonly connections: readonly ConnectionStatus[];
	readonly mounts: readonly { readonly address: string; readonly path: string }[];
	readonly openFiles: number;
	readonly locks: LockServiceStatus;
}

export interface LockServiceStatus {
	/** NSM: odd; two more whenever locks of clients were forgotten. */
	readonly stateNumber: number;
	/** Null: there is none. */
	readonly grace: GraceStatus | null;
	/** Who has, had or may have locks; names as UTF-8. */
	readonly clients: readonly { readonly name: string; readonly address: string }[];
	/** Requests of clients that wait, and grants that clients are being told of. */
	readonly waiting: number;
	/** Grants to those who waited: that clients took, refused, could not be told of. */
	readonly grants: { readonly taken: number; readonly refused: number; readonly unheard: number };
	/** Clients that were not told yet that their locks were forgotten. */
	readonly untold: number;
}

const loopback: Readonly<Record<AddressFamily, string>> = { ipv4: "127.0.0.1", ipv6: "::1" };
const programNames: ReadonlyMap<number, string> = new Map([
	[nfsProgram, "nfs"],
	[mountProgram, "mount"],
	[nlmProgram, "nlm"],
	[nsmProgram, "nsm"],
]);
const programName = (program: number): string => programNames.get(program) ?? String(program);
/** Both kinds of addresses where there are two. */
const everywhere: readonly string[] = ["::", "0.0.0.0"];

export class NfsServer {
	readonly #modules: NfsServerModules;
	readonly #state: NfsState;
	readonly #rpc: RpcServer;
	readonly #mounts = new MountList();
	readonly #served: readonly Program[];
	readonly #callbacks: NlmCallbacks;
	readonly #notices: NsmNotices;
	readonly #caller: RpcClient;
	#listeners: Listener[] = [];
	#listening: ListenOptions | undefined;
	/** Known before anything listens. */
	#past: Promise<void> | undefined;
	/** Kinds of addresses that are listened on. */
	#families: readonly AddressFamily[] = [];
	/** With rpcbind, while that is to be so. */
	#registering: Promise<void> = Promise.resolve();
	#cancelRegistering: () => void = () => {};
	#registered: readonly FamilyRegistration[] = [];
	#taken: readonly string[] = [];
	/** Why nothing is registered; told once. */
	#registerTrouble = "";
	#name = "";

	constructor(options: NfsOptions, modules: NfsServerModules) {
		this.#modules = modules;
		this.#state = new NfsState(options, modules);
		const nfs: Program = {
			number: nfsProgram,
			transports: ["tcp"],
			versions: new Map([[3, new NfsProcedures(this.#state).all()]]),
		};
		const { platform, clientLocks: locks, logger } = modules;
		const { clock, network } = platform;
		const firstXid = new DataView(platform.random.bytes(4).buffer).getUint32(0);
		const caller = new RpcClient({ network, clock }, firstXid);
		this.#caller = caller;
		this.#callbacks = new NlmCallbacks({ locks, caller, clock, logger });
		this.#notices = new NsmNotices({ locks, caller, clock, logger, serverName: () => this.#name });
		const nlm = createNlmProgram({ state: this.#state, locks, callbacks: this.#callbacks, caller });
		const nsm = createNsmProgram({ locks, callbacks: this.#callbacks, logger });
		this.#served = [createMountProgram(this.#state, this.#mounts), nfs, nlm, nsm];
		this.#rpc = new RpcServer([...this.#served, createPortMapper(() => this.#known())], modules);
	}

	/** What the port mapper tells. */
	#known(): readonly Registration[] {
		const { port = 0, portMapper = "none" } = this.#listening ?? {};
		const own = registrationsOf(this.#served, port);
		const mapper = (["tcp", "udp"] as const).map((transport) => ({
			program: portMapperProgram,
			version: 2,
			transport,
			port: portMapper === "own" ? portMapperPort : port,
		}));
		return port === 0 ? [] : [...own, ...mapper];
	}

	setExports(exports: readonly LiveExport[]): void {
		this.#state.setExports(exports);
	}

	/** What clients may know this service as, besides its address: for notices that locks were forgotten. "": nothing. */
	setName(name: string): void {
		this.#name = name;
	}

	/**
	 * Answers the port. What listened before does so no more.
	 * @throws FsError EBUSY (a port is taken), EACCES.
	 */
	async listen(options: ListenOptions): Promise<number> {
		await this.#close();
		try {
			this.#past ??= this.#modules.volume.pastCalls().then((calls) => this.#state.pastCalls.load(calls));
			await this.#past;
			const port = await this.#listenOn(options.wide, options.port);
			if (options.portMapper === "own") await this.#listenOn(options.wide, portMapperPort);
			this.#listening = { ...options, port };
			if (options.portMapper === "system") await this.#keepRegistered(port);
			this.#modules.clientLocks.reachable();
			this.#notices.start();
			return port;
		} catch (error) {
			await this.#close();
			throw error;
		}
	}

	async #listenOn(wide: boolean, port: number): Promise<number> {
		const addresses = wide ? everywhere : [loopback.ipv4];
		for (const [i, address] of addresses.entries()) {
			try {
				const tcp = await this.#rpc.listenTcp(address, port);
				this.#listeners.push(tcp);
				this.#listeners.push(await this.#rpc.listenUdp(address, tcp.port));
				this.#families = address === "::" ? ["ipv4", "ipv6"] : ["ipv4"];
				return tcp.port;
			} catch (error) {
				// A machine without IPv6.
				if (!isFsError(error, "EINVAL") || i === addresses.length - 1) throw error;
			}
		}
		return 0;
	}

	/** Others let go of what they have registered, and an rpcbind that was started anew knows nothing: it is looked after. */
	#keepRegistered(port: number): Promise<void> {
		const listening = this.#listening;
		this.#registering = this.#register(port);
		const again = (): void => {
			void this.#registering.then(() => {
				if (this.#listening === listening) void this.#keepRegistered(port);
			});
		};
		this.#cancelRegistering = this.#modules.platform.clock.after(registerAgainMs, again);
		return this.#registering;
	}

	/** A machine without an rpcbind: clients have to be told the ports. */
	async #register(port: number): Promise<void> {
		const { platform, logger } = this.#modules;
		const registrations = overFamilies(registrationsOf(this.#served, port), this.#families);
		try {
			const answers = ({ port: at, family, ...program }: FamilyRegistration): Promise<boolean> =>
				this.#caller.answers({ address: loopback[family], port: at }, program, pingMs);
			const { registered, taken } = await register(registrations, { sockets: platform.sockets, answers });
			this.#registered = registered;
			this.#registerTrouble = "";
			const before = this.#taken.join(", ");
			this.#taken = [...new Set(taken.map(({ program }) => programName(program)))];
			const now = this.#taken.join(", ");
			if (now === before) return;
			if (now === "") logger.info("rpcbind tells clients all ports now", { port });
			else
				logger.warn("other programs of this machine have registered these with rpcbind: clients do not find ours", {
					programs: now,
				});
		} catch (error) {
			const { message } = toFsError(error, "nfs.register");
			if (message === this.#registerTrouble) return;
			this.#registerTrouble = message;
			logger.warn("rpcbind does not take the registration: clients must be given the port", { port, error: message });
		}
	}

	/** No more than what is under way. */
	async #close(): Promise<void> {
		this.#listening = undefined;
		this.#cancelRegistering();
		await this.#registering;
		const registered = this.#registered;
		this.#registered = [];
		this.#taken = [];
		if (registered.length > 0)
			await unregister(registered, this.#modules.platform.sockets).catch((error: unknown) =>
				this.#modules.logger.warn("rpcbind keeps the registration", { error: toFsError(error, "nfs.unregister").message }),
			);
		for (const listener of this.#listeners.splice(0)) await this.#rpc.close(listener);
	}

	status(): NfsStatus {
		const { port = 0, wide = false, portMapper = "none" } = this.#listening ?? {};
		const connections = this.#rpc.connections();
		return {
			port,
			wide,
			portMapper,
			takenByOthers: this.#taken,
			locksUnfound: this.#locksUnfound(portMapper),
			connections,
			mounts: this.#mounts.all(),
			openFiles: this.#state.files.size,
			locks: this.#lockStatus(),
		};
	}

	/** Clients ask the port mapper for the lock manager by the number of its program: there is one of a machine. */
	#locksUnfound(portMapper: PortMapperKind): string {
		if (portMapper === "own") return "";
		if (portMapper === "none") return "no port mapper tells clients where the lock manager is";
		if (this.#registerTrouble !== "") return `rpcbind does not take the registration (${this.#registerTrouble})`;
		const isTaken = this.#taken.some((name) => name === programName(nlmProgram) || name === programName(nsmProgram));
		return isTaken ? `rpcbind has the lock manager of another program or volume of this machine (${this.#taken.join(", ")})` : "";
	}

	#lockStatus(): LockServiceStatus {
		const { clientLocks } = this.#modules;
		const clients = clientLocks.clients().map(({ name, address }) => ({ name: shownText(name), address }));
		const { stateNumber, grace = null } = clientLocks;
		const { size: waiting, counters } = this.#callbacks;
		return { stateNumber, grace, clients, waiting, grants: { ...counters }, untold: clientLocks.untold().length };
	}

	counters(): RpcCounters {
		return this.#rpc.counters();
	}

	/** Calls that are under way end; what was written is durable, or its clients learn that it may be lost. After `stopMs` that is not waited for any more. */
	async stop(): Promise<void> {
		this.#callbacks.stop();
		this.#notices.stop();
		await this.#close();
		const { clock } = this.#modules.platform;
		const done = this.#rpc.stop().then(() => this.#state.files.stop());
		const inTime = await Promise.race([done.then(() => true), clock.sleep(stopMs).then(() => false)]);
		if (!inTime) this.#modules.logger.warn("NFS calls are still under way: they are not waited for", {});
	}
}
