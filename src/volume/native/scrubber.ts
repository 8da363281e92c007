/**
 * Reads everything again and again, so that damage is found while the rest can still mend it: metadata first, then every fragment of every segment, in the order of their numbers.
 *
 * Invariants
 *  U1 One pass at a time; where it is, is in the care record, at most `scrubSaveMs` or a batch behind: a mount goes on there. What is looked at twice for that reason is counted twice, nothing is left out.
 *  U2 A pass is complete only when it came behind the last segment; what was made since it began was written since it began.
 *  U3 What a pass repairs it has read again; a dry run writes nothing but proofs and its own progress.
 *  U4 Between two batches it rests as its intensity says; paused, or out of its hours, it does nothing at all.
 *  U5 A dry run is no pass that the schedule counts, and after a pass that was stopped it rests as after one that came to its end.
 */
import { toFsError, FsError } from "../../base/errors.ts";
import type { CareRecord, ScrubIntensity, ScrubPass, ScrubSchedule } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { examine, proveMetadata, type Care } from "./care.ts";
import type { Core } from "./core.ts";
import type { Healer } from "./healer.ts";
import type { ScrubPassStatus, ScrubStatus, ScrubVerbs } from "./interface.ts";
import { timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";
import type { MetadataCheck } from "./verify.ts";

export interface ScrubberModules {
	readonly core: Core;
	readonly healer: Healer;
	readonly care: Care;
	readonly verifyMetadata: (repair: boolean) => Promise<MetadataCheck>;
}

export class Scrubber implements ScrubVerbs {
	readonly #modules: ScrubberModules;
	#working: Promise<void> | undefined;
	#stopped = false;
	#cancelTick: () => void = () => {};
	#savedMs = 0;
	/** Of the pass under way, here and now: the record follows. */
	#pass: ScrubPass | undefined;
	/** Undefined: not counted yet. */
	#totalBytes: number | undefined;
	/** U5: seconds since 1970. */
	#stoppedAt = 0;
	/** When this process took the pass up, and what had been read by then: for the estimate. */
	#sinceMs = 0;
	#sinceBytes = 0;

	constructor(modules: ScrubberModules) {
		this.#modules = modules;
	}

	get #care(): CareRecord {
		return this.#modules.care.now;
	}

	#seconds(): number {
		return Math.max(0, this.#modules.core.platform.clock.realtime().seconds);
	}

	// ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────

	/** The care record is loaded. */
	start(): void {
		this.#pass = this.#care.state === "idle" ? undefined : this.#care.pass;
		this.#goOn();
		this.#tickLater();
	}

	#tickLater(): void {
		this.#cancelTick = this.#modules.core.platform.clock.after(limits.scrubTickMs, () => {
			this.#tick().catch((error: unknown) => this.#complain(error));
			if (!this.#stopped) this.#tickLater();
		});
	}

	#complain(error: unknown): void {
		this.#modules.core.logger.warn("the scrub could not go on; it is tried again", { error: toFsError(error, "volume.scrub").message });
	}

	async #tick(): Promise<void> {
		if (this.#stopped) return;
		if (this.#care.state === "idle" && this.#isDue()) await this.#begin({ byHand: false, dryRun: false });
		this.#goOn();
	}

	#isDue(): boolean {
		const { schedule, lastPass } = this.#care;
		const since = this.#seconds() - Math.max(lastPass?.endedAt ?? 0, this.#stoppedAt);
		// A clock that was set back must not keep the scrub from ever coming again.
		const rested = since < 0;
		if (schedule === "continuous") return rested || since >= limits.scrubRestSeconds;
		return schedule === "nightly" && this.#isNight() && (rested || since >= limits.scrubNightSeconds);
	}

	#isNight(): boolean {
		const second = (this.#seconds() - this.#care.hour * 3600) % 86_400;
		return (second + 86_400) % 86_400 < limits.scrubNightSeconds;
	}

	/** The pass under way may do something now. */
	#mayWork(): boolean {
		if (this.#stopped || this.#care.state !== "running" || this.#care.schedule === "off") return false;
		return this.#care.pass?.byHand === true || this.#care.schedule !== "nightly" || this.#isNight();
	}

	// ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────

	async begin(options: { readonly dryRun: boolean; readonly intensity?: ScrubIntensity | undefined }): Promise<ScrubStatus> {
		if (this.#care.schedule === "off")
			throw new FsError("REFUSED", "volume.scrub-off", "the scrub is off: allow it first with `cairn scrub NAME schedule manual`");
		if (this.#care.state !== "idle")
			throw new FsError("REFUSED", "volume.scrub-runs", `a scrub is ${this.#care.state}: stop it first, or let it go on`);
		await this.#begin({ byHand: true, dryRun: options.dryRun }, options.intensity);
		this.#goOn();
		return this.status();
	}

	async #begin(how: { readonly byHand: boolean; readonly dryRun: boolean }, intensity?: ScrubIntensity): Promise<void> {
		const counts = { after: 0, segments: 0, fragments: 0, bytes: 0, corrupt: 0, missing: 0, repaired: 0, unrecoverable: 0 };
		const pass = { ...how, metadataDone: false, startedAt: this.#seconds(), endedAt: 0, ...counts };
		await this.#modules.care.change((care) => ({ ...care, state: "running", pass, intensity: intensity ?? care.intensity }));
		this.#pass = pass;
	}

	async pause(): Promise<ScrubStatus> {
		if (this.#care.state !== "running") throw this.#notThat("pause");
		await this.#modules.care.change((care) => ({ ...care, state: "paused", pass: this.#pass ?? care.pass }));
		await this.#working;
		return this.status();
	}

	async resume(): Promise<ScrubStatus> {
		if (this.#care.state !== "paused") throw this.#notThat("resume");
		await this.#modules.care.change((care) => ({ ...care, state: "running" }));
		this.#goOn();
		return this.status();
	}

	/** The pass is given up; what it repaired and proved stays. */
	async stopPass(): Promise<ScrubStatus> {
		if (this.#care.state === "idle") throw this.#notThat("stop");
		await this.#modules.care.change((care) => ({ ...care, state: "paused" }));
		await this.#working;
		await this.#modules.care.change((care) => ({
			...care,
			state: "idle",
			pass: this.#pass === undefined ? care.pass : { ...this.#pass },
		}));
		this.#pass = undefined;
		this.#stoppedAt = this.#seconds();
		return this.status();
	}

	#notThat(verb: string): FsError {
		return new FsError("REFUSED", "volume.scrub-state", `there is nothing to ${verb}: the scrub is ${this.#care.state}`);
	}

	async setSchedule(change: {
		readonly schedule?: ScrubSchedule | undefined;
		readonly hour?: number | undefined;
		readonly intensity?: ScrubIntensity | undefined;
	}): Promise<ScrubStatus> {
		await this.#modules.care.change((care) => ({
			...care,
			schedule: change.schedule ?? care.schedule,
			hour: change.hour ?? care.hour,
			intensity: change.intensity ?? care.intensity,
		}));
		this.#goOn();
		return this.status();
	}

	status(): ScrubStatus {
		const { schedule, hour, intensity, state, pass, lastPass } = this.#care;
		const now = this.#pass ?? pass;
		const active = this.#working !== undefined;
		const totalBytes = active ? this.#totalBytes : undefined;
		return {
			state,
			active,
			schedule,
			hourUtc: hour,
			intensity,
			pass: now === undefined ? null : passStatus(now),
			lastPass: lastPass === undefined ? null : passStatus(lastPass),
			totalBytes: totalBytes === undefined ? null : Math.max(totalBytes, now?.bytes ?? 0),
			etaSeconds: totalBytes === undefined ? null : this.#eta(now, totalBytes),
		};
	}

	#eta(pass: ScrubPass | undefined, totalBytes: number): number | null {
		const elapsed = this.#modules.core.platform.clock.monotonicMs() - this.#sinceMs;
		const done = (pass?.bytes ?? 0) - this.#sinceBytes;
		if (pass === undefined || done <= 0 || elapsed <= 0) return null;
		return Math.ceil((Math.max(0, totalBytes - pass.bytes) * elapsed) / done / 1000);
	}

	// ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────

	#goOn(): void {
		if (this.#working !== undefined || !this.#mayWork()) return;
		this.#working = this.#work()
			.catch((error: unknown) => this.#complain(error))
			.finally(() => {
				this.#working = undefined;
			});
	}

	async #work(): Promise<void> {
		const { core } = this.#modules;
		this.#totalBytes = undefined;
		let totalBytes = 0;
		for await (const segment of core.segments()) totalBytes += segment.payloadBytes;
		this.#totalBytes = totalBytes;
		this.#sinceMs = this.#savedMs = core.platform.clock.monotonicMs();
		this.#sinceBytes = this.#pass?.bytes ?? 0;
		while (this.#mayWork() && this.#pass !== undefined) {
			if (!this.#pass.metadataDone) await this.#metadata(this.#pass);
			else if (await this.#batch(this.#pass)) {
				await this.#finish(this.#pass);
				return;
			}
			await this.#save(false);
			await core.platform.clock.sleep(limits.scrubPauseMs[this.#care.intensity]);
		}
		await this.#save(true);
	}

	async #metadata(pass: ScrubPass): Promise<void> {
		const found = await proveMetadata(this.#modules, !pass.dryRun);
		this.#pass = {
			...pass,
			metadataDone: true,
			corrupt: pass.corrupt + found.corrupt,
			repaired: pass.repaired + found.repaired,
			unrecoverable: pass.unrecoverable + found.unrecoverable,
		};
	}

	/** True when nothing is left. */
	async #batch(pass: ScrubPass): Promise<boolean> {
		const { core, healer } = this.#modules;
		const limit = limits.scrubBatch[this.#care.intensity];
		const options = { limit, after: segmentRecord.key(pass.after) };
		const ids = (await core.view((tx) => tx.scan(segmentRecord, segmentRecord.prefix(), options))).map(({ value }) => value.id);
		let next = pass;
		for (const id of ids) {
			// Shutting down, or told to stop: the rest comes next time.
			if (!this.#mayWork()) break;
			const found = await examine(core, healer, id, pass.dryRun ? "dry-run" : this.#care.healPaused ? "later" : "now");
			next = { ...next, after: id };
			if (found === undefined) continue;
			next = {
				...next,
				segments: next.segments + 1,
				fragments: next.fragments + found.fragments,
				bytes: next.bytes + found.payloadBytes,
				corrupt: next.corrupt + found.corrupt,
				missing: next.missing + found.missing,
				repaired: next.repaired + found.repaired,
				unrecoverable: next.unrecoverable + (found.lost ? 1 : 0),
			};
		}
		this.#pass = next;
		return ids.length < limit && next.after === (ids.at(-1) ?? next.after);
	}

	async #finish(pass: ScrubPass): Promise<void> {
		const { core, care } = this.#modules;
		const done = { ...pass, endedAt: Math.max(1, this.#seconds()) };
		await core.proofs.settle({ sweep: true });
		await care.change((now) => ({ ...now, state: "idle", pass: done, lastPass: pass.dryRun ? now.lastPass : done }));
		this.#pass = undefined;
		const { fragments, corrupt, missing, repaired, unrecoverable } = done;
		core.logger.info("the scrub has read everything", { fragments, corrupt, missing, repaired, unrecoverable });
	}

	async #save(now: boolean): Promise<void> {
		const { core, care } = this.#modules;
		const atMs = core.platform.clock.monotonicMs();
		const pass = this.#pass;
		if (pass === undefined || (!now && atMs - this.#savedMs < limits.scrubSaveMs)) return;
		this.#savedMs = atMs;
		await care.change((record) => (record.pass === pass || record.state === "idle" ? record : { ...record, pass }));
	}

	/** Resolves when nothing is under way any more; where it was is written down. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#working;
	}
}

function passStatus(pass: ScrubPass): ScrubPassStatus {
	const { byHand, dryRun, startedAt, endedAt, segments, fragments, bytes, corrupt, missing, repaired, unrecoverable } = pass;
	const counts = { segments, fragments, bytes, corrupt, missing, repaired, unrecoverable };
	return { byHand, dryRun, startedAt: timeOf(startedAt), endedAt: endedAt === 0 ? null : timeOf(endedAt), ...counts };
}
