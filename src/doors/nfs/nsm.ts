/**
 * NSM, the status monitor (X/Open XNFS, chapter 11): clients that began anew are heard of, and clients with locks are told when locks were forgotten here. Monitoring others on somebody's behalf (SM_MON) is refused: it is for programs of one machine among
 * themselves, and would make a server speak to whomever a stranger names.
 */
import type { Logger } from "../../base/telemetry.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Clock } from "../../platform/interface.ts";
import type { ClientLocks, LockClient } from "../../volume/interface.ts";
import { maxLockNameBytes, maxNotices, noticeAgainMs, noticeForMs, noticeMs } from "./limits.ts";
import type { NlmCallbacks } from "./nlm-callbacks.ts";
import { readNotice } from "./nlm.ts";
import { type CallContext, nullProcedure, type Procedure, type Program } from "./program.ts";
import type { RpcClient, Transport } from "./rpc-client.ts";

export const nsmProgram = 100024;
const version = 1;
const privateBytes = 16;
export const nsmProcedures = { stat: 1, monitor: 2, unmonitor: 3, unmonitorAll: 4, simulateCrash: 5, notify: 6 } as const;
/** res: whether it monitors. */
export const nsmResult = { success: 0, failure: 1 } as const;

export interface NsmModules {
	readonly locks: ClientLocks;
	readonly callbacks: NlmCallbacks;
	readonly logger: Logger;
}

export function createNsmProgram({ locks, callbacks, logger }: NsmModules): Program {
	const name = (reader: XdrReader): void => void reader.text(maxLockNameBytes);
	/** my_id: a name, program, version, procedure. */
	const self = (reader: XdrReader): void => {
		name(reader);
		for (let word = 0; word < 3; word++) reader.u32();
	};
	const refused = (title: string, read: (reader: XdrReader) => void): Procedure => ({
		name: title,
		run: async (reader, writer) => {
			read(reader);
			reader.end();
			writer.u32(nsmResult.failure).u32(locks.stateNumber);
			return undefined;
		},
	});
	const state = (title: string, read: (reader: XdrReader) => void): Procedure => ({
		name: title,
		run: async (reader, writer) => {
			read(reader);
			reader.end();
			writer.u32(locks.stateNumber);
			return undefined;
		},
	});
	const monitor = (reader: XdrReader): void => {
		name(reader);
		self(reader);
		reader.fixed(privateBytes);
	};
	const unmonitor = (reader: XdrReader): void => {
		name(reader);
		self(reader);
	};
	/** Believed from the client's own address alone. */
	const notified = async (reader: XdrReader, _writer: XdrWriter, { peer }: CallContext): Promise<undefined> => {
		const notice = readNotice(reader);
		for (const client of await locks.begunAnew(notice.name, peer.address, notice.state)) {
			callbacks.dropClient(client);
			logger.info("a client has begun anew: its locks are released", { address: peer.address, client });
		}
	};
	const procedures: Procedure[] = [nullProcedure];
	procedures[nsmProcedures.stat] = refused("STAT", name);
	procedures[nsmProcedures.monitor] = refused("MON", monitor);
	procedures[nsmProcedures.unmonitor] = state("UNMON", unmonitor);
	procedures[nsmProcedures.unmonitorAll] = state("UNMON_ALL", self);
	// It is for the machine's own programs: a stranger has nothing to crash here.
	procedures[nsmProcedures.simulateCrash] = { name: "SIMU_CRASH", run: async (reader) => void reader.end() };
	procedures[nsmProcedures.notify] = { name: "NOTIFY", run: notified };
	return { number: nsmProgram, transports: ["tcp", "udp"], versions: new Map([[version, procedures]]) };
}

export interface NoticeModules {
	readonly locks: ClientLocks;
	readonly caller: RpcClient;
	readonly clock: Clock;
	readonly logger: Logger;
	/** What else clients may know this service as; "" = nothing. */
	readonly serverName: () => string;
}

/** Tells clients that their locks were forgotten, until they have heard it or time is up. */
export class NsmNotices {
	readonly #modules: NoticeModules;
	/** Clients that are being told. */
	readonly #underWay = new Set<number>();
	#running = false;
	#stopped = false;
	#cancel: () => void = () => {};

	constructor(modules: NoticeModules) {
		this.#modules = modules;
	}

	/** Clients can reach the service from now on. */
	start(): void {
		if (this.#running || this.#stopped) return;
		this.#running = true;
		this.#round(noticeAgainMs.first, this.#modules.clock.monotonicMs() + noticeForMs);
	}

	stop(): void {
		this.#stopped = true;
		this.#cancel();
	}

	#round(pauseMs: number, untilMs: number): void {
		const { locks, clock, logger } = this.#modules;
		const left = locks.untold();
		const over = clock.monotonicMs() >= untilMs;
		if (this.#stopped || left.length === 0 || over) {
			this.#running = false;
			if (over && left.length > 0)
				logger.warn("clients were not reached, and may not know that their locks are gone", { clients: left.length });
			return;
		}
		const next = left.filter(({ id }) => !this.#underWay.has(id)).slice(0, maxNotices - this.#underWay.size);
		for (const client of next) void this.#notify(client);
		this.#cancel = clock.after(pauseMs, () => this.#round(Math.min(noticeAgainMs.most, 2 * pauseMs), untilMs));
	}

	async #notify(client: LockClient): Promise<void> {
		this.#underWay.add(client.id);
		try {
			const heard = (await this.#call(client, "tcp")) || (client.serverAddress !== "" && (await this.#call(client, "udp")));
			if (heard && !this.#stopped) await this.#modules.locks.told(client.id);
		} finally {
			this.#underWay.delete(client.id);
		}
	}

	/** Under each name that the client may know this service by: it looks for the one that it asked its own monitor to watch. */
	async #call({ address, serverAddress }: LockClient, transport: Transport): Promise<boolean> {
		const { locks, caller, serverName } = this.#modules;
		const names = [undefined, ...(serverName() === "" ? [] : [serverName()])];
		let heard = true;
		for (const name of names) {
			const write = (writer: XdrWriter, local: string): void => {
				writer.text(name ?? (serverAddress === "" ? local : serverAddress)).u32(locks.stateNumber);
			};
			const to = { address, program: nsmProgram, version, transport };
			const outcome = await caller.call(to, { procedure: nsmProcedures.notify, write, read: (reader) => reader.end() }, noticeMs);
			heard &&= outcome.kind === "answered";
		}
		return heard;
	}
}
