/**
 * The volume on this machine's own disks: composes namespace, storage, admissions and the engine behind `Volume`.
 *
 * Invariants
 *  O1 Every operation is admitted first and releases its admission when it ends, however it ends.
 *  O2 A mutation's reply is sent after its commit: it survives the death of the daemon; `durable(position)` makes it survive a power cut.
 *  O3 An orphan is reaped only when no handle is open on it; while it is being reaped it cannot be opened.
 *  O4 After `shutdown` resolved, nothing of this volume touches a disk.
 *  O5 A change that a request with a token asked for, and the note that it was made, are one transaction.
 */
import { assert } from "../../base/assert.ts";
import { bytesToLatin1, latin1ToBytes } from "../../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import { compareTime, type Timestamp } from "../../base/time.ts";
import type { StrayFile } from "../../kv/local/store.ts";
import type { Access, Admission, Place } from "../../locks/admission.ts";
import { type Sharing, share } from "../../locks/matrix.ts";
import { rangeToLength } from "../../locks/range.ts";
import { FileLocks, type OpenHandle } from "../../locks/file-locks.ts";
import type { LockMemory } from "../../locks/memory.ts";
import { exchange } from "../../namespace/rename.ts";
import * as names from "../../namespace/verbs.ts";
import {
	type Want,
	checkAccess,
	checkDelete,
	checkMove,
	checkXattr,
	creationMode,
	inGroup,
	isRoot,
	mayAccess,
	modeAfterWrite,
	permittedChange,
} from "../../namespace/access.ts";
import { guardedFlags, isAppendOnly, refuseGuarded, refuseImmutable } from "../../namespace/flags.ts";
import type { NewNode } from "../../namespace/interface.ts";
import { accessList, capabilityName, dropCapability, hasCapability } from "../../namespace/xattrs.ts";
import type { Inode, OperationContext, RecordTransaction } from "../../records/interface.ts";
import { inodeRecord, intentRecord, orphanRecord, requestRecord } from "../../records/kinds.ts";
import type {
	AllocateMode,
	At,
	Attributes,
	CallToken,
	Caller,
	CallName,
	Changed,
	ChangedName,
	ChangedNode,
	ChangedRename,
	DirectoryItem,
	FileType,
	HandleId,
	Ino,
	NodeRef,
	Opened,
	PastCall,
	OpenIntent,
	Permissions,
	RequestMarks,
	ResumedSession,
	SetAttributes,
	VolumeNow,
	VolumeSpace,
} from "../interface.ts";
import { callSlots, requestSlots } from "../interface.ts";
import { Balancer } from "./balancer.ts";
import { Care } from "./care.ts";
import { Compactor } from "./compactor.ts";
import { formatRedundancy } from "../../storage/redundancy.ts";
import type { StorageEffects } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { FileData, isGone, later, requireInode } from "./data.ts";
import { DiskWork } from "./disks.ts";
import { ExportBook } from "./exports.ts";
import { Garbage } from "./garbage.ts";
import type { HandleMemory } from "./handle-memory.ts";
import type { RequestMemory } from "./request-memory.ts";
import { accessBits, type Handle, HandleTable, readPattern } from "./handles.ts";
import { Healer } from "./healer.ts";
import type {
	Explanation,
	GarbageReport,
	GarbageTimes,
	HealingStatus,
	HealOptions,
	HealResult,
	Ledger,
	LockList,
	NativeVolume,
	Progress,
	ProtectionSet,
	SetProtection,
	VerifyOptions,
	VerifyResult,
	VolumeStatus,
} from "./interface.ts";
import { Leveller } from "./leveller.ts";
import { lockList } from "./lock-list.ts";
import { limits } from "./limits.ts";
import { Packer } from "./packer.ts";
import { FileRanges } from "./ranges.ts";
import { Protector } from "./protector.ts";
import { gone, Reaper, takeApartStep } from "./reaper.ts";
import { ClientLockBook } from "./client-locks.ts";
import { type DurableAsked, DurableOpenBook } from "./durable-opens.ts";
import type { LockWitness } from "./lock-witness.ts";
import { LedgerBook, segmentsLedger } from "./ledger.ts";
import { Scrubber } from "./scrubber.ts";
import { Sealer } from "./sealer.ts";
import { type StatusModules, volumeLedger, volumeStatus } from "./status.ts";
import { directoryPath, effectiveProtection, explainPath, type MetadataCheck, resolvePath, verifyVolume } from "./verify.ts";

export interface NativeOptions {
	readonly garbage?: GarbageTimes;
	readonly id: string;
	readonly name: string;
}

/** What opening a volume leaves to be undone when it is shut down, in the order of opening.ts. */
export interface NativeModules {
	readonly core: Core;
	readonly verifyMetadata: (repair: boolean) => Promise<MetadataCheck>;
	readonly metadataBytes: (disk: number) => number;
	/** Files of metadata on the disks that nobody needs. */
	readonly strays: () => Promise<readonly StrayFile[]>;
	readonly removeStray: (file: StrayFile) => Promise<boolean>;
	readonly release: (clean: boolean) => Promise<void>;
	readonly failed: Promise<Error>;
	readonly metadataMembers: () => readonly number[];
	readonly metadataCopies: () => number;
	/** Of a session that outlives this process. */
	readonly session: VolumeSession | undefined;
	readonly clientLocks: FoundLockState;
}

/** What is known of the locks of clients elsewhere when the volume is opened. */
export interface FoundLockState {
	readonly witness: LockWitness;
	readonly kept: boolean;
	readonly clean: boolean;
}

export interface VolumeSession {
	readonly id: number;
	readonly handles: HandleMemory;
	readonly requests: RequestMemory;
	readonly locks: LockMemory;
	/** False after `release`: they stay for the process that resumes the session. */
	readonly endWithVolume: (end: boolean) => void;
}

export class LocalVolume implements NativeVolume {
	readonly id: string;
	readonly name: string;
	readonly root: NodeRef;
	readonly failed: Promise<Error>;
	readonly #options: NativeOptions;
	readonly #modules: NativeModules;
	readonly #core: Core;
	readonly #data: FileData;
	readonly #ranges: FileRanges;
	readonly #handles: HandleTable;
	readonly #sealer: Sealer;
	readonly #reaper: Reaper;
	readonly #care: Care;
	readonly #ledgerBook: LedgerBook;
	readonly #healer: Healer;
	readonly scrub: Scrubber;
	readonly #compactor: Compactor;
	readonly #leveller: Leveller;
	readonly balance: Balancer;
	readonly #garbage: Garbage;
	readonly disks: DiskWork;
	readonly exports: ExportBook;
	readonly locks: FileLocks;
	readonly clientLocks: ClientLockBook;
	readonly durableOpens: DurableOpenBook;
	readonly #protector: Protector;
	#spaceAskedMs = Number.NEGATIVE_INFINITY;
	#freeBytes = 0;
	/** By protection, as of the last look at the space. */
	readonly #weights = new Map<number, number>();
	/** Space that operations under way are going to reserve. */
	#claimedBytes = 0;
	#closing = false;
	resumed: ResumedSession = { handles: [], requests: [] };
	readonly now: VolumeNow = {
		lookup: (caller, parent, name) => this.#lookupNow(caller, parent, name),
		makeDirectory: (caller, parent, name, mode) => this.#makeDirectoryNow(caller, parent, name, mode),
		unlink: (caller, parent, name) => this.#removeNow(caller, parent, name, names.unlink),
		removeDirectory: (caller, parent, name) => this.#removeNow(caller, parent, name, names.rmdir),
		rename: (caller, parent, name, newParent, newName, flags) => this.#renameNow(caller, parent, name, newParent, newName, flags),
		readDirectory: (caller, node, after, limit, attributes) => this.#readDirectoryNow(caller, node, after, limit, attributes),
		getAttributes: (caller, node) => this.#getAttributesNow(caller, node),
		setAttributes: (caller, node, change) => this.#setAttributesNow(caller, node, change),
		getXattr: (caller, node, name) => this.#getXattrNow(caller, node, name),
		open: (caller, at, intent) => this.#openNow(caller, at, intent),
		write: (id, offset, bytes) => this.#writeNow(id, offset, bytes),
		flush: (id) => this.#flush(id),
		close: (id) => this.#close(id),
	};

