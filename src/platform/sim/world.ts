/**
 * A world that can be replayed: same seed and same calls, same order and same results.
 *
 *     const world = new SimWorld({ seed: 1 });
 *     world.addDisk("/d0", { capacityBytes: 1 << 30 });
 *     const node = world.node();
 *     const platform = node.boot();
 *     await world.run(async () => { … platform.openDisk("/d0") … });
 *     node.powerCut();                 // nothing of `platform` settles any more
 *     const again = node.boot();       // sees what the power cut left
 *
 * Cutting at every boundary: run once for `world.steps`, then for each step s a new world with `world.cutAt(s)`, and
 * `await world.run(Promise.race([work, world.onCut]))`.
 *
 * Invariants
 * 1. Every choice is drawn from streams derived from the seed; nothing depends on the real clock or on addresses.
 * 2. Steps are numbered from 1; the cut of step s happens before s is acknowledged, and s itself may have happened, or in part.
 */
import { assert } from "../../base/assert.ts";
import { Deferred } from "../../base/async.ts";
import { BufferPool } from "../../base/buffer-pool.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { DiskCall, DiskSnapshot, SimDiskOptions } from "./device.ts";
import { SimDevice } from "./device.ts";
import type { DiskWorld } from "./disk.ts";
import type { SimNodeOptions } from "./node.ts";
import { SimNode } from "./node.ts";
import { simLimits } from "./limits.ts";
import { hash32, Prng } from "./prng.ts";
import type { RunOptions } from "./scheduler.ts";
import { Scheduler } from "./scheduler.ts";

export interface SimWorldOptions {
	/** Any safe integer; print it when a test fails. */
	readonly seed: number;
}

export class SimWorld {
	readonly seed: number;
	/** For the test's own choices. */
	readonly random: Prng;
	readonly #scheduler: Scheduler;
	readonly #devices = new Map<string, SimDevice>();
	readonly #nodes: SimNode[] = [];
	readonly #sites = new Set<string>();
	readonly #ignoredSites = new Set<string>();
	readonly #buffers = new BufferPool({ ...simLimits.lent, shared: false });
	#steps = 0;
	#endAt: { readonly step: number; readonly how: "cut" | "kill" } | undefined;
	#ended = new Deferred<void>();
	#streams = 0;

	constructor(options: SimWorldOptions) {
		this.seed = options.seed;
		this.random = new Prng(options.seed, "test");
		this.#scheduler = new Scheduler(() => this.#explain());
	}

	// ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

	get nowMs(): number {
		return this.#scheduler.nowMs;
	}

	/** Lets the world go on until `work` settles. Fails when nothing can happen any more, or after `limitMs` of virtual time (one hour). */
	run<T>(work: Promise<T> | (() => Promise<T> | T), options?: RunOptions): Promise<T> {
		return this.#scheduler.run(work, options);
	}

	/** Lets `ms` of virtual time go by. */
	async advance(ms: number): Promise<void> {
		await this.run(this.sleep(ms), { limitMs: ms + 1 });
	}

	/** A timer that belongs to no process. */
	sleep(ms: number): Promise<void> {
		return this.#scheduler.delay(ms, { alive: true });
	}

	// ── machines and disks ───────────────────────────────────────────────────────────────────────────────────────

