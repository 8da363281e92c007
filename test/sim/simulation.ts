/**
 * One seed: a volume on simulated disks, clients that work on it side by side, deaths, faults, and the model that every answer is held against.
 *
 * Everything that happens follows from the seed. A simulation has lives: mount, look at everything, let clients work, die (or shut down), and again; at the end all faults
 * stop, everything must become whole, and what lies on the disks is counted anew (audit.ts).
 *
 * Nothing here is shared between simulations, and a node is an object: several nodes and a network fit in as further objects.
 */
import { Deferred } from "../../src/base/async.ts";
import { FsError } from "../../src/base/errors.ts";
import type { Logger } from "../../src/base/telemetry.ts";
import type { SimNode } from "../../src/platform/sim/node.ts";
import { hash32, Prng } from "../../src/platform/sim/prng.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { Caller } from "../../src/volume/interface.ts";
import { parseRedundancy, width } from "../../src/storage/redundancy.ts";
import type { NativeVolume, VolumeModules, VolumeStatus } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { Yard, yardName } from "../support/durable-yard.ts";
import { audit, lyingOn } from "./audit.ts";
import { Client, lockOwner, type OpenFile } from "./client.ts";
import { Content, Ink } from "./content.ts";
import { Faults } from "./faults.ts";
import { FileModel } from "./file-model.ts";
import { type Canary, Hooks } from "./hooks.ts";
import { allowedAfter, type Found, readContents, readNames } from "./inspect.ts";
import { LockModel } from "./lock-model.ts";
import { NamesModel } from "./names-model.ts";
import { heldLocks, operations } from "./operations.ts";
import { pickWeighted, type Plan, planOf } from "./plan.ts";
import { Statistics } from "./statistics.ts";
import { Tree, type TreeNode } from "./tree.ts";

/** Something that must not be. */
export class Failure extends Error {}

export interface SimulationOptions {
	readonly seed: number;
	readonly steps: number;
	/** A bug that is planted, to see whether it is found. */
	readonly canary?: Canary;
	/** What may happen of that which the seed wants, by the names in `Simulation.happened`; default: everything. */
	readonly only?: ReadonlySet<string>;
	/** Rare ways that are taken each time. */
	readonly always?: ReadonlySet<string>;
	/** Lines of the trace that a failure shows. */
	readonly lines?: number;
	/** Every line of the trace, as it comes. */
	readonly onLine?: (line: string) => void;
}

/** One incarnation of the daemon that serves. */
export interface Life {
	alive: boolean;
	readonly volume: NativeVolume;
	/** ENOSPC may be an honest answer. */
	spaceTight: boolean;
	/** It is being shut down: no more faults. */
	closing: boolean;
}

/** How the last life ended: what may be missing after it. */
type Ending = "clean" | "kill" | "cut";

interface Death {
	readonly how: Ending;
	/** Of a shutdown: what comes in between. */
	readonly interruption: "kill" | "cut" | undefined;
	readonly atStep: boolean;
	/** A shutdown that makes room for another daemon of the same mount. */
	readonly keepsSession: boolean;
	/** In steps of the disks, or so many milliseconds at the most. */
	readonly delay: number;
	readonly delayMs: number;
}

/** A file that replaced a name by rename: its contents of then go with the new name. */
interface Saved {
	readonly position: number;
	readonly file: FileModel;
	readonly tick: number;
}

