/**
 * Clients that wait for a lock: each is told when it has it (GRANTED), and what it answers counts.
 *
 * Invariants
 *  G1 A lock that was granted to one who waited, and of which its client may know, is not taken back: the client would go on as if it had it. It is given back when the client refuses it, or when it is certain that it was never told.
 *  G2 Who learned of a grant otherwise (it asked again and got it, it gave the lock up) is not told any more.
 */
import { Semaphore } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { Clock } from "../../platform/interface.ts";
import { type ClientLocks, type Range, type RemoteLock, without } from "../../volume/interface.ts";
import { grantAgainMs, grantMs, maxGrantCalls } from "./limits.ts";
import { type NlmVersion, nlmProcedures, nlmProgram, nlmStatus, readResult, type TestArguments, writeGranted } from "./nlm.ts";
import type { CallOutcome, RpcClient, Transport } from "./rpc-client.ts";

/** How the client asked, and where it is to be told. */
export interface WaitingClient {
	readonly lock: RemoteLock;
	readonly asked: TestArguments;
	readonly address: string;
	readonly version: NlmVersion;
	readonly transport: Transport;
	/** What its owner had of the range before: that stays, if the rest is refused. */
	readonly had: readonly { readonly exclusive: boolean; readonly range: Range }[];
}

interface Entry {
	client: WaitingClient;
	/** Granted, and the client is being told. */
	telling: boolean;
	/** G2. */
	over: boolean;
}

export interface CallbackModules {
	readonly locks: ClientLocks;
	readonly caller: RpcClient;
	readonly clock: Clock;
	readonly logger: Logger;
}

const keyOf = ({ ino, client, owner, exclusive, range }: RemoteLock): string =>
	`${client} ${owner} ${ino} ${exclusive} ${range.start} ${range.end}`;

export class NlmCallbacks {
	readonly #modules: CallbackModules;
	readonly #entries = new Map<string, Entry>();
	/** Grants that clients took, refused, or could not be told of. */
	readonly counters = { taken: 0, refused: 0, unheard: 0 };
	readonly #calls = new Semaphore(maxGrantCalls);
	#stopped = false;

	constructor(modules: CallbackModules) {
		this.#modules = modules;
	}

	get size(): number {
		return this.#entries.size;
	}

	waitingOf(client: number): number {
		let count = 0;
		for (const entry of this.#entries.values()) if (entry.client.lock.client === client) count++;
		return count;
	}

	/** A request that came again: the newest cookie counts. */
	watch(client: WaitingClient, granted: Promise<void>): void {
		const key = keyOf(client.lock);
		const known = this.#entries.get(key);
		if (known !== undefined && !known.telling) {
			known.client = { ...client, had: known.client.had };
			return;
		}
		const entry: Entry = { client, telling: false, over: false };
		this.#entries.set(key, entry);
		granted
			.then(() => this.#tell(entry))
			// Cancelled, or its client is gone: there is nobody to tell.
			.catch(
				(error: unknown) =>
					void this.#modules.logger.debug("a client waits no more for a lock", { reason: toFsError(error, "nfs.waiting").message }),
			)
			.finally(() => {
				if (this.#entries.get(key) === entry) this.#entries.delete(key);
			});
	}

	async #tell(entry: Entry): Promise<void> {
		entry.telling = true;
		const { clock, logger } = this.#modules;
		let mayKnow = false;
		for (const pauseMs of [...grantAgainMs, undefined]) {
			if (entry.over || this.#stopped) return;
			const outcome = await this.#call(entry.client);
			if (entry.over || this.#stopped) return;
			if (outcome.kind === "answered" && outcome.value !== nlmStatus.grace) {
				await this.#answered(entry, outcome.value === nlmStatus.granted, mayKnow);
				return;
			}
			if (outcome.kind === "failed" && outcome.sent) mayKnow = true;
			if (pauseMs !== undefined) await clock.sleep(pauseMs);
		}
		if (entry.over || this.#stopped) return;
		this.counters.unheard++;
		logger.warn("a client cannot be told that it has a lock", { client: entry.client.address, kept: mayKnow });
		if (!mayKnow) await this.#giveBack(entry);
	}

	/** The answer to a second call may be about the first: then the client has it, whatever it says now. */
	async #answered(entry: Entry, taken: boolean, mayKnow: boolean): Promise<void> {
		if (taken) this.counters.taken++;
		else this.counters.refused++;
		if (!taken && !mayKnow) await this.#giveBack(entry);
	}

	#call(client: WaitingClient): Promise<CallOutcome<number>> {
		return this.#calls.run(() => this.#callNow(client));
	}

	#callNow({ address, version, transport, asked }: WaitingClient): Promise<CallOutcome<number>> {
		return this.#modules.caller.call(
			{ address, program: nlmProgram, version, transport },
			{ procedure: nlmProcedures.granted, write: (writer) => writeGranted(writer, version, asked), read: readResult },
			grantMs,
		);
	}

	/** G1: what the owner had before, it has again. */
	async #giveBack(entry: Entry): Promise<void> {
		entry.over = true;
		const { lock, had } = entry.client;
		const { locks } = this.#modules;
		let rest: readonly Range[] = [lock.range];
		for (const { exclusive, range } of had) {
			if (exclusive === lock.exclusive || exclusive) rest = rest.flatMap((piece) => without(piece, range));
			else {
				await locks.lock({ ...lock, exclusive, range }, { wait: false, reclaim: false });
				rest = rest.flatMap((piece) => without(piece, range));
			}
		}
		for (const range of rest) await locks.unlock({ ...lock, range });
	}

	/** It learned by a reply that it has the lock. */
	known(lock: RemoteLock): void {
		const entry = this.#entries.get(keyOf(lock));
		if (entry?.telling === true) entry.over = true;
	}

	/** An owner gives up (part of) what it may have just got. */
	gaveUp({ client, owner, ino }: Pick<RemoteLock, "client" | "owner" | "ino">): void {
		for (const entry of this.#entries.values()) {
			const { lock } = entry.client;
			if (entry.telling && lock.client === client && lock.owner === owner && lock.ino === ino) entry.over = true;
		}
	}

	/** True when there was something to give up: a request that waits, or a grant that its client does not know of. */
	async cancel(lock: RemoteLock): Promise<boolean> {
		if (this.#modules.locks.cancel(lock)) return true;
		const entry = this.#entries.get(keyOf(lock));
		if (entry === undefined || entry.over) return false;
		await this.#giveBack(entry);
		return true;
	}

	dropClient(client: number): void {
		for (const entry of this.#entries.values()) if (entry.client.lock.client === client) entry.over = true;
	}

	stop(): void {
		this.#stopped = true;
	}
}
