/** NLM: locks and share reservations of clients, on the volume's own table. */
import { FsError, isFsError } from "../../base/errors.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { ClientLocks, HeldLock, LockClient, RemoteLock } from "../../volume/interface.ts";
import { rangeToLength } from "../../volume/interface.ts";
import { maxAsyncResults, grantMs, maxWaiting, maxWaitingOfClient } from "./limits.ts";
import {
	type CancelArguments,
	type LockArguments,
	type NlmLock,
	type NlmStatus,
	type NlmVersion,
	nlmProcedures,
	nlmProgram,
	nlmStatus,
	nlmVersions,
	readCancel,
	readLockArguments,
	readNotice,
	readShare,
	readTest,
	readUnlock,
	type ShareArguments,
	type TestArguments,
	type UnlockArguments,
	writeResult,
	writeTestResult,
} from "./nlm.ts";
import type { NlmCallbacks } from "./nlm-callbacks.ts";
import type { NfsState } from "./nfs-server.ts";
import { type CallContext, nullProcedure, type Procedure, type Program, type Results } from "./program.ts";
import type { RpcClient } from "./rpc-client.ts";

export interface NlmModules {
	readonly state: NfsState;
	readonly locks: ClientLocks;
	readonly callbacks: NlmCallbacks;
	readonly caller: RpcClient;
}

/** What a procedure answers, synchronously or as a call of its own. */
type Answer = (writer: XdrWriter) => void;
type Work = (reader: XdrReader, context: CallContext, version: NlmVersion) => Promise<Answer>;

export function createNlmProgram(modules: NlmModules): Program {
	const procedures = new NlmProcedures(modules);
	const versions = new Map(nlmVersions.map((version) => [version as number, procedures.all(version)]));
	return { number: nlmProgram, transports: ["tcp", "udp"], versions };
}

/** A failure as the protocol tells it. @throws what is no answer: the server is going, arguments that are none, faults. */
export function nlmStatusOf(error: unknown): NlmStatus {
	if (!isFsError(error) || error.site === "codec.xdr") throw error;
	switch (error.code) {
		case "EAGAIN":
		case "EBUSY":
		case "ECANCELED":
			return nlmStatus.denied;
		case "ENOLCK":
		case "ENOSPC":
		case "EIO":
			return nlmStatus.noLocks;
		case "EDEADLK":
			return nlmStatus.deadlock;
		case "EROFS":
			return nlmStatus.readOnly;
		case "ESTALE":
		case "EBADF":
		case "ENOENT":
			return nlmStatus.stale;
		case "EOVERFLOW":
		case "EFBIG":
			return nlmStatus.tooBig;
		case "EACCES":
		case "EPERM":
		case "EISDIR":
		case "EINVAL":
			return nlmStatus.failed;
		default:
			throw error;
	}
}

class NlmProcedures {
	readonly #state: NfsState;
	readonly #locks: ClientLocks;
	readonly #callbacks: NlmCallbacks;
	readonly #caller: RpcClient;
	#results = 0;

	constructor({ state, locks, callbacks, caller }: NlmModules) {
		this.#state = state;
		this.#locks = locks;
		this.#callbacks = callbacks;
		this.#caller = caller;
	}

