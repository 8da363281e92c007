/** What the volume does by itself to keep its data whole, as the care record remembers it; and the look at one segment that all who care share. */
import { Mutex } from "../../base/async.ts";
import type { CareRecord, Segment } from "../../records/interface.ts";
import { careRecord } from "../../records/kinds.ts";
import type { Core } from "./core.ts";
import type { Healer } from "./healer.ts";
import type { ScrubberModules } from "./scrubber.ts";
import type { MetadataCheck } from "./verify.ts";

/** Of a volume that nobody has told anything: proofs get no older than some nights of reading take. */
const usual: Omit<CareRecord, "birthEpoch"> = {
	schedule: "nightly",
	hour: 1,
	intensity: "low",
	state: "idle",
	pass: undefined,
	lastPass: undefined,
	metadataProvenAt: 0,
	verifyStartedAt: 0,
	healPaused: false,
	tranquility: 0,
	healing: undefined,
	healSpeed: undefined,
	balancing: undefined,
	balanceSpeed: undefined,
};

export class Care {
	readonly #core: Core;
	readonly #changing = new Mutex();
	#now: CareRecord;

	constructor(core: Core) {
		this.#core = core;
		this.#now = { ...usual, birthEpoch: core.options.epoch };
	}

	/** Once, before anybody asks. */
	async load(): Promise<void> {
		this.#now = (await this.#core.view((tx) => tx.get(careRecord))) ?? this.#now;
	}

	get now(): CareRecord {
		return this.#now;
	}

	/** In metadata when it resolves; what `edit` gives depends on what it is given alone. */
	change(edit: (care: CareRecord) => CareRecord): Promise<CareRecord> {
		return this.#changing.run(async () => {
			const next = edit(this.#now);
			if (next !== this.#now) await this.#core.transact((tx) => tx.put(careRecord, next));
			this.#now = next;
			return next;
		});
	}
}

/** Reads all metadata, mends it if told to, and remembers when it was found right. A volume that takes no changes any more is looked at all the same. */
export async function proveMetadata({ core, care, verifyMetadata }: ScrubberModules, repair: boolean): Promise<MetadataCheck> {
	const startedAt = Math.max(1, core.proofs.now());
	const found = await verifyMetadata(repair);
	const isRight = found.repaired >= found.corrupt && found.unrecoverable + found.unchecked === 0;
	await care
		.change((now) => ({ ...now, metadataProvenAt: isRight ? startedAt : 0 }))
		.catch((error: unknown) => core.logger.warn("when metadata was proven could not be written down", { error: String(error) }));
	return found;
}

/** What a look at one segment came to. */
export interface Examined {
	readonly payloadBytes: number;
	/** Fragments that were read. */
	readonly fragments: number;
	readonly corrupt: number;
	readonly missing: number;
	/** Of these two, good afterwards, proven by reading them again. */
	readonly repaired: number;
	readonly lost: boolean;
}

/** `later`: the healer mends it when it may; `dry-run`: nobody is told of it. */
export type Repair = "now" | "later" | "dry-run";

/** Reads all of a segment, mends it if it is to be mended now, and reads it again then. Undefined: it is gone. */
export async function examine(core: Core, healer: Healer, id: number, how: Repair): Promise<Examined | undefined> {
	if (how !== "dry-run") return await look(core, healer, id, how === "now");
	// What reads find damaged is healed without anybody asking; what others have found before still is.
	const wasSuspected = core.store.isSuspected(id);
	try {
		return await look(core, healer, id, false);
	} finally {
		if (!wasSuspected) core.store.forgetDamaged(id);
	}
}

async function look(core: Core, healer: Healer, id: number, repair: boolean): Promise<Examined | undefined> {
	const health = await core.checkSegment(id);
	if (health === undefined) return undefined;
	const count = (state: "corrupt" | "missing"): number => health.fragments.filter((one) => one.state === state).length;
	const corrupt = count("corrupt");
	const missing = count("missing");
	const fragments = health.fragments.length - missing;
	let repaired = 0;
	if (repair && !health.lost && corrupt + missing > 0) {
		await healer.mend(health);
		const after = await core.checkSegment(id);
		const bad = (after?.fragments ?? []).filter((one) => one.state !== "ok").length;
		repaired = Math.max(0, corrupt + missing - bad);
	}
	if (!health.lost) return { payloadBytes: health.segment.payloadBytes, fragments, corrupt, missing, repaired, lost: false };
	// What it still gives is moved away: nothing of it is left then, or what is lost.
	if (repair && (await healer.salvage(health)) === 0) repaired = corrupt + missing;
	const lost = repaired === 0 && !(await givesAll(core, health.segment));
	return { payloadBytes: health.segment.payloadBytes, fragments, corrupt, missing, repaired, lost };
}

/** More of its fragments are damaged than it can miss, but not at the same places. */
async function givesAll(core: Core, segment: Segment): Promise<boolean> {
	const unpin = core.store.pin(segment.id);
	try {
		return await core.store.isOnDisk(segment, 0, segment.payloadBytes);
	} finally {
		unpin();
	}
}
