/** The truth about a volume in one structure (contracts: `status --json`). */
import { Deferred } from "../../base/async.ts";
import { diskCallMs, hangPatience } from "../../log/limits.ts";
import type { FileLocks } from "../../locks/file-locks.ts";
import type { ClientLockBook } from "./client-locks.ts";
import type { DurableOpenBook } from "./durable-opens.ts";
import { lockStatus } from "./lock-list.ts";
import type { FsError } from "../../base/errors.ts";
import { formatTime } from "../../base/time.ts";
import { rosterNeeds } from "../../log/roster.ts";
import type { Balancer } from "./balancer.ts";
import type { Care } from "./care.ts";
import type { Compactor } from "./compactor.ts";
import type { Core } from "./core.ts";
import type { Garbage } from "./garbage.ts";
import type { Healer } from "./healer.ts";
import type { DiskStatus, HealingStatus, Ledger, VolumeState, VolumeStatus } from "./interface.ts";
import type { Scrubber } from "./scrubber.ts";
import { type LedgerBook, type SegmentsLedger, segmentsLedger, timeOf } from "./ledger.ts";
import type { Protector } from "./protector.ts";
import { limits } from "./limits.ts";
import { memberSlots } from "./members.ts";

export const sameDeviceWarning =
	"several disks lie on one device and count as separate failure domains: the loss of that device loses everything";

export interface StatusModules {
	readonly core: Core;
	readonly healer: Healer;
	readonly scrubber: Scrubber;
	readonly care: Care;
	readonly ledgerBook: LedgerBook;
	readonly compactor: Compactor;
	readonly protector: Protector;
	readonly balancer: Balancer;
	readonly garbage: Garbage;
	readonly locks: FileLocks;
	readonly durableOpens: DurableOpenBook;
	readonly clientLocks: ClientLockBook;
	readonly metadataBytes: (disk: number) => number;
	readonly metadataMembers: () => readonly number[];
	readonly metadataCopies: () => number;
}

export interface StatusOptions {
	readonly id: string;
	readonly name: string;
	/** Why sealing fails at the moment. */
	readonly trouble: FsError | undefined;
}

export async function volumeStatus(options: StatusOptions, modules: StatusModules): Promise<VolumeStatus> {
	const { core, healer } = modules;
	await boundedRefresh(core);
	const space = core.store.space();
	const { at, ledger } = await modules.ledgerBook.get();
	const disks = diskStatus(modules);
	const copies = metadataCopies(modules);
	const healing = healingStatus(healer, ledger);
	const warnings = warningsOf(options, modules, ledger, copies);
	return {
		volume: options.name,
		id: options.id,
		state: stateOf(core, disks, ledger, healing.active, copies.present < copies.wanted),
		redundancy: core.disks.roster.config.redundancy,
		sameDevice: core.disks.roster.config.sameDevice,
		capacityBytes: space.capacityBytes,
		usedBytes: space.usedBytes,
		freeBytes: Math.max(0, space.freeBytes - core.dirty.bytes - core.reservedBytes),
		reservedBytes: core.reservedBytes,
		protection: {
			fullBytes: ledger.provenBytes + ledger.recordedBytes,
			provenBytes: ledger.provenBytes,
			oldestProofAt: ledger.oldestProofAt,
			degradedBytes: ledger.degradedBytes,
			lostBytes: ledger.lostBytes,
			countedAt: at,
			targets: ledger.levels.map(({ segments: _, wantedBytes, redundancy, ...level }) => ({ redundancy, bytes: wantedBytes, ...level })),
			shortages: ledger.shortages,
			leavingBytes: ledger.leavingBytes,
		},
		metadataCopies: copies,
		metadataProvenAt: provenAt(modules),
		disks,
		healing,
		balancing: modules.balancer.status,
		garbage: modules.garbage.status,
		scrub: modules.scrubber.status(),
		compaction: modules.compactor.status,
		locks: lockStatus(modules.locks.figures(), modules.durableOpens.figures(), modules.clientLocks.reclaims),
		conversion: modules.protector.status,
		dirtyBytes: core.dirty.bytes,
		warnings,
	};
}

export async function volumeLedger(options: StatusOptions, modules: StatusModules): Promise<Ledger> {
	const { core, healer } = modules;
	await core.store.refreshSpace();
	const ledger = await segmentsLedger(core, healer.status.paused);
	return {
		volume: options.name,
		at: formatTime(core.platform.clock.realtime()),
		...ledger,
		metadataCopies: metadataCopies(modules),
		metadataProvenAt: provenAt(modules),
		dirtyBytes: core.dirty.bytes,
		healing: healingStatus(healer, ledger),
	};
}

/** Nothing to do is said only where the records say so too. */
function healingStatus(healer: Healer, { degradedBytes, leavingBytes }: SegmentsLedger): HealingStatus {
	const { status } = healer;
	return status.active ? status : { ...status, remainingBytes: degradedBytes + leavingBytes };
}

