/**
 * A naive lock table: each cell of a file lists who has locked it, requests wait in a plain list, and deadlocks are found by following everybody to everybody. It shares nothing with `src/locks` but the words.
 * A cell stands for one byte, or for all bytes before the first and behind the last boundary of the history that is played.
 */
export interface OracleLock {
	readonly family: "fcntl" | "flock" | "nfs" | "smb";
	readonly exclusive: boolean;
	readonly first: number;
	readonly last: number;
}

export interface OracleRequest extends OracleLock {
	readonly key: string;
	readonly owner: string;
	readonly patient: boolean;
	readonly victim: boolean;
	readonly arrival: number;
}

interface SmbLock extends OracleLock {
	readonly owner: string;
}

export class LockOracle {
	readonly cells: number;
	/** Of fcntl and nfs: by cell and owner, whether exclusively. */
	readonly bytes: Map<string, boolean>[];
	readonly flocks = new Map<string, boolean>();
	smb: SmbLock[] = [];
	readonly family = new Map<string, "fcntl" | "nfs">();
	queue: OracleRequest[] = [];
	events: string[] = [];
	/** All files, in the order of their numbers: who waits in one may be waited for in another. */
	files: readonly LockOracle[] = [this];

	constructor(cells: number) {
		this.cells = cells;
		this.bytes = Array.from({ length: cells }, () => new Map<string, boolean>());
	}

