/**
 * Random changes of names and attributes with kills and power cuts. Changes are made one after the other, so what is there after a power cut is the state
 * after one of them, whole: not before the last that was made durable, none left out in between.
 */
import assert from "node:assert/strict";
import type { NodeRef } from "../../../src/volume/interface.ts";
import { isFsError } from "../../../src/base/errors.ts";
import { SeededRandom } from "../../support/map-records.ts";
import { alone, type Case, type MakeVolumeHarness, root, text, type VolumeSuiteOptions } from "./support.ts";

export function nameHistoryTests(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions): void {
	for (const seed of options.seeds ?? [1]) {
		alone(
			`${name}: history of names`,
			makeHarness,
			(check) =>
				check(`a power cut leaves the state after one change, seed ${seed}`, (c) =>
					new NameHistory(c, seed, options.historySteps ?? 150).run(),
				),
			seed,
		);
	}
}

class NameHistory {
	readonly #c: Case;
	readonly #seed: number;
	readonly #steps: number;
	readonly #random: SeededRandom;
	/** What was seen after each change since the last that is known to be durable. */
	#states: string[] = [];
	#position = 0;
	#step = 0;

	constructor(c: Case, seed: number, steps: number) {
		this.#c = c;
		this.#seed = seed;
		this.#steps = steps;
		this.#random = new SeededRandom(seed + 2000);
	}

	async run(): Promise<void> {
		try {
			await this.#c.volume.syncAll();
			this.#states = [await this.#portrait()];
			for (; this.#step < this.#steps; this.#step++) await this.#next();
		} catch (error) {
			throw new Error(`seed ${this.#seed}, step ${this.#step}: ${error instanceof Error ? error.message : String(error)}`, {
				cause: error,
			});
		}
	}

	async #next(): Promise<void> {
		const random = this.#random;
		const choice = random.below(100);
		if (choice < 80) await this.#change();
		else if (choice < 88) await this.#durable();
		else if (choice < 91) await this.#c.harness.sleep(random.below(40));
		else if (choice < 94) await this.#crash();
		else await this.#powerCut();
	}

	async #durable(): Promise<void> {
		if (this.#random.chance(0.5)) await this.#c.volume.durable(this.#position);
		else await this.#c.volume.syncAll();
		this.#states = this.#states.slice(-1);
	}

	async #crash(): Promise<void> {
		await this.#c.harness.crash();
		assert.equal(await this.#portrait(), this.#states.at(-1), "after a kill");
	}

	async #powerCut(): Promise<void> {
		await this.#c.harness.powerCut();
		// Positions of what the cut took are given out again.
		this.#position = 0;
		const now = await this.#portrait();
		assert.ok(
			this.#states.includes(now),
			`after a power cut it is no state of the ${this.#states.length} since the last durable one:\n${now}`,
		);
		this.#states = [now];
	}

	async #change(): Promise<void> {
		const random = this.#random;
		const directories = [this.#c.dir, ...(await this.#directories())];
		const [from, to] = [random.pick(directories), random.pick(directories)];
		const [name, newName] = [random.pick(["a", "b", "c", "d"]), random.pick(["a", "b", "c", "d"])];
		try {
			const { position } = await this.#apply(random.below(8), from, name, to, newName);
			this.#position = position;
		} catch (error) {
			// What POSIX refuses is refused here by the dozen; the namespace's own tests say whether rightly.
			const ordinary = ["EEXIST", "ENOENT", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "EPERM", "ENODATA"] as const;
			if (!ordinary.some((code) => isFsError(error, code))) throw error;
		}
		const now = await this.#portrait();
		if (now !== this.#states.at(-1)) this.#states.push(now);
	}

	async #apply(kind: number, from: NodeRef, name: string, to: NodeRef, newName: string): Promise<{ readonly position: number }> {
		const { volume } = this.#c;
		if (kind === 0) return volume.makeDirectory(root, from, name, 0o755);
		if (kind === 1) return volume.makeNode(root, from, name, "file", 0o644, 0);
		if (kind === 2) return volume.unlink(root, from, name);
		if (kind === 3) return volume.removeDirectory(root, from, name);
		if (kind === 4) return volume.rename(root, from, name, to, newName, this.#random.pick([0, 0, 1, 2]));
		const node = this.#c.node(await this.#c.lookup(name, from));
		if (kind === 5) return volume.link(root, node, to, newName);
		if (kind === 6) return volume.setAttributes(root, node, { mode: 0o600 + this.#random.below(0o100) });
		return volume.setXattr(root, node, "user.a", text(String(this.#step)), "any");
	}

	async #directories(node = this.#c.dir, depth = 0): Promise<NodeRef[]> {
		if (depth > 3) return [];
		const items = await this.#c.volume.readDirectory(root, node, 2, 100, false);
		const found: NodeRef[] = [];
		for (const { type, ino } of items) {
			if (type !== "directory") continue;
			found.push(this.#c.volume.node(ino), ...(await this.#directories(this.#c.volume.node(ino), depth + 1)));
		}
		return found;
	}

	async #portrait(node = this.#c.dir, path = ""): Promise<string> {
		const lines: string[] = [];
		for (const { name, ino } of await this.#c.volume.readDirectory(root, node, 2, 100, false)) {
			const child = this.#c.volume.node(ino);
			const { type, mode, nlink, ctime } = await this.#c.attributes(child);
			const xattrs: string[] = [];
			for (const xattr of await this.#c.volume.listXattrs(root, child)) {
				xattrs.push(`${xattr}=${new TextDecoder().decode(await this.#c.volume.getXattr(root, child, xattr))}`);
			}
			lines.push(`${path}/${name} ${ino} ${type} ${mode} ${nlink} ${ctime.seconds}.${ctime.nanoseconds} ${xattrs.join()}`);
			if (type === "directory") lines.push(await this.#portrait(child, `${path}/${name}`));
		}
		return lines.sort().join("\n");
	}
}
