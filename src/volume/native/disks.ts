/**
 * Disks that come and go by the operator's will, while the volume is mounted: add, drain, remove, replace.
 *
 * Invariants
 *  M1 One of these at a time; who comes meanwhile waits its turn and decides on what is then.
 *  M2 What an operator wants of a disk is its duty in the roster, durable before anything moves: a restart goes on where it was.
 *  M3 A disk leaves the volume only when no segment record names a fragment on it, no write to it is under way, and neither log nor metadata need it.
 *  M4 A drain is refused when what stays could not survive as many losses as was asked for, or has no room.
 */
import { Mutex } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { DiskId, DiskPlace, DiskHealth, DiskSet, DiskSlot } from "../../log/interface.ts";
import { rosterNeeds } from "../../log/roster.ts";
import { fragmentLength } from "../../storage/fragment.ts";
import { feasibleShape, formatRedundancy, parseRedundancy, sameShape } from "../../storage/redundancy.ts";
import type { Balancer } from "./balancer.ts";
import type { Core } from "./core.ts";
import type { Healer } from "./healer.ts";
import type {
	AddPlan,
	AddResult,
	DiskDetails,
	DiskName,
	DiskVerbs,
	DrainOptions,
	DrainPlan,
	DrainResult,
	Progress,
	RemovePlan,
	ReplacePlan,
	ReplaceResult,
} from "./interface.ts";
import { DiskHistory } from "./disk-history.ts";
import { timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";
import { memberSlots } from "./members.ts";
import { nowAndAfter, preview, spacePreview, survey, survivesOn } from "./previews.ts";
import { removeShell } from "./offline.ts";

interface Held {
	readonly fragments: number;
	readonly bytes: number;
	/** What of them finds no place on the other disks. */
	readonly unplacedBytes: number;
	/** Redundancies asked for by what has fragments there. */
	readonly targets: ReadonlySet<string>;
}

export class DiskWork implements DiskVerbs {
	readonly #core: Core;
	readonly #healer: Healer;
	readonly #balancer: Balancer;
	readonly #history: DiskHistory;
	readonly #turn = new Mutex();
	readonly #listeners = new Set<() => void>();
	#cancelTick: () => void = () => {};
	#ticking: Promise<void> = Promise.resolve();
	#stopped = false;

	constructor(core: Core, healer: Healer, balancer: Balancer) {
		this.#core = core;
		this.#balancer = balancer;
		this.#history = new DiskHistory(core);
		this.#healer = healer;
	}

	get #disks(): DiskSet {
		return this.#core.disks;
	}

	/** Called when disks joined or left. */
	onMembers(listener: () => void): void {
		this.#listeners.add(listener);
	}

	#tell(): void {
		for (const listener of this.#listeners) listener();
	}

	// ── add ──────────────────────────────────────────────────────────────────────────────────────────────────────

	/** What adding these places would change. @throws FsError REFUSED as `add` does. */
	async planAdd(paths: readonly string[], force: boolean): Promise<AddPlan> {
		return this.#turn.run(async () => {
			const places = await this.#disks.examine(paths, { force });
			await this.#core.store.refreshSpace();
			const now = this.#core.store.space();
			const changed = this.#core.store.spaceIf({ added: places });
			const then = changed?.space ?? now;
			const seen = await survey(this.#core, undefined);
			return {
				work: await preview(this.#core, this.#healer, seen.degraded),
				disks: spacePreview(now, then, paths),
				survives: nowAndAfter(seen.survives, Math.max(seen.survives, survivesOn(seen.targets, changed?.domains ?? 0))),
				levels: then.freeBytes < then.levelFreeBytes * limits.levelBelow,
				places: places.map(({ path, capacityBytes }) => ({ path, capacityBytes })),
				capacityBytes: { now: now.capacityBytes, after: then.capacityBytes },
				freeBytes: { now: this.#unpromised(now.freeBytes), after: this.#unpromised(then.freeBytes) },
				degradedBytes: seen.degradedBytes,
				balanceBytes: await this.#balancer.worthBytes(places),
			};
		});
	}

	/** Free for those to whom nothing is promised (fallocate). */
	#unpromised(freeBytes: number): number {
		return Math.max(0, freeBytes - this.#core.reservedBytes);
	}

	/** All of them or none. @throws FsError REFUSED (not empty, in use, a device that another disk is on), E2BIG. */
	async add(paths: readonly string[], force = false): Promise<AddResult> {
		return this.#turn.run(async () => {
			const ids = await this.#disks.add(paths, { force });
			await this.#core.store.refreshSpace();
			this.#healer.trigger();
			this.#tell();
			const { disks, capacityBytes, freeBytes } = this.#core.store.space();
			const added = ids.map((id, at) => ({
				id: `d${id}`,
				path: paths[at] as string,
				capacityBytes: disks.find((disk) => disk.id === id)?.capacityBytes ?? 0,
			}));
			return { added, capacityBytes, freeBytes: this.#unpromised(freeBytes), balanceBytes: await this.#balancer.worthBytes() };
		});
	}

	// ── drain ────────────────────────────────────────────────────────────────────────────────────────────────────

	planDrain(name: string): Promise<DrainPlan> {
		return this.#turn.run(async () => this.#planDrain(findSlot(this.#disks, name)));
	}

	/** Begins it; moving goes on behind the caller's back, over restarts. @throws FsError REFUSED. */
	drain(name: string, { allowDegraded }: DrainOptions): Promise<DrainPlan> {
		return this.#turn.run(async () => {
			const slot = findSlot(this.#disks, name);
			const plan = await this.#planDrain(slot);
			if (slot.state === "draining") return plan;
			this.#refuseDrain(plan, slot, allowDegraded);
			await this.#disks.setDuty(slot.id, "drain");
			this.#healer.trigger();
			return plan;
		});
	}

	async #planDrain(slot: DiskSlot): Promise<DrainPlan> {
		this.#requireThere(slot);
		await this.#core.store.refreshSpace();
		const held = await this.#held(slot.id);
		const now = this.#core.store.space();
		const then = this.#core.store.spaceIf({ without: slot.id });
		const domains = then?.domains ?? this.#core.store.spaceIf({})?.domains ?? 0;
		const targets = new Set([this.#disks.roster.config.redundancy, ...held.targets]);
		const seen = await survey(this.#core, slot.id);
		return {
			work: await preview(this.#core, this.#healer, seen.there),
			disks: spacePreview(now, then?.space, []),
			survives: nowAndAfter(seen.survives, survivesOn(seen.targets, domains)),
			id: `d${slot.id}`,
			path: slot.path,
			fragments: held.fragments,
			moveBytes: held.bytes,
			unplacedBytes: held.unplacedBytes,
			metadata: rosterNeeds(this.#disks.roster, slot.id) !== undefined,
			fits: then !== undefined && then.space.freeBytes >= this.#core.reservedBytes,
			freeBytes: { now: this.#unpromised(now.freeBytes), after: this.#unpromised(then?.space.freeBytes ?? 0) },
			shapes: [...targets].map((redundancy) => {
				const target = parseRedundancy(redundancy);
				const then = feasibleShape(target, domains);
				const isAsAsked = then !== undefined && sameShape(then, target);
				const survives = then !== undefined && then.parityShards >= target.parityShards;
				return { redundancy, becomes: then === undefined ? null : formatRedundancy(then), isAsAsked, survivesAsMany: survives };
			}),
		};
	}

	#requireThere(slot: DiskSlot): void {
		if (slot.disk !== undefined) return;
		throw new FsError(
			"REFUSED",
			"volume.drain-away",
			`disk d${slot.id} (${slot.path}) is ${slot.state}: nothing can be moved off it. What it held is made anew on other disks (heal); then remove it, or put another one in its place (disk replace)`,
			{ disk: slot.id },
		);
	}

	#refuseDrain(plan: DrainPlan, slot: DiskSlot, allowDegraded: boolean): void {
		const refuse = (site: string, why: string): FsError =>
			new FsError("REFUSED", site, `disk ${plan.id} (${slot.path}) cannot be emptied: ${why}`, { disk: slot.id });
		const weaker = plan.shapes.find((shape) => !shape.survivesAsMany);
		if (weaker) {
			throw refuse(
				"volume.drain-few",
				`the disks that stay are too few for ${weaker.redundancy}, and data would survive fewer losses; add a disk first`,
			);
		}
		const other = plan.shapes.find((shape) => !shape.isAsAsked);
		if (other && !allowDegraded) {
			throw refuse(
				"volume.drain-shape",
				`the disks that stay are too few for ${other.redundancy}; --allow-degraded keeps its data as ${other.becomes}, which survives as many losses and takes more space. Or add a disk first`,
			);
		}
		if (!plan.fits) {
			throw refuse(
				"volume.drain-full",
				`what it holds (${plan.moveBytes} bytes), and what files have reserved, has no room on the others; delete something or add a disk first`,
			);
		}
	}

	/** Moving ends; what has moved stays where it is. */
	cancelDrain(name: string): Promise<DiskName> {
		return this.#turn.run(async () => {
			const slot = findSlot(this.#disks, name);
			if (slot.state !== "draining" && this.#dutyOf(slot.id) === "use") {
				throw new FsError("REFUSED", "volume.drain-not", `disk d${slot.id} (${slot.path}) is not being drained`, { disk: slot.id });
			}
			await this.#disks.setDuty(slot.id, "use");
			await this.#core.store.refreshSpace();
			this.#healer.trigger();
			return { id: `d${slot.id}`, path: slot.path };
		});
	}

	#dutyOf(id: DiskId): string {
		return this.#disks.roster.disks.find((entry) => entry.id === id)?.duty ?? "use";
	}

	/** Resolves when the disk is empty, or when nothing more can be moved now. */
	async drained(name: string, onProgress: (progress: Progress) => void): Promise<DrainResult> {
		const { id, path } = findSlot(this.#disks, name);
		const { clock } = this.#core.platform;
		for (let before = Number.POSITIVE_INFINITY, stillMs = 0; ; ) {
			if (this.#disks.slot(id)?.state !== "draining") return this.#drainResult(id, path);
			if (this.#stopped)
				throw new FsError("ENOTCONN", "volume.drain-unmounted", `the volume is unmounted; d${id} is emptied further at the next mount`);
			const { leavingBytes, remainingBytes, paused } = await this.#healer.heal(onProgress);
			await this.#core.releaseFreed();
			const left = this.#leftBytes(id);
			if (this.#isEmpty(id)) return this.#drainResult(id, path);
			stillMs = left < before ? 0 : stillMs + limits.drainPollMs;
			const stuck = left > 0 && leavingBytes + remainingBytes > 0 && (stillMs > 0 || paused);
			if (stuck || stillMs >= limits.drainPatienceMs) return this.#drainResult(id, path);
			before = Math.min(before, left);
			await clock.sleep(limits.drainPollMs);
		}
	}

	#drainResult(id: DiskId, path: string): DrainResult {
		const state = this.#disks.slot(id)?.state ?? "removed";
		return {
			id: `d${id}`,
			path,
			state,
			leftBytes: this.#leftBytes(id),
			needed: rosterNeeds(this.#disks.roster, id) ?? null,
			leaves: this.#dutyOf(id) === "leave",
			paused: this.#healer.status.paused,
		};
	}

	/** What fragments take there; also what is being written or given back just now. */
	#leftBytes(id: DiskId): number {
		return this.#core.store.space().disks.find((disk) => disk.id === id)?.usedBytes ?? 0;
	}

	#isEmpty(id: DiskId): boolean {
		return this.#leftBytes(id) === 0 && rosterNeeds(this.#disks.roster, id) === undefined;
	}

	/** By the records, the truth. Where its fragments could go is tried one by one, each to the emptiest disk that may hold it. */
	async #held(id: DiskId): Promise<Held> {
		let fragments = 0;
		let bytes = 0;
		let unplacedBytes = 0;
		const room = this.#roomBeside(id);
		const domains = new Set(this.#core.store.space().disks.flatMap((disk) => (disk.id === id ? [] : [this.#domainOf(disk.id)])));
		const targets = new Set<string>();
		for await (const segment of this.#core.segments()) {
			const here = segment.fragments.filter((place) => place.disk === id).length;
			if (here === 0) continue;
			fragments += here;
			const lengthBytes = fragmentLength(segment.shardBytes);
			bytes += here * lengthBytes;
			targets.add(segment.target);
			const taken = new Set(segment.fragments.filter((place) => place.disk !== id).map((place) => this.#domainOf(place.disk)));
			// All that stay have one: it is made anew in another shape, of which `shapes` and `fits` tell.
			if ([...domains].every((domain) => taken.has(domain))) continue;
			const fitting = room.filter((one) => one.freeBytes >= lengthBytes && !taken.has(one.domain));
			const emptiest = fitting.sort((a, b) => b.freeBytes - a.freeBytes)[0];
			if (emptiest === undefined) unplacedBytes += here * lengthBytes;
			else emptiest.freeBytes -= lengthBytes;
		}
		return { fragments, bytes, unplacedBytes, targets };
	}

	/** What the other disks could take; one that cannot be written has nothing free. */
	#roomBeside(id: DiskId): { readonly domain: string; freeBytes: number }[] {
		const others = this.#core.store.space().disks.filter((disk) => disk.id !== id && disk.freeBytes > 0);
		return others.map((disk) => ({ domain: this.#domainOf(disk.id), freeBytes: disk.freeBytes }));
	}

	/** Disks of one device count apart where the volume was made so. */
	#domainOf(id: DiskId): string {
		const domain = this.#disks.roster.config.sameDevice ? undefined : this.#disks.slot(id)?.domain;
		return domain ?? `d${id}`;
	}

	// ── remove ───────────────────────────────────────────────────────────────────────────────────────────────────

	planRemove(name: string): Promise<RemovePlan> {
		return this.#turn.run(async () => this.#planRemove(findSlot(this.#disks, name)));
	}

	async #planRemove(slot: DiskSlot): Promise<RemovePlan> {
		const { fragments, bytes } = await this.#held(slot.id);
		const needs = rosterNeeds(this.#disks.roster, slot.id);
		const reasons: string[] = [];
		if (slot.disk !== undefined && slot.state !== "draining") reasons.push("it is in use (drain it first)");
		if (fragments > 0) reasons.push(`it holds ${fragments} fragments (${bytes} bytes) of live data`);
		if (needs !== undefined) reasons.push(`it holds ${needs}`);
		if (slot.state === "draining" && reasons.length > 0)
			reasons.push("it is still being emptied (`cairn disk drain` with --wait waits for it)");
		if (reasons.length === 0 && slot.disk !== undefined && this.#leftBytes(slot.id) > 0) {
			reasons.push("space on it is just being given back (try again in a moment)");
		}
		return {
			id: `d${slot.id}`,
			path: slot.path,
			state: slot.state,
			fragments,
			bytes,
			needed: needs ?? null,
			removable: reasons.length === 0,
			reasons,
		};
	}

	/** @throws FsError REFUSED while it holds something that is needed. */
	remove(name: string): Promise<DiskName & { readonly cleared: boolean }> {
		return this.#turn.run(() => this.#remove(findSlot(this.#disks, name)));
	}

	async #remove(slot: DiskSlot): Promise<DiskName & { readonly cleared: boolean }> {
		await this.#core.releaseFreed();
		const plan = await this.#planRemove(slot);
		if (!plan.removable) {
			const message = `disk ${plan.id} (${plan.path}) cannot leave the volume: ${plan.reasons.join("; ")}`;
			throw new FsError("REFUSED", "volume.remove-needed", message, { disk: slot.id, fragments: plan.fragments, bytes: plan.bytes });
		}
		const { path, cleared } = await this.#disks.remove(slot.id);
		if (cleared) {
			await removeShell(path, this.#core).catch((error: unknown) =>
				this.#core.logger.warn("empty folders are left on a disk that left the volume", { path, error: String(error) }),
			);
		}
		this.#core.logger.info(`disk ${plan.id} left the volume`, { path, cleared });
		this.#tell();
		return { id: plan.id, path, cleared };
	}

	// ── replace ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** A disk that works stays in use as a source until everything has moved off it; then it leaves by itself. @throws FsError NOTFOUND, REFUSED. */
	replace(name: string, newPath: string | undefined, force = false): Promise<ReplaceResult> {
		return this.#turn.run(async () => {
			const slot = findSlot(this.#disks, name);
			// A disk that was just taken away may not have been noticed yet.
			await slot.disk?.probe().catch((error: unknown) => this.#disks.report(slot.id, error, "read"));
			const now = this.#disks.slot(slot.id) ?? slot;
			const path = newPath ?? now.path;
			const result =
				now.disk !== undefined && path !== now.path ? await this.#exchange(now, path, force) : await this.#substitute(now, path, force);
			this.#healer.trigger();
			this.#tell();
			return result;
		});
	}

	planReplace(name: string, newPath: string | undefined, force = false): Promise<ReplacePlan> {
		return this.#turn.run(async () => {
			const slot = findSlot(this.#disks, name);
			await slot.disk?.probe().catch((error: unknown) => this.#disks.report(slot.id, error, "read"));
			const now = this.#disks.slot(slot.id) ?? slot;
			const path = newPath ?? now.path;
			const moving = now.disk !== undefined && path !== now.path;
			if (!moving) this.#refuseWorking(now);
			const [place] = (await this.#disks.examine([path], { leaving: slot.id, force })) as [DiskPlace];
			await this.#core.store.refreshSpace();
			const space = this.#core.store.space();
			// What a lost disk held is still counted as its: the new one takes it over.
			const changed = this.#core.store.spaceIf({ without: slot.id, added: [place] });
			const seen = await survey(this.#core, slot.id);
			const domains = changed?.domains ?? this.#core.store.spaceIf({ added: [place] })?.domains ?? 0;
			return {
				id: `d${slot.id}`,
				path: now.path,
				newPath: path,
				capacityBytes: place.capacityBytes,
				moving,
				fits: changed !== undefined,
				freeBytes: { now: this.#unpromised(space.freeBytes), after: this.#unpromised(changed?.space.freeBytes ?? 0) },
				work: await preview(this.#core, this.#healer, moving ? seen.there : seen.degraded),
				disks: spacePreview(space, changed?.space, [path]),
				survives: nowAndAfter(seen.survives, survivesOn(seen.targets, domains)),
			};
		});
	}

	async #exchange(slot: DiskSlot, path: string, force: boolean): Promise<ReplaceResult> {
		const [place] = await this.#disks.examine([path], { leaving: slot.id, force });
		await this.#core.store.refreshSpace();
		if (this.#core.store.spaceIf({ without: slot.id, added: [place as DiskPlace] }) === undefined) {
			const message = `${path} is too small: what disk d${slot.id} (${slot.path}) holds has no room there and on the other disks`;
			throw new FsError("REFUSED", "volume.replace-small", message, { disk: slot.id, path });
		}
		const [id] = await this.#disks.add([path], { leaving: slot.id, force });
		return { id: `d${id}`, path, moving: true };
	}

	#refuseWorking(slot: DiskSlot): void {
		if (slot.state !== "healthy" && slot.state !== "degraded" && slot.state !== "draining") return;
		const message = `disk d${slot.id} (${slot.path}) works: name the place of the disk that takes over from it`;
		throw new FsError("REFUSED", "volume.replace-healthy", message, { disk: slot.id });
	}

	async #substitute(slot: DiskSlot, path: string, force: boolean): Promise<ReplaceResult> {
		this.#refuseWorking(slot);
		await this.#disks.settled();
		return { id: `d${await this.#disks.adopt(path, slot.id, force)}`, path, moving: false };
	}

	// ── how far they are trusted ─────────────────────────────────────────────────────────────────────────────────

	async show(name: string): Promise<DiskDetails> {
		const slot = findSlot(this.#disks, name);
		const entry = this.#disks.roster.disks.find((one) => one.id === slot.id);
		const space = this.#core.store.space().disks.find((one) => one.id === slot.id);
		let fragments = 0;
		for await (const segment of this.#core.segments()) fragments += segment.fragments.filter((place) => place.disk === slot.id).length;
		const history = (await this.#history.of(slot.id)).map(({ at, state, reason }) => ({ at: timeOf(at) ?? "", state, reason }));
		return {
			id: `d${slot.id}`,
			path: slot.path,
			state: slot.state,
			reason: slot.reason,
			healthSet: entry?.isHealthSet === true ? entry.health : null,
			errorKinds: slot.errors,
			fragments,
			capacityBytes: space?.capacityBytes ?? 0,
			usedBytes: space?.usedBytes ?? 0,
			history,
		};
	}

	setHealth(name: string, health: DiskHealth | "auto"): Promise<DiskDetails> {
		return this.#turn.run(async () => {
			const { id } = findSlot(this.#disks, name);
			if (health === "failed") await this.#refuseLoss(id);
			await this.#disks.setHealth(id, health === "auto" ? undefined : health);
			await this.#disks.settled();
			this.#healer.disksChanged();
			await this.#history.stop();
			return this.show(`d${id}`);
		});
	}

	/** What could not be read without the disk must not lose it by a word. */
	async #refuseLoss(id: number): Promise<void> {
		let bytes = 0;
		for await (const segment of this.#core.segments()) {
			const health = this.#core.store.assess(segment);
			const others = health.fragments.filter((one) => one.state === "ok" && one.disk !== id).length;
			if (!health.lost && others < segment.dataShards) bytes += segment.liveBytes;
		}
		if (bytes === 0) return;
		const message = `d${id} cannot be given up: ${bytes} bytes could not be read without it. Let the healer finish first (cairn status), or drain it`;
		throw new FsError("REFUSED", "volume.health-loss", message, { disk: id, bytes });
	}

	// ── in the background ────────────────────────────────────────────────────────────────────────────────────────

	/** Looks after disks that are to be emptied: what came onto them late, and those that leave when they are empty. */
	async begin(): Promise<void> {
		await this.#history.start();
		this.start();
	}

	start(): void {
		this.#cancelTick = this.#core.platform.clock.after(limits.healTickMs, () => {
			this.#ticking = this.#tick()
				.catch((error: unknown) =>
					this.#core.logger.warn("a disk could not leave yet", { error: toFsError(error, "volume.leave").message }),
				)
				.then(() => {
					if (!this.#stopped) this.start();
				});
		});
	}

	async #tick(): Promise<void> {
		for (const { id, duty } of this.#disks.roster.disks) {
			if (duty === "use" || this.#stopped || this.#disks.broken !== undefined) continue;
			const slot = this.#disks.slot(id);
			if (slot === undefined) continue;
			if (this.#isEmpty(id)) {
				if (duty === "leave") await this.#leave(slot);
			} else if (slot.state === "draining" && !this.#healer.running && !this.#healer.waiting) this.#healer.trigger();
		}
	}

	/** Whoever waits in the turn may have cancelled it or removed it meanwhile. */
	#leave(slot: DiskSlot): Promise<void> {
		return this.#turn.run(async () => {
			const now = this.#disks.slot(slot.id);
			if (now === undefined || this.#dutyOf(slot.id) !== "leave" || !(await this.#planRemove(now)).removable) return;
			await this.#remove(now);
		});
	}

	/** Resolves when nothing of this is under way any more. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#ticking;
		await this.#turn.run(async () => {});
		await this.#history.stop();
	}
}

export function findSlot(disks: DiskSet, name: string): DiskSlot {
	// A disk that was replaced may have had the path of the one that replaced it.
	const slots = memberSlots(disks);
	const slot = slots.find((one) => `d${one.id}` === name || one.path === name || one.path === name.replace(/\/+$/, ""));
	if (slot !== undefined) return slot;
	const known = slots.map((one) => `d${one.id} (${one.path})`).join(", ");
	throw new FsError("NOTFOUND", "volume.disk", `no disk ${name}; there are ${known}`);
}
