/** What a simulation did, counted; figures of several seeds can be added up. */

export type CountKind = "operations" | "outcomes" | "faults" | "deaths" | "points" | "probes";

export class Statistics {
	readonly counts: Record<CountKind, Map<string, number>> = {
		operations: new Map(),
		outcomes: new Map(),
		faults: new Map(),
		deaths: new Map(),
		points: new Map(),
		probes: new Map(),
	};
	bytesRead = 0;
	bytesWritten = 0;
	mounts = 0;
	repairs = 0;
	virtualMs = 0;
	/** Digests of the states at the deaths and at the end. */
	readonly states = new Set<string>();

	count(kind: CountKind, name: string, by = 1): void {
		const counts = this.counts[kind];
		counts.set(name, (counts.get(name) ?? 0) + by);
	}

	add(other: Statistics): void {
		for (const kind of Object.keys(other.counts) as CountKind[])
			for (const [name, count] of other.counts[kind]) this.count(kind, name, count);
		this.bytesRead += other.bytesRead;
		this.bytesWritten += other.bytesWritten;
		this.mounts += other.mounts;
		this.repairs += other.repairs;
		this.virtualMs += other.virtualMs;
		for (const state of other.states) this.states.add(state);
	}

	/** For sending it to another process. */
	toJSON(): object {
		const { bytesRead, bytesWritten, mounts, repairs, virtualMs } = this;
		const counts = Object.fromEntries(Object.entries(this.counts).map(([kind, map]) => [kind, [...map]]));
		return { counts, bytesRead, bytesWritten, mounts, repairs, virtualMs, states: [...this.states] };
	}

	static fromJSON(value: ReturnType<Statistics["toJSON"]>): Statistics {
		const given = value as unknown as Omit<Statistics, "counts" | "states"> & {
			counts: Record<CountKind, [string, number][]>;
			states: string[];
		};
		const statistics = new Statistics();
		for (const kind of Object.keys(given.counts) as CountKind[])
			for (const [name, count] of given.counts[kind]) statistics.count(kind, name, count);
		statistics.bytesRead = given.bytesRead;
		statistics.bytesWritten = given.bytesWritten;
		statistics.mounts = given.mounts;
		statistics.repairs = given.repairs;
		statistics.virtualMs = given.virtualMs;
		for (const state of given.states) statistics.states.add(state);
		return statistics;
	}

	report(): string {
		const line = (kind: CountKind): string => {
			const sorted = [...this.counts[kind]].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
			return `${kind.padEnd(11)}${sorted.map(([name, count]) => `${name} ${count}`).join(", ") || "none"}`;
		};
		const MiB = 1024 * 1024;
		const sums = `${this.mounts} mounts, ${this.repairs} repairs, ${Math.round(this.bytesWritten / MiB)} MiB written, ${Math.round(this.bytesRead / MiB)} MiB read, ${Math.round(this.virtualMs / 60_000)} virtual minutes, ${this.states.size} distinct states`;
		return [sums, ...(Object.keys(this.counts) as CountKind[]).map(line)].join("\n");
	}
}
