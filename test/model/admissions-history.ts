/**
 * Random histories of operations, opens that deny, shares, leases and SMB locks of all doors on a table at work, over a list of what was granted that shares nothing with it but the tables of conflicts.
 *
 * After each step: no two opens deny each other; no operation is under way that an open denies or that somebody else's lease would have to be broken for; whatever is refused had a reason; an inode is PLAIN only when nothing needs
 * asking. At the end, when everybody has let go, nobody waits and the table is empty.
 */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import { type Access, type Admission, AdmissionTable, type Asker, operationOf } from "../../src/locks/admission.ts";
import { FileLocks, type OpenHandle } from "../../src/locks/file-locks.ts";
import { type LeaseFamily, leaseAfter } from "../../src/locks/matrix.ts";
import type { Clock } from "../../src/platform/interface.ts";
import { SeededRandom } from "../support/map-records.ts";

const inodes = [1, 2] as const;
const accesses: readonly Access[] = ["attributes", "change-attributes", "look", "names", "read", "write", "remove"];
const askers: readonly Asker[] = [
	{ door: "fuse", clientInstance: "m" },
	{ door: "nfs", clientInstance: "h1" },
	{ door: "nfs", clientInstance: "h2" },
	{ door: "smb", clientInstance: "s1", leaseKey: "k1" },
	{ door: "smb", clientInstance: "s2", leaseKey: "k2" },
	{ door: "s3", clientInstance: "p" },
	{ door: "node", clientInstance: "n", leaseKey: "kn" },
];

interface Open extends OpenHandle {
	readonly ino: number;
	readonly deny: number;
	readonly host: string | undefined;
}

class ManualClock {
	nowMs = 1000;
	#timers: { readonly atMs: number; readonly fn: () => void }[] = [];

	monotonicMs(): number {
		return this.nowMs;
	}

	realtime(): { readonly seconds: number; readonly nanoseconds: number } {
		return { seconds: Math.floor(this.nowMs / 1000), nanoseconds: 0 };
	}

	after(ms: number, fn: () => void): () => void {
		const timer = { atMs: this.nowMs + ms, fn };
		this.#timers.push(timer);
		return () => {
			this.#timers = this.#timers.filter((one) => one !== timer);
		};
	}

	go(ms: number): void {
		const endMs = this.nowMs + ms;
		for (;;) {
			const next = this.#timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
			if (next === undefined) break;
			this.nowMs = Math.max(this.nowMs, next.atMs);
			this.#timers = this.#timers.filter((one) => one !== next);
			next.fn();
		}
		this.nowMs = endMs;
	}
}

export class AdmissionHistory {
	/** How often what came out. */
	readonly tally = new Map<string, number>();
	readonly #random: SeededRandom;
	readonly #about: string;
	readonly #clock = new ManualClock();
	readonly #table = new AdmissionTable();
	readonly #locks: FileLocks;
	readonly #log: string[] = [];
	#operations: Admission[] = [];
	#opens: Open[] = [];
	#ranges: { readonly ino: number; readonly handle: number; readonly client: string; readonly range: { start: number; end: number } }[] =
		[];
	/** What holders were asked to give back. */
	#asked: { readonly ino: number; readonly key: string; readonly to: number }[] = [];
	#pending = 0;
	#failure: unknown;
	#next = 1;

	constructor(seed: number) {
		this.#random = new SeededRandom(seed);
		this.#about = `seed ${seed}`;
		const clock = this.#clock as unknown as Clock;
		const opensOf = (ino: number): readonly OpenHandle[] => this.#opens.filter((open) => open.ino === ino && open.handle > 0);
		this.#locks = new FileLocks({ clock, memory: undefined, admissions: this.#table, opensOf });
	}

	async play(steps: number): Promise<void> {
		try {
			for (let step = 0; step < steps; step++) {
				this.#step();
				await this.#quiet();
				this.#check();
			}
			await this.#end();
		} catch (error) {
			throw new Error(`${this.#about}, after\n${this.#log.slice(-40).join("\n")}`, { cause: error });
		}
	}

	/** Whatever follows without time has followed. */
	async #quiet(): Promise<void> {
		for (let turn = 0; turn < 30; turn++) await Promise.resolve();
		if (this.#failure !== undefined) throw this.#failure;
	}