const root: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "simulator",
	share: undefined,
	trusted: true,
};
/** What the volume says of itself tells which of its rare ways it went. */
function probeOf(message: string): string {
	return message
		.replace(/^sync site.*|\bk?d\d+\b/g, "d")
		.replace(/[(:,;].*$/, "")
		.replace(/\/?[\w-]+\/[\w/-]+/g, "F")
		.replace(/\d+/g, "N")
		.slice(0, 60);
}

const spareDisks = 2;
/** Small, as all of it is copied at each death. */
const sessionMemory = { handles: 256, lockRecords: 1024 };
const linesShown = 60;
/** What an operator asks for may not be possible now: nothing to pause, the disk is out. */
const careRefusals: readonly string[] = ["REFUSED", "NOTFOUND"];
/** Virtual time that anything may take, with hung disks. */
const patienceMs = 3_600_000;
/** Longer than anything in the background waits for its next look. */
const restMs = 12_000;
/** From the end of all faults until everything is whole. */
const repairMs = 900_000;

/** Nothing comes after this. A promise for each waiter: one for all would keep all that ever waited for it. */
function forever(): Promise<never> {
	return new Promise(() => {});
}

export class Simulation {
	readonly plan: Plan;
	readonly world: SimWorld;
	readonly node: SimNode;
	readonly ink = new Ink();
	readonly stats = new Statistics();
	names: NamesModel;
	/** A door with durable opens, in a directory that is its own. */
	readonly #yard: Yard | undefined;
	#yardIno: number | undefined;
	#yardWork: Promise<void> = Promise.resolve();
	/** All disks of the machine, those in use and spare ones. */
	readonly paths: readonly string[];
	/** Disks of the volume. */
	inUse: readonly string[];
	readonly locks = new LockModel();
	/** The clients' connection to the volume: their open files outlive a killed daemon, and one that makes room for its successor. */
	#session = { id: 1, resume: false };
	/** What they have open, while no daemon serves. */
	#carried: (readonly OpenFile[])[] = [];
	#clients: readonly Client[] = [];
	readonly #faults: Faults;
	readonly #hooks: Hooks;
	readonly #random: Prng;
	readonly #files = new Map<number, FileModel>();
	/** Operations, faults, deaths, repairs that happened, by name (life.client.number, life.fault3, …). What is drawn for one depends on its name alone: without the others it is the same. */
	readonly happened: string[] = [];
	readonly #only: ReadonlySet<string> | undefined;
	readonly #always: ReadonlySet<string> | undefined;
	readonly #linesShown: number;
	readonly #onLine: ((line: string) => void) | undefined;
	readonly #lines: string[] = [];
	readonly #failure = new Deferred<never>();
	#saved: Saved[] = [];
	#stepsLeft: number;
	#step = 0;
	#number = 0;
	#hash = 0;
	#life: Life | undefined;
	/** Number of the life. */
	#lives = 0;
	#repairs = 0;
	#repairing = false;
	/** Healthy disks that are not being emptied. */
	#staying = 0;
	/** Disks that the operator has said something of. */
	readonly #distrusted = new Set<string>();
	/** Disks are being added, exchanged or emptied. */
	#operating = false;

	constructor(options: SimulationOptions) {
		this.plan = planOf(options.seed, options.steps);
		this.#stepsLeft = options.steps;
		this.#only = options.only;
		this.#linesShown = options.lines ?? linesShown;
		this.#onLine = options.onLine;
		this.#random = new Prng(options.seed, "simulation");
		this.world = new SimWorld({ seed: options.seed });
		this.paths = Array.from({ length: this.plan.diskCount + spareDisks }, (_, i) => `/d${i + 1}`);
		this.inUse = this.paths.slice(0, this.plan.diskCount);
		for (const [i, path] of this.paths.entries())
			this.world.addDisk(path, { capacityBytes: this.plan.diskBytes, raw: this.plan.raw[i] === true });
		for (const path of this.paths) this.world.latency(path, 0.05, this.plan.diskMs);
		this.node = this.world.node({ clockRate: this.plan.clockRate });
		this.#hooks = new Hooks(options.seed, this.stats, options.canary, options.always);
		this.#always = options.always;
		this.#faults = new Faults(this);
		const entries = new Map<string, number>();
		const attributes = { type: "directory", mode: 0o755, uid: 0, gid: 0, rdev: 0, target: undefined, nlink: 2 } as const;
		this.names = new NamesModel(new Tree([[1, { ino: 1, ...attributes, parent: 1, entries, xattrs: new Map() }]]));
		const yard = {
			fail: (what: string): never => this.fail(what),
			note: (line: string): void => this.note(line),
			mayLackSpace: (): boolean => this.#life?.spaceTight === true,
			nowMs: (): number => this.world.nowMs,
			sleep: (ms: number): Promise<void> => this.world.sleep(ms),
		};
		this.#yard = this.plan.durableOpens ? new Yard(yard) : undefined;
		this.#failure.promise.catch(() => {});
	}

	// ── what clients and faults need ─────────────────────────────────────────────────────────────────────────────

	/** A line of the trace; part of the digest. */
	note(line: string): void {
		const full = `${this.world.nowMs.toFixed(2)} ${line}`;
		this.#hash = Math.imul(this.#hash ^ hash32(full), 0x0100_0193);
		this.#keep(full);
	}

	#keep(line: string): void {
		this.#lines.push(line);
		if (this.#lines.length > 2 * this.#linesShown) this.#lines.splice(0, this.#linesShown);
		this.#onLine?.(line);
	}

	/** Ends the simulation. */
	fail(what: string): never {
		const failure = new Failure(what);
		this.#failure.reject(failure);
		throw failure;
	}

	/** Whether what has this name happens. */
	happens(name: string): boolean {
		if (this.#only?.has(name) === false) return false;
		this.happened.push(name);
		return true;
	}

	/** The choices of what has this name. */
	randomOf(name: string): Prng {
		return new Prng(this.plan.seed, name);
	}

	nextNumber(): number {
		return ++this.#number;
	}

	fileOf(ino: number): FileModel {
		let file = this.#files.get(ino);
		if (file === undefined) {
			file = new FileModel(ino, Content.empty);
			this.#files.set(ino, file);
		}
		return file;
	}

	files(): FileModel[] {
		return [...this.#files.values()];
	}

	saved(file: FileModel, tick: number, position: number): void {
		this.#saved.push({ file, tick, position });
	}

	spaceIsTight(): void {
		if (this.#life !== undefined) this.#life.spaceTight = true;
	}

	pickWeighted<T extends { readonly name: string; readonly weight: number }>(items: readonly T[], random: Prng): T | undefined {
		return pickWeighted(items, this.plan, random);
	}

	/** All that the present event causes has happened. Of a dead life: never. */
	async nextEvent(life: Life): Promise<void> {
		await this.world.sleep(0);
		if (!life.alive) await forever();
	}

	// ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** @returns the digest. @throws Failure, or whatever broke. */
	async run(): Promise<string> {
		try {
			return await this.world.run(() => Promise.race([this.#live(), this.#failure.promise]), { limitMs: 100 * patienceMs });
		} catch (error) {
			throw this.#explain(error);
		}
	}

	#explain(error: unknown): Error {
		const what =
			error instanceof FsError ? `${error.code} ${error.site}: ${error.message}` : error instanceof Error ? error.message : String(error);
		const { seed, steps } = this.plan;
		const only = this.#only === undefined ? "" : ` --only ${this.happened.join()}`;
		const always = this.#always === undefined ? "" : ` --always ${[...this.#always].join()}`;
		const text = `seed ${seed}, step ${this.#step} of ${steps}: ${what}\n${this.#lines.slice(-this.#linesShown).join("\n")}\nagain: npm run sim -- --seed ${seed} --steps ${steps} --replay${only}${always}`;
		return new Failure(text, { cause: error });
	}

	async #live(): Promise<string> {
		await this.#create();
		let ending: Ending = "clean";
		while (this.#stepsLeft > 0) ending = await this.#oneLife(ending);
		return this.#end(ending);
	}

	#modules(): VolumeModules {
		return { platform: this.#hooks.into(this.node.boot(), this.world), logger: this.#logger() };
	}

	/** The volume's own words: in the trace, not in the digest, so that a better message is no other run. */
	#logger(): Logger {
		const say = (level: string) => (message: string, data?: Record<string, unknown>) => {
			this.stats.count("probes", probeOf(message));
			this.#keep(`${this.world.nowMs.toFixed(2)}   ${level}: ${message}${data === undefined ? "" : ` ${JSON.stringify(data)}`}`);
		};
		return { debug() {}, info: say("info"), warn: say("warn"), error: say("error") };
	}

	async #create(): Promise<void> {
		const { redundancy, logSegmentBytes, logSegmentCount, diskCount, tolerance, clients } = this.plan;
		const raw = this.inUse.filter((path) => this.world.disk(path).raw).length;
		this.note(`${redundancy} on ${diskCount} disks${raw > 0 ? `, ${raw} of them raw` : ""}, ${tolerance} may be lost, ${clients} clients`);
		const shape = { redundancy, logSegmentBytes, logSegmentCount, sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
		await createVolume({ name: "sim", diskPaths: this.inUse, memory: this.plan.memory, ...shape }, this.#modules());
		if (this.#yard !== undefined) await this.#makeYard();
	}

	/** Its directory is there from the beginning, and nobody else goes there. */
	async #makeYard(): Promise<void> {
		const memory = { ...this.plan.memory, ...sessionMemory };
		const volume = await openVolume({ name: "sim", diskPaths: this.paths, acceptLoss: false, memory }, this.#modules());
		const { attributes } = await volume.makeDirectory(root, volume.root, yardName, 0o777);
		await volume.shutdown();
		this.node.kill();
		const { ino, mode, uid, gid, rdev, nlink } = attributes;
		this.#yardIno = ino;
		const shape = { type: "directory", rdev, target: undefined, uid, gid } as const;
		const yard = {
			ino,
			...shape,
			mode,
			nlink,
			parent: 1,
			entries: new Map<string, number>(),
			xattrs: new Map<string, string>(),
			apart: true,
		};
		const top = this.names.tree.get(1) as TreeNode;
		const entries = new Map([[yardName, ino]]);
		this.names = new NamesModel(
			new Tree([
				[1, { ...top, nlink: 3, entries }],
				[ino, yard],
			]),
		);
	}

	async #playYard(life: Life, yard: Yard): Promise<void> {
		const { world, plan } = this;
		for (let count = 0; !life.closing; count++) {
			const name = `${this.#lives}.yard${count}`;
			const random = this.randomOf(name);
			if (this.happens(name)) {
				try {
					await yard.step(random);
				} catch (error) {
					this.#failure.reject(error instanceof Error ? error : new Failure(String(error)));
					return forever();
				}
			}
			await world.sleep(1 + random.float() * 2 * plan.thinkMs);
			if (!life.alive) return forever();
		}
	}

	// ── a life ───────────────────────────────────────────────────────────────────────────────────────────────────

	async #oneLife(before: Ending): Promise<Ending> {
		const { plan } = this;
		this.#lives++;
		if (plan.faultEveryMs > 0) {
			// The moment at which a copy that was not made durable is missed.
			if (before === "cut" && this.#random.chance(0.4)) this.#faults.strike(undefined, `${this.#lives}.mirrors`, "mirrors-lost");
			// As many as are tolerated at once.
			const strikes = this.#random.chance(0.3) ? plan.tolerance : this.#random.below(2);
			for (let i = 0; i < strikes; i++) this.#faults.strike(undefined, `${this.#lives}.off${i}`);
		}
		const mounted = await this.#mount(before, plan.mountDeaths);
		const life = mounted.life;
		await this.#look(life, mounted.ending);
		const quota = Math.min(this.#stepsLeft, 1 + this.#random.below(2 * plan.stepsPerLife));
		let left = quota;
		const over = new Deferred<void>();
		const death = this.#chooseDeath();
		const clients = Array.from({ length: plan.clients }, (_, i) => new Client(this, life, i, this.#carried[i] ?? []));
		this.#clients = clients;
		const work = clients.map((client) =>
			this.#work(client, () => {
				if (left-- <= 0) over.resolve();
				return left >= 0;
			}),
		);
		void Promise.all(work).then(() => over.resolve());
		this.#yardWork = this.#yard === undefined ? Promise.resolve() : this.#playYard(life, this.#yard);
		void this.#trouble(life);
		void life.volume.failed.then((error) => {
			if (life.alive)
				this.#failure.reject(new Failure(`the volume gave up although no more disks are hurt than it tolerates: ${error.message}`));
		});
		const ending = await this.#die(life, death, over.promise, work);
		this.#stepsLeft -= quota;
		this.#faults.remember(this.randomOf(`${this.#lives}.remember`));
		return ending;
	}

	async #work(client: Client, next: () => boolean): Promise<void> {
		const { world, plan } = this;
		await world.sleep(client.random.below(10));
		for (let count = 0; ; count++) {
			if (!client.life.alive) return forever();
			if (!next()) return;
			const name = `${this.#lives}.${client.number}.${count}`;
			client.random = this.randomOf(name);
			client.isQuick = client.random.chance(plan.quickness);
			client.chooseCaller(this.randomOf(`${name}.caller`));
			const operation = this.pickWeighted(operations, client.random);
			if (operation === undefined) return;
			const thinkMs = client.random.float() * plan.thinkMs;
			while (this.names.alone !== undefined) await this.names.alone;
			if (this.happens(name)) {
				this.#step++;
				this.stats.count("operations", operation.name);
				try {
					await operation.run(client);
				} catch (error) {
					this.#failure.reject(error instanceof Error ? error : new Failure(String(error)));
					return forever();
				}
			}
			await world.sleep(thinkMs);
		}
	}

	/** Faults and repairs while the volume serves. */
	async #trouble(life: Life): Promise<void> {
		const { plan, world } = this;
		if (plan.faultEveryMs === 0) return;
		for (let count = 0; ; count++) {
			const name = `${this.#lives}.trouble${count}`;
			const random = this.randomOf(name);
			await world.sleep(random.float() * 2 * plan.faultEveryMs);
			if (!life.alive || life.closing) return;
			if (random.chance(0.15)) {
				if (this.happens(`${name}.disks`)) await this.#operate(life, random);
			} else if (random.chance(0.12)) {
				if (this.happens(`${name}.care`)) await this.#care(life, random);
			} else if (this.#faults.hurt.size < plan.tolerance || random.chance(0.5)) this.#faults.strike(life, `${name}.fault`);
			else if (random.chance(0.4) && this.happens(`${name}.repair`))
				await this.#repair(life).catch((error: unknown) => {
					if (life.alive) this.#failure.reject(error instanceof Error ? error : new Failure(String(error)));
				});
		}
	}

	/** What an operator does with disks: one more, one less, one for another. Whatever is refused is refused. */
	async #operate(life: Life, random: Prng): Promise<void> {
		const { disks } = life.volume;
		this.#operating = true;
		const spare = this.paths.filter((path) => !this.inUse.includes(path));
		await this.#noteDisks(life);
		if (!life.alive) return forever();
		const target = random.pick(this.inUse);
		const fresh = spare.length === 0 ? undefined : random.pick(spare);
		let what = "";
		try {
			if (fresh !== undefined && (this.inUse.length === this.plan.diskCount || random.chance(0.3))) {
				// What it held in an earlier life is nobody's.
				this.world.wipe(fresh);
				what = random.chance(0.5) ? `add ${fresh}` : `exchange ${target} for ${fresh}`;
				this.note(what);
				if (what.startsWith("add")) await disks.add([fresh]);
				else await disks.replace(target, fresh);
			} else if (this.#staying > this.plan.diskCount && this.#faults.hurt.size === 0) {
				// Enough must stay for the rule that lost disks are never a quorum.
				what = `drain and remove ${target}`;
				this.note(what);
				await disks.drain(target, { allowDegraded: false });
				if (random.chance(0.2)) await disks.cancelDrain(target);
				else {
					await disks.drained(target, () => {});
					await disks.remove(target);
				}
			}
			if (what !== "" && life.alive) this.stats.count("outcomes", what.replace(/ \/.*/, ""));
		} catch (error) {
			if (!life.alive) return forever();
			if (!(error instanceof FsError)) throw error;
			this.note(`${what} → ${error.code} ${error.site}`);
			this.stats.count("outcomes", `${what.replace(/ \/.*/, "")} refused`);
		}
		if (!life.alive) return forever();
		await this.#noteDisks(life);
		this.#operating = false;
	}

	/** What an operator does about health: reads everything, holds healing up, distrusts a disk. */
	async #care(life: Life, random: Prng): Promise<void> {
		const { volume } = life;
		const { scrub, disks } = volume;
		const path = random.pick(this.inUse);
		// A disk that is not written any more is one of those that may be lost.
		const mayDistrust = this.#faults.hurt.has(path) || this.#faults.hurt.size < this.plan.tolerance;
		const distrust = async (health: "degraded" | "suspect"): Promise<void> => {
			if (!mayDistrust) return;
			this.#faults.hurt.add(path);
			this.#distrusted.add(path);
			await disks.setHealth(path, health);
		};
		const things: readonly (readonly [string, () => Promise<unknown>])[] = [
			["scrub", () => scrub.begin({ dryRun: random.chance(0.3) })],
			["scrub", () => scrub.begin({ dryRun: false })],
			["scrub pause", () => scrub.pause()],
			["scrub resume", () => scrub.resume()],
			["scrub stop", () => scrub.stopPass()],
			["verify", () => volume.verify({ dryRun: random.chance(0.5), lost: false, resume: random.chance(0.3) }, () => {})],
			["heal slowly", () => volume.setHealing({ tranquility: random.below(10) })],
			["balance", () => volume.balance.begin()],
			["balance", () => volume.balance.begin()],
			["garbage", () => volume.collectGarbage(random.chance(0.3))],
			["garbage", () => volume.collectGarbage(false)],
			["balance plan", () => volume.balance.plan()],
			["balance cancel", () => volume.balance.cancel()],
			["heal pause", () => volume.setHealing({ paused: random.chance(0.5) })],
			[`distrust ${path}`, () => distrust(random.pick(["degraded", "suspect"] as const))],
			[`trust ${path}`, () => disks.setHealth(path, "auto")],
		];
		const [what, act] = random.pick(things);
		this.note(what);
		try {
			await act();
			if (!life.alive) return forever();
			this.stats.count("outcomes", what.replace(/ \/.*/, ""));
		} catch (error) {
			if (!life.alive) return forever();
			if (!(error instanceof FsError)) throw error;
			this.note(`${what} → ${error.code} ${error.site}`);
			this.stats.count("outcomes", `${what.replace(/ \/.*/, "")} refused`);
			if (error.code === "ENOTCONN" && life.closing) return;
			if (!careRefusals.includes(error.code) && !(error.code === "ENOSPC" && life.spaceTight))
				this.#failure.reject(new Failure(`${what}: ${error.code} ${error.site}: ${error.message}`));
		}
	}

	// ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────

	#chooseDeath(): Death {
		const name = `${this.#lives}.death`;
		const random = this.randomOf(name);
		const how = random.pick(["clean", "kill", "kill", "cut", "cut"] as const);
		const atStep = random.chance(0.5);
		const delay = random.below(random.pick([1, 20, 300, 1000]));
		const delayMs = random.float() * delay;
		const isInterrupted = random.chance(0.3);
		const interruption = isInterrupted ? random.pick(["kill", "cut"] as const) : undefined;
		const keepsSession = how === "clean" && random.chance(0.4);
		const rest = { keepsSession, atStep, delay, delayMs };
		if ((how !== "clean" || isInterrupted) && !this.happens(name)) return { how: "clean", interruption: undefined, ...rest };
		return { how, interruption, ...rest };
	}

	/** Ends a life when its operations are used up, in the middle of whatever goes on then. */
	async #die(life: Life, death: Death, over: Promise<void>, work: readonly Promise<void>[]): Promise<Ending> {
		const { world } = this;
		await over;
		let { how } = death;
		let shuttingDown: Promise<boolean> | undefined;
		if (how === "clean") {
			await Promise.all(work);
			life.closing = true;
			await this.#yardWork;
			while (this.#repairing || this.#operating) await world.sleep(100);
			shuttingDown = this.#shutdown(life, death.keepsSession);
			if (death.interruption === undefined) {
				how = (await shuttingDown) ? "clean" : "kill";
				this.#ended(life, how, death.keepsSession);
				return how;
			}
			how = death.interruption;
		}
		if (death.atStep) {
			const step = world.steps + 1 + death.delay;
			const cut = how === "cut" ? world.cutAt(step) : world.killAt(step);
			await Promise.race([cut, world.sleep(5_000)]);
		} else await world.sleep(death.delayMs);
		this.#ended(life, how, death.how === "clean" ? death.keepsSession : how === "kill");
		return how;
	}

	/** False: it could not seal everything, and says so. */
	async #shutdown(life: Life, keepSession: boolean): Promise<boolean> {
		try {
			await life.volume.shutdown({ keepSession });
			return true;
		} catch (error) {
			if (!(error instanceof FsError) || !life.alive) throw error;
			this.note(`shutdown → ${error.code} ${error.site}`);
			if (!life.spaceTight) this.#failure.reject(new Failure(`shutdown failed: ${error.code} ${error.site}: ${error.message}`));
			return false;
		}
	}

	#ended(life: Life, how: Ending, keepsSession: boolean): void {
		life.alive = false;
		if (keepsSession && how !== "cut") {
			this.#carried = this.#clients.map(({ open }) =>
				open.map((one) => ({ ...one, mayHaveFailed: one.mayHaveFailed === true || life.spaceTight })),
			);
			this.#session = { id: this.#session.id, resume: true };
		} else this.#endSession();
		this.#clients = [];
		this.#life = undefined;
		this.#repairing = false;
		this.#operating = false;
		this.world.forgetEnd();
		// Whatever is left of the process; after a death at a step nothing is.
		if (how === "cut") this.node.powerCut();
		else this.node.kill();
		this.note(`${how} at step ${this.world.steps} of the disks`);
		this.stats.count("deaths", how);
	}

	/** Nothing is open any more. */
	#endSession(): void {
		this.#carried = [];
		this.#session = { id: this.#session.id + 1, resume: false };
		this.locks.waiting.clear();
		this.locks.keepOwners(() => false);
	}

	/** What clients have open is open still, with its locks; what they do not know of is closed: an open or a close of it was under way. */
	async #resume(life: Life): Promise<void> {
		const { volume } = life;
		const found = new Map((volume.resumed?.handles ?? []).map((one) => [one.handle, one]));
		const known = this.#carried.flat();
		for (const { handle, file } of known) {
			const one = found.get(handle);
			if (one === undefined) this.fail(`inode ${file.ino} was open as ${handle} and is not any more`);
			if (one.ino !== file.ino || !one.read || !one.write) this.fail(`handle ${handle} of inode ${file.ino} is now ${JSON.stringify(one)}`);
			found.delete(handle);
		}
		for (const handle of found.keys()) await volume.close(handle);
		// Who waited asks again, or does not: what it got meanwhile goes.
		const waited = new Set([...this.locks.waiting].map(({ owner }) => owner));
		this.locks.waiting.clear();
		for (const { handle, file } of known) if (waited.has(lockOwner(handle))) volume.locks.dropHandle(file.ino, handle);
		const owners = new Set(known.map(({ handle }) => lockOwner(handle)));
		this.locks.keepOwners((owner) => owners.has(owner) && !waited.has(owner));
		volume.locks.endPast();
		const told = heldLocks(volume);
		if (told !== this.locks.text())
			this.fail(`after a change of daemons locks are ${told || "none"}; they must be ${this.locks.text() || "none"}`);
		if (known.length > 0) this.note(`${known.length} open files were carried over, locks ${told || "none"}`);
		this.stats.count("outcomes", "open files carried over", known.length);
		this.stats.count("outcomes", "locks carried over", told === "" ? 0 : told.split(", ").length);
	}

	// ── mounting and looking ─────────────────────────────────────────────────────────────────────────────────────

	/** Mounts; some mounts die on the way. */
	async #mount(before: Ending, deathChance: number): Promise<{ readonly life: Life; readonly ending: Ending }> {
		let ending = before;
		for (let count = 0; ; count++) {
			const name = `${this.#lives}.mount${count}`;
			const random = this.randomOf(name);
			const dies = random.chance(deathChance) && this.happens(name);
			const opening = openVolume(
				{
					name: "sim",
					diskPaths: this.paths,
					acceptLoss: false,
					memory: { ...this.plan.memory, ...sessionMemory },
					session: this.#session,
				},
				this.#modules(),
			);
			this.stats.mounts++;
			if (!dies) {
				const volume = await this.#opened(opening);
				if (volume !== undefined) return { life: this.#born(volume), ending };
				if (!this.#session.resume) this.#endSession();
				continue;
			}
			const how = random.pick(["kill", "cut"] as const);
			const step = this.world.steps + 1 + random.below(60);
			const ended = how === "cut" ? this.world.cutAt(step) : this.world.killAt(step);
			const volume = await Promise.race([this.#opened(opening), ended.then(() => "dead" as const)]);
			this.world.forgetEnd();
			if (volume === undefined) {
				if (!this.#session.resume) this.#endSession();
				continue;
			}
			if (volume !== "dead") return { life: this.#born(volume), ending };
			this.note(`${how} during the mount`);
			this.stats.count("deaths", `mount ${how}`);
			if (how === "cut") this.node.powerCut();
			else this.node.kill();
			// A clean volume stays so; what was only acknowledged is gone with the power.
			if (how === "cut" && ending === "kill") ending = "cut";
			if (how === "cut" || !this.#session.resume) this.#endSession();
		}
	}

	/** Undefined: a full disk kept it from mounting, and has space again now. */
	async #opened(opening: Promise<NativeVolume>): Promise<NativeVolume | undefined> {
		const tight = this.paths.some((path) => this.world.disk(path).isTight);
		try {
			return await opening;
		} catch (error) {
			if (!(error instanceof FsError) || error.code !== "ENOSPC" || !tight) throw error;
			this.note(`mount → ${error.code} ${error.site}`);
			this.node.kill();
			for (const path of this.paths) {
				this.world.full(path, false);
				this.world.disk(path).starve(undefined);
			}
			return undefined;
		}
	}

	#born(volume: NativeVolume): Life {
		const spaceTight = this.paths.some((path) => this.world.disk(path).isTight);
		const life = { alive: true, volume, spaceTight, closing: false };
		this.#life = life;
		this.note("mounted");
		return life;
	}

	/** Everything that is there, held against what may be there. */
	async #look(life: Life, ending: Ending): Promise<void> {
		const { volume } = life;
		await this.#resume(life);
		this.#yard?.mounted(volume, this.randomOf(`${this.#lives}.yard`), ending);
		const found = await readNames(volume, root, this.#yardIno);
		const result = this.names.recovered(found.tree, ending === "cut");
		if ("wrong" in result) this.fail(`after ${ending}: ${result.wrong}`);
		const barriers = new Map<FileModel, number>();
		for (const { file, tick, position } of this.#saved) {
			if (position <= result.position) barriers.set(file, Math.max(tick, barriers.get(file) ?? 0));
		}
		this.#saved = [];
		for (const [ino, size] of found.sizes) {
			const time = found.times.get(ino) as string;
			await this.#lookAtFile(volume, { ino, size, time }, ending, barriers);
		}
		const carried = new Set(this.#carried.flat().map(({ file }) => file.ino));
		for (const [ino, file] of this.#files) {
			if (found.sizes.has(ino)) continue;
			if (carried.has(ino)) file.interrupted();
			else this.#files.delete(ino);
		}
		this.names.mounted(0);
		this.#noteState(found);
		await this.#noteDisks(life);
	}

	async #lookAtFile(
		volume: NativeVolume,
		{ ino, size, time }: { readonly ino: number; readonly size: number; readonly time: string },
		ending: Ending,
		barriers: ReadonlyMap<FileModel, number>,
	): Promise<void> {
		const file = this.fileOf(ino);
		const allowed = allowedAfter(file, ending === "cut" ? "cut" : "kill", barriers.get(file) ?? 0);
		const number = this.nextNumber();
		const mixed = ending === "cut" || file.mixed;
		const read = await readContents(volume, root, this.ink, { ino, size, time, allowed, mixed, number });
		if ("wrong" in read) this.fail(`after ${ending}: ${read.wrong}`);
		file.found(read.content, ending !== "kill");
	}

	async #noteDisks(life: Life): Promise<void> {
		const { disks } = await life.volume.status();
		this.inUse = disks.map((disk) => disk.path);
		this.#staying = disks.filter((disk) => disk.state === "healthy").length;
		this.#faults.mirrors = disks.filter((disk) => disk.metadata).map((disk) => disk.path);
	}

	/** What is there now, as one number. */
	#noteState(found: Found): void {
		const lines = [...found.tree.nodes.values()].map(
			(node) => `${node.ino} ${node.type} ${node.nlink} ${[...(node.entries ?? [])].join()}`,
		);
		for (const [ino] of found.sizes) lines.push(`${ino} ${this.fileOf(ino).possible()[0]?.key}`);
		const state = (hash32(lines.sort().join("\n")) >>> 0).toString(16);
		this.stats.states.add(state);
		this.note(`state ${state}, ${found.tree.nodes.size} nodes`);
	}

	// ── becoming whole ───────────────────────────────────────────────────────────────────────────────────────────

	/** All faults stop; disks that are out are given back or replaced; then everything must become whole in time. */
	async #repair(life: Life): Promise<void> {
		this.#repairing = true;
		this.note("faults end");
		this.#faults.end();
		await this.#trustAgain(life);
		const { world } = this;
		const endMs = world.nowMs + repairMs;
		const random = this.randomOf(`repair${this.#repairs++}`);
		for (;;) {
			const why = await this.#whatLacks(life, random);
			if (why === undefined) break;
			if (world.nowMs > endMs) this.fail(`${repairMs} ms after the end of all faults not everything is whole: ${why}`);
			await world.sleep(1_000);
			if (!life.alive) await forever();
		}
		this.#faults.hurt.clear();
		this.stats.repairs++;
		this.#repairing = false;
		this.note("everything is whole");
	}

	async #trustAgain(life: Life): Promise<void> {
		const { volume } = life;
		await volume.setHealing({ paused: false, tranquility: 0 });
		for (const path of this.#distrusted) {
			await volume.disks.setHealth(path, "auto").catch((error: unknown) => {
				if (!(error instanceof FsError)) throw error;
				this.note(`trust ${path} → ${error.code} ${error.site}`);
			});
		}
		this.#distrusted.clear();
		if (!life.alive) await forever();
	}

	async #whatLacks(life: Life, random: Prng): Promise<string | undefined> {
		const { volume } = life;
		const before = await volume.status();
		for (const disk of before.disks) {
			if (disk.state === "healthy") continue;
			if (disk.state === "draining") {
				await this.#endDrain(life, disk.id, random);
				continue;
			}
			if (random.chance(0.5) || disk.reason.includes("empty")) this.world.wipe(disk.path);
			await volume.disks.replace(disk.id, undefined).catch((error: unknown) => {
				if (!(error instanceof FsError)) throw error;
				this.note(`replace ${disk.id} → ${error.code} ${error.site}`);
			});
		}
		const found = await volume.verify({ dryRun: false, lost: true }, () => {});
		if (found.unrecoverable > 0) this.fail(`verify: ${found.unrecoverable} segments cannot be read: ${found.lostPaths.join(", ")}`);
		await volume.heal(() => {});
		const status = await volume.status();
		if (!life.alive) await forever();
		if (status.protection.lostBytes > 0) this.fail(`status: ${status.protection.lostBytes} bytes are lost`);
		const bad = found.corrupt + found.missing;
		if (bad > 0) return `verify found ${found.corrupt} damaged and ${found.missing} missing fragments`;
		const { state, protection, metadataCopies, conversion, balancing } = status;
		if (conversion.active) return `protection is still being changed: ${JSON.stringify(conversion)}`;
		// Taken back, one that was to be emptied is still to be.
		const other = status.disks.find((disk) => disk.state !== "healthy");
		if (other !== undefined) return `${other.id} is ${other.state}: ${other.reason}`;
		if (balancing.active) return `a balance is still under way: ${JSON.stringify(balancing)}`;
		if (metadataCopies.present === metadataCopies.wanted && asksForMoreDisks(protection, status.disks.length)) return undefined;
		return state === "running" ? undefined : `${state} ${JSON.stringify({ protection, metadataCopies })} ${status.warnings.join("; ")}`;
	}

	async #endDrain(life: Life, id: string, random: Prng): Promise<void> {
		const { disks } = life.volume;
		const emptied = random.chance(0.5);
		const work = emptied ? disks.drained(id, () => {}).then(() => disks.remove(id)) : disks.cancelDrain(id);
		await work.catch((error: unknown) => {
			if (!(error instanceof FsError)) throw error;
			this.note(`${emptied ? "remove" : "keep"} ${id} → ${error.code} ${error.site}`);
		});
	}

	async #end(before: Ending): Promise<string> {
		const { life, ending } = await this.#mount(before, 0);
		await this.#look(life, ending);
		for (const { handle } of this.#carried.flat()) await life.volume.close(handle);
		await this.#yard?.finish();
		for (const [what, count] of this.#yard?.counts ?? []) this.stats.count("outcomes", `yard: ${what}`, count);
		await this.#repair(life);
		await this.#tidy(life);
		await this.#settle(life);
		await this.#noteDisks(life);
		const status = await life.volume.status();
		const ledger = await life.volume.ledger();
		const shown = await life.volume.space();
		const lying = lyingOn(
			this.world,
			status.disks.map((disk) => disk.path),
		);
		await life.volume.shutdown();
		this.#ended(life, "clean", false);
		const told = { status, ledger, shown, lying };
		const wrong = await audit({ world: this.world, paths: this.paths, modules: this.#modules(), memory: this.plan.memory, ...told });
		if (wrong.length > 0) this.fail(`what lies on the disks is wrong:\n  ${wrong.slice(0, 20).join("\n  ")}`);
		this.node.kill();
		const last = await this.#mount("clean", 0);
		await this.#look(last.life, "clean");
		await last.life.volume.shutdown();
		this.#ended(last.life, "clean", false);
		this.stats.virtualMs = this.world.nowMs;
		return (this.#hash >>> 0).toString(16).padStart(8, "0");
	}

	/** Whatever no record names is found, and given back when it has been so for a while; then nothing is left, and nothing is taken without a reason. */
	async #tidy(life: Life): Promise<void> {
		for (let round = 0; round < 3; round++) {
			const { removedBytes } = await life.volume.collectGarbage(false);
			if (removedBytes > 0) this.stats.count("outcomes", "garbage given back");
			await this.world.sleep(1_500);
		}
		const left = await life.volume.collectGarbage(true);
		const odd = left.items.filter(({ kind }) => kind !== "foreign");
		if (odd.length > 0) this.fail(`garbage is left: ${JSON.stringify(odd)}`);
	}

	/** Nothing is left to be done in the background: what has died is compacted after ten seconds, and status must not be of the moment before. */
	async #settle(life: Life): Promise<void> {
		await life.volume.syncAll();
		await this.world.sleep(3_000);
		await life.volume.syncAll();
		for (let before = -1; ; ) {
			const { active, movedBytes, freedBytes } = (await life.volume.status()).compaction;
			const now = active ? -1 : movedBytes + freedBytes;
			if (now >= 0 && now === before) return;
			before = now;
			await this.world.sleep(restMs);
		}
	}
}

/**
 * What is degraded asks for more disks than there are, and the status says so: a disk may leave although a path that has no contents yet asked for its like (seed 494 with 1,160 steps). More cannot be done.
 */
function asksForMoreDisks({ shortages, targets }: VolumeStatus["protection"], disks: number): boolean {
	const short = targets.filter(({ degradedBytes }) => degradedBytes > 0);
	return (
		shortages.length > 0 &&
		shortages.every(({ cause }) => cause === "no-disk") &&
		short.every(({ redundancy }) => width(parseRedundancy(redundancy)) > disks)
	);
}
