/**
 * A door that plays SMB clients with durable and persistent opens in a folder of its own, and knows what it was told: after every death the volume must have just that. For the simulator and for crash tests, which
 * decide about life and death; a call of a daemon that is gone never settles.
 *
 * One thing is done after the other; breaks of leases are answered beside that.
 */
import { type FsError, isFsError } from "../../src/base/errors.ts";
import { leaseBits, share } from "../../src/locks/matrix.ts";
import type { Caller, DurableOpen, HandleId, Ino, OpenIntent } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";

export interface YardRandom {
	below(bound: number): number;
}

export interface YardModules {
	readonly fail: (what: string) => never;
	readonly note: (line: string) => void;
	/** A space limit was met, or may have been. */
	readonly mayLackSpace: () => boolean;
	readonly nowMs: () => number;
	readonly sleep: (ms: number) => Promise<void>;
}

interface Lock {
	readonly exclusive: boolean;
	readonly start: number;
	readonly end: number;
}

interface Known {
	readonly handle: HandleId;
	readonly ino: Ino;
	readonly client: string;
	readonly createGuid: string;
	readonly persistent: boolean;
	readonly access: number;
	readonly deny: number;
	readonly leaseKey: string | undefined;
	/** The most that the lease may be, and the least. */
	lease: { most: number; least: number };
	/** All that its ranges may be. */
	ranges: readonly (readonly Lock[])[];
	isThere: boolean;
	/** It may have ended, or not. */
	isUnsure: boolean;
	/** Since when it waits, at the latest. */
	waitsSinceMs: number;
	/** Nobody may end it before. */
	graceUntilMs: number;
}

interface Contents {
	/** All that may be read now, and after a power cut; 0 = nothing was written. */
	now: Set<number>;
	durable: Set<number>;
}

const timeoutMs = 20_000;
/** As limits.ts of the volume has it. */
const graceMs = 90_000;
/** Of a clock that runs up to 1 % fast. */
const surelyOf = 0.98;
const clients = ["a", "b", "c"].map((letter) => letter.repeat(32));
const names = ["f", "g", "h"];
const mostOpens = 12;

export const yardName = "yard";

function callerOf(client: string): Caller {
	return {
		uid: 7,
		gid: 7,
		groups: [],
		principal: "u",
		door: "smb",
		clientInstance: `session of ${client[0]}`,
		share: undefined,
		trusted: true,
	};
}

const root: Caller = { ...callerOf("0"), uid: 0, gid: 0, door: "test", clientInstance: "yard" };
const lockText = (locks: readonly Lock[]): string =>
	locks.map(({ exclusive, start, end }) => `${exclusive ? "x" : "s"}${start}-${end}`).join(",");

export class Yard {
	readonly #modules: YardModules;
	readonly #opens = new Map<string, Known>();
	readonly #contents = new Map<Ino, Contents>();
	readonly counts = new Map<string, number>();
	/** The last call, for people. */
	doing = "";
	#volume!: NativeVolume;
	#random!: YardRandom;
	#folder: Ino | undefined;
	#number = 0;
	/** By lease: what its client was told to come down to, and has not answered. Who joins the lease meanwhile has no more of it. */
	readonly #breaks = new Map<string, { readonly to: number }>();
	/** By open, which may not be answered yet. */
	readonly #told = new Map<HandleId, number>();
	/** Lives of the daemon: what an earlier one would answer is not heard. */
	#life = 0;

	constructor(modules: YardModules) {
		this.#modules = modules;
	}