	#count(what: string): void {
		this.tally.set(what, (this.tally.get(what) ?? 0) + 1);
	}

	/** Something that may have to wait. */
	#start(about: string, work: () => Promise<void>, mayBeDenied: () => boolean): void {
		this.#log.push(about);
		this.#pending++;
		const before = this.#pending;
		let isOver = false;
		work()
			.then(
				() => this.#count("granted"),
				async (error: unknown) => {
					if (!isFsError(error)) throw error;
					this.#count(error.code);
					// Whoever was let in before hears of it in a moment.
					for (let turn = 0; turn < 10; turn++) await Promise.resolve();
					if (error.code === "EBUSY") assert.ok(mayBeDenied(), `${about}: nobody denies it`);
					else assert.ok(error.code === "EAGAIN", `${about}: ${error.message}`);
				},
			)
			.catch((error: unknown) => {
				this.#failure ??= error;
			})
			.finally(() => {
				this.#pending--;
				isOver = true;
			});
		void Promise.resolve().then(() => {
			if (!isOver && before > 0) this.#count("begun");
		});
	}

	#step(): void {
		const random = this.#random;
		const ino = random.pick([...inodes]);
		const asker = random.pick([...askers]);
		const dice = random.below(100);
		if (dice < 30) this.#operate(ino, asker);
		else if (dice < 50) this.#endOne();
		else if (dice < 62) this.#open(ino, asker);
		else if (dice < 72) this.#close();
		else if (dice < 84) this.#lease(ino, asker);
		else if (dice < 90) this.#answer();
		else if (dice < 93) this.#smbLock(ino, asker);
		else {
			const ms = random.pick([1, 900, 5000, 40_000, 100_000]);
			this.#log.push(`${ms} ms`);
			this.#clock.go(ms);
		}
	}

	#operate(ino: number, asker: Asker): void {
		const access = this.#random.pick([...accesses]);
		const both = this.#random.below(4) === 0;
		const places = (both ? inodes : [ino]).map((one) => ({ ino: one, access }));
		const work = async (): Promise<void> => {
			const admissions = await this.#locks.admit(places, asker);
			this.#operations.push(...admissions);
		};
		const bits = operationOf(access, asker, false).access;
		const denied = (): boolean => this.#opens.some((open) => (open.deny & bits) !== 0 && places.some((place) => place.ino === open.ino));
		this.#start(`${asker.door} ${asker.clientInstance} ${access} ${places.map((place) => place.ino)}`, work, denied);
	}

	#endOne(): void {
		if (this.#operations.length === 0) return;
		const one = this.#random.pick(this.#operations);
		this.#operations = this.#operations.filter((other) => other !== one);
		this.#log.push(`ended: ${one.access} ${one.ino}`);
		one.release();
	}

	#open(ino: number, asker: Asker): void {
		const access = 1 + this.#random.below(3);
		const deny = this.#random.below(3) === 0 ? this.#random.below(8) : 0;
		const id = this.#next++;
		const about = `${asker.door} ${asker.clientInstance} opens ${ino} to ${access}, denies ${deny}: ${id}`;
		const conflicts = (): boolean =>
			this.#opens.some((open) => open.ino === ino && ((open.deny & access) !== 0 || (open.access & deny) !== 0));
		if (asker.door === "nfs") {
			const host = asker.clientInstance;
			const one = { ino, client: Number(host.slice(1)), owner: String(id), access, deny: deny & 3, host };
			const work = async (): Promise<void> => {
				await this.#locks.share(one);
				this.#opens.push({ handle: -id, asker, ...one });
			};
			this.#start(about, work, conflicts);
			return;
		}
		const open = { handle: id, asker, access, ino, deny, host: undefined };
		if (deny === 0 && this.#table.passes(ino)) {
			// As a volume does: in one step.
			this.#log.push(about);
			this.#opens.push(open);
			return;
		}
		const work = async (): Promise<void> => {
			const opening = await this.#locks.open(ino, { access, deny }, asker);
			this.#opens.push(open);
			this.#locks.opened(ino, opening, id);
		};
		this.#start(about, work, conflicts);
	}

	#close(): void {
		if (this.#opens.length === 0) return;
		const one = this.#random.pick(this.#opens);
		this.#log.push(`closed: ${one.handle}`);
		this.#closeOne(one);
	}

	#closeOne(one: Open): void {
		this.#opens = this.#opens.filter((open) => open !== one);
		this.#ranges = this.#ranges.filter(({ handle }) => handle !== one.handle);
		if (one.handle > 0) this.#locks.dropHandle(one.ino, one.handle);
		else this.#locks.unshare({ ino: one.ino, client: Number(one.host?.slice(1)), owner: String(-one.handle) });
	}

	#lease(ino: number, asker: Asker): void {
		if (asker.leaseKey === undefined) return;
		const { leaseKey: key, door, clientInstance: client } = asker;
		const family: LeaseFamily = door === "smb" ? "smb" : "node";
		const state = this.#random.pick([1, 3, 5, 7]);
		const listener = {
			broken: (to: number): void => void this.#asked.push({ ino, key, to }),
			revoked: (): void => this.#count("revoked"),
		};
		const had = this.#locks.lease({ ino, key, door: door as "smb" | "node", client, family, state }, listener);
		this.#count(had.state === 0 ? "not leased" : "leased");
		this.#log.push(`${key} leases ${ino}: ${state}, has ${had.state}`);
	}

	#answer(): void {
		const one = this.#asked.shift();
		if (one === undefined) return;
		this.#log.push(`${one.key} gives back ${one.ino} to ${one.to}`);
		try {
			this.#locks.answerLease(one.ino, one.key, one.to);
		} catch (error) {
			// It was taken meanwhile, or asked for more.
			assert.ok(isFsError(error, "EINVAL"));
		}
	}

	#smbLock(ino: number, asker: Asker): void {
		const mine = this.#opens.find((open) => open.ino === ino && open.asker === asker);
		if (asker.door !== "smb" || mine === undefined) return;
		const lock = {
			ino,
			handle: mine.handle,
			client: asker.clientInstance,
			exclusive: false,
			range: { start: mine.handle, end: mine.handle },
		};
		const work = async (): Promise<void> => {
			await this.#locks.lockSmb(lock, false);
			if (!this.#opens.includes(mine)) this.#locks.dropHandle(ino, mine.handle);
			else this.#ranges.push(lock);
		};
		this.#start(`${asker.clientInstance} locks ${ino} through ${mine.handle}`, work, () => false);
	}

	// ── what must be so ────────────────────────────────────────────────────────────────────────────────────────

	#check(): void {
		for (const a of this.#opens)
			for (const b of this.#opens)
				if (a !== b && a.ino === b.ino) assert.equal(a.deny & b.access, 0, `${a.handle} denies what ${b.handle} is open to`);
		for (const operation of this.#operations) this.#checkOperation(operation);
		const needs = (ino: number): boolean =>
			this.#opens.some((open) => open.ino === ino && open.deny !== 0) ||
			this.#ranges.some((range) => range.ino === ino) ||
			this.#locks.listBound(100, ino).leases.length > 0;
		for (const ino of inodes) if (needs(ino)) assert.ok(!this.#table.passes(ino), `inode ${ino} is not PLAIN`);
		assert.ok(this.#table.total >= this.#operations.length, "A1");
	}

	#checkOperation({ ino, access, asker }: Admission): void {
		const { event, access: bits } = operationOf(access, asker, false);
		for (const open of this.#opens) {
			const isOwn = open.host !== undefined && asker.door === "nfs" && open.host === asker.clientInstance;
			if (open.ino === ino && !isOwn) assert.equal(open.deny & bits, 0, `${asker.door} ${access} while ${open.handle} denies it`);
		}
		for (const { owner, family, state } of this.#locks.listBound(100, ino).leases)
			if (owner.id !== asker.leaseKey)
				assert.equal(leaseAfter(family, state, event), state, `${asker.door} ${access} beside a cache of ${owner.id}`);
	}

	/** Everybody lets go; holders who do not answer lose what they cache. */
	async #end(): Promise<void> {
		for (let round = 0; round < 200; round++) {
			for (const one of this.#operations.splice(0)) one.release();
			for (const open of [...this.#opens]) this.#closeOne(open);
			await this.#quiet();
			this.#clock.go(1000);
			await this.#quiet();
			if (this.#pending === 0 && this.#operations.length + this.#opens.length === 0) break;
		}
		assert.equal(this.#pending, 0, "nobody waits for ever");
		for (const { door, clientInstance } of askers) this.#locks.dropClient(door as "smb" | "node", clientInstance);
		this.#clock.go(200_000);
		// Whatever is over is taken from the table when it is next looked at.
		for (const ino of inodes) this.#locks.unshare({ ino, client: 1, owner: "none" });
		assert.equal(this.#table.total, 0, "A1");
		assert.equal(this.#table.bound.size, 0, "PLAIN");
		assert.equal(this.#locks.figures().files, 0, "L3");
	}
}