	all(version: NlmVersion): readonly (Procedure | undefined)[] {
		const test: Work = (reader, context) => this.#test(readTest(reader, version), context, version);
		const lock: Work = (reader, context) => this.#lock(readLockArguments(reader, version), context, version);
		const cancel: Work = (reader, context) => this.#cancel(readCancel(reader, version), context, version);
		const unlock: Work = (reader, context) => this.#unlock(readUnlock(reader, version), context, version);
		const granted: Work = (reader) => this.#granted(readTest(reader, version), version);
		const at = nlmProcedures;
		const all: (Procedure | undefined)[] = [nullProcedure];
		all[at.test] = answered("TEST", version, test);
		all[at.lock] = answered("LOCK", version, lock, true);
		all[at.cancel] = answered("CANCEL", version, cancel, true);
		all[at.unlock] = answered("UNLOCK", version, unlock, true);
		all[at.granted] = answered("GRANTED", version, granted);
		all[at.testMessage] = this.#called("TEST_MSG", version, at.testResult, test);
		all[at.lockMessage] = this.#called("LOCK_MSG", version, at.lockResult, lock);
		all[at.cancelMessage] = this.#called("CANCEL_MSG", version, at.cancelResult, cancel);
		all[at.unlockMessage] = this.#called("UNLOCK_MSG", version, at.unlockResult, unlock);
		all[at.grantedMessage] = this.#called("GRANTED_MSG", version, at.grantedResult, granted);
		// Nothing is called here that would be answered so: whoever sends results has mistaken somebody for us.
		for (const number of [at.testResult, at.lockResult, at.cancelResult, at.unlockResult, at.grantedResult])
			all[number] = { name: "RES", run: async () => undefined };
		if (version === 1) return all;
		all[at.share] = answered("SHARE", version, (reader, context) => this.#share(readShare(reader), context, version), true);
		all[at.unshare] = answered("UNSHARE", version, (reader, context) => this.#unshare(readShare(reader), context, version), true);
		all[at.lockUnmonitored] = answered("NM_LOCK", version, lock, true);
		all[at.freeAll] = { name: "FREE_ALL", once: true, run: (reader, _writer, context) => this.#freeAll(reader, context) };
		return all;
	}

	// ── asynchronous calls ─────────────────────────────────────────────────────────────────────────────────────

	/** The call is answered with nothing, and its result is a call of ours: only to clients of an export, as anybody could name anybody as a sender. */
	#called(name: string, version: NlmVersion, result: number, work: Work): Procedure {
		const run = async (reader: XdrReader, _writer: XdrWriter, context: CallContext): Promise<undefined> => {
			const answer = await work(reader, context, version);
			if (!this.#state.isClient(context.peer.address) || this.#results >= maxAsyncResults) return;
			this.#results++;
			const { peer, transport } = context;
			const to = { address: peer.address, program: nlmProgram, version, transport };
			void this.#caller.call(to, { procedure: result, write: answer, read: () => undefined }, grantMs).finally(() => void this.#results--);
		};
		return { name, run };
	}

	// ── locks ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** The file that a lock is about, for a client that may use it. */
	async #fileOf(lock: Pick<NlmLock, "handle">, context: CallContext): Promise<number> {
		const target = await this.#state.target(lock.handle, context);
		const { attributes, caller, node } = target;
		if (attributes.type !== "file")
			throw new FsError("EISDIR", "nfs.lock-type", `inode ${attributes.ino} is a ${attributes.type}: only files are locked`);
		const may = await this.#state.volume.permissions(caller, node);
		if (!may.read && !may.write && caller.uid !== attributes.uid)
			throw new FsError("EACCES", "nfs.lock-access", `user ${caller.uid} may not use inode ${attributes.ino}`, { ino: attributes.ino });
		return attributes.ino;
	}

	#enroll(name: string, state: number, { peer, local }: CallContext): Promise<LockClient> {
		return this.#locks.enroll({ name, address: peer.address, serverAddress: local, state });
	}

	#lockOf(ino: number, client: number, exclusive: boolean, { owner, offset, length }: NlmLock): RemoteLock {
		return { ino, client, owner, exclusive, range: rangeToLength(offset, length) };
	}

	async #test(asked: TestArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const { cookie, exclusive, lock } = asked;
		let status: NlmStatus = nlmStatus.granted;
		let holder: HeldLock | undefined;
		try {
			const ino = await this.#fileOf(lock, context);
			// Who is not in the roster holds nothing: it is in nobody's way, and everybody in its.
			const client = this.#locks.find(lock.caller, context.peer.address)?.id ?? 0;
			holder = this.#locks.test(this.#lockOf(ino, client, exclusive, lock));
			if (holder !== undefined) status = nlmStatus.denied;
			else if (this.#locks.grace !== undefined) status = nlmStatus.grace;
		} catch (error) {
			status = nlmStatusOf(error);
		}
		return (writer) => writeTestResult(writer, version, { cookie, status, holder });
	}