	constructor(options: NativeOptions, modules: NativeModules) {
		this.#options = options;
		this.#modules = modules;
		this.#core = modules.core;
		this.#handles = new HandleTable(modules.session?.handles);
		const { clock, simulation } = this.#core.platform;
		const memory = simulation?.planted("locks-not-kept") ? undefined : modules.session?.locks;
		const opensOf = (ino: Ino): readonly OpenHandle[] => this.durableOpens.withYields(this.#handles.opensOf(ino));
		this.locks = new FileLocks({ clock, memory, simulation, admissions: this.#core.admissions, opensOf });
		this.clientLocks = new ClientLockBook({ core: this.#core, locks: this.locks, ...modules.clientLocks });
		this.durableOpens = new DurableOpenBook({
			core: this.#core,
			locks: this.locks,
			handles: this.#handles,
			close: (handle) => this.#letGo(handle),
			attributesOf: (ino) => this.#core.view((tx) => this.#attributes(names.inode(tx, ino))),
			kept: modules.clientLocks.kept || modules.clientLocks.clean,
		});
		this.id = options.id;
		this.name = options.name;
		this.failed = modules.failed;
		this.root = this.node(1);
		this.#data = new FileData(
			this.#core,
			new Packer(this.#core, (lengthBytes) => this.#compactor.makeRoom(lengthBytes)),
			() => this.#sealer.trouble,
		);
		this.#ranges = new FileRanges(this.#core, this.#data, (bytes) => this.#claimSpace(bytes));
		this.#sealer = new Sealer(this.#core, this.#data, (ino, error) => this.#handles.fail(ino, error));
		this.#reaper = new Reaper(this.#core, (ino) => this.#data.finishLeft(ino));
		this.#care = new Care(this.#core);
		this.#ledgerBook = new LedgerBook({
			clock: this.#core.platform.clock,
			version: () => this.#core.protectionVersion,
			count: () => segmentsLedger(this.#core, this.#care.now.healPaused),
		});
		this.#healer = new Healer(this.#core, this.#care);
		const { verifyMetadata } = modules;
		this.scrub = new Scrubber({ core: this.#core, healer: this.#healer, care: this.#care, verifyMetadata });
		this.#compactor = new Compactor(this.#core);
		this.#leveller = new Leveller(this.#core);
		this.#garbage = new Garbage(options.garbage ?? limits.garbage, {
			core: this.#core,
			strays: modules.strays,
			removeStray: modules.removeStray,
		});
		this.balance = new Balancer(this.#core, this.#care, this.#healer);
		this.disks = new DiskWork(this.#core, this.#healer, this.balance);
		this.exports = new ExportBook(this.#core);
		const makeRoom = (lengthBytes: number): Promise<void> => this.#compactor.makeRoom(lengthBytes);
		this.#protector = new Protector({ core: this.#core, data: this.#data, makeRoom });
	}

	/** Finishes what a crash left half done, then starts the background work. */
	async start(): Promise<void> {
		await this.#finishIntents();
		await this.#resume();
		await this.clientLocks.load();
		await this.durableOpens.load();
		await this.#reapOrphans();
		this.#sealer.start();
		await this.#care.load();
		this.#core.disks.onChange(() => this.#healer.disksChanged());
		this.#healer.start();
		this.#healer.trigger();
		this.scrub.start();
		this.#compactor.start();
		this.#leveller.start();
		this.balance.start();
		this.#garbage.start();
		await this.disks.begin();
		await this.#protector.start();
	}

	async #finishIntents(): Promise<void> {
		for (;;) {
			const intents = await this.#core.view((tx) => tx.scan(intentRecord, intentRecord.prefix(), { limit: limits.scanBatch }));
			if (intents.length === 0) return;
			for (const { value } of intents) await this.#data.finishIntent(value);
		}
	}

	/** What was open stays open, before anything is reaped. */
	async #resume(): Promise<void> {
		const { session } = this.#modules;
		if (session === undefined) return;
		const open = new Set([...this.#handles.all()].map(({ id }) => id));
		this.locks.keepOnly((handle) => open.has(handle));
		for (const handle of this.#handles.all()) {
			const inode = await this.#core.view((tx) => tx.get(inodeRecord, handle.ino));
			handle.restriction = (inode?.flags ?? 0) & guardedFlags;
		}
		const records = await this.#core.view((tx) => tx.scan(requestRecord, requestRecord.prefix(), { limit: requestSlots }));
		const notes = new Map(records.map(({ value }) => [value.slot, value]));
		const requests = session.requests.found.map((request) => {
			const note = notes.get(request.slot);
			const isOfIt = note?.session === session.id && note.requestLow === request.requestLow && note.requestHigh === request.requestHigh;
			return { ...request, ino: isOfIt ? note.ino : undefined };
		});
		const handles = session.handles.found.map(({ id, ...found }) => ({ ...found, handle: id }));
		this.resumed = { handles, requests };
	}

	get requestMarks(): RequestMarks | undefined {
		return this.#modules.session?.requests;
	}

	/** Part of the transaction that carries a request out. */
	#note(tx: RecordTransaction, context: OperationContext, caller: Caller, ino: Ino): void {
		if (caller.noted !== undefined) this.#noteCall(tx, context, caller.noted, ino);
		const { session } = this.#modules;
		if (caller.request === undefined || session === undefined) return;
		const { slot, low, high } = caller.request;
		assert(slot < requestSlots, "a request has a slot");
		tx.put(requestRecord, { slot, session: session.id, requestLow: low, requestHigh: high, ino, birthEpoch: context.epoch }, slot);
	}

	#noteCall(tx: RecordTransaction, { epoch }: OperationContext, { slot: ofCall, xid, low, high }: CallToken, ino: Ino): void {
		assert(ofCall < callSlots, "a call has a slot");
		const slot = requestSlots + ofCall;
		tx.put(requestRecord, { slot, session: xid, requestLow: low, requestHigh: high, ino, birthEpoch: epoch }, slot);
	}

	async pastCalls(): Promise<readonly PastCall[]> {
		const limit = requestSlots + callSlots;
		const records = await this.#core.view((tx) => tx.scan(requestRecord, requestRecord.prefix(), { limit }));
		return records.flatMap(({ value: { slot, session: xid, requestLow: low, requestHigh: high, ino } }) =>
			slot < requestSlots ? [] : [{ slot: slot - requestSlots, xid, low, high, ino }],
		);
	}

	async #reapOrphans(): Promise<void> {
		let after: string | undefined;
		for (;;) {
			const from = after;
			const orphans = await this.#core.view((tx) =>
				tx.scan(orphanRecord, orphanRecord.prefix(), { limit: limits.scanBatch, ...(from === undefined ? {} : { after: from }) }),
			);
			for (const { value } of orphans) if (this.#handles.openCount(value.ino) === 0) this.#reaper.reap(value.ino);
			if (orphans.length < limits.scanBatch) return;
			after = orphans[orphans.length - 1]?.key;
			await this.#reaper.idle();
		}
	}

	node(ino: Ino): NodeRef {
		return { volume: this.#options.id, snapshot: 0, ino };
	}

	// ── admission ────────────────────────────────────────────────────────────────────────────────────────────────

	async #admitted<T>(
		caller: Caller,
		node: NodeRef,
		access: Access,
		fn: (admission: Admission) => Promise<T>,
		how: Pick<Place, "opened" | "range" | "handle"> & { readonly call?: CallName | undefined } = {},
	): Promise<T> {
		this.#requireLive(node);
		const { ino } = node;
		const { call = caller.call, ...place } = how;
		const admission = this.locks.passes(ino, access, caller)
			? this.#core.admissions.enter(ino, access, caller, place.opened === true)
			: ((await this.locks.admit([{ ino, access, ...place }], { ...caller, call }))[0] as Admission);
		try {
			return await fn(admission);
		} finally {
			admission.release();
		}
	}

	#requireLive(node: NodeRef): void {
		if (node.volume !== this.#options.id || node.snapshot !== 0) {
			throw new FsError("ESTALE", "volume.node", `node ${node.ino} is not of the live tree of this volume`, {
				volume: node.volume,
				snapshot: node.snapshot,
			});
		}
		if (this.#closing) throw this.#closingError();
	}

	/** What comes through a handle; with `by`, through one that somebody else has opened (an NFS server). */
	#through<T>(
		handle: Handle,
		access: Access,
		fn: (admission: Admission) => Promise<T>,
		how: {
			readonly by?: Caller | undefined;
			readonly offset?: number;
			readonly lengthBytes?: number;
			readonly call?: CallName | undefined;
		} = {},
	): Promise<T> {
		const { by, offset, lengthBytes, call } = how;
		const range =
			offset === undefined || lengthBytes === undefined || lengthBytes === 0 ? {} : { range: rangeToLength(offset, lengthBytes) };
		const isBound = handle.caller.door === "smb";
		return this.#admitted(by ?? handle.caller, this.node(handle.ino), access, fn, {
			opened: by === undefined,
			call,
			...(isBound ? { ...range, handle: handle.id } : {}),
		});
	}

	/**
	 * For what finds out only on its way which inodes it touches. `fn` names each of them in its transaction (`require`): if it is not admitted there yet, everything is given up, all of them are admitted (it waits holding
	 * nothing), and `fn` begins anew.
	 */
	async #admittedAll<T>(
		caller: Caller,
		places: readonly (readonly [NodeRef, Access])[],
		fn: (admitted: Admitted) => Promise<T>,
	): Promise<T> {
		for (const [node] of places) this.#requireLive(node);
		const wanted: Place[] = places.map(([{ ino }, access]) => ({ ino, access }));
		for (let tries = 0; ; tries++) {
			const held = wanted.every(({ ino, access }) => this.locks.passes(ino, access, caller))
				? wanted.map(({ ino, access, opened = false }) => this.#core.admissions.enter(ino, access, caller, opened))
				: await this.locks.admit(wanted, caller);
			try {
				return await fn({
					check: () => {
						for (const one of held) one.check();
					},
					require: (ino, access, opened = false) => {
						if (this.locks.passes(ino, access, caller)) return;
						if (!held.some((one) => one.ino === ino && one.access === access)) throw new Unadmitted({ ino, access, opened });
					},
				});
			} catch (error) {
				if (!(error instanceof Unadmitted) || tries >= limits.admissionTries) throw error;
				wanted.push(error.place);
			} finally {
				for (const one of held) one.release();
			}
		}
	}

	/** For what is done in one step: false where it may have to wait, or be refused. */
	#passes(caller: Caller, node: NodeRef, access: Access): boolean {
		const isLive = node.volume === this.#options.id && node.snapshot === 0;
		return isLive && !this.#closing && this.locks.passes(node.ino, access, caller);
	}

