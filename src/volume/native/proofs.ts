/**
 * What was proven of segments by reading them: for each fragment when it was last read whole from its disk and found right.
 *
 * Invariants
 *  P1 A proof is entered only for a fragment that a check read whole under the record that metadata held while it was read, and it is tied to that very place: a fragment that was made anew
 *     or moved is written, not proven.
 *  P2 A check that finds a fragment damaged or gone takes its proof away.
 *  P3 A proof may be lost (a power cut, no space for metadata), never made up: what is missing here is told as not proven.
 *  P4 What waits to be written is bounded; beyond the bound the oldest is forgotten (P3).
 */
import { Mutex } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import type { FragmentPlace, FragmentProof, ProofGroup, RecordTransaction, Segment, SegmentProof } from "../../records/interface.ts";
import { keyNumber, placeMark, proofRecord, segmentRecord } from "../../records/kinds.ts";
import { segmentsPerProofGroup } from "../../records/limits.ts";
import type { SegmentHealth } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";

/** By index; undefined: it is not proven any more. */
type News = ReadonlyMap<number, FragmentProof | undefined>;

export class ProofBook {
	readonly #core: Core;
	/** What checks have found and no record holds yet, by segment, oldest first. */
	readonly #news = new Map<number, News>();
	readonly #writing = new Mutex();
	#cancelFlush: (() => void) | undefined;
	#stopped = false;

	constructor(core: Core) {
		this.#core = core;
	}

	/** Seconds since 1970: when a check begins. */
	now(): number {
		return Math.max(0, this.#core.platform.clock.realtime().seconds);
	}

	/** What a check that began at `at` has found. */
	enter({ segment, fragments }: SegmentHealth, at: number): void {
		const news = new Map<number, FragmentProof | undefined>();
		for (const { index, state } of fragments) {
			const place = segment.fragments.find((one) => one.index === index);
			news.set(index, state === "ok" && place !== undefined ? { index, mark: placeMark(place), provenAt: at } : undefined);
		}
		this.#news.delete(segment.id);
		this.#news.set(segment.id, news);
		if (this.#news.size > limits.proofsWaiting) this.#news.delete(this.#news.keys().next().value as number);
		if (this.#news.size >= limits.proofsAtOnce) this.#flushSoon(0);
		else this.#flushSoon(limits.proofFlushMs);
	}

	#flushSoon(ms: number): void {
		if (this.#stopped || (this.#cancelFlush !== undefined && ms > 0)) return;
		this.#cancelFlush?.();
		this.#cancelFlush = this.#core.platform.clock.after(ms, () => {
			this.#cancelFlush = undefined;
			this.flush().catch((error: unknown) => {
				this.#core.logger.warn("proofs could not be written down yet", { error: toFsError(error, "volume.proofs").message });
				if (this.#news.size > 0) this.#flushSoon(limits.proofRetryMs);
			});
		});
	}

	/** Everything that was entered is in metadata when this resolves. */
	flush(): Promise<void> {
		return this.#writing.run(async () => {
			while (this.#news.size > 0) {
				const [first] = this.#news.keys();
				await this.#writeGroup(groupOf(first as number));
			}
		});
	}

	/** `flush`, for those whose work does not hang on it (P3). After a look at everything also forgets what is about segments that are gone. */
	async settle(options: { readonly sweep: boolean }): Promise<void> {
		this.#core.protectionChanged();
		try {
			await this.flush();
			if (options.sweep) await this.#sweep();
		} catch (error) {
			this.#core.logger.warn("what was proven last could not be written down", { error: toFsError(error, "volume.proofs").message });
		}
	}

