/**
 * A random life of a volume: appends, waits, checkpoints, disks that go and come, kills and power cuts, against a list of what was
 * acknowledged.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { append, checkpoint, createVolume, machine, mount, type Mounted, type TestMachine } from "./test-world.ts";

const tolerance = 2;

/** One seed. Disks that were lost and not yet healed never exceed the tolerance. */
class Life {
	readonly at: TestMachine;
	readonly seed: number;
	mounted!: Mounted;
	durable = 0;
	readonly lost = new Set<string>();
	readonly done: string[] = [];

	constructor(seed: number) {
		this.seed = seed;
		this.at = machine(seed, 7);
	}

	say(what: string): void {
		this.done.push(what);
	}

	get where(): string {
		return `seed ${this.seed}: ${this.done.slice(-12).join(", ")}`;
	}

	async live(steps: number): Promise<void> {
		const { world, node } = this.at;
		await createVolume(this.at, { tolerance });
		this.mounted = await world.run(mount(this.at));
		for (let step = 0; step < steps; step++) {
			const dice = world.random.below(100);
			if (dice < 50) await this.work();
			else if (dice < 62) await world.run(checkpoint(this.mounted));
			else if (dice < 72) this.loseOne();
			else if (dice < 78) this.returnOne();
			else if (dice < 89) await this.again(() => node.kill(), this.mounted.history.length);
			else await this.again(() => node.powerCut(), this.durable);
		}
		await this.again(() => node.powerCut(), this.durable);
	}

	async work(): Promise<void> {
		const { world } = this.at;
		const count = 1 + world.random.below(6);
		this.say(`append ${count}`);
		await world.run(async () => {
			for (let i = 0; i < count; i++) await append(this.mounted, `${this.mounted.history.length}:${"p".repeat(world.random.below(4000))}`);
			if (!world.random.chance(0.7)) return;
			const upTo = this.mounted.log.lastSequence;
			await this.mounted.log.durable(upTo);
			this.durable = upTo;
			this.say(`durable ${upTo}`);
		});
		assert.equal(this.mounted.log.broken, undefined, this.where);
	}

	loseOne(): void {
		const { world, paths } = this.at;
		if (this.lost.size >= tolerance) return;
		const path = world.random.pick(paths.filter((one) => !this.lost.has(one)));
		const how = world.random.below(4);
		this.lost.add(path);
		this.say(`lose ${path} by ${how}`);
		if (how === 0) world.vanish(path);
		else if (how === 1) world.hang(path);
		else if (how === 2) world.fail(path, ["write", "sync"]);
		else world.vanish(path, { unlinked: true });
	}

	/** It comes back as it was, for the next mount to find. */
	returnOne(): void {
		const { world } = this.at;
		const [path] = this.lost;
		if (path === undefined) return;
		this.say(`return ${path}`);
		this.lost.delete(path);
		world.heal(path);
		world.unhang(path);
		if (!world.disk(path).present) world.reappear(path);
	}

	async again(end: () => void, least: number): Promise<void> {
		const { world } = this.at;
		const before = this.mounted.history;
		end();
		this.say("end");
		this.mounted = await world.run(mount(this.at));
		const after = this.mounted.history;
		assert.ok(
			after.length >= least && after.length <= before.length,
			`${this.where}: ${after.length} recovered, at least ${least} of ${before.length} expected`,
		);
		assert.deepEqual(after, before.slice(0, after.length), this.where);
		this.durable = after.length;
	}
}

test("random lives lose nothing that was acknowledged", async () => {
	for (let seed = 1; seed <= 10; seed++) {
		const life = new Life(seed);
		try {
			await life.live(40);
		} catch (error) {
			throw new Error(life.where, { cause: error });
		}
	}
});