	/** What is done in one step at inodes that it finds. Undefined: one of them is not PLAIN, and nothing has happened. */
	#unlessBound<T>(caller: Caller, fn: (require: Admitted["require"]) => T): T | undefined {
		try {
			return fn((ino, access) => {
				if (!this.locks.passes(ino, access, caller)) throw new Unadmitted({ ino, access });
			});
		} catch (error) {
			if (error instanceof Unadmitted) return undefined;
			throw error;
		}
	}

	#closingError(cause?: unknown): FsError {
		return new FsError("ENOTCONN", "volume.closing", `volume ${this.name} is being unmounted`, {}, cause);
	}

	#attributes(inode: Inode): Attributes {
		const dirty = inode.type === "file" ? this.#core.dirty.attributes(inode.ino) : undefined;
		const mtime = dirty?.mtime ?? inode.mtime;
		const ctime = later(inode.ctime, dirty?.mtime);
		const size = inode.type === "directory" ? inode.entryCount * 32 : dirty === undefined ? inode.size : Math.max(inode.size, dirty.end);
		return {
			ino: inode.ino,
			type: inode.type,
			mode: inode.mode,
			nlink: inode.nlink,
			uid: inode.uid,
			gid: inode.gid,
			rdev: inode.rdev,
			size,
			storedBytes: Math.ceil((inode.storedBytes + (dirty?.bytes ?? 0)) / 512) * 512,
			atime: inode.atime,
			mtime,
			ctime,
			btime: inode.btime,
			flags: inode.flags,
			change: inode.change + Math.max(inode.sealedThrough, dirty?.newest ?? 0),
		};
	}

	#requireAccess(tx: RecordTransaction, caller: Caller, inode: Inode, ...wants: readonly Want[]): void {
		if (!caller.trusted) checkAccess(tx, inode, caller, ...wants);
	}

	/** The directory, with search permission. What is none has no permission to search, but that is not what is wrong with it. */
	#searchableDirectory(tx: RecordTransaction, caller: Caller, ino: Ino, ...wants: readonly Want[]): Inode {
		const directory = names.inode(tx, ino);
		if (directory.type !== "directory") throw new FsError("ENOTDIR", "volume.not-directory", `inode ${ino} is a ${directory.type}`);
		const isPlanted = this.#core.platform.simulation?.planted("search-not-asked") === true;
		if (!isPlanted || wants.length > 0) this.#requireAccess(tx, caller, directory, "execute", ...wants);
		return directory;
	}

	/** The directory, with write and search permission. */
	#writableDirectory(tx: RecordTransaction, caller: Caller, ino: Ino): Inode {
		return this.#searchableDirectory(tx, caller, ino, "write");
	}

	// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

	lookup(caller: Caller, parent: NodeRef, name: string): Promise<Attributes> {
		return this.#admitted(caller, parent, "look", () =>
			this.#core.view((tx) => {
				this.#searchableDirectory(tx, caller, parent.ino);
				return this.#attributes(names.lookup(tx, parent.ino, name));
			}),
		);
	}

	#lookupNow(caller: Caller, parent: NodeRef, name: string): Attributes | null | undefined {
		if (!this.#passes(caller, parent, "look")) return undefined;
		return this.#core.viewNow((tx) => {
			this.#searchableDirectory(tx, caller, parent.ino);
			// Each creation begins with a name that is not there: usual enough to be no error.
			const found = names.find(tx, parent.ino, name);
			return found === undefined ? null : this.#attributes(found);
		})?.result;
	}

	makeDirectory(caller: Caller, parent: NodeRef, name: string, mode: number): Promise<ChangedName> {
		return this.#make(caller, parent, name, { type: "directory", mode, ...makerOf(caller) });
	}

	makeSymlink(caller: Caller, parent: NodeRef, name: string, target: string): Promise<ChangedName> {
		return this.#make(caller, parent, name, { type: "symlink", mode: 0o777, target, ...makerOf(caller) });
	}

	async makeNode(caller: Caller, parent: NodeRef, name: string, type: FileType, mode: number, rdev: number): Promise<ChangedName> {
		if (type === "directory" || type === "symlink") throw new FsError("EINVAL", "volume.make-node", `a ${type} is not made by mknod`);
		const device = type === "character" || type === "block";
		if (device && !caller.trusted && !isRoot(caller)) throw new FsError("EPERM", "volume.make-device", `only root makes a ${type} device`);
		return this.#make(caller, parent, name, { type, mode, rdev, ...makerOf(caller) });
	}

	#make(caller: Caller, parent: NodeRef, name: string, node: NewNode): Promise<ChangedName> {
		return this.#changeNames(caller, parent, (tx, context, before) => this.#create(tx, context, caller, before, name, node));
	}

	#makeDirectoryNow(caller: Caller, parent: NodeRef, name: string, mode: number): ChangedName | undefined {
		const node: NewNode = { type: "directory", mode, ...makerOf(caller) };
		return this.#changeNamesNow(caller, parent, (tx, context, before) => this.#create(tx, context, caller, before, name, node));
	}

	#create(tx: RecordTransaction, context: OperationContext, caller: Caller, parent: Inode, name: string, node: NewNode): NamesChange {
		const directory = this.#writableDirectory(tx, caller, parent.ino);
		const mode = caller.trusted ? node.mode : creationMode(directory, caller, node.type, node.mode);
		const made = names.create(tx, context, parent.ino, name, { ...node, mode });
		return {
			attributes: this.#attributes(made.inode),
			parentBefore: this.#attributes(parent),
			parentAfter: this.#attributes(made.parentAfter),
		};
	}

	link(caller: Caller, node: NodeRef, parent: NodeRef, name: string): Promise<ChangedName> {
		return this.#changeNames(caller, parent, (tx, context, before, { require }) => {
			require(node.ino, "change-attributes");
			this.#writableDirectory(tx, caller, parent.ino);
			// One without a name that nobody has open any more is on its way out.
			if (this.#reaper.reaping(node.ino) && tx.get(inodeRecord, node.ino) !== undefined)
				throw new FsError("ENOENT", "volume.link-reaped", `inode ${node.ino} does not exist any more`);
			const made = names.link(tx, context, node.ino, parent.ino, name);
			return {
				attributes: this.#attributes(made.inode),
				parentBefore: this.#attributes(before),
				parentAfter: this.#attributes(made.parentAfter),
			};
		});
	}

	async #changeNames(caller: Caller, parent: NodeRef, fn: NamesOperation): Promise<ChangedName> {
		return this.#admittedAll(caller, [[parent, "names"]], async ({ check, require }) => {
			const { result, position } = await this.#core.transact((tx, context) => {
				check();
				return this.#changedNames(tx, context, caller, parent, (_tx, _context, before) => fn(tx, context, before, { require }));
			});
			return { ...result, position };
		});
	}

	#changeNamesNow(caller: Caller, parent: NodeRef, fn: NamesOperation, onCommitted?: () => void): ChangedName | undefined {
		if (!this.#passes(caller, parent, "names")) return undefined;
		const done = this.#unlessBound(caller, (require) =>
			this.#core.transactNow(
				(tx, context, effects) =>
					this.#changedNames(tx, context, caller, parent, (_tx, _context, before) => fn(tx, context, before, { require, effects })),
				onCommitted,
			),
		);
		return done && { ...done.result, position: done.position };
	}

	#changedNames(
		tx: RecordTransaction,
		context: OperationContext,
		caller: Caller,
		parent: NodeRef,
		fn: (tx: RecordTransaction, context: OperationContext, before: Inode) => NamesChange,
	): NamesChange {
		const changed = fn(tx, context, names.inode(tx, parent.ino));
		this.#note(tx, context, caller, changed.attributes.ino);
		return changed;
	}

	unlink(caller: Caller, parent: NodeRef, name: string): Promise<ChangedName> {
		return this.#remove(caller, parent, name, names.unlink);
	}

	removeDirectory(caller: Caller, parent: NodeRef, name: string): Promise<ChangedName> {
		return this.#remove(caller, parent, name, names.rmdir);
	}

	async #remove(caller: Caller, parent: NodeRef, name: string, verb: typeof names.unlink): Promise<ChangedName> {
		let removed: Inode | undefined;
		const changed = await this.#changeNames(caller, parent, (tx, context, before, { require }) => {
			const done = this.#loseName(tx, context, caller, before, name, verb);
			require(done.inode.ino, "remove");
			removed = done.inode;
			return done.changed;
		});
		if (removed !== undefined) this.#afterNameLost(removed);
		return changed;
	}

	/** What nobody has open is taken apart in the same transaction, if that is enough for it; else it is left to the reaper. */
	#removeNow(caller: Caller, parent: NodeRef, name: string, verb: typeof names.unlink): ChangedName | undefined {
		return this.#removeStep(caller, parent, name, verb, true) ?? this.#removeStep(caller, parent, name, verb, false);
	}

	#removeStep(caller: Caller, parent: NodeRef, name: string, verb: typeof names.unlink, whole: boolean): ChangedName | undefined {
		let removed: Inode | undefined;
		let left = true;
		const change: NamesOperation = (tx, context, before, { require, effects }) => {
			const done = this.#loseName(tx, context, caller, before, name, verb);
			require(done.inode.ino, "remove");
			removed = done.inode;
			const { ino, nlink } = done.inode;
			const isNobodys = nlink === 0 && this.#handles.openCount(ino) === 0 && this.#data.isQuiet(ino) && !this.#reaper.reaping(ino);
			left = !(whole && isNobodys && effects !== undefined && takeApartStep(tx, effects, ino, 0) === gone);
			return done.changed;
		};
		// D6: what was written to it is superfluous with the commit.
		const changed = this.#changeNamesNow(caller, parent, change, () => {
			if (!left && removed !== undefined) this.#core.dirty.drop(removed.ino);
		});
		if (changed !== undefined && left && removed !== undefined) this.#afterNameLost(removed);
		return changed;
	}

	#loseName(
		tx: RecordTransaction,
		context: OperationContext,
		caller: Caller,
		parent: Inode,
		name: string,
		verb: typeof names.unlink,
	): { readonly inode: Inode; readonly changed: NamesChange } {
		if (!caller.trusted) checkDelete(tx, parent, names.lookup(tx, parent.ino, name), caller);
		const done = verb(tx, context, parent.ino, name);
		const changed = {
			attributes: this.#attributes(done.inode),
			parentBefore: this.#attributes(parent),
			parentAfter: this.#attributes(done.parentAfter),
		};
		return { inode: done.inode, changed };
	}

	#afterNameLost(inode: Inode): void {
		if (inode.nlink === 0 && this.#handles.openCount(inode.ino) === 0) this.#reaper.reap(inode.ino);
	}

	async rename(caller: Caller, parent: NodeRef, name: string, newParent: NodeRef, newName: string, flags: number): Promise<ChangedRename> {
		const places = [[parent, "names"] as const, ...(newParent.ino === parent.ino ? [] : [[newParent, "names"] as const])];
		this.#requireLive(newParent);
		return this.#admittedAll(caller, places, async ({ check, require }) => {
			await this.#sealBeforeReplace(parent.ino, name, newParent.ino, newName);
			const { result, position } = await this.#core.transact((tx, context) => {
				check();
				const moved = this.#move(tx, context, caller, parent.ino, name, newParent.ino, newName, flags);
				requireMoved(moved, require);
				return moved;
			});
			return this.#moved(result, position);
		});
	}

	#renameNow(caller: Caller, parent: NodeRef, name: string, newParent: NodeRef, newName: string, flags: number): ChangedRename | undefined {
		if (!this.#passes(caller, parent, "names") || !this.#passes(caller, newParent, "names")) return undefined;
		const source = this.#core.viewNow((tx) => this.#sealedBeforeReplace(tx, parent.ino, name, newParent.ino, newName));
		if (source === undefined || (source.result !== undefined && this.#core.dirty.has(source.result))) return undefined;
		const done = this.#unlessBound(caller, (require) =>
			this.#core.transactNow((tx, context) => {
				const moved = this.#move(tx, context, caller, parent.ino, name, newParent.ino, newName, flags);
				requireMoved(moved, require);
				return moved;
			}),
		);
		return done && this.#moved(done.result, done.position);
	}

	#move(
		tx: RecordTransaction,
		context: OperationContext,
		caller: Caller,
		parent: Ino,
		name: string,
		newParent: Ino,
		newName: string,
		flags: number,
	): Moved {
		if (!caller.trusted) this.#checkRename(tx, caller, parent, name, newParent, newName, flags);
		const before = [names.inode(tx, parent), names.inode(tx, newParent)] as const;
		const renamed = names.rename(tx, context, parent, name, newParent, newName, flags, caller);
		this.#note(tx, context, caller, renamed.source.ino);
		return { ...renamed, before, after: [names.inode(tx, parent), names.inode(tx, newParent)] as const };
	}

	#moved({ source, replaced, before, after }: Moved, position: number): ChangedRename {
		if (replaced !== undefined) this.#afterNameLost(replaced);
		return {
			attributes: this.#attributes(source),
			replaced: replaced === undefined ? undefined : this.#attributes(replaced),
			parentBefore: this.#attributes(before[0]),
			parentAfter: this.#attributes(after[0]),
			newParentBefore: this.#attributes(before[1]),
			newParentAfter: this.#attributes(after[1]),
			position,
		};
	}

	#checkRename(tx: RecordTransaction, caller: Caller, parent: Ino, name: string, newParent: Ino, newName: string, flags: number): void {
		const source = names.lookup(tx, parent, name);
		checkDelete(tx, names.inode(tx, parent), source, caller);
		const to = this.#writableDirectory(tx, caller, newParent);
		if (parent !== newParent) checkMove(tx, source, caller);
		const target = names.entry(tx, newParent, newName);
		if (target === undefined) return;
		const replaced = names.inode(tx, target.ino);
		checkDelete(tx, to, replaced, caller);
		if (flags === exchange && parent !== newParent) checkMove(tx, replaced, caller);
	}

	/** Replacing a name by rename is how programs save files: the new contents must not reach the disks after the new name. */
	async #sealBeforeReplace(parent: Ino, name: string, newParent: Ino, newName: string): Promise<void> {
		const source = await this.#core.view((tx) => this.#sealedBeforeReplace(tx, parent, name, newParent, newName));
		if (source !== undefined) await this.#data.seal(source);
	}

	/** The file that is to be sealed before it takes the name. */
	#sealedBeforeReplace(tx: RecordTransaction, parent: Ino, name: string, newParent: Ino, newName: string): Ino | undefined {
		if (names.entry(tx, newParent, newName) === undefined) return undefined;
		const source = names.entry(tx, parent, name);
		return source?.type === "file" ? source.ino : undefined;
	}

	readSymlink(caller: Caller, node: NodeRef): Promise<string> {
		return this.#admitted(caller, node, "attributes", () =>
			this.#core.view((tx) => {
				const inode = names.inode(tx, node.ino);
				if (inode.type !== "symlink" || inode.inline === undefined)
					throw new FsError("EINVAL", "volume.readlink", `inode ${node.ino} is no symbolic link`);
				return String.fromCharCode(...inode.inline);
			}),
		);
	}

	readDirectory(caller: Caller, node: NodeRef, after: number, limit: number, attributes: boolean): Promise<readonly DirectoryItem[]> {
		return this.#admitted(caller, node, "look", async () => {
			// All that is wanted at once: a look at each that is not in memory would begin the listing anew for each.
			if (attributes) await this.#bring(await this.#core.view((tx) => this.#items(tx, caller, node.ino, after, limit, false)));
			return this.#core.view((tx) => this.#items(tx, caller, node.ino, after, limit, attributes));
		});
	}

	/** Brings inodes into memory. */
	async #bring(items: readonly DirectoryItem[]): Promise<void> {
		await this.#core.engine.read(items.map(({ ino }) => inodeRecord.key(ino)));
	}

	#readDirectoryNow(caller: Caller, node: NodeRef, after: number, limit: number, attributes: boolean): DirectoryItem[] | undefined {
		if (!this.#passes(caller, node, "look")) return undefined;
		return this.#core.viewNow((tx) => this.#items(tx, caller, node.ino, after, limit, attributes))?.result;
	}

	#items(tx: RecordTransaction, caller: Caller, ino: Ino, after: number, limit: number, attributes: boolean): DirectoryItem[] {
		const directory = names.inode(tx, ino);
		if (directory.type !== "directory") throw new FsError("ENOTDIR", "volume.readdir", `inode ${ino} is no directory`);
		this.#requireAccess(tx, caller, directory, "read");
		const items: DirectoryItem[] = [];
		const add = (name: string, of: Ino, type: FileType, cookie: number): void => {
			const inode = attributes ? tx.get(inodeRecord, of) : undefined;
			items.push({ name, ino: of, type, cookie, attributes: inode === undefined ? undefined : this.#attributes(inode) });
		};
		if (after < 1 && items.length < limit) add(".", directory.ino, "directory", 1);
		if (after < 2 && items.length < limit) add("..", directory.parent, "directory", 2);
		for (const entry of names.readdir(tx, ino, Math.max(2, after), limit - items.length))
			add(entry.name, entry.ino, entry.type, entry.cookie);
		return items;
	}

	// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────

	getAttributes(caller: Caller, node: NodeRef): Promise<Attributes> {
		return this.#admitted(caller, node, "attributes", () => this.#core.view((tx) => this.#attributes(names.inode(tx, node.ino))));
	}

	#getAttributesNow(caller: Caller, node: NodeRef): Attributes | undefined {
		if (!this.#passes(caller, node, "attributes")) return undefined;
		return this.#core.viewNow((tx) => this.#attributes(names.inode(tx, node.ino)))?.result;
	}

	permissions(caller: Caller, node: NodeRef): Promise<Permissions> {
		return this.#admitted(caller, node, "attributes", () =>
			this.#core.view((tx) => {
				const inode = names.inode(tx, node.ino);
				const list = accessList(tx, inode)?.access;
				const may = (want: Want): boolean => caller.trusted || mayAccess(inode, list, caller, want);
				return { read: may("read"), write: may("write"), execute: may("execute"), attributes: this.#attributes(inode) };
			}),
		);
	}

	setAttributes(caller: Caller, node: NodeRef, change: SetAttributes, handle?: HandleId): Promise<ChangedNode> {
		const cuts = change.size !== undefined;
		// A server's own handle is no open of the caller's.
		const opened = cuts && caller.door !== "nfs" && handle !== undefined && this.#handles.get(handle).write;
		const work = async (admission: Admission): Promise<ChangedNode> => {
			const { size, onlyIfCtime, ...rest } = change;
			const before = await this.#core.view((tx) => {
				const inode = names.inode(tx, node.ino);
				this.#requireCtime(inode, onlyIfCtime);
				const writable = handle !== undefined && this.#handles.get(handle).write;
				if (size !== undefined) refuseGuarded(inode);
				if (!caller.trusted && size !== undefined && !writable) checkAccess(tx, inode, caller, "write");
				// What cannot or may not be done is refused before the contents are cut.
				const permitted = caller.trusted ? rest : permittedChange(tx, inode, caller, rest);
				names.changedAttributes(inode, permitted, inode.ctime);
				return inode;
			});
			const beforeCut = this.#attributes(before);
			if (size !== undefined) await this.#changeSize(caller, before, size, rest.dropRights === true);
			const { result, position } = await this.#core.transact(
				(tx, context) => {
					admission.check();
					// The cut has changed the time.
					return this.#changeAttributes(tx, context, caller, node.ino, size === undefined ? change : rest);
				},
				this.#timeSetter(node.ino, rest),
			);
			return this.#attributesChanged(node.ino, rest, size === undefined ? result : { ...result, before: beforeCut }, position);
		};
		return this.#admitted(caller, node, cuts ? "write" : "change-attributes", work, { opened });
	}

	#setAttributesNow(caller: Caller, node: NodeRef, change: SetAttributes): ChangedNode | undefined {
		if (change.size !== undefined || !this.#passes(caller, node, "change-attributes")) return undefined;
		const done = this.#core.transactNow(
			(tx, context) => this.#changeAttributes(tx, context, caller, node.ino, change),
			this.#timeSetter(node.ino, change),
		);
		return done && this.#attributesChanged(node.ino, change, done.result, done.position);
	}

	/** In the step of the commit: a seal in between would put the time of the write back. */
	#timeSetter(ino: Ino, { mtime }: SetAttributes): (() => void) | undefined {
		return mtime === undefined ? undefined : () => this.#core.dirty.clearTime(ino);
	}

	#changeAttributes(tx: RecordTransaction, context: OperationContext, caller: Caller, ino: Ino, change: SetAttributes): AttributesChange {
		const { size: _size, onlyIfCtime, ...rest } = change;
		const inode = names.inode(tx, ino);
		this.#requireCtime(inode, onlyIfCtime);
		const before = this.#attributes(inode);
		const permitted = caller.trusted ? rest : permittedChange(tx, inode, caller, rest);
		return { before, inode: Object.keys(rest).length === 0 ? inode : names.setAttributes(tx, context, ino, permitted) };
	}

	#attributesChanged(ino: Ino, { flags }: SetAttributes, { before, inode }: AttributesChange, position: number): ChangedNode {
		const isPlanted = this.#core.platform.simulation?.planted("open-files-not-bound") === true;
		if (flags !== undefined && !isPlanted) this.#handles.restrict(ino, inode.flags & guardedFlags);
		return { before, after: this.#attributes(inode), position };
	}

	#requireCtime(inode: Inode, ctime: Timestamp | undefined): void {
		if (ctime === undefined || compareTime(this.#attributes(inode).ctime, ctime) === 0) return;
		throw new FsError("ECANCELED", "volume.ctime", `inode ${inode.ino} was changed since it was looked at`, { ino: inode.ino });
	}

	/** Rights go first: a crash in between must not leave a changed program that has them. */
	async #changeSize(caller: Caller, inode: Inode, size: number, dropRights: boolean): Promise<void> {
		const { ino } = inode;
		checkSize(inode, size);
		if (dropRights) await this.#core.transact((tx, context) => names.setAttributes(tx, context, ino, { dropRights }));
		await this.#dropSetId(caller, ino);
		await this.#data.truncate(ino, size);
	}

	/** A write through the handle takes no rights from the file, and that is known without waiting. */
	#keepsRights({ caller, ino }: Handle): boolean {
		if (caller.trusted) return true;
		const found = this.#core.viewNow((tx) => {
			const inode = requireInode(tx, ino);
			return modeAfterWrite(inode, caller) === inode.mode && !hasCapability(tx, inode);
		});
		return found?.result === true;
	}

	/** A program that somebody else has written to must not run with its owner's rights. */
	async #dropSetId(caller: Caller, ino: Ino): Promise<void> {
		if (caller.trusted) return;
		const wrong = (tx: RecordTransaction): Inode | undefined => {
			const inode = requireInode(tx, ino);
			return modeAfterWrite(inode, caller) !== inode.mode || hasCapability(tx, inode) ? inode : undefined;
		};
		if ((await this.#core.view(wrong)) === undefined) return;
		await this.#core.transact((tx, context) => {
			const inode = wrong(tx);
			if (inode === undefined) return;
			// Root's write leaves the bits (CAP_FSETID) and takes the capability.
			if (modeAfterWrite(inode, caller) === inode.mode) dropCapability(tx, context, ino);
			else names.setAttributes(tx, context, ino, { dropRights: true });
		});
	}

	getXattr(caller: Caller, node: NodeRef, name: string): Promise<Uint8Array> {
		return this.#admitted(caller, node, "attributes", () =>
			this.#core.view((tx) => this.#xattr(tx, caller, names.inode(tx, node.ino), name)),
		);
	}

	#getXattrNow(caller: Caller, node: NodeRef, name: string): Uint8Array | null | undefined {
		if (!this.#passes(caller, node, "attributes")) return undefined;
		return this.#core.viewNow((tx) => {
			const inode = names.inode(tx, node.ino);
			// The kernel asks for the rights of a program before each first write and change of owner.
			const isAbsent = caller.trusted && name === capabilityName && inode.xattrCount === 0;
			return isAbsent ? null : this.#xattr(tx, caller, inode, name);
		})?.result;
	}

	#xattr(tx: RecordTransaction, caller: Caller, inode: Inode, name: string): Uint8Array {
		if (name === redundancyXattr) return latin1ToBytes(formatRedundancy(this.#core.redundancyOf(inode.protection)));
		if (!caller.trusted) checkXattr(tx, inode, caller, name, "read");
		return names.getXattr(tx, inode.ino, name);
	}

	setXattr(
		caller: Caller,
		node: NodeRef,
		name: string,
		value: Uint8Array,
		mode: "any" | "create" | "replace",
		dropSetGid = false,
	): Promise<Changed> {
		const copy = value.slice();
		if (name === redundancyXattr) return this.#setProtectionOf(caller, node, bytesToLatin1(copy), mode);
		return this.#changeXattrs(caller, node, name, (tx, context) => {
			const outsider = !caller.trusted && !isRoot(caller) && !inGroup(caller, names.inode(tx, node.ino).gid);
			names.setXattr(tx, context, node.ino, name, copy, mode, dropSetGid || outsider);
		});
	}

	/** What `cairn set` does, for programs. Whoever may decide what copies cost is root. */
	#setProtectionOf(caller: Caller, node: NodeRef, value: string, mode: "any" | "create" | "replace"): Promise<Changed> {
		return this.#admitted(caller, node, "change-attributes", async () => {
			if (!caller.trusted && !isRoot(caller)) throw new FsError("EPERM", "volume.set-user", `only root may change ${redundancyXattr}`);
			if (mode === "create") throw new FsError("EEXIST", "volume.set-create", `every path has ${redundancyXattr}`);
			await this.#protector.set(node.ino, undefined, value === "inherit" ? undefined : value, false).catch((error: unknown) => {
				if (!isFsError(error, "REFUSED")) throw error;
				throw new FsError("EINVAL", "volume.set-refused", error.message, error.data, error);
			});
			return { position: this.#core.engine.position };
		});
	}

	removeXattr(caller: Caller, node: NodeRef, name: string): Promise<Changed> {
		if (name === redundancyXattr) return this.#setProtectionOf(caller, node, "inherit", "any");
		return this.#changeXattrs(caller, node, name, (tx, context) => names.removeXattr(tx, context, node.ino, name));
	}

	listXattrs(caller: Caller, node: NodeRef): Promise<readonly string[]> {
		const all = caller.trusted || isRoot(caller);
		return this.#admitted(caller, node, "attributes", () =>
			this.#core.view((tx) => names.listXattrs(tx, node.ino).filter((name) => all || !name.startsWith("trusted."))),
		);
	}

	#changeXattrs(
		caller: Caller,
		node: NodeRef,
		name: string,
		fn: (tx: RecordTransaction, context: OperationContext) => unknown,
	): Promise<Changed> {
		return this.#admitted(caller, node, "change-attributes", async (admission) => {
			const { position } = await this.#core.transact((tx, context) => {
				admission.check();
				if (!caller.trusted) checkXattr(tx, names.inode(tx, node.ino), caller, name, "write");
				fn(tx, context);
				this.#note(tx, context, caller, node.ino);
			});
			return { position };
		});
	}

	// ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

	async open(caller: Caller, at: At, intent: OpenIntent): Promise<Opened> {
		refuseUnsupported(intent);
		const durable = this.durableOpens.ask(caller, intent, sharingOf(intent));
		if (durable === undefined) return this.#openFile(caller, at, intent, undefined);
		try {
			return await this.#openFile(durable.caller, at, durable.intent, durable);
		} finally {
			this.durableOpens.release(durable);
		}
	}

	async #openFile(caller: Caller, at: At, intent: OpenIntent, durable: DurableAsked | undefined): Promise<Opened> {
		const sharing = sharingOf(intent);
		let opening: Opening | undefined;
		const where = "node" in at ? at.node : at.parent;
		try {
			for (let tries = 0; ; tries++) {
				const judged = opening;
				try {
					const access = "node" in at ? "attributes" : "look";
					return await this.#admittedAll(caller, [[where, access]], (admitted) =>
						this.#openAdmitted(caller, at, intent, admitted, judged, durable),
					);
				} catch (error) {
					if (!(error instanceof Unjudged) || tries >= limits.admissionTries) throw error;
					if (opening !== undefined) this.locks.closeOpen(opening.ino, opening.id);
					opening = undefined;
					opening = { ino: error.ino, id: await this.locks.open(error.ino, sharing, caller) };
				}
			}
		} finally {
			// Its handle has an entry of its own.
			if (opening !== undefined) this.locks.closeOpen(opening.ino, opening.id);
		}
	}

	async #openAdmitted(
		caller: Caller,
		at: At,
		intent: OpenIntent,
		admitted: Admitted,
		judged: Opening | undefined,
		durable: DurableAsked | undefined,
	): Promise<Opened> {
		const { result, position } = await this.#core.transact((tx, context) => {
			admitted.check();
			const found = this.#openOrCreate(tx, context, caller, at, intent);
			if (found.created) {
				if ("parent" in at) admitted.require(at.parent.ino, "names");
			} else {
				const { ino } = found.inode;
				if (judged?.ino !== ino && !this.#isUnasked(caller, ino, intent)) throw new Unjudged(ino);
				if (intent.disposition.startsWith("overwrite")) admitted.require(ino, "write", true);
			}
			if (durable !== undefined) this.durableOpens.enter(tx, context, durable, found.inode.ino, found.created);
			return found;
		});
		try {
			return await this.#openFound(caller, result, intent, judged, position, durable);
		} catch (error) {
			if (durable !== undefined) await this.durableOpens.undo(durable);
			throw error;
		}
	}

	async #openFound(
		caller: Caller,
		result: FoundOrCreated,
		intent: OpenIntent,
		judged: Opening | undefined,
		position: number,
		durable: DurableAsked | undefined,
	): Promise<Opened> {
		const unasked = judged?.ino !== result.inode.ino && this.#isUnasked(caller, result.inode.ino, intent);
		const opening = unasked ? undefined : await this.#openingOf(caller, result, intent, judged);
		const handle = this.#handleOf(caller, result.inode, intent, durable?.record?.id);
		if (opening !== undefined) this.locks.opened(handle.ino, opening, handle.id);
		try {
			const inode = result.created ? result.inode : await this.#prepareOpened(caller, handle, result.inode, intent);
			const opened = this.#opened(caller, handle, { ...result, inode }, position);
			return durable === undefined ? opened : { ...opened, durable: await this.durableOpens.begin(durable, handle) };
		} catch (error) {
			this.locks.dropHandle(handle.ino, handle.id);
			this.#forgetHandle(handle);
			throw error;
		}
	}

	/** Once more after the commit, as it may have been bound in between. A file that was made just now may have been found by others already. */
	async #openingOf(caller: Caller, found: FoundOrCreated, intent: OpenIntent, judged: Opening | undefined): Promise<string> {
		const { ino } = found.inode;
		if (judged?.ino === ino) return judged.id;
		if (!found.created) throw new Unjudged(ino);
		return this.locks.open(ino, sharingOf(intent), caller);
	}

	/** An NFS server's handles are nobody's opens: what comes through them is judged. */
	#isUnasked(caller: Caller, ino: Ino, intent: OpenIntent): boolean {
		return caller.door === "nfs" || (this.#core.admissions.passes(ino) && sharingOf(intent).deny === 0);
	}

	#openNow(caller: Caller, at: At, intent: OpenIntent): Opened | undefined {
		refuseUnsupported(intent);
		const access = "node" in at ? "attributes" : "look";
		if (intent.durable !== undefined || sharingOf(intent).deny !== 0) return undefined;
		if (!this.#passes(caller, "node" in at ? at.node : at.parent, access)) return undefined;
		const done = this.#unlessBound(caller, (require) =>
			this.#core.transactNow((tx, context) => {
				const found = this.#openOrCreate(tx, context, caller, at, intent);
				if (!found.created) require(found.inode.ino, "attributes");
				else if ("parent" in at) require(at.parent.ino, "names");
				return found;
			}),
		);
		// Contents that are cut take longer; so far nothing was changed.
		if (done === undefined || (!done.result.created && intent.disposition.startsWith("overwrite"))) return undefined;
		return this.#opened(caller, this.#handleOf(caller, done.result.inode, intent), done.result, done.position);
	}

	#openOrCreate(tx: RecordTransaction, context: OperationContext, caller: Caller, at: At, intent: OpenIntent): FoundOrCreated {
		const found = this.#findOrCreate(tx, context, caller, at, intent);
		// One without a name is made anew when the request comes again: nobody saw the first.
		if (found.created && intent.unnamed !== true) this.#note(tx, context, caller, found.inode.ino);
		return found;
	}

	/** @throws FsError ESTALE: it was removed since it was found. */
	#handleOf(caller: Caller, inode: Inode, intent: OpenIntent, number?: HandleId): Handle {
		if (this.#reaper.reaping(inode.ino) || this.#core.engine.peek(inodeRecord.key(inode.ino)) === null)
			throw new FsError("ESTALE", "volume.open-reaped", `inode ${inode.ino} does not exist any more`);
		return this.#addHandle(caller, inode, intent, number);
	}

	#opened(caller: Caller, handle: Handle, { inode, created, parentBefore, parentAfter }: FoundOrCreated, position: number): Opened {
		// Only the kernel's mount is resumed with its handles; other doors' clients know none.
		if (caller.door === "fuse" || caller.door === "test") this.#handles.keep(handle, caller.request);
		return {
			handle: handle.id,
			attributes: this.#attributes(inode),
			created,
			parentBefore: parentBefore === undefined ? undefined : this.#attributes(parentBefore),
			parentAfter: parentAfter === undefined ? undefined : this.#attributes(parentAfter),
			position,
		};
	}

	#addHandle(caller: Caller, inode: Inode, intent: OpenIntent, number: HandleId | undefined): Handle {
		const { append = false, sync = false } = intent;
		const { read, write } = intent.access;
		try {
			return this.#handles.add({ ino: inode.ino, caller, read, write, append, sync, restriction: inode.flags & guardedFlags }, number);
		} catch (error) {
			// A file without a name and without a handle is nobody's.
			this.#afterNameLost(inode);
			throw error;
		}
	}

	/** What an open does to a file that was there. */
	async #prepareOpened(caller: Caller, handle: Handle, found: Inode, intent: OpenIntent): Promise<Inode> {
		const { ino } = handle;
		if (intent.disposition.startsWith("overwrite") && found.type === "file") {
			// First the rights, then the contents: a crash in between must not leave a program with both of them wrong.
			if (intent.dropRights === true)
				await this.#core.transact((tx, context) => names.setAttributes(tx, context, ino, { dropRights: true }));
			await this.#dropSetId(caller, ino);
			await this.#data.truncate(ino, 0, (tx, context) => this.#note(tx, context, caller, ino));
		} else if (!intent.access.write) return found;
		const now = await this.#core.view((tx) => requireInode(tx, ino));
		// Flags that were set since it was found did not see the handle.
		handle.restriction = now.flags & guardedFlags;
		return now;
	}

	#findOrCreate(tx: RecordTransaction, context: OperationContext, caller: Caller, at: At, intent: OpenIntent): FoundOrCreated {
		const found = (inode: Inode): FoundOrCreated => ({ inode, created: false, parentBefore: undefined, parentAfter: undefined });
		if ("node" in at) {
			if (intent.disposition === "create") throw new FsError("EEXIST", "volume.open-exists", `inode ${at.node.ino} exists`);
			return found(this.#openable(tx, names.inode(tx, at.node.ino), caller, intent));
		}
		if (intent.unnamed === true) return this.#createUnnamed(tx, context, caller, at.parent.ino, intent);
		this.#searchableDirectory(tx, caller, at.parent.ino);
		const dots = at.name === "." || at.name === "..";
		const entry = dots ? names.lookup(tx, at.parent.ino, at.name) : names.entry(tx, at.parent.ino, at.name);
		if (entry !== undefined) {
			const inode = names.inode(tx, entry.ino);
			if (intent.disposition !== "create") return found(this.#openable(tx, inode, caller, intent));
			// Who knows the verifier made the file: this is the same request once more.
			if (hasVerifier(inode, intent)) return found(inode);
			throw new FsError("EEXIST", "volume.open-exists", `the name exists already`);
		}
		if (intent.disposition === "open" || intent.disposition === "overwrite")
			throw new FsError("ENOENT", "volume.open-absent", "no such file");
		const parentBefore = this.#writableDirectory(tx, caller, at.parent.ino);
		const made = names.create(tx, context, at.parent.ino, at.name, newFile(caller, intent));
		const times = verifierTimes(intent);
		const inode = times === undefined ? made.inode : names.setAttributes(tx, context, made.inode.ino, times);
		return { inode, created: true, parentBefore, parentAfter: made.parentAfter };
	}

	#createUnnamed(tx: RecordTransaction, context: OperationContext, caller: Caller, parent: Ino, intent: OpenIntent): FoundOrCreated {
		this.#writableDirectory(tx, caller, parent);
		const inode = names.createUnnamed(tx, context, parent, newFile(caller, intent), intent.linkable === true);
		return { inode, created: true, parentBefore: undefined, parentAfter: undefined };
	}

	#openable(tx: RecordTransaction, inode: Inode, caller: Caller, intent: OpenIntent): Inode {
		if (inode.type === "directory" && (intent.access.write || intent.disposition !== "open")) {
			throw new FsError("EISDIR", "volume.open-directory", `inode ${inode.ino} is a directory`);
		}
		if (inode.type !== "directory" && inode.type !== "file") {
			// Following a link, and what a device or pipe does, are the client's: here they have no contents.
			const code = inode.type === "symlink" ? "ELOOP" : "ENXIO";
			throw new FsError(code, "volume.open-special", `inode ${inode.ino} is a ${inode.type}: it has no contents to open`, {
				ino: inode.ino,
			});
		}
		const { read, write } = intent.access;
		// Together: one entry of an access list must grant all that is wanted (acl(5)).
		const wants: readonly Want[] = [...(read ? (["read"] as const) : []), ...(write ? (["write"] as const) : [])];
		if (intent.checked !== true && wants.length > 0) this.#requireAccess(tx, caller, inode, ...wants);
		const appends = intent.append === true || intent.appending === true;
		if (intent.access.write) refuseImmutable(inode);
		if ((intent.access.write && !appends) || intent.disposition.startsWith("overwrite")) refuseGuarded(inode);
		return inode;
	}

	async read(id: HandleId, offset: number, lengthBytes: number, room?: Uint8Array, by?: Caller, call?: CallName): Promise<Uint8Array> {
		const handle = this.#handles.get(id);
		if (!handle.read) throw new FsError("EBADF", "volume.read", "the handle is not open for reading");
		checkRange(offset, lengthBytes);
		const read = (): Promise<Uint8Array> =>
			this.#data.read(handle.ino, offset, lengthBytes, readPattern(handle, offset, lengthBytes), room);
		return this.#through(handle, "read", read, { by, offset, lengthBytes, call });
	}

	async write(
		id: HandleId,
		offset: number,
		bytes: Uint8Array,
		by?: Caller,
		call?: CallName,
	): Promise<{ readonly written: number; readonly attributes: Attributes }> {
		const handle = this.#handles.get(id);
		if (!handle.write) throw new FsError("EBADF", "volume.write", "the handle is not open for writing");
		checkRange(offset, bytes.length);
		if (offset + bytes.length > limits.maximumFileBytes)
			throw new FsError("EFBIG", "volume.write", `a file has at most ${limits.maximumFileBytes} bytes`);
		if (handle.restriction !== 0) {
			const copy = bytes.slice();
			await this.#checkRestricted(handle, offset);
			return this.#write(handle, offset, copy, { by, call });
		}
		// Where it may have to wait, the bytes are copied first.
		const kept = this.locks.passes(handle.ino, "write", by ?? handle.caller) ? bytes : bytes.slice();
		return this.#write(handle, offset, kept, { by, call });
	}

	/** What needs no more than a place in the ring. */
	#writeNow(id: HandleId, offset: number, bytes: Uint8Array): number | undefined {
		const handle = this.#handles.get(id);
		const { ino, caller } = handle;
		const isPlain = handle.write && !handle.append && !handle.sync && handle.restriction === 0 && caller.trusted;
		if (!isPlain || bytes.length === 0 || bytes.length > limits.chunkBytes) return undefined;
		if (!Number.isSafeInteger(offset) || offset < 0 || offset + bytes.length > limits.maximumFileBytes) return undefined;
		if (!this.#passes(caller, this.node(ino), "write") || !this.#data.mayWriteNow(ino, bytes.length)) return undefined;
		const exists = this.#core.engine.peek(inodeRecord.key(ino));
		if (exists === undefined || exists === null || !this.#takeSpace(bytes.length * this.#weightOf(ino))) return undefined;
		this.#data.writeNow(ino, offset, bytes);
		this.#sealer.afterWrite(ino);
		return bytes.length;
	}

	#write(
		handle: Handle,
		offset: number,
		bytes: Uint8Array,
		from: { readonly by: Caller | undefined; readonly call: CallName | undefined },
	): Promise<{ readonly written: number; readonly attributes: Attributes }> {
		const write = async (admission: Admission): Promise<{ readonly written: number; readonly attributes: Attributes }> => {
			if (bytes.length === 0)
				return { written: 0, attributes: await this.#core.view((tx) => this.#attributes(requireInode(tx, handle.ino))) };
			const fits = this.#takeSpace(this.#spaceOf(handle.ino, bytes.length));
			let written = bytes.length;
			if (fits && this.#keepsRights(handle)) await this.#writePieces(handle, offset, bytes);
			else {
				const copy = bytes.slice();
				if (!fits) written = await this.#findSpaceForWrite(handle, offset, copy.length);
				await this.#dropSetId(handle.caller, handle.ino);
				await this.#writePieces(handle, offset, copy.subarray(0, written));
			}
			admission.check();
			this.#sealer.afterWrite(handle.ino);
			if (handle.sync) await this.#syncHandle(handle);
			const attributes = await this.#core.view((tx) => this.#attributes(requireInode(tx, handle.ino)));
			return { written, attributes };
		};
		return this.#through(handle, "write", write, { ...from, offset, lengthBytes: bytes.length });
	}

	/** Flags bind those who have the file open already. `offset` undefined: contents are taken away. @throws FsError EPERM. */
	async #checkRestricted(handle: Handle, offset: number | undefined): Promise<void> {
		const inode = await this.#core.view((tx) => requireInode(tx, handle.ino));
		refuseImmutable(inode);
		if (offset === undefined) refuseGuarded(inode);
		else if (isAppendOnly(inode) && !handle.append && offset < this.#data.sizeOf(inode)) refuseGuarded(inode);
	}

	/** One call for the usual sizes; larger writes go piece by piece so that they fit the ring. */
	async #writePieces(handle: Handle, offset: number, bytes: Uint8Array): Promise<void> {
		if (bytes.length <= limits.chunkBytes) {
			await this.#data.write(handle.ino, handle.append ? undefined : offset, bytes);
			return;
		}
		const copy = bytes.slice();
		for (let at = 0; at < copy.length; at += limits.chunkBytes) {
			await this.#data.write(handle.ino, handle.append ? undefined : offset + at, copy.subarray(at, at + limits.chunkBytes));
			this.#sealer.afterWrite(handle.ino);
		}
	}

	/** ENOSPC is told at the write, not when it is too late: what is dirty must fit on the disks as well. False: it does not, as far as is known without asking the disks. */
	#takeSpace(lengthBytes: number): boolean {
		const now = this.#core.platform.clock.monotonicMs();
		if (now - this.#spaceAskedMs > limits.spaceRefreshMs) {
			this.#noteSpace();
			void this.#core.store.refreshSpace().catch(() => {});
		}
		if (lengthBytes > this.#freeBytes) return false;
		this.#freeBytes -= lengthBytes;
		return true;
	}

	#noteSpace(): void {
		this.#spaceAskedMs = this.#core.platform.clock.monotonicMs();
		this.#weights.clear();
		this.#freeBytes = this.#available();
	}

	/** Bytes of a write that have no space reserved for them. */
	async #unreserved(handle: Handle, offset: number, lengthBytes: number): Promise<number> {
		if (this.#core.reservedBytes === 0) return lengthBytes;
		const at = handle.append ? await this.#core.view((tx) => this.#data.sizeOf(requireInode(tx, handle.ino))) : offset;
		return lengthBytes - (await this.#ranges.cover(handle.ino, at, lengthBytes)).reservedBytes;
	}

	async #claimSpace(bytes: number): Promise<() => void> {
		if (!this.#takeSpace(bytes)) await this.#findSpace(() => bytes);
		this.#claimedBytes += bytes;
		return () => {
			this.#claimedBytes -= bytes;
		};
	}

	/** What may still be written: both what df says and what writers get. */
	#available(): number {
		const { store, dirty, reservedBytes } = this.#core;
		const freeBytes = store.space().freeBytes - dirty.bytes * this.#greatestWeight() - reservedBytes - this.#claimedBytes;
		return freeBytes < limits.leastFreeBytes ? 0 : freeBytes;
	}

	/** How many of the bytes may be written: at the very end of the space not all. @throws FsError ENOSPC. */
	async #findSpaceForWrite(handle: Handle, offset: number, lengthBytes: number): Promise<number> {
		const needed = await this.#unreserved(handle, offset, lengthBytes);
		try {
			await this.#findSpace(() => this.#spaceOf(handle.ino, needed));
			return lengthBytes;
		} catch (error) {
			const weight = this.#weightOf(handle.ino);
			const some = Math.min(lengthBytes, Math.floor(this.#freeBytes / weight / 4096) * 4096);
			if (!isFsError(error, "ENOSPC") || needed < lengthBytes || some <= 0 || !this.#takeSpace(some * weight)) throw error;
			return some;
		}
	}

	/** How much of what is free (told in the volume's default) so many bytes of this file take. */
	#spaceOf(ino: Ino, lengthBytes: number): number {
		return lengthBytes === 0 ? 0 : lengthBytes * this.#weightOf(ino);
	}

	/** How much of what is free (told in the volume's default) a byte of this file takes. Infinite: no byte of it fits. */
	#weightOf(ino: Ino): number {
		if (this.#core.protections.size === 0) return 1;
		const key = inodeRecord.key(ino);
		const found = this.#core.engine.peek(key);
		return found ? this.#weight(inodeRecord.decode(found.value, key).protection) : this.#greatestWeight();
	}

	#weight(protection: number): number {
		if (protection === 0) return 1;
		const known = this.#weights.get(protection);
		if (known !== undefined) return known;
		const { store } = this.#core;
		const ofDefault = store.space().freeBytes;
		const weight = ofDefault === 0 ? 1 : ofDefault / store.space(this.#core.redundancyOf(protection)).freeBytes;
		this.#weights.set(protection, weight);
		return weight;
	}

	/** What is dirty may be of any file. */
	#greatestWeight(): number {
		let most = 1;
		for (const protection of this.#core.protections.keys()) {
			const weight = this.#weight(protection);
			if (Number.isFinite(weight)) most = Math.max(most, weight);
		}
		return most;
	}

	/**
	 * There seems to be no room: looks again after each thing that may give some, the quickest first. What is needed is reckoned anew each time: what a byte weighs changes with the disks.
	 * @throws FsError ENOSPC; EIO: the disks that the volume needs are gone.
	 */
	async #findSpace(needed: () => number): Promise<void> {
		if (needed() === 0) return;
		this.#refuseBroken();
		// Infinite when no byte fits as the disks are now.
		const wanted = (): number => (Number.isFinite(needed()) ? needed() : limits.makeRoomBytes);
		const remedies: (() => Promise<void>)[] = [
			() => this.#core.releaseFreed(),
			// What is being sealed counts twice until it is sealed: as dirty, and as taken.
			() => this.#sealer.sealAll(),
			() => this.#removed(),
			() => this.#compactor.makeRoom(wanted()),
			() => this.#leveller.makeRoom(wanted()),
		];
		for (const remedy of remedies) {
			await this.#inTime(remedy()).catch((error: unknown) =>
				this.#core.logger.warn("looking for room", { error: toFsError(error, "volume.find-space").message }),
			);
			await this.#core.store.refreshSpace();
			this.#noteSpace();
			if (this.#takeSpace(needed())) return;
		}
		this.#refuseBroken();
		throw new FsError("ENOSPC", "volume.full", `volume ${this.name} is full: delete something or give it another disk`, {
			freeBytes: this.#freeBytes,
		});
	}

	/** Without its disks a volume has no room either, but it is not full: deleting would not help. */
	#refuseBroken(): void {
		const { broken } = this.#core.disks;
		if (broken !== undefined) throw toFsError(broken, "volume.broken");
	}

	/** Nobody waits for ever for room. */
	async #inTime(work: Promise<void>): Promise<void> {
		await Promise.race([work, this.#core.platform.clock.sleep(limits.makeRoomMs)]);
	}

	/** What was removed is on its way: its space comes back. */
	async #removed(): Promise<void> {
		if (this.#reaper.waiting === 0) return;
		await this.#reaper.idle();
		await this.#core.releaseFreed();
	}

	// ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────

	async allocate(id: HandleId, mode: AllocateMode, offset: number, lengthBytes: number, call?: CallName): Promise<Changed> {
		const handle = this.#handles.get(id);
		if (!handle.write) throw new FsError("EBADF", "volume.allocate", "the handle is not open for writing");
		checkRange(offset, lengthBytes);
		if (lengthBytes === 0) throw new FsError("EINVAL", "volume.allocate", "an empty range cannot be allocated");
		checkEnd(offset + lengthBytes, "volume.allocate");
		const allocate = async (admission: Admission): Promise<Changed> => {
			// On append-only files space may be set aside, and nothing else, however the file was opened (fallocate(2)).
			const asWriteAt = mode === "allocate" || mode === "allocate-keep-size" ? Number.POSITIVE_INFINITY : undefined;
			if (handle.restriction !== 0) await this.#checkRestricted(handle, asWriteAt);
			await this.#dropSetId(handle.caller, handle.ino);
			await this.#ranges.allocate(handle.ino, mode, offset, lengthBytes);
			admission.check();
			if (handle.sync) await this.#syncHandle(handle);
			return { position: this.#core.engine.position };
		};
		return this.#through(handle, "write", allocate, { call });
	}

	async copyRange(
		sourceId: HandleId,
		sourceOffset: number,
		targetId: HandleId,
		targetOffset: number,
		lengthBytes: number,
		call?: CallName,
	): Promise<{ readonly copied: number; readonly attributes: Attributes }> {
		const source = this.#handles.get(sourceId);
		const target = this.#handles.get(targetId);
		if (!source.read) throw new FsError("EBADF", "volume.copy", "the source is not open for reading");
		if (!target.write || target.append) throw new FsError("EBADF", "volume.copy", "the target is not open for writing at an offset");
		checkRange(sourceOffset, lengthBytes);
		checkRange(targetOffset, lengthBytes);
		this.#requireLive(this.node(source.ino));
		const places: Place[] = [
			{ ino: source.ino, access: "read", opened: true },
			{ ino: target.ino, access: "write", opened: true },
		];
		const admissions = await this.locks.admit(places, { ...target.caller, call });
		try {
			const copied = await this.#copy(source, sourceOffset, target, targetOffset, lengthBytes);
			for (const admission of admissions) admission.check();
			if (target.sync && copied > 0) await this.#syncHandle(target);
			return { copied, attributes: await this.#core.view((tx) => this.#attributes(requireInode(tx, target.ino))) };
		} finally {
			for (const admission of admissions) admission.release();
		}
	}

	async #copy(source: Handle, sourceOffset: number, target: Handle, targetOffset: number, lengthBytes: number): Promise<number> {
		const size = await this.#core.view((tx) => {
			const inode = requireInode(tx, source.ino);
			if (inode.type === "directory") throw new FsError("EISDIR", "volume.copy", `inode ${inode.ino} is a directory`);
			return this.#data.sizeOf(inode);
		});
		const length = Math.min(lengthBytes, size - sourceOffset);
		if (length <= 0) return 0;
		checkEnd(targetOffset + length, "volume.copy");
		if (source.ino === target.ino && Math.abs(sourceOffset - targetOffset) < length)
			throw new FsError("EINVAL", "volume.copy", "source and target overlap in one file");
		if (target.restriction !== 0) await this.#checkRestricted(target, targetOffset);
		await this.#dropSetId(target.caller, target.ino);
		if (!(await this.#ranges.copiesBytes(source.ino, sourceOffset, length, target.ino))) {
			const shared = await this.#ranges.share(source.ino, sourceOffset, target.ino, targetOffset, length);
			if (shared > 0) return shared;
		}
		return this.#copyBytes(source, sourceOffset, target, targetOffset, Math.min(length, limits.chunkBytes));
	}

	async #copyBytes(source: Handle, sourceOffset: number, target: Handle, targetOffset: number, lengthBytes: number): Promise<number> {
		const bytes = await this.#data.read(source.ino, sourceOffset, lengthBytes);
		if (bytes.length === 0) return 0;
		if (!this.#takeSpace(this.#spaceOf(target.ino, bytes.length))) {
			const needed = await this.#unreserved(target, targetOffset, bytes.length);
			await this.#findSpace(() => this.#spaceOf(target.ino, needed));
		}
		await this.#writePieces(target, targetOffset, bytes);
		this.#sealer.afterWrite(target.ino);
		return bytes.length;
	}

	async seek(id: HandleId, offset: number, what: "data" | "hole", call?: CallName): Promise<number> {
		const handle = this.#handles.get(id);
		if (!Number.isSafeInteger(offset) || offset < 0) throw new FsError("ENXIO", "volume.seek", `there is no offset ${offset}`);
		return this.#through(handle, "attributes", () => this.#ranges.seek(handle.ino, offset, what), { call });
	}

	async flush(id: HandleId): Promise<void> {
		this.now.flush(id);
	}

	#flush(id: HandleId): void {
		const handle = this.#handles.get(id);
		if (handle.error !== undefined) throw handle.error;
	}

	async fsync(id: HandleId, _dataOnly: boolean, call?: CallName): Promise<void> {
		const handle = this.#handles.get(id);
		await this.#through(handle, "attributes", () => this.#syncHandle(handle), { call });
	}

	async #syncHandle(handle: Handle): Promise<void> {
		if (handle.error !== undefined) throw handle.error;
		try {
			await this.#data.fsync(handle.ino);
			this.#sealer.afterFsync(handle.ino);
		} catch (error) {
			this.#handles.fail(handle.ino, toFsError(error, "volume.fsync"));
			throw error;
		}
		if (handle.error !== undefined) throw handle.error;
	}

	async close(id: HandleId): Promise<void> {
		if (this.durableOpens.has(id)) await this.durableOpens.close(id);
		else this.#letGo(id);
	}

	#close(id: HandleId): void {
		if (this.durableOpens.has(id))
			throw new FsError("EINVAL", "volume.close-durable", `handle ${id} is a durable open: ending it takes a transaction`, { handle: id });
		this.#letGo(id);
	}

	/** Locks go first: if this process dies in between, the close comes again, and finds the handle. */
	#letGo(id: HandleId): void {
		const handle = this.#handles.get(id);
		this.locks.dropHandle(handle.ino, id);
		this.#forgetHandle(handle);
	}

	#forgetHandle(handle: Handle): void {
		const { ino } = handle;
		this.#handles.remove(handle.id);
		if (this.#handles.openCount(ino) > 0 || this.#closing) return;
		const orphan = this.#core.viewNow((tx) => tx.get(orphanRecord, ino));
		if (orphan !== undefined) {
			if (orphan.result !== undefined) this.#reaper.reap(ino);
			return;
		}
		void this.#core
			.view((tx) => tx.get(orphanRecord, ino))
			.then((found) => {
				if (found !== undefined && this.#handles.openCount(ino) === 0) this.#reaper.reap(ino);
			})
			.catch((error: unknown) =>
				this.#core.logger.warn("a closed file could not be looked at", { error: toFsError(error, "volume.close").message }),
			);
	}

	// ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────

	async durable(position: number): Promise<void> {
		await this.#core.engine.durable(position);
	}

	async syncAll(): Promise<void> {
		await this.#sealer.sealAll();
		await this.#core.engine.durable(this.#core.engine.position);
	}

	async space(): Promise<VolumeSpace> {
		await this.#core.store.refreshSpace();
		const space = this.#core.store.space();
		const freeBytes = this.#available();
		// Inodes take metadata space, a kilobyte each at the most: what is free bounds them.
		const freeInodes = Math.floor(freeBytes / 1024);
		const used = Math.floor(space.usedBytes / 1024);
		return {
			capacityBytes: space.capacityBytes,
			freeBytes,
			inodes: used + freeInodes,
			freeInodes,
			maximumNameBytes: limits.maximumNameBytes,
		};
	}

	status(): Promise<VolumeStatus> {
		return volumeStatus({ ...this.#options, trouble: this.#sealer.trouble }, this.#statusModules());
	}

	ledger(): Promise<Ledger> {
		return volumeLedger({ ...this.#options, trouble: this.#sealer.trouble }, this.#statusModules());
	}

	#statusModules(): StatusModules {
		const { metadataBytes, metadataMembers, metadataCopies } = this.#modules;
		const workers = {
			healer: this.#healer,
			scrubber: this.scrub,
			care: this.#care,
			ledgerBook: this.#ledgerBook,
			compactor: this.#compactor,
			protector: this.#protector,
			balancer: this.balance,
			garbage: this.#garbage,
			locks: this.locks,
			durableOpens: this.durableOpens,
			clientLocks: this.clientLocks,
		};
		return { core: this.#core, ...workers, metadataBytes, metadataMembers, metadataCopies };
	}

	heal(onProgress: (progress: Progress) => void): Promise<HealResult> {
		return this.#healer.heal(onProgress);
	}

	setHealing(options: HealOptions): Promise<HealingStatus> {
		return this.#healer.configure(options);
	}

	async verify(options: VerifyOptions, onProgress: (progress: Progress) => void): Promise<VerifyResult> {
		if (this.#closing) throw this.#closingError();
		const { verifyMetadata } = this.#modules;
		try {
			return await verifyVolume({ core: this.#core, healer: this.#healer, care: this.#care, verifyMetadata }, options, onProgress);
		} catch (error) {
			// It ends wherever the first thing that it needs is closed. What it has proven until then is known to `resume`.
			throw this.#closing ? this.#closingError(error) : error;
		}
	}

	collectGarbage(dryRun: boolean): Promise<GarbageReport> {
		return this.#garbage.look(!dryRun);
	}

	async setProtection(path: string, options: SetProtection, onProgress: (progress: Progress) => void): Promise<ProtectionSet> {
		if (this.#closing) throw this.#closingError();
		const { inode, parent } = await this.#core.view((tx) => resolvePath(tx, path));
		const warnings = await this.#protector.set(inode.ino, parent, options.redundancy, options.allowDegraded).catch((error: unknown) => {
			if (!isGone(error)) throw error;
			throw new FsError("ENOENT", "volume.path-removed", `${path} was removed before its protection could be changed`, { path }, error);
		});
		const waitingFor = options.now ? await this.#protector.wait(inode.ino, onProgress) : undefined;
		const redundancy = await this.#core.view((tx) => effectiveProtection(this.#core, tx, resolvePath(tx, path)));
		return { redundancy, warnings, done: options.now && waitingFor === undefined, waitingFor: waitingFor ?? "" };
	}

	directoryPath(ino: Ino): Promise<string | undefined> {
		return this.#core.view((tx) => directoryPath(tx, ino));
	}

	async listLocks(path: string): Promise<LockList> {
		const nameOf = (client: number): string | undefined => this.clientLocks.label(client);
		const ino = path === "" ? undefined : await this.#inoOf(path);
		return lockList(this.locks, this.durableOpens.list(ino), nameOf, ino);
	}

	async breakLocks(path: string, owner: string | undefined): Promise<number> {
		const ino = await this.#inoOf(path);
		const elsewhere = this.locks.remoteClientsOf(ino);
		const ended = await this.durableOpens.breakOpens(ino, owner);
		const broken = ended + this.locks.breakLocks(ino, owner);
		await this.clientLocks.keepAll(ino, elsewhere);
		if (broken > 0) this.#core.logger.warn("locks were broken by an operator", { ino, owner: owner ?? "all", broken });
		return broken;
	}

	#inoOf(path: string): Promise<Ino> {
		return this.#core.view((tx) => resolvePath(tx, path).inode.ino);
	}

	explain(path: string): Promise<Explanation> {
		return explainPath(this.#core, this.#data, this.#healer, path);
	}

	/**
	 * Seals, makes durable, lets go. What cannot be sealed stays in the memory file for the next mount, and the volume is then not marked clean.
	 * @throws FsError what kept it from a clean end; the disks are let go all the same.
	 */
	async shutdown(options?: { readonly keepSession: boolean }): Promise<void> {
		this.#closing = true;
		this.#modules.session?.endWithVolume(options?.keepSession !== true);
		// What is admitted already could still come after the last seal, and would be acknowledged and lost.
		this.#data.refuseWrites(this.#closingError());
		await this.#sealer.stop();
		await this.#protector.stop();
		await this.#compactor.stop();
		await this.#leveller.stop();
		await this.balance.stop();
		await this.#garbage.stop();
		await this.scrub.stop();
		await this.#healer.stop();
		await this.disks.stop();
		await this.#reaper.stop();
		let failure: unknown;
		try {
			await this.#sealer.sealAll();
			await this.#core.proofs.settle({ sweep: false });
			await this.durableOpens.stop();
			await this.clientLocks.stop();
			this.locks.stop();
			await this.#core.engine.durable(this.#core.engine.position);
			await this.#core.releaseFreed();
		} catch (error) {
			failure = error;
		}
		await this.#core.stop();
		await this.#modules.release(failure === undefined);
		if (failure !== undefined) throw failure;
	}
}

function checkSize(inode: Inode, size: number): void {
	if (inode.type === "directory") throw new FsError("EISDIR", "volume.truncate", `inode ${inode.ino} is a directory`);
	if (inode.type !== "file") throw new FsError("EINVAL", "volume.truncate", `inode ${inode.ino} is no regular file`);
	if (!Number.isSafeInteger(size) || size < 0) throw new FsError("EINVAL", "volume.truncate", `${size} is no file size`);
	if (size > limits.maximumFileBytes) throw new FsError("EFBIG", "volume.truncate", `a file has at most ${limits.maximumFileBytes} bytes`);
}

function makerOf(caller: Caller): Pick<NewNode, "uid" | "gid" | "umask"> {
	return { uid: caller.uid, gid: caller.gid, umask: caller.umask ?? 0 };
}

function newFile(caller: Caller, intent: OpenIntent): NewNode {
	const { mode = 0o600, uid = caller.uid, gid = caller.gid } = intent.attributes ?? {};
	return { type: "file", mode, uid, gid, umask: caller.umask ?? 0 };
}

type NamesChange = Omit<ChangedName, "position">;
/** With effects where it may take something apart. */
type NamesOperation = (
	tx: RecordTransaction,
	context: OperationContext,
	before: Inode,
	how: { readonly require: Admitted["require"]; readonly effects?: StorageEffects },
) => NamesChange;

/** Of an operation that is let in. */
interface Admitted {
	/** Before the commit. @throws FsError EAGAIN: it must be admitted anew. */
	check(): void;
	/** That it is let in there too. @throws Unadmitted. */
	require(ino: Ino, access: Access, opened?: boolean): void;
}

/** An open that the lock core has agreed to. */
interface Opening {
	readonly ino: Ino;
	readonly id: string;
}

/** Gives an operation up, to begin anew when it is admitted there. */
class Unadmitted extends FsError {
	readonly place: Place;

	constructor(place: Place) {
		super("EAGAIN", "volume.unadmitted", `inode ${place.ino} is leased anew again and again`, { ino: place.ino });
		this.place = place;
	}
}

/** Gives an open up, to begin anew when the lock core has agreed to it. */
class Unjudged extends FsError {
	readonly ino: Ino;

	constructor(ino: Ino) {
		super("EAGAIN", "volume.unjudged", `the name means another file again and again`, { ino });
		this.ino = ino;
	}
}

function requireMoved({ source, replaced }: Moved, require: Admitted["require"]): void {
	require(source.ino, "remove");
	if (replaced !== undefined) require(replaced.ino, "remove");
}

/** What an open does, and what it lets nobody else do. */
function sharingOf({ access, deny, disposition }: OpenIntent): Sharing {
	const cuts = disposition.startsWith("overwrite");
	const bits =
		(deny?.read === true ? share.read : 0) | (deny?.write === true ? share.write : 0) | (deny?.delete === true ? share.delete : 0);
	return { access: accessBits({ read: access.read, write: access.write || cuts }), deny: bits };
}

interface AttributesChange {
	readonly before: Attributes;
	readonly inode: Inode;
}

interface Moved extends ReturnType<typeof names.rename> {
	readonly before: readonly [Inode, Inode];
	readonly after: readonly [Inode, Inode];
}

interface FoundOrCreated {
	readonly inode: Inode;
	readonly created: boolean;
	readonly parentBefore: Inode | undefined;
	readonly parentAfter: Inode | undefined;
}

/** The verifier of an exclusive create, as the times that stand for it until the client sets its own. */
function verifierTimes({ verifier }: OpenIntent): { readonly atime: Timestamp; readonly mtime: Timestamp } | undefined {
	if (verifier === undefined) return undefined;
	if (verifier.length !== 8) throw new FsError("EINVAL", "volume.verifier", `a verifier has 8 bytes, not ${verifier.length}`);
	const view = new DataView(verifier.buffer, verifier.byteOffset, verifier.byteLength);
	return { atime: { seconds: view.getUint32(0), nanoseconds: 0 }, mtime: { seconds: view.getUint32(4), nanoseconds: 0 } };
}

function hasVerifier(inode: Inode, intent: OpenIntent): boolean {
	const times = verifierTimes(intent);
	if (times === undefined || inode.type !== "file" || inode.size !== 0) return false;
	return compareTime(inode.atime, times.atime) === 0 && compareTime(inode.mtime, times.mtime) === 0;
}

/** Effective protection of a path; not listed, so that nothing copies it by accident. */
const redundancyXattr = "cairn.redundancy";

/** Fields of the rich open that belong to doors to come are refused, never ignored. */
function refuseUnsupported(intent: OpenIntent): void {
	const wanted: string[] = [];
	if (intent.lease !== undefined && intent.lease !== "none") wanted.push("leases");
	if (intent.verifier !== undefined && intent.disposition !== "create") wanted.push("verifiers where nothing is created exclusively");
	if (intent.foldCase === true) wanted.push("case folding");
	if (intent.deleteOnClose === true) wanted.push("delete on close");
	if (wanted.length > 0) throw new FsError("ENOTSUP", "volume.open-intent", `not supported: ${wanted.join(", ")}`);
}

function checkRange(offset: number, lengthBytes: number): void {
	if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(lengthBytes) || lengthBytes < 0) {
		throw new FsError("EINVAL", "volume.range", `offset ${offset}, length ${lengthBytes}`);
	}
}

function checkEnd(end: number, site: string): void {
	if (end > limits.maximumFileBytes) throw new FsError("EFBIG", site, `a file has at most ${limits.maximumFileBytes} bytes`);
}
