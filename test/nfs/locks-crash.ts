/**
 * Locks of clients through deaths at any moment: clients lock and unlock at random, the server is killed or loses power at any platform call, and what clients know is held against what the table says afterwards.
 *
 * A client knows a lock as held, as free, or (a call was not answered) as either. After a kill: what is known is so. After a power cut clients ask for what they know to be held: all of it is granted, and nothing that another one knows as held.
 */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import { SeededRandom } from "../support/map-records.ts";
import { LockClient, results } from "./lock-client.ts";
import { NfsWorld } from "./world.ts";

const slots = 6;
const names = ["a", "b"] as const;

type Known = "held" | "free" | "unsure";

/** What each client knows of each byte. */
class Knowledge {
	readonly #known = new Map<string, Known>();

	of(name: string, slot: number): Known {
		return this.#known.get(`${name} ${slot}`) ?? "free";
	}

	set(name: string, slot: number, known: Known): void {
		this.#known.set(`${name} ${slot}`, known);
	}

	all(known: Known): { readonly name: string; readonly slot: number }[] {
		return names.flatMap((name) =>
			Array.from({ length: slots }, (_, slot) => ({ name, slot })).filter(({ slot }) => this.of(name, slot) === known),
		);
	}
}

interface Run {
	readonly world: NfsWorld;
	readonly random: SeededRandom;
	readonly knowledge: Knowledge;
	file: Uint8Array;
	readonly about: string;
}

const other = (name: string): string => (name === "a" ? "b" : "a");

/** One call; while it is under way nothing is sure, and that stays so when nobody answers. */
async function step({ random, knowledge, file, about }: Run, clients: ReadonlyMap<string, LockClient>): Promise<void> {
	const name = names[random.below(2)] as string;
	const slot = random.below(slots);
	const client = clients.get(name) as LockClient;
	const asked = { file, offset: slot, length: 1 };
	const before = knowledge.of(name, slot);
	if (random.below(3) > 0) {
		if (before !== "held") knowledge.set(name, slot, "unsure");
		const status = await client.lock(asked);
		if (status === results.granted) {
			assert.notEqual(knowledge.of(other(name), slot), "held", `${about}: ${name} was granted byte ${slot}, which ${other(name)} holds`);
			knowledge.set(name, slot, "held");
		} else if (status === results.denied) {
			assert.notEqual(before, "held", `${about}: ${name} is denied byte ${slot}, which it holds`);
			knowledge.set(name, slot, before);
		} else assert.equal(status, results.noLocks, about);
	} else {
		knowledge.set(name, slot, "unsure");
		assert.equal(await client.unlock(asked), results.granted, about);
		knowledge.set(name, slot, "free");
	}
}

async function connected(world: NfsWorld): Promise<ReadonlyMap<string, LockClient>> {
	const clients = new Map<string, LockClient>();
	for (const name of names) clients.set(name, new LockClient(await world.connect(), name));
	return clients;
}

/** Steps until the end comes in the middle of one. */
async function untilDeath(run: Run, how: "cut" | "kill"): Promise<void> {
	const { world, random } = run;
	const died =
		how === "cut"
			? world.world.cutAt(world.world.steps + 1 + random.below(80))
			: world.world.killAt(world.world.steps + 1 + random.below(80));
	let dead = false;
	void died.then(() => {
		dead = true;
	});
	const working = (async () => {
		const clients = await connected(world);
		while (!dead) await step(run, clients);
	})().catch((error: unknown) => {
		// The server is gone in the middle of a call; everything else is a finding.
		if (!isFsError(error, "ENOTCONN")) throw error;
	});
	await Promise.race([died, working.then(() => died)]);
	await world.world.sleep(0);
}

async function afterKill({ knowledge, file, about }: Run, clients: ReadonlyMap<string, LockClient>): Promise<void> {
	for (const { name, slot } of knowledge.all("held")) {
		const { status } = await (clients.get(other(name)) as LockClient).test({ file, offset: slot, length: 1 });
		assert.equal(status, results.denied, `${about}: ${name} holds byte ${slot}`);
	}
	for (const { name, slot } of knowledge.all("free")) {
		if (knowledge.of(other(name), slot) !== "free") continue;
		const { status } = await (clients.get(name) as LockClient).test({ file, offset: slot, length: 1 });
		assert.equal(status, results.granted, `${about}: nobody holds byte ${slot}`);
	}
}

async function afterPowerCut({ world, knowledge, file, about }: Run, clients: ReadonlyMap<string, LockClient>): Promise<void> {
	const held = knowledge.all("held");
	const inGrace = world.volume.clientLocks.grace !== undefined;
	assert.ok(inGrace || held.length === 0, `${about}: clients hold something, and there is no grace`);
	for (const { name, slot } of held) {
		const status = await (clients.get(name) as LockClient).lock({ file, offset: slot, length: 1, reclaim: true });
		// The last moments may be lost: then the record may name the one who had it before, who is refused nothing either.
		if (status !== results.granted) knowledge.set(name, slot, "unsure");
		assert.ok(status === results.granted || status === results.denied, `${about}: ${status}`);
	}
	// What nobody is sure of, nobody asks for.
	for (const { name, slot } of knowledge.all("unsure")) knowledge.set(name, slot, "free");
	await world.world.sleep(100_000);
	assert.equal(world.volume.clientLocks.grace, undefined, `${about}: grace ends`);
}

/** @throws AssertionError with the seed. Answers how many reclaims of what was surely held were refused. */
export async function crashLocks(seed: number, deaths: number): Promise<{ readonly refused: number; readonly had: number }> {
	const world = new NfsWorld(seed);
	const random = new SeededRandom(seed);
	const count = { refused: 0, had: 0 };
	await world.world.run(async () => {
		await world.create();
		const nfs = await world.connect();
		const { handle: top } = await nfs.mount("/demo");
		const file = (await nfs.create(top, "f", "unchecked", { mode: 0o666 })).handle as Uint8Array;
		const run: Run = { world, random, knowledge: new Knowledge(), file, about: `seed ${seed}` };
		for (let death = 0; death < deaths; death++) {
			const how = random.below(3) === 0 ? "cut" : "kill";
			await untilDeath({ ...run, about: `seed ${seed}, death ${death} (${how})` }, how);
			world.world.forgetEnd();
			await world.open();
			const clients = await connected(world);
			const about = `seed ${seed}, after death ${death} (${how})`;
			if (how === "kill") await afterKill({ ...run, about }, clients);
			else {
				const before = run.knowledge.all("held").length;
				await afterPowerCut({ ...run, about }, clients);
				const after = run.knowledge.all("held").length;
				count.had += after;
				count.refused += before - after;
			}
		}
		await world.close();
	});
	return count;
}
