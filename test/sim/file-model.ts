/**
 * One file as its clients may see it: every contents that is possible now, while changes are under way side by side, and every contents that a power cut may leave.
 *
 * Invariants
 *  F1 A change takes effect once, at some moment between its begin and its end; one that failed or was cut off may have taken effect or not.
 *  F2 `#window` holds each contents that was possible since the last moment that is known to be durable.
 */
import type { Content } from "./content.ts";

export interface Change {
	readonly id: number;
	readonly apply: (content: Content) => Content;
	/** While it is under way a part of it may have taken effect. */
	readonly divisible?: boolean;
}

interface Config {
	readonly content: Content;
	/** Changes under way that took effect already. */
	readonly applied: ReadonlySet<number>;
}

interface Remembered {
	readonly content: Content;
	/** Newest tick at which it was possible. */
	lastTick: number;
}

/** What a reader may be shown: everything that was possible while it read. */
export interface Watch {
	readonly seen: Map<string, Content>;
	/** Nothing changed meanwhile: what was read is what there is. */
	quiet: boolean;
	/** A divisible change was under way: parts of several contents may be seen together. */
	mixed: boolean;
}

export class FileModel {
	readonly ino: number;
	#configs: readonly Config[];
	#open: Change[] = [];
	#closure: readonly Config[] = [];
	readonly #window = new Map<string, Remembered>();
	readonly #watches = new Set<Watch>();
	#tick = 0;
	/** How many wait for it to stay as it is. */
	pins = 0;

	constructor(ino: number, content: Content) {
		this.ino = ino;
		this.#configs = [{ content, applied: new Set() }];
		this.#changed();
	}

	get tick(): number {
		return this.#tick;
	}

	/** Changes that have begun and not ended. */
	get busy(): number {
		return this.#open.length;
	}

	/** Every contents that is possible now. */
	possible(): Content[] {
		return [...new Map(this.#closure.map(({ content }) => [content.key, content])).values()];
	}

	get mixed(): boolean {
		return this.#open.some((change) => change.divisible);
	}

	begin(change: Change): void {
		this.#open.push(change);
		this.#changed();
	}

	/** `done` undefined: nobody can tell whether it took effect. */
	end(change: Change, done: boolean | undefined): void {
		const after = done === undefined ? this.#closure : this.#closure.filter((config) => config.applied.has(change.id) === done);
		const left = after.map(({ content, applied }) => ({ content, applied: new Set([...applied].filter((id) => id !== change.id)) }));
		this.#configs = distinct(left);
		this.#open = this.#open.filter((one) => one !== change);
		this.#changed();
	}

	watch(): Watch {
		const watch: Watch = { seen: new Map(), quiet: this.#open.length === 0, mixed: this.mixed };
		for (const content of this.possible()) watch.seen.set(content.key, content);
		this.#watches.add(watch);
		return watch;
	}

	unwatch(watch: Watch): void {
		this.#watches.delete(watch);
	}

	/** A quiet reader has seen which of the possible contents it is. */
	narrow(matches: (content: Content) => boolean): void {
		if (this.#open.length > 0) return;
		const left = this.#configs.filter((config) => matches(config.content));
		if (left.length === 0 || left.length === this.#configs.length) return;
		this.#configs = left;
		this.#changed();
	}

	/** A quiet reader was told the time of its last change, which stays until the next one. */
	dated(time: string): void {
		if (this.#open.length > 0) return;
		const left = this.#configs.filter((config) => config.content.mayBeOf(time));
		if (left.length === 0 || left.every((config) => config.content.time === time)) return;
		this.#configs = distinct(left.map(({ content, applied }) => ({ content: content.withTime(time), applied })));
		this.#changed();
	}

	/** What was possible at that tick or later; everything older is superseded durably. */
	durableSince(tick: number): void {
		for (const [key, one] of this.#window) if (one.lastTick < tick) this.#window.delete(key);
	}

	/** Everything that a power cut may leave, whole or mixed; with what a barrier at that tick rules out left out. */
	survivors(sinceTick = 0): Content[] {
		return [...this.#window.values()].filter((one) => one.lastTick >= sinceTick).map((one) => one.content);
	}

	/** After a death: what was found is what there is. `durable`: nothing else can come back. */
	found(content: Content, durable: boolean): void {
		this.#open = [];
		this.#configs = [{ content, applied: new Set() }];
		if (durable) this.#window.clear();
		this.#watches.clear();
		this.pins = 0;
		this.#changed();
	}

	/** Nobody is left who changes or reads it; what was under way took effect or not. For a file that cannot be looked at now. */
	interrupted(): void {
		this.#configs = distinct(this.#closure.map(({ content }) => ({ content, applied: new Set() })));
		this.#open = [];
		this.#watches.clear();
		this.pins = 0;
		this.#changed();
	}

	#changed(): void {
		this.#tick++;
		this.#closure = this.#close();
		for (const { content } of this.#closure) {
			const known = this.#window.get(content.key);
			if (known === undefined) this.#window.set(content.key, { content, lastTick: this.#tick });
			else known.lastTick = this.#tick;
			for (const watch of this.#watches) watch.seen.set(content.key, content);
		}
		for (const watch of this.#watches) {
			if (this.#open.length > 0) watch.quiet = false;
			if (this.mixed) watch.mixed = true;
		}
	}

	#close(): Config[] {
		const all = [...this.#configs];
		const known = new Set(all.map(keyOf));
		for (let at = 0; at < all.length; at++) {
			const config = all[at] as Config;
			for (const change of this.#open) {
				if (config.applied.has(change.id)) continue;
				const next = { content: change.apply(config.content), applied: new Set([...config.applied, change.id]) };
				const key = keyOf(next);
				if (known.has(key)) continue;
				known.add(key);
				all.push(next);
			}
		}
		return all;
	}
}

function keyOf(config: Config): string {
	return `${config.content.key}|${[...config.applied].sort((a, b) => a - b).join()}`;
}

function distinct(configs: readonly Config[]): Config[] {
	return [...new Map(configs.map((config) => [keyOf(config), config])).values()];
}