/** Disks that do not answer keep nobody from hearing that they do not: the figures of before are told then. */
async function boundedRefresh({ store, platform }: Core): Promise<void> {
	const late = new Deferred<void>();
	const cancel = platform.clock.after(limits.statusPatienceMs, () => late.resolve());
	await Promise.race([store.refreshSpace(), late.promise]).finally(cancel);
}

const waitingReason = (ms: number): string => `it has not answered for ${Math.round(ms / 1000)} s and is waited for`;

const provenAt = ({ care }: StatusModules): string | null => (care.now.metadataProvenAt === 0 ? null : timeOf(care.now.metadataProvenAt));

function metadataCopies(modules: StatusModules): { readonly wanted: number; readonly present: number } {
	const holders = memberSlots(modules.core.disks).filter((slot) => slot.state !== "draining").length;
	const wanted = Math.min(Math.max(3, modules.core.disks.roster.config.tolerance + 1), holders);
	return { wanted, present: modules.metadataCopies() };
}

function diskStatus(modules: StatusModules): DiskStatus[] {
	const space = new Map(modules.core.store.space().disks.map((disk) => [disk.id, disk]));
	const members = new Set(modules.metadataMembers());
	const waits = modules.core.disks.waits?.() ?? new Map<number, number>();
	return memberSlots(modules.core.disks).map((slot) => {
		const its = space.get(slot.id);
		const { roster } = modules.core.disks;
		const duty = roster.disks.find((disk) => disk.id === slot.id)?.duty;
		const isDrained = slot.state === "draining" && duty === "drain" && its?.usedBytes === 0 && rosterNeeds(roster, slot.id) === undefined;
		return {
			id: `d${slot.id}`,
			path: slot.path,
			state: slot.state,
			tier: "default",
			capacityBytes: its?.capacityBytes ?? 0,
			usedBytes: (its?.usedBytes ?? 0) + (slot.disk === undefined ? 0 : modules.metadataBytes(slot.id)),
			errors: Object.values(slot.errors).reduce((sum: number, count: number) => sum + count, 0),
			errorKinds: slot.errors,
			reason: waits.has(slot.id)
				? waitingReason(waits.get(slot.id) as number)
				: isDrained
					? "it is empty: `cairn disk remove` lets it go"
					: slot.reason,
			metadata: members.has(slot.id),
			domain: slot.domain,
		};
	});
}

function stateOf(core: Core, disks: readonly DiskStatus[], ledger: SegmentsLedger, healing: boolean, metadataShort: boolean): VolumeState {
	if (core.disks.broken !== undefined) return "failed";
	if (healing) return "recovering";
	const whole =
		(core.disks.waits?.().size ?? 0) === 0 &&
		disks.every((disk) => disk.state === "healthy" || disk.state === "draining") &&
		ledger.degradedBytes + ledger.lostBytes === 0 &&
		!metadataShort;
	return whole ? "running" : "degraded";
}

function warningsOf(
	options: StatusOptions,
	modules: StatusModules,
	ledger: SegmentsLedger,
	metadata: { readonly wanted: number; readonly present: number },
): string[] {
	const warnings: string[] = [];
	const { roster } = modules.core.disks;
	const slots = memberSlots(modules.core.disks);
	const away = slots.filter((slot) => slot.state !== "healthy" && slot.state !== "draining" && slot.state !== "degraded");
	for (const slot of slots)
		if (slot.state === "degraded") warnings.push(`disk d${slot.id} is written only where others do not do: ${slot.reason}`);
	const waits = modules.core.disks.waits?.() ?? new Map<number, number>();
	if (waits.size > 0) {
		warnings.push(
			`${[...waits.keys()].map((id) => `d${id}`).join(", ")} ${waits.size === 1 ? "does" : "do"} not answer: more disks at once than the volume can lose, so they are waited for (at most ${Math.round((diskCallMs * hangPatience) / 1000)} s). Look at what they have in common: a controller, a cable, a machine that is too busy`,
		);
	}
	if (roster.config.sameDevice) warnings.push(sameDeviceWarning);
	if (away.length > 0) {
		warnings.push(
			`${away.length} of ${slots.length} disks ${away.length === 1 ? "is" : "are"} not healthy: give each back empty, or another one, with \`cairn disk replace\``,
		);
	}
	const { freeBytes, capacityBytes } = modules.core.store.space();
	if (freeBytes < capacityBytes * limits.shortOfSpace) {
		const percent = Math.floor((100 * freeBytes) / Math.max(1, capacityBytes));
		warnings.push(`${percent === 0 ? "less than 1" : percent} % of the space is free: delete something or add a disk`);
	}
	if (ledger.lostBytes > 0) warnings.push("some data is lost: `cairn verify NAME --lost` names the files");
	if (metadata.present < metadata.wanted) warnings.push(`metadata has ${metadata.present} of ${metadata.wanted} copies`);
	const { waitingFor } = modules.protector.status;
	if (waitingFor !== "") warnings.push(`a change of protection waits: ${waitingFor}`);
	if (options.trouble !== undefined) warnings.push(`acknowledged data cannot be written to the disks now: ${options.trouble.message}`);
	if (modules.core.disks.broken !== undefined) warnings.push(`the volume has stopped: ${modules.core.disks.broken.message}`);
	return warnings;
}
