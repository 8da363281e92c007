/**
 * A coder in virtual time: one work after the other, each finished in one moment of its time. It holds its users to the contract: who changes a source meanwhile is found out, and targets hold garbage until the end.
 */
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { ShardWork } from "../../codec/interface.ts";
import { doShardWork } from "../../codec/shard-work.ts";
import type { Coder } from "../interface.ts";
import { simLimits } from "./limits.ts";
import type { SimNodeOptions } from "./node.ts";
import type { Prng } from "./prng.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

export interface SimCoderModules {
	readonly scheduler: Scheduler;
	readonly owner: Owner;
}

export class SimCoder implements Coder {
	readonly #random: Prng;
	readonly #scheduler: Scheduler;
	readonly #owner: Owner;
	/** One of them is its last. */
	#worksLeft: number;
	#readyMs: number | undefined;
	/** When it is through with what it was given. */
	#freeMs = 0;
	#open = 0;

	private constructor(random: Prng, worksLeft: number, { scheduler, owner }: SimCoderModules) {
		this.#random = random;
		this.#worksLeft = worksLeft;
		this.#scheduler = scheduler;
		this.#owner = owner;
	}

	/** Undefined: a process without one. */
	static make(kind: SimNodeOptions["coder"], random: Prng, modules: SimCoderModules): SimCoder | undefined {
		const drawn = kind ?? draw(random);
		if (drawn === "none") return undefined;
		return new SimCoder(random, drawn === "well" ? Number.POSITIVE_INFINITY : drawn, modules);
	}

	begin(work: ShardWork): Promise<Uint32Array> | undefined {
		for (const shard of [...work.sources, ...work.targets])
			assert(shard.buffer instanceof SharedArrayBuffer, "a shard that the coder is given lies in shared memory");
		const { nowMs } = this.#scheduler;
		this.#readyMs ??= nowMs + simLimits.coderStartMs;
		if (nowMs < this.#readyMs || this.#worksLeft === 0 || this.#open >= simLimits.coderWorks) return undefined;
		const [leastMs, mostMs] = simLimits.coderMs;
		this.#freeMs = Math.max(nowMs, this.#freeMs) + leastMs + (mostMs - leastMs) * (this.#random.below(1000) / 1000);
		for (const target of work.targets) target.fill(this.#random.below(256));
		const before = fingerprint(work);
		this.#open++;
		return new Promise((resolve, reject) => {
			this.#scheduler.at(this.#freeMs - nowMs, this.#owner, () => {
				this.#open--;
				assert(fingerprint(work) === before, "shards that a coder has in hand are left alone");
				this.#worksLeft = Math.max(0, this.#worksLeft - 1);
				if (this.#worksLeft > 0) resolve(doShardWork(work));
				else
					reject(
						new FsError("EIO", "platform.coder-lost", "the thread for erasure coding is lost, from now on the main thread does its work"),
					);
			});
		});
	}
}

function draw(random: Prng): "none" | "well" | number {
	if (random.chance(simLimits.noCoderChance)) return "none";
	return random.chance(simLimits.dyingCoderChance) ? 1 + random.below(simLimits.coderLifeWorks) : "well";
}

function fingerprint({ sources, targets }: ShardWork): number {
	let sum = 0;
	for (const shard of [...sources, ...targets]) sum = crc32c(shard, sum);
	return sum;
}