	async #lock(asked: LockArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const status = await this.#tryLock(asked, context, version).catch(nlmStatusOf);
		return (writer) => writeResult(writer, version, asked.cookie, status);
	}

	async #tryLock(asked: LockArguments, context: CallContext, version: NlmVersion): Promise<NlmStatus> {
		const { lock: wanted, exclusive, block, reclaim } = asked;
		const ino = await this.#fileOf(wanted, context);
		// Before anybody is entered into the roster for it.
		rangeToLength(wanted.offset, wanted.length);
		if (!reclaim && this.#locks.grace !== undefined) return nlmStatus.grace;
		const client = reclaim
			? this.#locks.find(wanted.caller, context.peer.address)
			: await this.#enroll(wanted.caller, asked.state, context);
		if (client === undefined) return nlmStatus.denied;
		const lock = this.#lockOf(ino, client.id, exclusive, wanted);
		const isFull = this.#callbacks.size >= maxWaiting || this.#callbacks.waitingOf(client.id) >= maxWaitingOfClient;
		if (block && isFull) return nlmStatus.noLocks;
		const had = this.#locks.held(client.id, ino).filter(({ owner }) => owner === lock.owner);
		const answer = await this.#locks.lock(lock, { wait: block, reclaim });
		if (answer.kind === "grace") return nlmStatus.grace;
		if (answer.kind === "granted") {
			this.#callbacks.known(lock);
			return nlmStatus.granted;
		}
		const { peer, transport } = context;
		this.#callbacks.watch({ lock, asked, address: peer.address, version, transport, had }, answer.granted);
		return nlmStatus.blocked;
	}

	/** Of what the client holds or waits for: without looking at the file, which may be gone. Undefined: it is in no roster, so there is nothing. */
	#ownLock(exclusive: boolean, lock: NlmLock, context: CallContext): RemoteLock | undefined {
		const ino = this.#state.inodeOf(lock.handle, context);
		const client = this.#locks.find(lock.caller, context.peer.address);
		return client === undefined ? undefined : this.#lockOf(ino, client.id, exclusive, lock);
	}

	async #cancel(asked: CancelArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const status = await this.#tryCancel(asked, context).catch(nlmStatusOf);
		return (writer) => writeResult(writer, version, asked.cookie, status);
	}

	async #tryCancel({ exclusive, lock }: CancelArguments, context: CallContext): Promise<NlmStatus> {
		const own = this.#ownLock(exclusive, lock, context);
		if (own === undefined || !(await this.#callbacks.cancel(own))) return nlmStatus.denied;
		return nlmStatus.granted;
	}

	async #unlock(asked: UnlockArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const status = await this.#tryUnlock(asked, context).catch(nlmStatusOf);
		return (writer) => writeResult(writer, version, asked.cookie, status);
	}

	async #tryUnlock({ lock }: UnlockArguments, context: CallContext): Promise<NlmStatus> {
		const own = this.#ownLock(true, lock, context);
		if (own === undefined) return nlmStatus.granted;
		this.#callbacks.gaveUp(own);
		await this.#locks.unlock(own);
		return nlmStatus.granted;
	}

	/** This server waits for nobody's locks. */
	async #granted({ cookie }: TestArguments, version: NlmVersion): Promise<Answer> {
		return (writer) => writeResult(writer, version, cookie, nlmStatus.denied);
	}

	// ── shares, and clients that are gone ──────────────────────────────────────────────────────────────────────

	async #share(asked: ShareArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const status = await this.#tryShare(asked, context).catch(nlmStatusOf);
		return (writer) => writeShareResult(writer, version, asked.cookie, status);
	}

	async #tryShare({ caller, handle, object, deny, access, reclaim }: ShareArguments, context: CallContext): Promise<NlmStatus> {
		const ino = await this.#fileOf({ handle }, context);
		if (!reclaim && this.#locks.grace !== undefined) return nlmStatus.grace;
		const client = reclaim ? this.#locks.find(caller, context.peer.address) : await this.#enroll(caller, 0, context);
		if (client === undefined) return nlmStatus.denied;
		const answer = await this.#locks.share({ ino, client: client.id, owner: ownerText(object), access, deny }, reclaim);
		return answer.kind === "grace" ? nlmStatus.grace : nlmStatus.granted;
	}

	async #unshare(asked: ShareArguments, context: CallContext, version: NlmVersion): Promise<Answer> {
		const status = await this.#tryUnshare(asked, context).catch(nlmStatusOf);
		return (writer) => writeShareResult(writer, version, asked.cookie, status);
	}

	async #tryUnshare({ caller, handle, object }: ShareArguments, context: CallContext): Promise<NlmStatus> {
		const ino = this.#state.inodeOf(handle, context);
		const client = this.#locks.find(caller, context.peer.address);
		if (client !== undefined) await this.#locks.unshare({ ino, client: client.id, owner: ownerText(object) });
		return nlmStatus.granted;
	}

	/** Believed only from the client itself. */
	async #freeAll(reader: XdrReader, { peer }: CallContext): Promise<undefined> {
		const { name } = readNotice(reader);
		const client = this.#locks.find(name, peer.address);
		if (client === undefined) return;
		this.#callbacks.dropClient(client.id);
		await this.#locks.release(client.id);
	}
}

/** Owners of shares are opaque bytes. */
const ownerText = (object: Uint8Array): string => String.fromCharCode(...object);

function writeShareResult(writer: XdrWriter, version: NlmVersion, cookie: Uint8Array, status: NlmStatus): void {
	writeResult(writer, version, cookie, status);
	// A sequence that nobody has ever used.
	writer.u32(0);
}

function answered(name: string, version: NlmVersion, work: Work, once = false): Procedure {
	const run = async (reader: XdrReader, writer: XdrWriter, context: CallContext): Promise<Results | undefined> => {
		const answer = await work(reader, context, version);
		answer(writer);
		return undefined;
	};
	return { name, once, run };
}
