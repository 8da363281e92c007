/**
 * The open disks of one volume and the roster that says which of them count.
 *
 * Invariants
 *  D1 `roster` is a roster that counts (rule R1): it changes only after the new one is durable on enough disks.
 *  D2 Roster changes run one at a time. When one cannot be made to count the set is broken for good: nobody knows which roster the disks
 *     hold.
 *  D3 A failed disk gets no call any more; its slot has no `disk`. One that hung or vanished, or was locked at the mount, is taken back by itself when it answers; one whose writes failed only when it was away meanwhile (somebody
 *     looked after it), at a later mount, or through `adopt`. It is locked before, so nothing that was asked of it earlier is under way any more; the roster that counts has put it out before it takes it in.
 *  D4 Every change that is made puts all disks that are failed at that moment out. `settled()` is the wait for it, and nothing is
 *     acknowledged before.
 *  D5 Every open disk is locked against other daemons.
 *  D6 A disk whose duty is not `use` is never healthy: nothing new is put on it, whatever else happens to it.
 */
import { assert } from "../base/assert.ts";
import { allSettledOrThrow, Mutex } from "../base/async.ts";
import { latin1ToUtf8, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import { judgedBy, openDiskWithDeadlines, takeLatency, withDeadlines } from "../platform/deadline.ts";
import type { DeviceReports, Disk, TableCheck, Platform } from "../platform/interface.ts";
import { type Candidate, closeAll, closeQuietly, type FinderModules, type Findings, findDisks, newestRoster } from "./disk-finder.ts";
import { clearDisk, lockDisk, newUuid, refuseSharedDomain, refuseUnlessBlank, rosterEntry } from "./disk-format.ts";
import type {
	AddOptions,
	DiskDuty,
	DiskErrors,
	DiskHealth,
	DiskId,
	DiskPlace,
	DiskSet,
	DiskSlot,
	DiskState,
	OpenedFrom,
	Roster,
	RosterDisk,
} from "./interface.ts";
import { applyHealth, type HealthEvent, healthReason, type HealthState, initialHealth } from "./disk-health.ts";
import { judgeLatency, type LatencyWindow } from "./disk-latency.ts";
import { HangWatch } from "./hang-watch.ts";
import { readSmart } from "./smart.ts";
import {
	diskCallMs,
	inspectCallMs,
	latencyWindowMs,
	smartConfirmMs,
	smartFirstMs,
	smartPollMs,
	maximumDisks,
	probeMs,
	returnCalmMs,
	returnMaximumMs,
	returnMs,
	returnPollMs,
	rosterGrowthBytes,
	slowProbeMs,
	superblockSlotBytes,
} from "./limits.ts";
import {
	changeCounts,
	changeDisk,
	currentLogEpoch,
	disksIn,
	givenUpReason,
	isGivenUp,
	mirrorCount,
	mountedRoster,
	mountRefusal,
	rosterNeeds,
	wasReplaced,
	withDiskOut,
	withDiskRemoved,
	withDisksAdded,
	withReplacement,
} from "./roster.ts";
import {
	compareRosters,
	encodeSuperblock,
	readSuperblock,
	reasonText,
	rosterFault,
	SuperblockFile,
	superblockName,
	type SuperblockFound,
} from "./superblock.ts";

export { type CreateOptions, createDiskSet } from "./disk-format.ts";

export interface OpenOptions {
	readonly paths: readonly string[];
	/** Go on although newer data may exist on disks that are missing. */
	readonly acceptLoss: boolean;
	/** Neither superblocks nor roster are changed; nothing may be written. */
	readonly readOnly?: boolean;
	/** A disk that another process has is missing for now, where enough others are there; else nothing is mounted. */
	readonly skipLocked?: boolean;
	/** The volume that is just being made: it alone, and no other one, is opened although its creation is unfinished. */
	readonly creating?: string;
	/** Looks at what is on the disks before anything is written to them; what it throws refuses the mount. */
	readonly beforeMount?: (disks: DiskSet) => Promise<void>;
	/** Milliseconds until a disk counts as hung; default limits.diskCallMs. */
	readonly callMs?: number;
}

/** Slots of superblocks; one that was never written counts as sound. */
export interface SuperblockCheck {
	readonly checked: number;
	readonly corrupt: number;
	readonly repaired: number;
	readonly unrecoverable: number;
	/** Disks that did not answer. */
	readonly unchecked: number;
}

/** What `openDiskSet` gives: everything optional in DiskSet is there. */
export interface OpenDiskSet extends DiskSet {
	readonly opened: OpenedFrom;
	readonly previousIncarnation: number;
	memoryTaken(): Promise<void>;
	/** Reads both slots of the superblock on every open disk and, with `repair`, writes damaged ones anew. */
	verifySuperblocks(repair: boolean): Promise<SuperblockCheck>;
}

interface Slot {
	readonly id: DiskId;
	readonly uuid: string;
	path: string;
	domain: string;
	state: DiskState;
	reason: string;
	readonly errors: DiskErrors;
	health: HealthState;
	/** What its device said when it was last asked; undefined: nothing yet. */
	complaint: string | undefined;
	disk: Disk | undefined;
	superblock: SuperblockFile | undefined;
	cancelProbe: () => void;
	lostAtMs: number | undefined;
	/** How it may come back by itself; undefined: it may not. */
	awaits: Awaits | undefined;
	/** How often it had to be taken back, and when it was last. */
	returns: number;
	returnedAtMs: number;
}

/** `answer`: as soon as it answers. `attention`: when it was away and is there again. */
interface Awaits {
	readonly what: "answer" | "attention";
	tries: number;
	wasAway: boolean;
}

interface OpenDisk {
	readonly path: string;
	readonly disk: Disk;
	readonly superblock: SuperblockFile;
}

function emptySlot(entry: RosterDisk): Slot {
	const { id, uuid, domain } = entry;
	const errors = { read: 0, write: 0, sync: 0, corrupt: 0, timeout: 0 };
	return {
		id,
		uuid,
		domain,
		path: latin1ToUtf8(entry.path),
		state: isGivenUp(entry) ? "failed" : "missing",
		reason: isGivenUp(entry) ? givenUpReason : entry.reason || "not found",
		errors,
		health: initialHealth(entry.health, entry.isHealthSet, 0),
		complaint: undefined,
		disk: undefined,
		superblock: undefined,
		cancelProbe() {},
		lostAtMs: undefined,
		awaits: undefined,
		returns: 0,
		returnedAtMs: 0,
	};
}

class ManagedDisks implements OpenDiskSet {
	readonly opened: OpenedFrom;
	readonly #platform: Platform;
	readonly #logger: Logger;
	readonly #callMs: number;
	readonly #readOnly: boolean;
	readonly #slots = new Map<DiskId, Slot>();
	readonly #listeners = new Set<(id: DiskId, state: DiskState) => void>();
	readonly #changing = new Mutex();
	readonly #hangs: HangWatch;
	#ejecting: Promise<void> | undefined;
	readonly #pastLatency = new Map<DiskId, number>();
	#cancelLatency: () => void = () => {};
	#cancelSmart: () => void = () => {};
	#roster: Roster;
	#broken: Error | undefined;
	#closed = false;
	/** What the disks and the memory files of the last mount held has been taken over. */
	#isRecovered = false;

	constructor(roster: Roster, options: OpenOptions, modules: FinderModules) {
		this.#platform = modules.platform;
		this.#logger = modules.logger;
		this.#callMs = options.callMs ?? diskCallMs;
		this.#readOnly = options.readOnly ?? false;
		this.#roster = roster;
		this.#hangs = new HangWatch(() => this.#mayLose(), modules.logger);
		this.opened = {
			previousIncarnation: roster.incarnation,
			oldestIncarnation: roster.memoryIncarnation ?? roster.incarnation,
			clean: roster.clean,
			acceptLoss: options.acceptLoss,
		};
		for (const entry of roster.disks) this.#slots.set(entry.id, emptySlot(entry));
	}

	get roster(): Roster {
		return this.#roster;
	}

	get broken(): Error | undefined {
		return this.#broken;
	}

	get previousIncarnation(): number {
		return this.opened.previousIncarnation;
	}

	slots(): readonly DiskSlot[] {
		return [...this.#slots.values()];
	}

	slot(id: DiskId): DiskSlot | undefined {
		return this.#slots.get(id);
	}

	readable(id: DiskId): Disk | undefined {
		return this.#slots.get(id)?.disk;
	}

	writable(id: DiskId): Disk | undefined {
		const slot = this.#slots.get(id);
		return (slot?.state === "healthy" || slot?.state === "degraded") && !this.#readOnly ? slot.disk : undefined;
	}

	clearable(id: DiskId): Disk | undefined {
		const slot = this.#slots.get(id);
		return slot?.state === "draining" && !this.#readOnly ? slot.disk : this.writable(id);
	}

	waits(): ReadonlyMap<DiskId, number> {
		const waits = this.#hangs.waits();
		const found = new Map<DiskId, number>();
		for (const { id, disk } of this.#slots.values()) {
			const ms = disk && waits.get(disk);
			if (ms !== undefined) found.set(id, ms);
		}
		return found;
	}

	/** Disks, beside those that are away already. What was healed since they went is not reckoned with. */
	#mayLose(): number {
		const away = this.#roster.disks.filter((entry) => !wasReplaced(entry) && this.#slots.get(entry.id)?.disk === undefined).length;
		return Math.max(0, this.#roster.config.tolerance - away);
	}

	// ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

	report(id: DiskId, error: unknown, during: keyof DiskErrors): void {
		const slot = this.#slots.get(id);
		if (!slot?.disk || this.#closed) return;
		const { code, message } = toFsError(error, "log.report");
		if (code === "ENOSPC") return;
		const kind = code === "CORRUPT" ? "corrupt" : code === "ETIMEDOUT" ? "timeout" : during;
		slot.errors[kind]++;
		this.#logger.warn(`disk d${id}: ${kind} error`, { path: slot.path, code, message });
		if (code === "ENODEV" || kind === "timeout") this.#fail(slot, message, "answer");
		else if (kind === "write" || kind === "sync") this.#fail(slot, message, "attention");
		else if (kind === "read") this.#happens(slot, { kind: "read-error" });
	}

	// ── health ───────────────────────────────────────────────────────────────────────────────────────────────────

	#happens(slot: Slot, event: HealthEvent): void {
		const before = slot.health;
		slot.health = applyHealth(before, event, this.#platform.clock.monotonicMs());
		if (slot.health.health === before.health || !slot.disk) return;
		const { state } = slot;
		this.#stand(slot, this.#entry(slot.id)?.duty ?? "use");
		if (slot.state !== state) this.#setState(slot, slot.state, slot.reason);
		this.#rememberHealth(slot);
	}

	/** In the background: a mount that does not know it finds out again. */
	#rememberHealth(slot: Slot): void {
		if (this.#readOnly || this.#closed || this.#broken !== undefined) return;
		const remember = async (): Promise<void> => {
			const entry = this.#entry(slot.id);
			const { health, isSet } = slot.health;
			if (this.#closed || entry === undefined || (entry.health === health && entry.isHealthSet === isSet)) return;
			await this.#change(`d${slot.id} is ${health}`, (roster) => changeDisk(roster, slot.id, { health, isHealthSet: isSet }), true);
		};
		this.#changing.run(remember).catch((error: unknown) => {
			this.#logger.warn("the health of a disk could not be written down", { disk: slot.id, error: String(error) });
		});
	}

	#entry(id: DiskId): RosterDisk | undefined {
		return this.#roster.disks.find((entry) => entry.id === id);
	}

	setHealth(id: DiskId, health: DiskHealth | undefined): Promise<void> {
		return this.#changing.run(async () => {
			const slot = this.#known(id);
			const entry = this.#entry(id);
			const refuse = (why: string): FsError => new FsError("REFUSED", "log.health-away", `d${id} (${slot.path}) ${why}`, { disk: id });
			if (entry === undefined || wasReplaced(entry)) throw refuse("has left the volume");
			if (!slot.disk && health !== undefined && health !== "failed") throw refuse(`is ${slot.state}: ${slot.reason}`);
			if (health === "failed") this.#refuseLastOnes(slot);
			const next = applyHealth(slot.health, { kind: "set", health }, this.#platform.clock.monotonicMs());
			await this.#change(
				`health of d${id}: ${health ?? "automatic"}`,
				(roster) => changeDisk(roster, id, { health: next.health, isHealthSet: next.isSet }),
				true,
			);
			slot.health = next;
			if (!slot.disk) slot.lostAtMs = undefined;
			if (!slot.disk)
				slot.reason = health === "failed" ? givenUpReason : "no longer set failed: `cairn disk replace` takes it back, or the next mount";
			else if (health === "failed") this.#fail(slot, givenUpReason);
			else this.#changeDuty(id, entry.duty);
		});
	}

	/** Giving up one disk more than the volume survives would stop it. */
	#refuseLastOnes(slot: Slot): void {
		const others = disksIn(this.#roster).filter((entry) => entry.id !== slot.id && this.#slots.get(entry.id)?.disk !== undefined);
		const needed = Math.max(1, disksIn(this.#roster).length - this.#roster.config.tolerance);
		if (others.length >= needed) return;
		const message = `d${slot.id} (${slot.path}) cannot be given up: only ${others.length} other disks work, and ${needed} are needed`;
		throw new FsError("REFUSED", "log.health-needed", message, { disk: slot.id, others: others.length, needed });
	}

	#fail(slot: Slot, reason: string, awaits?: Awaits["what"]): void {
		const disk = slot.disk;
		slot.cancelProbe();
		slot.disk = undefined;
		slot.superblock = undefined;
		slot.lostAtMs = awaits && this.#platform.clock.monotonicMs();
		this.#setState(slot, "failed", reason);
		if (disk) closeQuietly(disk, this.#logger);
		slot.awaits = awaits && { what: awaits, tries: 0, wasAway: false };
		if (slot.awaits) this.#returnLater(slot);
		// Its own errors break the set and are found there by whoever waits.
		this.#eject().catch((error: unknown) =>
			this.#logger.error("a failed disk could not be taken out", { disk: slot.id, error: String(error) }),
		);
	}

	#setState(slot: Slot, state: DiskState, reason: string): void {
		slot.state = state;
		slot.reason = reason;
		this.#logger.warn(`disk d${slot.id} is ${state}`, { path: slot.path, reason });
		for (const listener of [...this.#listeners]) listener(slot.id, state);
	}

	onChange(listener: (id: DiskId, state: DiskState) => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	async verifySuperblocks(repair: boolean): Promise<SuperblockCheck> {
		const damaged = async (): Promise<{ checked: number; corrupt: number; unchecked: number }> => {
			let checked = 0;
			let corrupt = 0;
			let unchecked = 0;
			for (const { id, disk } of this.#slots.values()) {
				if (disk === undefined) continue;
				const found = await readSuperblock(disk).catch((error: unknown) => {
					this.report(id, error, "read");
					return undefined;
				});
				if (found === undefined) {
					unchecked++;
					continue;
				}
				checked += 2;
				corrupt += found.kind === "valid" ? found.damagedSlots : 2;
			}
			return { checked, corrupt, unchecked };
		};
		const tables = await this.#verifyTables(repair);
		const before = await damaged();
		const found = {
			checked: before.checked + tables.checked,
			corrupt: before.corrupt + tables.corrupt,
			unchecked: before.unchecked + tables.unchecked,
			unrecoverable: 0,
		};
		if (!repair || before.corrupt === 0) return { ...found, repaired: tables.repaired };
		// The slots are written in turn: two rosters mend both.
		for (const slot of ["first", "second"]) await this.changeRoster(`superblocks mended, ${slot} slot`, (roster) => roster);
		return { ...found, repaired: tables.repaired + before.corrupt - (await damaged()).corrupt };
	}

	/** Where disks that have no file system keep what lies where. */
	async #verifyTables(repair: boolean): Promise<TableCheck & { readonly unchecked: number }> {
		const sum = { checked: 0, corrupt: 0, repaired: 0, unchecked: 0 };
		for (const { id, disk, path } of this.#slots.values()) {
			if (disk?.verifyTable === undefined) continue;
			const found = await disk.verifyTable(repair).catch((error: unknown) => {
				// What cannot be read it calls damaged; what fails is writing it down. Nothing on the disk is durable any more then.
				this.report(id, error, "sync");
				return undefined;
			});
			if (found === undefined) {
				sum.unchecked++;
				continue;
			}
			if (found.corrupt > 0) this.#logger.warn("what a raw disk finds its files by is damaged on the device", { path, ...found });
			sum.checked += found.checked;
			sum.corrupt += found.corrupt;
			sum.repaired += found.repaired;
		}
		return sum;
	}

	// ── roster changes ───────────────────────────────────────────────────────────────────────────────────────────

	changeRoster(reason: string, edit: (roster: Roster) => Roster): Promise<Roster> {
		return this.#changing.run(() => this.#change(reason, edit, true));
	}

	async settled(): Promise<void> {
		while (this.#broken === undefined && this.#unsettled()) await this.#eject();
		if (this.#broken) throw this.#broken;
	}

	#unsettled(): boolean {
		if (this.#readOnly || this.#closed) return false;
		return disksIn(this.#roster).some((entry) => this.#slots.get(entry.id)?.state === "failed");
	}

	#eject(): Promise<void> {
		this.#ejecting ??= this.#changing
			.run(async () => {
				// Another one may fail meanwhile.
				while (this.#broken === undefined && this.#unsettled()) await this.#change("disk failed", (roster) => roster, true);
			})
			.finally(() => {
				this.#ejecting = undefined;
			});
		return this.#ejecting;
	}

	memoryTaken(): Promise<void> {
		this.#isRecovered = true;
		return this.#changing.run(async () => {
			if (this.#roster.memoryIncarnation === undefined) return;
			await this.#change("memory taken over", ({ memoryIncarnation: _old, ...roster }) => roster, true);
		});
	}

	/** `countBefore` is false only where the operator accepted that newer rosters may exist. */
	async #change(
		reason: string,
		edit: (roster: Roster) => Roster,
		countBefore: boolean,
		incarnation = this.#roster.incarnation,
	): Promise<Roster> {
		if (this.#broken) throw this.#broken;
		if (this.#closed || this.#readOnly)
			throw new FsError("EROFS", "log.roster-closed", `the roster cannot be changed (${reason}): the volume is read-only or closed`);
		const before = this.#roster;
		const next = this.#withFailedOut({ ...edit(before), volume: before.volume, epoch: before.epoch + 1, incarnation });
		const fault = rosterFault(next);
		assert(fault === undefined, `roster change "${reason}": ${fault}`);
		const written = await this.#writeEverywhere(next);
		if (!changeCounts(countBefore ? before : undefined, next, written)) throw this.#break(reason, next, written);
		this.#roster = next;
		this.#logger.debug("roster changed", { reason, epoch: next.epoch });
		return next;
	}

	#withFailedOut(roster: Roster): Roster {
		let next = roster;
		for (const entry of disksIn(roster)) {
			const slot = this.#slots.get(entry.id);
			if (slot?.state === "failed") next = withDiskOut(next, entry.id, slot.reason);
		}
		return next;
	}

	/** To every disk within reach, also those that it puts out: so they cannot be taken for the newest later. */
	async #writeEverywhere(roster: Roster): Promise<ReadonlySet<DiskId>> {
		const written = new Set<DiskId>();
		await Promise.all(
			[...this.#slots.values()].map(async (slot) => {
				if (!slot.superblock) return;
				try {
					await slot.superblock.write({ diskUuid: slot.uuid, roster });
					if (slot.disk) written.add(slot.id);
				} catch (error) {
					// Its superblock cannot be trusted to take the next roster either, whatever the reason.
					if (isFsError(error, "ENOSPC")) this.#fail(slot, "no space to rewrite its superblock");
					else this.report(slot.id, error, "write");
				}
			}),
		);
		return written;
	}

	#break(reason: string, roster: Roster, written: ReadonlySet<DiskId>): Error {
		const name = latin1ToUtf8(roster.name);
		const failed = [...this.#slots.values()].find(({ state }) => state === "failed");
		const why = failed === undefined ? "" : ` (d${failed.id}: ${failed.reason})`;
		const message =
			`volume ${name}: a change of the roster (${reason}) reached ${written.size} disks, too few to count${why}. ` +
			"Nothing more is acknowledged; unmount, bring disks back, mount again";
		this.#broken = new FsError("EIO", "log.roster-quorum", message, { epoch: roster.epoch, written: [...written] });
		this.#logger.error(message);
		return this.#broken;
	}

	// ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Takes an open, locked disk in. */
	attach(id: DiskId, open: OpenDisk): void {
		const slot = this.#slots.get(id);
		assert(slot && !slot.disk, `d${id} attached once`);
		slot.disk = open.disk;
		slot.superblock = open.superblock;
		slot.awaits = slot.lostAtMs = undefined;
		judgedBy(open.disk, this.#hangs);
		slot.path = open.path;
		slot.domain = open.disk.domain;
		const entry = this.#entry(id);
		slot.health = initialHealth(entry?.health ?? "healthy", entry?.isHealthSet ?? false, this.#platform.clock.monotonicMs());
		this.#stand(slot, entry?.duty ?? "use");
	}

	/** The state of a disk that is there, by its duty and its errors (D6). */
	#stand(slot: Slot, duty: DiskDuty): void {
		slot.state = duty !== "use" ? "draining" : slot.health.health;
		if (duty === "drain") slot.reason = "what is on it moves to other disks";
		else if (duty === "leave") slot.reason = "what is on it moves to other disks, then it leaves the volume";
		else slot.reason = healthReason(slot.health);
	}

	/** What was found where a missing disk should be: tells the operator more than "missing". */
	explainMissing(why: ReadonlyMap<string, string>): void {
		for (const slot of this.#slots.values()) {
			const reason = slot.state === "missing" ? why.get(slot.path) : undefined;
			if (reason !== undefined && !slot.reason.startsWith("replaced by ")) slot.reason = reasonText(reason);
		}
	}

	/** The roster change of a mount. */
	async mount(found: ReadonlyMap<DiskId, { readonly path: string; readonly domain: string }>): Promise<void> {
		if (!this.#readOnly) {
			const incarnation = this.#roster.incarnation + 1;
			await this.#changing.run(() => this.#change("mount", (roster) => mountedRoster(roster, found), !this.opened.acceptLoss, incarnation));
		}
		for (const slot of this.#slots.values()) {
			if (slot.disk) this.#probeLater(slot, slot.disk);
			else if (slot.state === "missing") slot.lostAtMs = this.#platform.clock.monotonicMs();
		}
		this.#watchLatency();
		this.#askDevicesLater(smartFirstMs);
	}

	// ── disks that come back by themselves ───────────────────────────────────────────────────────────────────────

	/** They hang, or somebody else has them: they are taken back as soon as they answer and nobody has them. */
	awaitReturn(absent: ReadonlyMap<DiskId, { readonly path: string; readonly reason: string }>): void {
		for (const [id, { path, reason }] of absent) {
			const slot = this.#known(id);
			slot.path = path;
			slot.reason = reasonText(reason);
			slot.awaits = { what: "answer", tries: 0, wasAway: false };
			if (!this.#readOnly) this.#returnLater(slot);
		}
	}

	#returnLater(slot: Slot): void {
		slot.cancelProbe = this.#platform.clock.after(this.#returnDelayMs(slot), () => {
			if (!this.#isAwaited(slot)) return;
			// The log is recovered from the mirrors that were there at its beginning.
			if (this.#isRecovered) void this.#tryReturnAgain(slot);
			else this.#returnLater(slot);
		});
	}

	/** A place that is looked at in vain, and a disk that does not stay well, are come back to more and more seldom. */
	#returnDelayMs(slot: Slot): number {
		if (this.#platform.clock.monotonicMs() - slot.returnedAtMs >= returnCalmMs) slot.returns = 0;
		const tries = slot.state === "missing" ? 0 : (slot.awaits?.tries ?? 0);
		return Math.max(
			Math.min(returnPollMs, returnMs * 2 ** Math.min(tries, 10)),
			Math.min(returnMaximumMs, returnMs * 4 ** Math.min(slot.returns, 10)),
		);
	}

	async #tryReturnAgain(slot: Slot): Promise<void> {
		const { awaits } = slot;
		try {
			await this.#tryReturn(slot);
		} catch (error) {
			if (!this.#isAwaited(slot) || awaits === undefined || slot.awaits !== awaits) return;
			const { code, message } = toFsError(error, "log.return");
			awaits.tries++;
			if (awayCodes.has(code)) awaits.wasAway = true;
			// Why it failed is what people have to know of one that failed.
			if (slot.state === "missing") slot.reason = reasonText(message);
			this.#returnLater(slot);
		}
	}

	#isAwaited(slot: Slot): boolean {
		if (this.#closed || this.#readOnly || this.#broken !== undefined || this.#slots.get(slot.id) !== slot) return false;
		if (slot.disk !== undefined || slot.awaits === undefined) return false;
		const entry = this.#entry(slot.id);
		return entry !== undefined && !wasReplaced(entry) && !isGivenUp(entry);
	}

	/** Waits for as long as the disk hangs, in one thread: a deadline would leave a thread behind at each try. What then works is taken in. */
	async #tryReturn(slot: Slot): Promise<void> {
		const bare = await this.#platform.openDisk(slot.path);
		try {
			const superblock = await bare.open(superblockName);
			if (slot.awaits?.what === "attention" && !slot.awaits.wasAway)
				throw new FsError("EIO", "log.return-same", `${slot.path} is as it was when it failed`);
			await lockDisk(bare);
			await superblock.sync("log.return");
			await this.#changing.run(() => this.#return(slot, withDeadlines(bare, this.#platform.clock, { callMs: this.#callMs })));
		} finally {
			if (slot.disk === undefined) closeQuietly(bare, this.#logger);
		}
	}

	async #return(slot: Slot, disk: Disk): Promise<void> {
		if (!this.#isAwaited(slot)) return;
		const found = await readSuperblock(disk);
		if (!isSameDisk(found, this.#roster.volume, slot.uuid))
			throw new FsError("ENODEV", "log.return-other", `${slot.path} does not hold disk d${slot.id} any more`);
		this.#refuseNewer(found.superblock.roster, slot.path);
		const others = [...this.#slots.values()].flatMap((other) => (other.disk ? [other.disk] : []));
		refuseSharedDomain([...others, disk], this.#roster.config.sameDevice, "the volume was made without --same-device");
		const superblock = await SuperblockFile.open(disk, found.slot);
		// The roster may not have put it out yet, where it failed while another disk was being put out.
		if (this.#unsettled()) await this.#change("disk failed", (roster) => roster, true);
		await this.#takeBack(slot, { path: slot.path, disk, superblock });
		slot.returns++;
		slot.returnedAtMs = this.#platform.clock.monotonicMs();
		this.#logger.info(`disk d${slot.id} answers again and was taken back`, { path: slot.path });
	}

	/** It was used without these disks: what it knows is not an older state of this volume, but another one. */
	#refuseNewer(roster: Roster, path: string): void {
		if (compareRosters(roster, this.#roster) <= 0) return;
		const message =
			`${path} knows a newer state of the volume (${roster.epoch}) than the disks in use (${this.#roster.epoch}): it was mounted without them. ` +
			"Unmount, and mount with all disks to go on from the newer state; or empty it, and `cairn disk replace` takes it as a new disk";
		throw new FsError("REFUSED", "log.adopt-newer", message, { path, epoch: roster.epoch });
	}

	#watchLatency(): void {
		this.#cancelLatency = this.#platform.clock.after(latencyWindowMs, () => {
			if (this.#closed) return;
			const windows = new Map<DiskId, LatencyWindow>();
			for (const { id, disk } of this.#slots.values()) {
				const window = disk && takeLatency(disk);
				if (window !== undefined) windows.set(id, window);
			}
			for (const { id, meanMs, peersMs, pastMs } of judgeLatency(windows, this.#pastLatency)) {
				const slot = this.#slots.get(id);
				const ms = { meanMs: Math.round(meanMs), peersMs: Math.round(peersMs), pastMs: Math.round(pastMs) };
				this.#logger.warn(`disk d${id} answers slowly`, { path: slot?.path, ...ms });
				if (slot !== undefined) this.#happens(slot, { kind: "slow" });
			}
			this.#watchLatency();
		});
	}

	/** Devices are asked one after the other, beside everything else: one that hangs holds up the question alone. */
	#askDevicesLater(ms: number): void {
		const { devices, clock } = this.#platform;
		if (devices === undefined || this.#readOnly) return;
		this.#cancelSmart = clock.after(ms, () => {
			void this.#askDevices(devices)
				.catch((error: unknown) => {
					this.#logger.warn("devices could not be asked for their SMART values", { error: String(error) });
					return false;
				})
				.then((isNews) => {
					if (!this.#closed) this.#askDevicesLater(isNews ? smartConfirmMs : smartPollMs);
				});
		});
	}

	/** True when an answer was another one than before: it counts when it comes again. */
	async #askDevices(devices: DeviceReports): Promise<boolean> {
		let isNews = false;
		const answers = new Map<string, string | undefined>();
		for (const slot of [...this.#slots.values()]) {
			if (this.#closed) return false;
			if (!slot.disk) continue;
			// Starting a process holds everything else up for some milliseconds: a device is asked once, however many disks lie on it, and others have a turn before the next.
			const asked = answers.has(slot.domain);
			const text = asked ? answers.get(slot.domain) : await devices.smart(slot.domain);
			answers.set(slot.domain, text);
			if (!asked) await this.#platform.clock.yield();
			const opinion = text === undefined ? undefined : readSmart(text);
			if (opinion === undefined || !slot.disk || this.#closed) continue;
			const isConfirmed = slot.complaint !== undefined && (slot.complaint === "") === (opinion.why === "");
			slot.complaint = opinion.why;
			if ((slot.health.complaint === "") === (opinion.why === "")) continue;
			if (isConfirmed) this.#happens(slot, { kind: "device", complaint: opinion.why });
			else isNews = true;
		}
		return isNews;
	}

	#probeLater(slot: Slot, disk: Disk): void {
		const { clock } = this.#platform;
		slot.cancelProbe = clock.after(probeMs, () => {
			const startMs = clock.monotonicMs();
			disk.probe().then(
				() => {
					if (slot.disk !== disk || this.#closed) return;
					this.#happens(slot, { kind: clock.monotonicMs() - startMs >= slowProbeMs ? "slow" : "tick" });
					if (slot.disk === disk) this.#probeLater(slot, disk);
				},
				(error: unknown) => {
					if (slot.disk !== disk || this.#closed) return;
					this.report(slot.id, error, "read");
					if (slot.disk === disk) this.#probeLater(slot, disk);
				},
			);
		});
	}

	adopt(path: string, replaces: DiskId, force = false): Promise<DiskId> {
		return this.#changing.run(() => this.#adopt(path, replaces, force));
	}

	async #adopt(path: string, replaces: DiskId, force: boolean): Promise<DiskId> {
		const old = this.#slots.get(replaces);
		if (!old) throw new FsError("NOTFOUND", "log.adopt-unknown", `volume ${latin1ToUtf8(this.#roster.name)} has no disk d${replaces}`);
		if (this.#roster.disks.some((entry) => entry.id === replaces && wasReplaced(entry))) {
			throw new FsError("REFUSED", "log.adopt-replaced", `d${replaces} was replaced already`);
		}
		if (old.disk) await old.disk.probe().catch((error: unknown) => this.report(replaces, error, "read"));
		if (old.state === "healthy" || old.state === "degraded" || old.state === "draining") {
			throw new FsError(
				"REFUSED",
				"log.adopt-healthy",
				`d${replaces} (${old.path}) works: only a failed, missing or suspect disk is replaced`,
			);
		}
		const disk = await openDiskWithDeadlines(this.#platform, path, { callMs: this.#callMs });
		try {
			return await this.#adoptDisk(disk, path, old, force);
		} catch (error) {
			if (![...this.#slots.values()].some((slot) => slot.disk === disk)) closeQuietly(disk, this.#logger);
			throw error;
		}
	}

	async #adoptDisk(disk: Disk, path: string, old: Slot, force: boolean): Promise<DiskId> {
		const found = await readSuperblock(disk);
		const same = isSameDisk(found, this.#roster.volume, old.uuid);
		if (same) this.#refuseNewer(found.superblock.roster, path);
		if (!same) await this.#refuseUnfit([disk], force);
		const others = [...this.#slots.values()].flatMap((slot) => (slot.disk && slot !== old ? [slot.disk] : []));
		refuseSharedDomain([...others, disk], this.#roster.config.sameDevice, "the volume was made without --same-device");
		await lockDisk(disk);
		for (const leftover of same ? [] : await this.#refuseUnfit([disk])) await clearDisk(leftover);
		if (!same) return this.#takeNew(old, path, disk);
		await this.#takeBack(old, { path, disk, superblock: await SuperblockFile.open(disk, found.slot) });
		return old.id;
	}

	async #takeBack(slot: Slot, open: OpenDisk): Promise<void> {
		if (slot.disk) await slot.disk.close().catch(() => undefined);
		slot.cancelProbe();
		slot.disk = undefined;
		// What it holds of an older log must not be believed; the roster that takes it in names no such epoch with it.
		this.attach(slot.id, open);
		slot.health = initialHealth("healthy", false, this.#platform.clock.monotonicMs());
		this.#stand(slot, this.#entry(slot.id)?.duty ?? "use");
		const health = { health: slot.health.health, isHealthSet: slot.health.isSet };
		const place = { path: utf8ToLatin1(open.path), domain: utf8ToLatin1(open.disk.domain) };
		const change = { ...place, ...health, membership: "in" as const, reason: "" };
		await this.#change("disk came back", (roster) => changeDisk(roster, slot.id, change), true);
		this.#joined(slot, open.disk);
	}

	async #takeNew(old: Slot, path: string, disk: Disk): Promise<DiskId> {
		const { id: _id, ...entry } = rosterEntry(disk, 0, newUuid(this.#platform));
		const [superblock] = await formatAll([disk], [entry.uuid], this.#roster);
		const open: OpenDisk = { path, disk, superblock: superblock as SuperblockFile };
		const id = this.#roster.nextDiskId;
		const added = { ...entry, path: utf8ToLatin1(open.path) };
		const slot = emptySlot({ ...added, id });
		this.#slots.set(id, slot);
		this.attach(id, open);
		try {
			await this.#change("disk replaced", (roster) => withReplacement(roster, added, old.id, maximumDisks), true);
		} catch (error) {
			if (this.#broken === undefined) this.#slots.delete(id);
			throw error;
		}
		if (old.disk) {
			old.cancelProbe();
			closeQuietly(old.disk, this.#logger);
			old.disk = undefined;
			old.superblock = undefined;
		}
		old.state = "failed";
		old.lostAtMs = undefined;
		old.reason = reasonText(`replaced by d${id}`);
		for (const known of this.#slots.keys()) if (!this.#roster.disks.some((disk) => disk.id === known)) this.#slots.delete(known);
		this.#joined(slot, open.disk);
		return id;
	}

	#joined(slot: Slot, disk: Disk): void {
		if (slot.disk !== disk) throw new FsError("EIO", "log.adopt-failed", `${slot.path} failed while it was taken in: ${slot.reason}`);
		this.#probeLater(slot, disk);
		for (const listener of [...this.#listeners]) listener(slot.id, slot.state);
	}

	// ── disks that come and go by the operator's will ────────────────────────────────────────────────────────────

	add(paths: readonly string[], options: AddOptions = {}): Promise<readonly DiskId[]> {
		return this.#changing.run(() => this.#add(paths, options));
	}

	async examine(paths: readonly string[], { leaving, force }: AddOptions = {}): Promise<readonly DiskPlace[]> {
		const opened: Disk[] = [];
		try {
			for (const path of paths) opened.push(await openDiskWithDeadlines(this.#platform, path, { callMs: this.#callMs }));
			const strangers: Disk[] = [];
			for (const disk of opened) if (!(await this.#isBack(disk, leaving))) strangers.push(disk);
			await this.#refuseUnfit(strangers, force);
			this.#refuseShared(opened, leaving);
			const spaces = await Promise.all(opened.map((disk) => disk.space()));
			return opened.map(({ domain, ownsSpace = false }, at) => {
				return { path: paths[at] as string, domain, ownsSpace, ...(spaces[at] as (typeof spaces)[number]) };
			});
		} finally {
			for (const disk of opened) closeQuietly(disk, this.#logger);
		}
	}

	/** The very disk that was lost: `adopt` takes it back with what is on it. */
	async #isBack(disk: Disk, lost: DiskId | undefined): Promise<boolean> {
		const slot = lost === undefined ? undefined : this.#slots.get(lost);
		if (slot === undefined || slot.disk) return false;
		return isSameDisk(await readSuperblock(disk), this.#roster.volume, slot.uuid);
	}

	#refuseShared(opened: readonly Disk[], leaving: DiskId | undefined): void {
		const others = [...this.#slots.values()].flatMap((slot) => (slot.disk && slot.id !== leaving ? [slot.disk] : []));
		refuseSharedDomain([...others, ...opened], this.#roster.config.sameDevice, "the volume was made without --same-device");
	}

	async #add(paths: readonly string[], options: AddOptions): Promise<readonly DiskId[]> {
		const opened: Disk[] = [];
		try {
			for (const path of paths) opened.push(await openDiskWithDeadlines(this.#platform, path, { callMs: this.#callMs }));
			return await this.#addDisks(paths, opened, options);
		} catch (error) {
			const taken = new Set([...this.#slots.values()].map((slot) => slot.disk));
			for (const disk of opened) if (!taken.has(disk)) closeQuietly(disk, this.#logger);
			throw error;
		}
	}

	async #addDisks(paths: readonly string[], opened: readonly Disk[], { leaving, force }: AddOptions): Promise<readonly DiskId[]> {
		await this.#refuseUnfit(opened, force);
		this.#refuseShared(opened, leaving);
		for (const disk of opened) await lockDisk(disk);
		// Until it was locked another command may have been at work there.
		const leftovers = await this.#refuseUnfit(opened);
		const added = opened.map((disk, at) => {
			const { id: _id, ...entry } = rosterEntry(disk, 0, newUuid(this.#platform));
			return { ...entry, path: utf8ToLatin1(paths[at] as string) };
		});
		this.#refuseFullRoster(withDisksAdded(this.#roster, added, leaving));
		for (const disk of leftovers) await clearDisk(disk);
		const uuids = added.map((entry) => entry.uuid);
		const superblocks = await formatAll(opened, uuids, this.#roster);
		const slots = added.map((entry, at) => {
			const slot = emptySlot({ ...entry, id: this.#roster.nextDiskId + at });
			this.#slots.set(slot.id, slot);
			this.attach(slot.id, { path: paths[at] as string, disk: opened[at] as Disk, superblock: superblocks[at] as SuperblockFile });
			return slot;
		});
		try {
			await this.#change("disks added", (roster) => withDisksAdded(roster, added, leaving), true);
		} catch (error) {
			if (this.#broken === undefined) for (const { id } of slots) this.#slots.delete(id);
			throw error;
		}
		if (leaving !== undefined) this.#changeDuty(leaving, "leave");
		for (const [at, slot] of slots.entries()) this.#joined(slot, opened[at] as Disk);
		return slots.map((slot) => slot.id);
	}

	/** Answers those that hold what an interrupted addition or removal left there of this very volume, or an interrupted creation of any. */
	async #refuseUnfit(opened: readonly Disk[], force = false): Promise<readonly Disk[]> {
		const leftovers: Disk[] = [];
		for (const disk of opened) {
			const found = await readSuperblock(disk);
			if (found.kind === "valid" && this.#isLeftover(found.superblock)) leftovers.push(disk);
			else if ((await refuseUnlessBlank(disk, force)) !== undefined) leftovers.push(disk);
		}
		return leftovers;
	}

	/** A disk that this roster does not know, and that knows nothing newer: it was never taken in, or let go. What counts is elsewhere. */
	#isLeftover({ roster, diskUuid }: { readonly roster: Roster; readonly diskUuid: string }): boolean {
		if (roster.volume !== this.#roster.volume || roster.epoch > this.#roster.epoch) return false;
		return !this.#roster.disks.some((entry) => entry.uuid === diskUuid);
	}

	#refuseFullRoster(roster: Roster): void {
		const fault = rosterFault(roster);
		const bytes = encodeSuperblock({ diskUuid: roster.volume, roster }).length;
		if (fault === undefined && bytes <= superblockSlotBytes - rosterGrowthBytes) return;
		const message = `the volume cannot have ${roster.disks.length} disks: ${fault ?? "the list of them would not fit a superblock; shorter paths help"}`;
		throw new FsError("E2BIG", "log.roster-full", message, { disks: roster.disks.length, bytes });
	}

	setDuty(id: DiskId, duty: DiskDuty): Promise<void> {
		return this.#changing.run(async () => {
			const slot = this.#known(id);
			if (!slot.disk) {
				throw new FsError("REFUSED", "log.duty-away", `d${id} (${slot.path}) is ${slot.state}: ${slot.reason}`, { disk: id });
			}
			await this.#change(`duty of d${id}: ${duty}`, (roster) => changeDisk(roster, id, { duty }), true);
			this.#changeDuty(id, duty);
		});
	}

	#known(id: DiskId): Slot {
		const slot = this.#slots.get(id);
		if (slot) return slot;
		throw new FsError("NOTFOUND", "log.disk-unknown", `volume ${latin1ToUtf8(this.#roster.name)} has no disk d${id}`);
	}

	#changeDuty(id: DiskId, duty: DiskDuty): void {
		const slot = this.#known(id);
		if (!slot.disk) return;
		this.#stand(slot, duty);
		this.#setState(slot, slot.state, slot.reason);
	}

	async remove(id: DiskId): Promise<{ readonly path: string; readonly cleared: boolean }> {
		const slot = await this.#changing.run(() => this.#letGo(id));
		const { disk, path } = slot;
		slot.disk = slot.superblock = undefined;
		if (!disk) return { path, cleared: false };
		try {
			await clearDisk(disk);
			return { path, cleared: true };
		} catch (error) {
			this.#logger.warn("a disk that left the volume could not be cleared", { path, error: String(error) });
			return { path, cleared: false };
		} finally {
			closeQuietly(disk, this.#logger);
		}
	}

	/** From here on no mount takes it for a member: the roster that counts, its own copy included, does not know it. */
	async #letGo(id: DiskId): Promise<Slot> {
		const slot = this.#known(id);
		const refuse = (why: string): FsError =>
			new FsError("REFUSED", "log.remove-needed", `d${id} (${slot.path}) cannot leave the volume: ${why}`, { disk: id });
		if (slot.disk && slot.state !== "draining") throw refuse("it is in use; drain it first");
		const needed = rosterNeeds(this.#roster, id);
		if (needed !== undefined) throw refuse(`it still holds ${needed} of the volume`);
		if (!disksIn(this.#roster).some((entry) => entry.id !== id)) throw refuse("it is the last one");
		await this.#change(`d${id} removed`, (roster) => withDiskRemoved(roster, id), true);
		slot.cancelProbe();
		this.#slots.delete(id);
		slot.state = "missing";
		for (const listener of [...this.#listeners]) listener(id, "missing");
		return slot;
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		await this.#changing.run(async () => {
			this.#closed = true;
			this.#cancelLatency();
			this.#cancelSmart();
			const open = [...this.#slots.values()].filter((slot) => slot.disk);
			for (const slot of this.#slots.values()) slot.cancelProbe();
			await Promise.allSettled(open.map((slot) => slot.disk?.close()));
			for (const slot of open) slot.disk = slot.superblock = undefined;
		});
	}
}

/** What opening a place says from which the disk was taken away. */
const awayCodes: ReadonlySet<string> = new Set(["ENOENT", "ENODEV", "ENXIO", "ENOTDIR", "NOTFOUND"]);

function isSameDisk(found: SuperblockFound, volume: string, uuid: string): found is Extract<SuperblockFound, { readonly kind: "valid" }> {
	return found.kind === "valid" && found.superblock.roster.volume === volume && found.superblock.diskUuid === uuid;
}

/**
 * Each disk gets its identity, with the roster that does not know it yet, before any other disk hears of it: when power fails in the middle of the change that
 * takes it in, whoever knows it finds it.
 */
async function formatAll(disks: readonly Disk[], uuids: readonly string[], roster: Roster): Promise<SuperblockFile[]> {
	try {
		return await allSettledOrThrow(
			disks.map(async (disk, at) => {
				const file = await SuperblockFile.format(disk);
				await file.write({ diskUuid: uuids[at] as string, roster });
				return file;
			}),
		);
	} catch (error) {
		await Promise.allSettled(disks.map((disk) => disk.remove(superblockName)));
		throw error;
	}
}

// ── mount ────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Opens and locks the disks of one volume and makes the roster change of a mount.
 * @throws FsError NOTFOUND (no disk of a volume there), REFUSED (another volume's disk, in use, `log.roster-stale` and its kin), EIO.
 */
export async function openDiskSet(options: OpenOptions, modules: FinderModules): Promise<OpenDiskSet> {
	const findings = await findDisks(options.paths, options.callMs ?? diskCallMs, modules);
	const { candidates, absent } = findings;
	try {
		const mine = ofOneVolume(candidates, options.paths, absent);
		await closeAll(candidates.filter((candidate) => !mine.includes(candidate)));
		const locked: Locked[] = [];
		const inUse: InUse[] = [];
		for (const candidate of mine) {
			const one = await lockCandidate(candidate, options, modules.logger);
			if (one && "refusal" in one) inUse.push(one);
			else if (one) locked.push(one);
		}
		return await mountCandidates({ ...findings, locked, inUse }, options, modules);
	} catch (error) {
		await closeAll(candidates);
		throw error;
	}
}

/** A disk that another process has. What it says counts, but it is not used. */
interface InUse extends Candidate {
	readonly refusal: FsError;
}

interface Found extends Findings {
	readonly locked: readonly Locked[];
	readonly inUse: readonly InUse[];
}

/** A candidate that is ours, with its superblock as it is now and open for writing. */
interface Locked extends Candidate {
	readonly file: SuperblockFile;
}

/** Before the lock another daemon may still have been writing: the superblock is read again. Undefined when the disk failed meanwhile. */
async function lockCandidate(candidate: Candidate, { skipLocked }: OpenOptions, logger: Logger): Promise<Locked | InUse | undefined> {
	const { disk, path } = candidate;
	try {
		await lockDisk(disk);
		const found = await readSuperblock(disk);
		if (found.kind !== "valid") throw new FsError("EIO", "log.superblock-changed", `the superblock of ${path} changed while it was opened`);
		const { superblock, slot, damagedSlots } = found;
		return { ...candidate, superblock, slot, damagedSlots, file: await SuperblockFile.open(disk, slot) };
	} catch (error) {
		const isLocked = isFsError(error, "REFUSED") && error.site === "log.locked";
		if (isFsError(error, "REFUSED") && !(isLocked && skipLocked)) throw error;
		logger.warn("a disk of the volume cannot be used", { path, error: String(error) });
		closeQuietly(disk, logger);
		return isLocked ? { ...candidate, refusal: error } : undefined;
	}
}

function ofOneVolume(
	candidates: readonly Candidate[],
	paths: readonly string[],
	absent: ReadonlyMap<string, string>,
): readonly Candidate[] {
	const counts = new Map<string, number>();
	for (const { superblock, given } of candidates) {
		if (given) counts.set(superblock.roster.volume, (counts.get(superblock.roster.volume) ?? 0) + 1);
	}
	const volume = [...counts.entries()].sort(([aId, a], [bId, b]) => b - a || (aId < bId ? -1 : 1))[0]?.[0];
	if (volume === undefined) {
		const seen = [...absent.entries()].map(([path, why]) => `${path}: ${why}`).join("; ");
		throw new FsError("NOTFOUND", "log.no-disk", `no disk of a CairnFS volume found (${seen || "no paths"})`, { paths });
	}
	const foreign = candidates.find((candidate) => candidate.given && candidate.superblock.roster.volume !== volume);
	if (foreign) {
		const { name, volume: other } = foreign.superblock.roster;
		const message = `${foreign.path} is a disk of another volume, ${latin1ToUtf8(name)} (${other}): leave it out`;
		throw new FsError("REFUSED", "log.foreign-disk", message, { path: foreign.path, volume: other });
	}
	const mine = candidates.filter((candidate) => candidate.superblock.roster.volume === volume);
	refuseCopies(mine);
	return mine;
}

function refuseCopies(candidates: readonly Candidate[]): void {
	const byUuid = new Map<string, Candidate>();
	for (const candidate of candidates) {
		const other = byUuid.get(candidate.superblock.diskUuid);
		if (other) {
			const message = `${other.path} and ${candidate.path} hold the same disk (or a copy of it): name only one of them`;
			throw new FsError("REFUSED", "log.disk-twice", message, { paths: [other.path, candidate.path] });
		}
		byUuid.set(candidate.superblock.diskUuid, candidate);
	}
}

async function mountCandidates(
	{ locked, inUse, absent, hanging }: Found,
	options: OpenOptions,
	modules: FinderModules,
): Promise<OpenDiskSet> {
	const { logger } = modules;
	const roster = newestRoster([...locked, ...inUse], modules.platform.simulation?.planted("stale-roster-accepted"));
	refuseUnfinished(roster, options.creating);
	const { chosen, letGo } = chooseDisks(roster, locked, options.paths, logger);
	for (const [path, why] of absent) if (options.paths.includes(path)) logger.warn("no disk of the volume", { path, why });
	const refusal = mountRefusal(roster, new Set(chosen.keys()));
	// Whoever has those disks may be at work with them.
	if (refusal && inUse[0]) throw inUse[0].refusal;
	if (refusal && !options.acceptLoss)
		throw new FsError("REFUSED", refusal.site, refusal.message, { missing: refusal.missing, epoch: roster.epoch });
	if (refusal) logger.warn(`mounting although: ${refusal.message}`);
	const set = new ManagedDisks(roster, options, modules);
	const givenUp = new Set(roster.disks.filter(isGivenUp).map((entry) => entry.id));
	for (const [id, candidate] of chosen) {
		if (givenUp.has(id)) {
			closeQuietly(candidate.disk, logger);
			continue;
		}
		set.attach(id, { path: candidate.path, disk: candidate.disk, superblock: candidate.file });
	}
	await options.beforeMount?.(set);
	set.explainMissing(absent);
	set.awaitReturn(awaited(roster, chosen, inUse, { absent, hanging }));
	const found = new Map(
		[...chosen].map(([id, { path, disk }]) => [id, { path: utf8ToLatin1(path), domain: utf8ToLatin1(disk.domain) }] as const),
	);
	await set.mount(found);
	for (const candidate of letGo) await clearLetGo(candidate, logger);
	return set;
}

/** The process that let it go has ended before it had taken away what the volume had there. */
async function clearLetGo({ disk, path }: Locked, logger: Logger): Promise<void> {
	try {
		await clearDisk(disk);
		logger.info("a disk that had left the volume was cleared", { path });
	} catch (error) {
		logger.warn("a disk that had left the volume could not be cleared", { path, error: String(error) });
	}
	closeQuietly(disk, logger);
}

/** A volume that was never finished has no contents, and perhaps not all that a mount relies on. */
function refuseUnfinished(roster: Roster, creating: string | undefined): void {
	const name = latin1ToUtf8(roster.name);
	if (creating !== undefined && roster.volume !== creating)
		throw new FsError(
			"REFUSED",
			"log.created-other",
			`another command has made a volume ${name} on these disks meanwhile: nothing was changed there`,
		);
	if (roster.unfinished !== true || roster.volume === creating) return;
	const message =
		`volume ${name} was never finished: its creation was interrupted, and there is nothing in it. ` +
		`Repeat \`cairn create\`, which takes its disks again, or remove it: \`cairn destroy ${name} --yes ${name} --disk PATH...\``;
	throw new FsError("REFUSED", "log.unfinished", message, { volume: roster.volume });
}

/** Disks that are there, but hang or are in use: where, and why. */
function awaited(
	roster: Roster,
	chosen: ReadonlyMap<DiskId, Locked>,
	inUse: readonly InUse[],
	{ absent, hanging }: Pick<Findings, "absent" | "hanging">,
): ReadonlyMap<DiskId, { readonly path: string; readonly reason: string }> {
	const places = new Map<DiskId, { readonly path: string; readonly reason: string }>();
	for (const entry of roster.disks) {
		if (chosen.has(entry.id) || wasReplaced(entry) || isGivenUp(entry)) continue;
		const known = latin1ToUtf8(entry.path);
		const taken = inUse.find(({ superblock }) => superblock.diskUuid === entry.uuid);
		if (taken) places.set(entry.id, { path: taken.path, reason: "another process has it: it is taken back when that one lets go" });
		else if (hanging.has(known)) places.set(entry.id, { path: known, reason: absent.get(known) ?? "it hangs" });
	}
	return places;
}

interface Choice {
	readonly chosen: ReadonlyMap<DiskId, Locked>;
	/** Their own last word is that they leave, or have left: nothing of the volume was on them when they were let go. Others that the roster does not know are left alone. */
	readonly letGo: readonly Locked[];
}

/** The candidates that the roster knows, by number, and those that are to be cleared; the others are closed. */
function chooseDisks(roster: Roster, candidates: readonly Locked[], given: readonly string[], logger: Logger): Choice {
	const byUuid = new Map(roster.disks.map((entry) => [entry.uuid, entry]));
	const chosen = new Map<DiskId, Locked>();
	const letGo: Locked[] = [];
	for (const candidate of candidates) {
		const entry = byUuid.get(candidate.superblock.diskUuid);
		if (entry && !wasReplaced(entry)) chosen.set(entry.id, candidate);
		else if (!entry && wasLeaving(candidate)) letGo.push(candidate);
		else {
			if (given.includes(candidate.path)) logger.warn("this disk was replaced or removed and is left alone", { path: candidate.path });
			closeQuietly(candidate.disk, logger);
		}
		if (candidate.damagedSlots > 0)
			logger.warn("a slot of the superblock is damaged", { path: candidate.path, slots: candidate.damagedSlots });
	}
	return { chosen, letGo };
}

function wasLeaving({ superblock: { roster, diskUuid } }: Locked): boolean {
	const own = roster.disks.find((entry) => entry.uuid === diskUuid);
	return own === undefined || own.duty !== "use";
}

// ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Healthy disks for `count` copies of the log or the manifest, in different failure domains; those of the current log first. Fewer where
 * there are no more.
 */
export function chooseMembers(disks: DiskSet, count = mirrorCount(disks.roster), except: ReadonlySet<DiskId> = new Set()): DiskId[] {
	const current = new Set(currentLogEpoch(disks.roster)?.members);
	const eligible = disksIn(disks.roster)
		.map((entry) => entry.id)
		.filter((id) => !except.has(id) && disks.writable(id) !== undefined);
	const rank = (id: DiskId): number => (disks.slot(id)?.state === "degraded" ? 2 : 0) + (current.has(id) ? 0 : 1);
	const ordered = [...eligible].sort((a, b) => rank(a) - rank(b));
	const domains = new Set<string>();
	const chosen: DiskId[] = [];
	for (const id of ordered) {
		const domain = disks.slot(id)?.domain ?? "";
		if (chosen.length >= count) break;
		if (!disks.roster.config.sameDevice && domains.has(domain)) continue;
		domains.add(domain);
		chosen.push(id);
	}
	return chosen;
}

/**
 * A clean unmount: everything is sealed, checkpointed and durable, and the memory files hold nothing. The last thing that is written.
 * `manifestGeneration` is that of the last checkpoint, so that older contents of all its disks are not taken for the newest.
 */
export async function markClean(disks: DiskSet, manifestGeneration = disks.roster.manifestGeneration): Promise<void> {
	await disks.changeRoster("clean unmount", ({ memoryIncarnation: _old, unfinished: _made, ...roster }) => ({
		...roster,
		manifestGeneration: Math.max(roster.manifestGeneration, manifestGeneration),
		clean: true,
	}));
}

/** What the disks at `paths` say, without locking or changing anything: for the status of a volume that is not mounted. */
export async function inspectDisks(
	paths: readonly string[],
	modules: FinderModules,
): Promise<{
	readonly roster: Roster;
	readonly found: readonly { readonly id: DiskId; readonly path: string }[];
	/** Places without a usable disk, and why. */
	readonly absent: ReadonlyMap<string, string>;
}> {
	const { candidates, absent } = await findDisks(paths, inspectCallMs, modules);
	try {
		const mine = ofOneVolume(candidates, paths, absent);
		const roster = newestRoster(mine);
		const found = mine.flatMap(({ path, superblock }) => {
			const entry = roster.disks.find((disk) => disk.uuid === superblock.diskUuid);
			return entry ? [{ id: entry.id, path }] : [];
		});
		return { roster, found, absent };
	} finally {
		await closeAll(candidates);
	}
}