	async #writeGroup(group: number): Promise<void> {
		const news = new Map([...this.#news].filter(([segment]) => groupOf(segment) === group));
		const living = new Set((await this.#core.view((tx) => segmentsOf(tx, group))).map((segment) => segment.id));
		await this.#core.transact((tx, context) => {
			const before = tx.get(proofRecord, group);
			const segments = merged(before, news, living);
			if (segments.length > 0) tx.put(proofRecord, { group, segments, birthEpoch: before?.birthEpoch ?? context.epoch }, group);
			else if (before !== undefined) tx.delete(proofRecord, group);
		});
		// What was found meanwhile waits for its own turn.
		for (const [segment, one] of news) if (this.#news.get(segment) === one) this.#news.delete(segment);
	}

	/** When each fragment of the segment was proven as it lies now, seconds since 1970, by index. */
	async of(segment: Segment): Promise<ReadonlyMap<number, number>> {
		return this.#match(segment, await this.#core.view((tx) => tx.get(proofRecord, groupOf(segment.id))));
	}

	/** Looks up proofs of segments that come in the order of their numbers: one read for each group of them. */
	reader(): (segment: Segment) => Promise<ReadonlyMap<number, number>> {
		let group = -1;
		let record: ProofGroup | undefined;
		return async (segment) => {
			const wanted = groupOf(segment.id);
			if (wanted !== group) record = await this.#core.view((tx) => tx.get(proofRecord, wanted));
			group = wanted;
			return this.#match(segment, record);
		};
	}

	#match(segment: Segment, record: ProofGroup | undefined): ReadonlyMap<number, number> {
		const written = record?.segments.find((one) => one.segment === segment.id);
		const known = new Map((written?.fragments ?? []).map((proof) => [proof.index, proof]));
		for (const [index, proof] of this.#news.get(segment.id) ?? []) {
			if (proof === undefined) known.delete(index);
			else known.set(index, proof);
		}
		const proven = new Map<number, number>();
		for (const place of segment.fragments) {
			const proof = known.get(place.index);
			if (proof !== undefined && isOf(proof, place)) proven.set(place.index, proof.provenAt);
		}
		return proven;
	}

	/** Forgets groups of which no segment lives. */
	async #sweep(): Promise<void> {
		for (let after: string | undefined; ; ) {
			const from: string | undefined = after;
			const batch = await this.#core.view((tx) =>
				tx
					.scan(proofRecord, proofRecord.prefix(), { limit: limits.proofSweep, ...(from === undefined ? {} : { after: from }) })
					.map(({ key }) => ({ key, dead: segmentsOf(tx, keyNumber(key)).length === 0 })),
			);
			const dead = batch.filter((one) => one.dead).map(({ key }) => keyNumber(key));
			if (dead.length > 0)
				await this.#core.transact((tx) => {
					for (const group of dead) tx.delete(proofRecord, group);
				});
			if (batch.length < limits.proofSweep) return;
			after = batch[batch.length - 1]?.key;
			await this.#core.platform.clock.yield();
		}
	}

	/** Nothing is written by itself any more; `flush` still writes. */
	stop(): void {
		this.#stopped = true;
		this.#cancelFlush?.();
		this.#cancelFlush = undefined;
	}
}

function groupOf(segment: number): number {
	return Math.floor(segment / segmentsPerProofGroup);
}

function isOf(proof: FragmentProof, place: FragmentPlace): boolean {
	return proof.mark === placeMark(place);
}

function segmentsOf(tx: RecordTransaction, group: number): Segment[] {
	const first = group * segmentsPerProofGroup;
	const options = { limit: segmentsPerProofGroup, ...(first === 0 ? {} : { after: segmentRecord.key(first - 1) }) };
	const found = tx.scan(segmentRecord, segmentRecord.prefix(), options);
	return found.map(({ value }) => value).filter((segment) => groupOf(segment.id) === group);
}

/** The record's proofs with the news put in, of living segments alone. */
function merged(before: ProofGroup | undefined, news: ReadonlyMap<number, News>, living: ReadonlySet<number>): SegmentProof[] {
	const known = new Map(
		(before?.segments ?? []).map(({ segment, fragments }) => [segment, new Map(fragments.map((one) => [one.index, one]))]),
	);
	for (const [segment, changes] of news) {
		const fragments = known.get(segment) ?? new Map<number, FragmentProof>();
		known.set(segment, fragments);
		for (const [index, proof] of changes) {
			if (proof === undefined) fragments.delete(index);
			else fragments.set(index, proof);
		}
	}
	const proofs: SegmentProof[] = [];
	for (const [segment, fragments] of known) {
		if (fragments.size > 0 && living.has(segment))
			proofs.push({ segment, fragments: [...fragments.values()].sort((a, b) => a.index - b.index) });
	}
	return proofs.sort((a, b) => a.segment - b.segment);
}
