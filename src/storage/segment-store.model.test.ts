/** Random lives of a store under faults against a map of payloads. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { equalBytes } from "../base/bytes.ts";
import { Prng } from "../platform/sim/prng.ts";
import type { Segment } from "../records/interface.ts";
import { fragmentLength } from "./fragment.ts";
import { parseRedundancy } from "./redundancy.ts";
import { Lab, payloadOf } from "./store.test-support.ts";

const targets = ["rs:4+2", "rs:2+1", "replicate:3", "replicate:1"].map(parseRedundancy);

class Model {
	readonly lab: Lab;
	readonly random: Prng;
	readonly what: string;
	live = new Map<number, Segment>();
	nextId = 1;
	/** Disks that are down now: never more than one, and damage is only done while none is. */
	down: number | undefined;

	constructor(seed: number) {
		this.what = `seed ${seed}`;
		this.lab = new Lab({
			seed,
			disks: 7,
			capacityBytes: 24 * 1024 * 1024,
			store: { packBytes: 512 * 1024, cacheBytes: 256 * 1024 },
			coder: "drawn",
		});
		this.random = new Prng(seed, "model");
	}

	bytesOf(id: number): Uint8Array {
		return payloadOf(1 + ((id * 7919) % 150_000), id);
	}

	async write(): Promise<void> {
		const id = this.nextId++;
		const target = this.random.pick(targets);
		this.live.set(id, await this.lab.store.write(id, this.bytesOf(id), target, 1));
	}

	async read(): Promise<void> {
		const segment = this.random.pick([...this.live.values()]);
		// Data without any parity may rightly be out of reach.
		if (segment.parityShards === 0) return;
		const expected = this.bytesOf(segment.id);
		const from = this.random.below(expected.length);
		const length = this.random.below(expected.length - from + 1);
		const found = await this.lab.store.read(segment, from, length);
		assert.ok(equalBytes(found, expected.subarray(from, from + length)), `${this.what}: segment ${segment.id} [${from}, +${length})`);
	}

	async release(): Promise<void> {
		const segment = this.random.pick([...this.live.values()]);
		this.live.delete(segment.id);
		await this.lab.store.release(segment.fragments, segment);
	}

	/** Damages one fragment of a healthy segment and heals it, sometimes without committing the first try. */
	async damageAndHeal(): Promise<void> {
		const segment = this.random.pick([...this.live.values()]);
		if (this.down !== undefined || segment.parityShards === 0) return;
		const place = this.random.pick(segment.fragments);
		this.lab.damage(segment, place.index, this.random.below(fragmentLength(segment.shardBytes)));
		if (this.random.chance(0.3)) {
			const given = await this.lab.store.rebuild(await this.lab.store.check(segment));
			this.lab.store.abandonPlaces(segment.id, given?.written ?? []);
		}
		await this.heal(await this.lab.store.check(segment));
	}

	async heal(health: Awaited<ReturnType<Lab["store"]["check"]>>): Promise<void> {
		const rebuilt = await this.lab.store.rebuild(health);
		if (!rebuilt) return;
		this.live.set(rebuilt.segment.id, rebuilt.segment);
		await this.lab.store.release(rebuilt.retired, rebuilt.segment);
	}

	async toggleDisk(): Promise<void> {
		if (this.down === undefined) {
			this.down = 1 + this.random.below(7);
			this.lab.world.fail(`/d${this.down}`, [this.random.pick(["write", "sync", "syncNames"] as const)], "EIO", 1);
			return;
		}
		const id = this.down;
		this.lab.world.heal(`/d${id}`);
		if (!this.lab.disks.readable(id)) await this.lab.disks.comeBack(id);
		for (const segment of [...this.live.values()]) {
			if (segment.parityShards > 0) await this.heal(this.lab.store.assess(segment));
		}
		this.down = undefined;
	}

	async reboot(): Promise<void> {
		if (this.random.chance(0.5)) this.lab.node.kill();
		else this.lab.node.powerCut();
		if (this.down !== undefined) this.lab.world.heal(`/d${this.down}`);
		this.down = undefined;
		const store = await this.lab.boot([...this.live.values()]);
		assert.deepEqual(store.conflicts, [], this.what);
	}

	async step(): Promise<void> {
		const choice = this.random.below(100);
		if (this.live.size < 5 || (choice < 30 && this.live.size < 60))
			await Promise.all(Array.from({ length: 1 + (choice % 3) }, () => this.write()));
		else if (choice < 65) await Promise.all([this.read(), this.read(), this.read()]);
		else if (choice < 80) await this.release();
		else if (choice < 90) await this.damageAndHeal();
		else if (choice < 96) await this.toggleDisk();
		else await this.reboot();
	}

	async checkSpace(): Promise<void> {
		await this.lab.world.sleep(1000);
		const used = this.lab.store.space().disks.reduce((sum, disk) => sum + disk.usedBytes, 0);
		const named = [...this.live.values()].reduce((sum, segment) => sum + segment.fragments.length * fragmentLength(segment.shardBytes), 0);
		assert.equal(used, named, `${this.what}: bytes taken and bytes that records name`);
	}
}

describe("segment store: random lives", () => {
	for (let seed = 1; seed <= 5; seed++) {
		it(`reads what was written, through faults and restarts (seed ${seed})`, async () => {
			const model = new Model(seed);
			await model.lab.run(async () => {
				await model.lab.boot();
				for (let step = 0; step < 120; step++) {
					await model.step();
					if (step % 20 === 0) await model.checkSpace();
				}
				await model.reboot();
				for (const segment of model.live.values()) {
					const expected = model.bytesOf(segment.id);
					assert.ok(equalBytes(await model.lab.store.read(segment, 0, expected.length), expected), `${model.what}: segment ${segment.id}`);
				}
				await model.checkSpace();
			});
		});
	}
});