	addDisk(path: string, options: SimDiskOptions): SimDevice {
		assert(!this.#devices.has(path), `disk ${path} exists already`);
		const device = new SimDevice(path, options, new Prng(this.seed, `disk:${path}`));
		this.#devices.set(path, device);
		return device;
	}

	/** The device behind a path: the same verbs as below, and more. */
	disk(path: string): SimDevice {
		const device = this.#devices.get(path);
		assert(device !== undefined, `no disk ${path} in this world; there are: ${[...this.#devices.keys()].join(", ")}`);
		return device;
	}

	disks(): SimDevice[] {
		return [...this.#devices.values()];
	}

	/** A new machine. It may open every disk; its power cut hits those that it opened. */
	node(options: SimNodeOptions = {}): SimNode {
		const name = options.name ?? `node${this.#nodes.length}`;
		const world = {
			scheduler: this.#scheduler,
			seed: this.seed,
			device: (path: string) => this.#devices.get(path),
			diskWorld: (of: SimNode) => this.#diskWorld(of),
			freshRandom: (purpose: string) => new Prng(this.seed, `${purpose}:${this.#streams++}`),
		};
		const node = new SimNode(world, name, options);
		this.#nodes.push(node);
		return node;
	}

	// ── ends at a chosen step ────────────────────────────────────────────────────────────────────────────────────

	/** Writes, syncs, removals, truncations and discards of all disks so far, failed ones included. */
	get steps(): number {
		return this.#steps;
	}

	/** The power fails at the step with this number (1 = the first of this world), which then happened, did not, or is torn. */
	cutAt(step: number): Promise<void> {
		return this.#endAtStep(step, "cut");
	}

	/** The process is killed at this step. */
	killAt(step: number): Promise<void> {
		return this.#endAtStep(step, "kill");
	}

	/** The end that was asked for last does not come any more. */
	forgetEnd(): void {
		this.#endAt = undefined;
	}

	/** Settles when the power cut or kill that was asked for last has happened. */
	get onCut(): Promise<void> {
		return this.#ended.promise;
	}

	get wasCut(): boolean {
		return this.#ended.settled;
	}

	// ── syncs that do nothing ────────────────────────────────────────────────────────────────────────────────────

	/** Syncs of this site report success and do nothing, from now on. */
	ignoreSync(site: string): void {
		this.#ignoredSites.add(site);
	}

	/** All sites whose sync or syncNames was ever called, sorted. */
	get syncSites(): string[] {
		return [...this.#sites].sort();
	}

	// ── faults by path; the documentation is in device.ts ────────────────────────────────────────────────────────

	hang(path: string): void {
		this.disk(path).hang();
	}

	unhang(path: string): void {
		this.disk(path).unhang();
	}

	fail(path: string, calls: readonly DiskCall[], code?: ErrorCode, count?: number): void {
		this.disk(path).fail(calls, code, count);
	}

	failNextSync(path: string, code?: ErrorCode): void {
		this.disk(path).failNextSync(code);
	}

	lieNextWrite(path: string, how: "lost" | "misplaced", matches?: (name: string) => boolean): void {
		this.disk(path).lieNextWrite(how, matches);
	}

	heal(path: string): void {
		this.disk(path).heal();
	}

	full(path: string, on?: boolean): void {
		this.disk(path).full(on);
	}

	readOnly(path: string, on?: boolean): void {
		this.disk(path).readOnly(on);
	}

	vanish(path: string, options?: { readonly unlinked?: boolean }): void {
		this.disk(path).vanish(options);
	}

	reappear(path: string, contents?: DiskSnapshot): void {
		this.disk(path).reappear(contents);
	}

	snapshot(path: string): DiskSnapshot {
		return this.disk(path).snapshot();
	}

	restore(path: string, snapshot: DiskSnapshot): void {
		this.disk(path).restore(snapshot);
	}

	wipe(path: string): void {
		this.disk(path).wipe();
	}

	corrupt(path: string, file: string, offset: number, lengthBytes: number, pattern?: Uint8Array): number {
		return this.disk(path).corrupt(file, offset, lengthBytes, pattern);
	}

	rot(path: string, fraction: number, matches?: (name: string) => boolean): { readonly name: string; readonly offset: number }[] {
		return this.disk(path).rot(fraction, matches);
	}

	latency(path: string, leastMs: number, mostMs: number): void {
		this.disk(path).latencyMs = [leastMs, mostMs];
	}

	/** A number over the contents of all disks and the time: equal for equal runs. */
	digest(): string {
		let hash = hash32(String(this.nowMs));
		for (const path of [...this.#devices.keys()].sort()) hash = Math.imul(hash ^ this.disk(path).digest(), 0x0100_0193);
		return (hash >>> 0).toString(16).padStart(8, "0");
	}

	#endAtStep(step: number, how: "cut" | "kill"): Promise<void> {
		assert(step > this.#steps, `step ${step} is over, the world is at ${this.#steps}`);
		this.#endAt = { step, how };
		this.#ended = new Deferred();
		return this.#ended.promise;
	}

	#diskWorld(node: SimNode): DiskWorld {
		return {
			scheduler: this.#scheduler,
			buffers: this.#buffers,
			countStep: () => ++this.#steps === this.#endAt?.step,
			endNow: () => this.#endNow(node),
			siteIgnored: (site) => {
				this.#sites.add(site);
				return this.#ignoredSites.has(site);
			},
		};
	}

	#endNow(node: SimNode): void {
		if (this.#endAt?.how === "kill") node.kill();
		else node.powerCut();
		this.#endAt = undefined;
		this.#ended.resolve();
	}

	#explain(): string {
		const waiting = this.#nodes.flatMap((node) => node.waiting());
		const dead = this.#nodes.filter((node) => !node.alive).map((node) => node.name);
		const parts = [`seed ${this.seed}, step ${this.#steps}`];
		if (waiting.length > 0) parts.push(`waiting: ${waiting.join(", ")}`);
		if (dead.length > 0) parts.push(`dead: ${dead.join(", ")} (what they were doing never settles)`);
		return parts.join("; ");
	}
}