	#count(what: string): void {
		this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
	}

	#fail(what: string): never {
		return this.#modules.fail(`durable opens: ${what}`);
	}

	// ── lives ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** The daemon is there (again): `how` the one before ended. Everything is held against what is known. */
	mounted(volume: NativeVolume, random: YardRandom, how: "clean" | "kill" | "cut"): void {
		this.#volume = volume;
		this.#random = random;
		this.#life++;
		this.#breaks.clear();
		this.#told.clear();
		const listed = new Map(volume.durableOpens.list().map((open) => [open.createGuid, open]));
		for (const known of [...this.#opens.values()]) {
			const found = listed.get(known.createGuid);
			listed.delete(known.createGuid);
			if (found !== undefined) this.#compare(known, found, how);
			else if (known.isUnsure || this.#mayBeOver(known)) this.#opens.delete(known.createGuid);
			else this.#fail(`${textOf(known)} is gone after ${how}`);
		}
		for (const open of listed.values()) this.#fail(`nobody has made ${JSON.stringify(open)}, or it was ended`);
		if (how === "cut") for (const contents of this.#contents.values()) contents.now = new Set(contents.durable);
		else for (const contents of this.#contents.values()) for (const one of contents.now) contents.durable.add(one);
		volume.durableOpens.listen(this.#listener());
		const nowMs = this.#modules.nowMs();
		for (const known of this.#opens.values()) {
			known.waitsSinceMs = nowMs;
			known.graceUntilMs = nowMs + surelyOf * graceMs;
		}
	}

	#mayBeOver({ isThere, waitsSinceMs }: Known): boolean {
		return !isThere && this.#modules.nowMs() >= waitsSinceMs + surelyOf * timeoutMs;
	}

	#compare(known: Known, found: DurableOpen, how: string): void {
		const { handle, ino, persistent, access, deny } = found;
		if (known.handle !== -1 && handle !== known.handle) this.#fail(`${textOf(known)} has handle ${handle} after ${how}`);
		if (known.ino !== -1 && ino !== known.ino) this.#fail(`${textOf(known)} is open on inode ${ino} after ${how}`);
		if (persistent !== known.persistent || access !== known.access || deny !== known.deny)
			this.#fail(`${textOf(known)} is ${JSON.stringify(found)} after ${how}`);
		if (found.connected) this.#fail(`${textOf(known)} is connected after ${how}`);
		const held = this.#held(found);
		if (!known.ranges.some((one) => lockText(one) === lockText(held)))
			this.#fail(
				`through ${textOf(known)} is locked ${lockText(held) || "nothing"} after ${how}; ${known.ranges.map(lockText).join(" or ")} must be`,
			);
		const { most, least } = known.lease;
		const state = found.leaseState;
		if ((state & ~most) !== 0 || (least & ~state) !== 0)
			this.#fail(`the lease of ${textOf(known)} is ${state} after ${how}; from ${least} to ${most} it may be`);
		Object.assign(known, { handle, ino, isThere: false, isUnsure: false, ranges: [held], lease: { most: state, least: state } });
		this.#count(`carried over, ${how}`);
	}

	#held({ ino, handle }: Pick<DurableOpen, "ino" | "handle">): readonly Lock[] {
		return this.#volume.locks
			.heldSmb(ino, handle)
			.map(({ exclusive, range }) => ({ exclusive, start: Number(range.start), end: Number(range.end) }));
	}

	#listener() {
		const life = this.#life;
		const group = (handles: readonly HandleId[]): readonly Known[] => {
			const [first] = handles;
			const one = [...this.#opens.values()].find(({ handle }) => handle === first);
			return one?.leaseKey === undefined ? [] : this.#sharing(one);
		};
		return {
			broken: (handles: readonly HandleId[], to: number): void => {
				if (life !== this.#life) return;
				for (const handle of handles) this.#told.set(handle, to & (this.#told.get(handle) ?? 7));
				const all = group(handles);
				for (const known of all) known.lease.least &= to;
				const [one] = all;
				const pending = { to: one === undefined ? to : to & this.#pendingOf(one) };
				if (one !== undefined) this.#breaks.set(leaseText(one), pending);
				this.#count("leases broken");
				const [handle] = handles;
				if (this.#random.below(10) === 0 || handle === undefined) return;
				void this.#answer(handle, to, one, pending, this.#random.below(200), life);
			},
			revoked: (handles: readonly HandleId[], to: number): void => {
				if (life !== this.#life) return;
				for (const handle of handles) this.#told.set(handle, to & (this.#told.get(handle) ?? 7));
				const all = group(handles);
				for (const known of all) {
					known.lease.least &= to;
					this.#breaks.delete(leaseText(known));
				}
				this.#count("leases revoked");
			},
			ended: (): void => this.#fail("no operator has ended any"),
		};
	}

	async #answer(
		handle: HandleId,
		to: number,
		one: Known | undefined,
		pending: { readonly to: number },
		delayMs: number,
		life: number,
	): Promise<void> {
		await this.#modules.sleep(delayMs);
		if (life !== this.#life) return;
		await this.#volume.durableOpens.answerLease(handle, to).then(
			() => {
				if (life !== this.#life || one === undefined) return;
				// Those too who have joined it meanwhile.
				for (const known of this.#sharing(one)) {
					known.lease.most &= to;
					known.lease.least &= to;
				}
				if (this.#breaks.get(leaseText(one)) === pending) this.#breaks.delete(leaseText(one));
			},
			(error: unknown) => {
				if (life === this.#life && !isFsError(error, "EBADF") && !isFsError(error, "EINVAL")) this.#unexpected("answer of a lease", error);
			},
		);
	}

	#pendingOf(known: Known): number {
		return this.#breaks.get(leaseText(known))?.to ?? 7;
	}

	#sharing({ client, ino, leaseKey }: Known): readonly Known[] {
		return [...this.#opens.values()].filter((one) => one.client === client && one.ino === ino && one.leaseKey === leaseKey);
	}

	#unexpected(what: string, error: unknown): void {
		if (isFsError(error) && error.code === "ENOSPC" && this.#modules.mayLackSpace()) return;
		const text = isFsError(error) ? `${error.code} ${error.site}: ${error.message}` : String(error);
		this.#fail(`${what}: ${text}`);
	}

	// ── what clients do ──────────────────────────────────────────────────────────────────────────────────────────

	async #parent(): Promise<{ readonly ino: Ino }> {
		if (this.#folder !== undefined) return { ino: this.#folder };
		const { volume } = { volume: this.#volume };
		const made = await volume.makeDirectory(root, volume.root, yardName, 0o777).catch((error: unknown) => {
			if (!isFsError(error, "EEXIST")) throw error;
			return volume.lookup(root, volume.root, yardName).then((attributes) => ({ attributes, position: 0 }));
		});
		await volume.durable(made.position);
		this.#folder = made.attributes.ino;
		return { ino: this.#folder };
	}

	/** One call. Nothing that comes after the death of the daemon is heard. */
	async step(random: YardRandom): Promise<void> {
		this.#random = random;
		await this.#parent();
		const all = [...this.#opens.values()];
		const there = all.filter(({ isThere }) => isThere);
		const away = all.filter(({ isThere }) => !isThere);
		const pick = <T>(of: readonly T[]): T => of[random.below(of.length)] as T;
		const kind = random.below(20);
		if (kind < 5 || all.length === 0) await this.#open(pick(clients), pick(names));
		else if (kind < 6) await this.#unlink(pick(names));
		else if (kind < 10 && there.length > 0) await this.#lock(pick(there));
		else if (kind < 11 && there.length > 0) await this.#unlock(pick(there));
		else if (kind < 13 && there.length > 0) this.#disconnect(pick(there));
		else if (kind < 15 && away.length > 0) await this.#reconnect(pick(away));
		else if (kind < 17 && there.length > 0) await this.#write(pick(there));
		else if (kind < 18 && there.length > 0) await this.#read(pick(there));
		else if (kind < 19 && there.length > 0) await this.#lease(pick(there));
		else if (there.length > 0) await this.#close(pick(there));
		else await this.#modules.sleep(random.below(timeoutMs));
	}

	/** The answer, or the error. */
	async #call<T>(
		what: string,
		codes: readonly string[],
		call: () => Promise<T>,
	): Promise<{ readonly value: T } | { readonly error: FsError | undefined }> {
		const life = this.#life;
		this.doing = what;
		const done = await call().then(
			(value) => ({ value }),
			(error: unknown) => ({ error }),
		);
		if (life !== this.#life) return new Promise(() => {});
		if ("value" in done) {
			this.#modules.note(`yard ${what}`);
			this.#count(what.replace(/ .*/, ""));
			return done;
		}
		if (!isFsError(done.error)) throw done.error;
		this.#modules.note(`yard ${what} → ${done.error.code} ${done.error.site}`);
		this.#count(`${what.replace(/ .*/, "")} ${done.error.code}`);
		if (!codes.includes(done.error.code)) {
			this.#unexpected(what, done.error);
			return { error: undefined };
		}
		return { error: done.error };
	}

	/** Surely there, and not to be ended by others: since before a call until now. */
	#isFirm(known: Known, fromMs: number): boolean {
		if (known.isUnsure || this.#opens.get(known.createGuid) !== known) return false;
		if (known.isThere) return true;
		const nowMs = this.#modules.nowMs();
		if (this.#mayBeOver(known)) return false;
		return known.persistent || fromMs >= known.graceUntilMs ? known.persistent : nowMs < known.graceUntilMs;
	}

	async #open(client: string, name: string): Promise<void> {
		if ([...this.#opens.values()].filter(({ isUnsure }) => !isUnsure).length >= mostOpens) return;
		const random = this.#random;
		const read = random.below(3) > 0;
		const write = !read || random.below(2) === 0;
		const deny = { read: random.below(4) === 0, write: random.below(2) === 0, delete: random.below(3) === 0 };
		const persistent = random.below(2) === 0;
		const number = ++this.#number;
		const createGuid = number.toString(16).padStart(32, "0");
		const leaseKey = random.below(3) === 0 ? undefined : (random.below(2) + 1).toString(16).padStart(32, client[0] as string);
		const state = [leaseBits.read, leaseBits.read | leaseBits.handle, 7][random.below(3)] as number;
		const lease = leaseKey === undefined ? {} : { lease: { key: leaseKey, state } };
		const access = (read ? share.read : 0) | (write ? share.write : 0);
		const bits = (deny.read ? share.read : 0) | (deny.write ? share.write : 0) | (deny.delete ? share.delete : 0);
		const intent: OpenIntent = {
			disposition: "open-or-create",
			access: { read, write },
			deny,
			attributes: { mode: 0o666 },
			durable: { clientGuid: client, createGuid, persistent, timeoutMs, ...lease },
		};
		const known: Known = {
			handle: -1,
			ino: -1,
			client,
			createGuid,
			persistent,
			access,
			deny: bits,
			leaseKey,
			lease: { most: leaseKey === undefined ? 0 : 7, least: 0 },
			ranges: [[]],
			isThere: false,
			isUnsure: true,
			waitsSinceMs: Number.POSITIVE_INFINITY,
			graceUntilMs: 0,
		};
		this.#opens.set(createGuid, known);
		const fromMs = this.#modules.nowMs();
		const what = `open ${name} by ${client[0]} access ${access} deny ${bits}${persistent ? " persistent" : ""}${leaseKey === undefined ? "" : ` lease ${state}`} (${number})`;
		const parent = this.#volume.node(this.#folder as Ino);
		const answered = this.#mayEnd([...this.#opens.values()].map(({ ino }) => ino));
		// Those who have the lease already have more of it, if it gets more.
		const beside = [...this.#opens.values()].filter((one) => leaseKey !== undefined && one.client === client && one.leaseKey === leaseKey);
		const before = beside.map((one) => one.lease.most);
		for (const one of beside) one.lease.most = 7;
		const done = await this.#call(what, ["EBUSY", "EAGAIN"], () => this.#volume.open(callerOf(client), { parent, name }, intent));
		if (!("error" in done) || done.error !== undefined) this.#opens.delete(createGuid);
		answered();
		// What failed without space may have had more of it before.
		const mayBeMore = "error" in done && done.error === undefined;
		for (const [i, one] of mayBeMore ? [] : beside.entries()) one.lease.most &= before[i] as number;
		if ("error" in done) {
			if (done.error?.code === "EBUSY" && this.#opens.size === 0) this.#fail(`${what}: there is nobody who denies it`);
			return;
		}
		const { handle, attributes, durable, created } = done.value;
		const { ino } = attributes;
		if (durable === undefined || durable.persistent !== persistent) this.#fail(`${what}: it is not durable`);
		this.#endedFor(`${what} was granted`, fromMs, (one) => one.ino === ino && ((one.access & bits) !== 0 || (one.deny & access) !== 0));
		const granted = durable.lease?.state ?? 0;
		const opened: Known = { ...known, handle, ino, isThere: true, isUnsure: false };
		opened.lease = { most: granted, least: granted & this.#pendingOf(opened) & (this.#told.get(handle) ?? 7) };
		this.#opens.set(createGuid, opened);
		if (created) this.#contents.set(ino, { now: new Set([0]), durable: new Set([0]) });
		if (leaseKey !== undefined) for (const one of this.#sharing(opened)) one.lease.most |= granted;
	}

	/** What somebody does there may break a lease, and end who keeps the file open with it and is away; others it ends when it is granted. To be called with the answer. */
	#mayEnd(inodes: readonly Ino[], but?: Known): () => void {
		const nowMs = this.#modules.nowMs();
		const meant = [...this.#opens.values()].filter((one) => {
			const mayYield = !one.isThere && !one.persistent && nowMs >= one.graceUntilMs;
			return one !== but && inodes.includes(one.ino) && mayYield && !one.isUnsure;
		});
		for (const one of meant) one.isUnsure = true;
		this.#mayBreakUnheard(inodes);
		return () => {
			for (const one of meant) if (one.leaseKey === undefined) one.isUnsure = false;
		};
	}

	/** Of a lease that is broken while none of its opens has its client there, nobody is told. */
	#mayBreakUnheard(inodes: readonly Ino[]): void {
		for (const one of this.#opens.values())
			if (inodes.includes(one.ino) && !this.#sharing(one).some(({ isThere }) => isThere)) one.lease.least = 0;
	}

	/** None of those may be there any more; the ones that gave way are forgotten. */
	#endedFor(what: string, fromMs: number, inTheWay: (known: Known) => boolean): void {
		const listed = new Set(this.#volume.durableOpens.list().map(({ createGuid }) => createGuid));
		for (const known of [...this.#opens.values()].filter(inTheWay)) {
			if (this.#isFirm(known, fromMs)) this.#fail(`${what}, although there is ${textOf(known)}`);
			if (listed.has(known.createGuid)) this.#fail(`${what}, and ${textOf(known)} is there still`);
			this.#gone(known);
		}
	}

	/** It has ended; what is not durable of that may come back with the power. */
	#gone(known: Known): void {
		known.isThere = false;
		known.isUnsure = true;
		this.#count("ended for others");
	}

	async #unlink(name: string): Promise<void> {
		const volume = this.#volume;
		const parent = volume.node(this.#folder as Ino);
		const found = await this.#call(`lookup ${name}`, ["ENOENT"], () => volume.lookup(root, parent, name));
		if ("error" in found) return;
		const { ino } = found.value;
		const fromMs = this.#modules.nowMs();
		const answered = this.#mayEnd([ino]);
		const done = await this.#call(`unlink ${name}`, ["EBUSY", "EAGAIN"], () => volume.unlink(root, parent, name));
		answered();
		if ("error" in done) return;
		this.#endedFor(`${name} was removed`, fromMs, (one) => one.ino === ino && (one.deny & share.delete) !== 0);
		await volume.durable(done.value.position);
	}

	async #lock(known: Known): Promise<void> {
		const random = this.#random;
		if (known.ranges.length > 1) return;
		const start = 100 + 10 * random.below(4);
		const lock = { exclusive: random.below(2) === 0, start, end: start + 9 + 10 * random.below(2) };
		const before = known.ranges[0] as readonly Lock[];
		const after = [...before, lock];
		known.ranges = [before, after];
		const what = `lock ${lockText([lock])} through ${textOf(known)}`;
		const fromMs = this.#modules.nowMs();
		const range = { start: lock.start, end: lock.end };
		const answered = this.#mayEnd([known.ino], known);
		const done = await this.#call(what, ["EAGAIN", "EDEADLK", "EBADF"], () =>
			this.#volume.durableOpens.lock(known.handle, { exclusive: lock.exclusive, range }, false),
		);
		answered();
		if ("error" in done) {
			known.ranges = done.error === undefined ? [before, after] : [before];
			return;
		}
		if (done.value.kind !== "granted") this.#fail(`${what}: ${done.value.kind}`);
		known.ranges = [after];
		for (const one of this.#opens.values()) {
			const [theirs] = one.ranges as [readonly Lock[]];
			const isOver = (their: Lock): boolean => their.start <= lock.end && lock.start <= their.end && (their.exclusive || lock.exclusive);
			if (one === known || one.ino !== known.ino || one.ranges.length > 1 || !theirs.some(isOver)) continue;
			if (this.#isFirm(one, fromMs)) this.#fail(`${what} was granted, although there is ${textOf(one)} with ${lockText(theirs)}`);
			this.#gone(one);
		}
	}

	async #unlock(known: Known): Promise<void> {
		const before = known.ranges[0] as readonly Lock[];
		if (before.length === 0 || known.ranges.length > 1) return;
		const gone = before[this.#random.below(before.length)] as Lock;
		const same = before.filter(({ start, end }) => start === gone.start && end === gone.end);
		// An exclusive one goes before a shared one of the same range.
		const taken = same.find(({ exclusive }) => exclusive) ?? (same[0] as Lock);
		const after = before.filter((one) => one !== taken);
		known.ranges = [before, after];
		const done = await this.#call(`unlock ${lockText([taken])} through ${textOf(known)}`, [], () =>
			this.#volume.durableOpens.unlock(known.handle, { start: taken.start, end: taken.end }),
		);
		if ("value" in done) known.ranges = [after];
	}

	#disconnect(known: Known): void {
		this.#volume.durableOpens.disconnect(known.handle);
		this.#modules.note(`yard disconnect ${textOf(known)}`);
		known.isThere = false;
		known.waitsSinceMs = this.#modules.nowMs();
		known.graceUntilMs = 0;
		// A lease that was being broken ends it.
		if (!known.persistent && known.lease.most !== known.lease.least) known.isUnsure = true;
		this.#count("disconnect");
	}

	async #reconnect(known: Known): Promise<void> {
		const { handle, client, createGuid, persistent, leaseKey } = known;
		const by = { handle: this.#random.below(4) === 0 ? undefined : handle, clientGuid: client, createGuid, persistent, leaseKey };
		if (handle === -1) return;
		const other = clients[(clients.indexOf(client) + 1) % clients.length] as string;
		for (const wrong of [
			{ ...by, createGuid: "e".repeat(32) },
			{ ...by, clientGuid: other },
			{ ...by, persistent: !persistent },
		])
			await this.#refused(`reconnect ${textOf(known)} by another`, "ENOENT", () =>
				this.#volume.durableOpens.reconnect(callerOf(client), wrong),
			);
		const done = await this.#call(`reconnect ${textOf(known)}`, ["ENOENT"], () =>
			this.#volume.durableOpens.reconnect(callerOf(client), by),
		);
		if ("error" in done) {
			if (!known.isUnsure && !this.#mayBeOver(known)) this.#fail(`${textOf(known)} cannot be had again`);
			// What is not durable of its end may come back with the power.
			known.isUnsure = true;
			return;
		}
		if (done.value.handle !== handle) this.#fail(`${textOf(known)} has handle ${done.value.handle} when its client is back`);
		const state = done.value.durable?.lease?.state ?? 0;
		Object.assign(known, { isThere: true, isUnsure: false, waitsSinceMs: Number.POSITIVE_INFINITY });
		known.lease.least &= state;
	}

	async #refused(what: string, code: string, call: () => Promise<unknown>): Promise<void> {
		const done = await this.#call(what, [code], call);
		if ("value" in done) this.#fail(`${what}: it was had`);
	}

	async #write(known: Known): Promise<void> {
		const contents = this.#contents.get(known.ino);
		if ((known.access & share.write) === 0 || contents === undefined) return;
		const value = ++this.#number;
		const bytes = new Uint8Array(8);
		new DataView(bytes.buffer).setFloat64(0, value);
		contents.now.add(value);
		contents.durable.add(value);
		const answered = this.#mayEnd([known.ino], known);
		const done = await this.#call(`write ${value} through ${textOf(known)}`, ["EIO"], () => this.#volume.write(known.handle, 0, bytes));
		answered();
		if ("error" in done) return;
		contents.now = new Set([value]);
		if (known.persistent) contents.durable = new Set([value]);
	}

	async #read(known: Known): Promise<void> {
		const contents = this.#contents.get(known.ino);
		if ((known.access & share.read) === 0 || contents === undefined) return;
		this.#mayBreakUnheard([known.ino]);
		const done = await this.#call(`read through ${textOf(known)}`, [], () => this.#volume.read(known.handle, 0, 8));
		if ("error" in done) return;
		const bytes = done.value;
		const value = bytes.length === 0 ? 0 : new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getFloat64(0);
		if (!contents.now.has(value)) this.#fail(`${value} is read through ${textOf(known)}; ${[...contents.now].join(" or ")} must be`);
	}

	async #lease(known: Known): Promise<void> {
		if (known.leaseKey === undefined) return;
		const all = this.#sharing(known);
		for (const one of all) one.lease.most = 7;
		const done = await this.#call(`lease through ${textOf(known)}`, [], () => this.#volume.durableOpens.lease(known.handle, 7));
		if ("error" in done) return;
		for (const one of all) one.lease.most = done.value.state;
	}

	async #close(known: Known): Promise<void> {
		known.isUnsure = true;
		const done = await this.#call(`close ${textOf(known)}`, [], () => this.#volume.close(known.handle));
		if ("error" in done) {
			known.isUnsure = false;
			return;
		}
		// Of one that is merely durable, the end may be lost with the power.
		if (known.persistent) this.#opens.delete(known.createGuid);
		else known.isThere = false;
	}

	/** All have ended, and nothing is left of them. */
	async finish(): Promise<void> {
		for (const { handle } of this.#volume.durableOpens.list()) {
			await this.#volume.close(handle);
			this.#count("ended at the end");
		}
		this.#opens.clear();
		const left = this.#volume.durableOpens.list();
		if (left.length > 0) this.#fail(`${left.length} are left`);
	}
}

const leaseText = ({ client, ino, leaseKey }: Known): string => `${client} ${ino} ${leaseKey}`;

function textOf({ handle, ino, client, createGuid, persistent }: Known): string {
	return `${persistent ? "persistent" : "durable"} open ${Number.parseInt(createGuid, 16)} of ${client[0]} (inode ${ino}, handle ${handle % 2 ** 40})`;
}