	/** Owners whose fcntl or nfs locks are on all cells with one kind at least; a lock that covers everything is one whose every cell is locked in the same way. */
	#whole(owner: string): boolean | undefined {
		const kinds = new Set(this.bytes.map((cell) => cell.get(owner)));
		if (kinds.size !== 1) return undefined;
		return [...kinds][0];
	}

	blockers(r: OracleLock & { readonly owner: string }): Set<string> {
		const found = new Set<string>();
		const strikes = (heldExclusive: boolean): boolean => heldExclusive || r.exclusive;
		const isWhole = r.first === 0 && r.last === this.cells - 1;
		if (r.family === "flock") {
			for (const [owner, exclusive] of this.flocks) if (owner !== r.owner && strikes(exclusive)) found.add(owner);
			for (const [owner, family] of this.family) {
				const kind = this.#whole(owner);
				if (family === "nfs" && owner !== r.owner && kind !== undefined && strikes(kind)) found.add(owner);
			}
			for (const held of this.smb)
				if (held.first === 0 && held.last === this.cells - 1 && held.owner !== r.owner && strikes(held.exclusive)) found.add(held.owner);
			return found;
		}
		for (let i = r.first; i <= r.last; i++)
			for (const [owner, exclusive] of this.bytes[i] ?? []) if (owner !== r.owner && strikes(exclusive)) found.add(owner);
		for (const held of this.smb) {
			if (held.first > r.last || r.first > held.last) continue;
			if (held.owner !== r.owner ? strikes(held.exclusive) : r.exclusive) found.add(held.owner);
		}
		if (r.family !== "fcntl" && isWhole)
			for (const [owner, exclusive] of this.flocks) if (owner !== r.owner && strikes(exclusive)) found.add(owner);
		return found;
	}

	#bars(a: OracleLock, b: OracleLock): boolean {
		if (!a.exclusive && !b.exclusive) return false;
		const whole = (lock: OracleLock): boolean => lock.first === 0 && lock.last === this.cells - 1;
		if (a.family === "flock" || b.family === "flock") {
			if (a.family === b.family) return true;
			const other = a.family === "flock" ? b : a;
			return other.family !== "fcntl" && whole(other);
		}
		return a.first <= b.last && b.first <= a.last;
	}

	#behind(place: number, r: OracleRequest): Set<string> {
		const found = new Set<string>();
		if (!r.patient) return found;
		for (const earlier of this.queue.slice(0, place))
			if (earlier.owner !== r.owner && this.#bars(earlier, r) && !this.#leadsTo(earlier.owner, r.owner)) found.add(earlier.owner);
		return found;
	}

	/** Whether an owner waits for another one, for what it has or behind it, or for somebody who does, in any file. */
	#leadsTo(from: string, to: string): boolean {
		const reached = new Set([from]);
		for (const owner of reached)
			for (const file of this.files)
				for (const [place, r] of file.queue.entries()) {
					if (r.owner !== owner) continue;
					for (const blocker of file.blockers(r)) reached.add(blocker);
					for (const earlier of file.queue.slice(0, place)) if (this.#bars(earlier, r)) reached.add(earlier.owner);
				}
		return reached.has(to);
	}

	/** Whether it waits for what can only be given up by somebody who waits for it, of all that is held: by adding until nothing is added. */
	#endless(r: OracleRequest): boolean {
		const reached = this.blockers(r);
		for (let before = -1; before !== reached.size; ) {
			before = reached.size;
			for (const file of this.files)
				for (const other of file.queue) if (reached.has(other.owner)) for (const owner of file.blockers(other)) reached.add(owner);
		}
		return reached.has(r.owner);
	}

	request(r: OracleRequest): void {
		if (r.family === "flock" && this.flocks.has(r.owner) && this.flocks.get(r.owner) !== r.exclusive) this.flocks.delete(r.owner);
		const blocked = this.blockers(r).size > 0;
		if (blocked && !r.patient) this.events.push(`refused ${r.key} EAGAIN`);
		else if (!blocked && this.#behind(this.queue.length, r).size === 0) this.#grant(r);
		else if (r.victim && this.#endless(r)) this.events.push(`refused ${r.key} EDEADLK`);
		else {
			this.queue.push(r);
			this.events.push(`waiting ${r.key}`);
		}
		this.#settle();
	}

	#grant(r: OracleRequest): void {
		if (r.family === "flock") this.flocks.set(r.owner, r.exclusive);
		else if (r.family === "smb") this.smb.push(r);
		else {
			this.family.set(r.owner, r.family);
			for (let i = r.first; i <= r.last; i++) this.bytes[i]?.set(r.owner, r.exclusive);
		}
		this.events.push(`granted ${r.key}`);
		const waiting = this.files.flatMap((file) => file.queue.map((other) => ({ file, other })));
		for (const { file, other } of waiting.sort((a, b) => a.other.arrival - b.other.arrival)) {
			if (other.owner !== r.owner || !other.victim || !file.#endless(other)) continue;
			file.queue = file.queue.filter((one) => one !== other);
			this.events.push(`refused ${other.key} EDEADLK`);
		}
	}

	get #next(): OracleRequest | undefined {
		return this.queue.find((r, at) => this.blockers(r).size === 0 && this.#behind(at, r).size === 0);
	}

	#settleThis(events: string[]): void {
		for (let next = this.#next; next !== undefined; next = this.#next) {
			this.queue = this.queue.filter((one) => one !== next);
			this.events = events;
			this.#grant(next);
		}
	}

	/** This file, then the first other one in which somebody can go, and so on. */
	#settle(): void {
		this.#settleThis(this.events);
		for (;;) {
			const file = this.files.find((one) => one.#next !== undefined);
			if (file === undefined) return;
			file.#settleThis(this.events);
		}
	}

	unlock(owner: string, lock: OracleLock): void {
		if (lock.family === "flock") this.flocks.delete(owner);
		else if (lock.family === "smb") {
			const same = (held: SmbLock): boolean => held.owner === owner && held.first === lock.first && held.last === lock.last;
			const gone = this.smb.find((held) => same(held) && held.exclusive) ?? this.smb.find(same);
			if (gone === undefined) this.events.push("refused  ENOENT");
			this.smb = this.smb.filter((held) => held !== gone);
		} else for (let i = lock.first; i <= lock.last; i++) this.bytes[i]?.delete(owner);
		this.#settle();
	}

	dropOwner(owner: string): void {
		for (const cell of this.bytes) cell.delete(owner);
		this.flocks.delete(owner);
		this.smb = this.smb.filter((held) => held.owner !== owner);
		this.#settle();
	}

	cancel(key: string): void {
		if (!this.queue.some((r) => r.key === key)) return;
		this.queue = this.queue.filter((r) => r.key !== key);
		this.events.push(`refused ${key} ECANCELED`);
		this.#settle();
	}
}
