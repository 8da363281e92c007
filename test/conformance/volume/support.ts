/** What the parts of the volume's conformance suite share. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ErrorCode, isFsError } from "../../../src/base/errors.ts";
import type { Attributes, Caller, Disposition, HandleId, NodeRef, OpenIntent, Opened, Volume } from "../../../src/volume/interface.ts";

export interface VolumeHarness {
	/** As of the last opening. */
	readonly volume: Volume;
	/** Runs the body of a test; where time must be driven (simulation), here it is. */
	run<T>(body: () => Promise<T>): Promise<T>;
	/** Clean end and new opening. Like the next three, to be called within `run`. */
	reopen(): Promise<Volume>;
	/** The process is killed and the volume opened again: calls that were under way never settle. */
	crash(): Promise<Volume>;
	/** The machine loses its power; the volume is opened again. */
	powerCut(): Promise<Volume>;
	/** Lets time go by. */
	sleep(ms: number): Promise<void>;
	close(): Promise<void>;
}

/** A new, empty volume whose root belongs to uid 0; `seed` for the choices of the world around it. */
export type MakeVolumeHarness = (seed: number) => Promise<VolumeHarness>;

export interface VolumeSuiteOptions {
	/** Entries of the large directory (default 4,000: each verb is the same for any number). */
	readonly largeDirectory?: number;
	/** Seeds of the random histories. */
	readonly seeds?: readonly number[];
	/** Steps of each. */
	readonly historySteps?: number;
}

const caller: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "conformance",
	share: undefined,
	trusted: true,
};

/** Root through a door that checks permissions itself. */
export const root = caller;

/** A user whose permissions the volume checks. */
export function user(uid: number, gid = uid, groups: readonly number[] = []): Caller {
	return { ...caller, uid, gid, groups, trusted: false };
}

export async function rejects(code: ErrorCode, work: Promise<unknown>, what = ""): Promise<void> {
	let settled: unknown;
	try {
		settled = await work;
	} catch (error) {
		assert.ok(isFsError(error), `${what}: ${code} expected, not ${String(error)}`);
		assert.equal(error.code, code, `${what}: ${error.message} (${error.site})`);
		return;
	}
	assert.fail(`${what}: ${code} expected, it succeeded with ${JSON.stringify(settled)}`);
}

/** Shows where bytes differ without printing megabytes. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
	assert.equal(actual.length, expected.length, `${what}: length`);
	if (Buffer.compare(actual, expected) === 0) return;
	for (let i = 0; i < actual.length; i++) {
		if (actual[i] === expected[i]) continue;
		const around = (bytes: Uint8Array): string => [...bytes.subarray(i, i + 8)].join(" ");
		assert.fail(`${what}: differs at ${i}: ${around(actual)}, expected ${around(expected)}`);
	}
}

/** Bytes that tell where they are from. */
export function pattern(length: number, tag: number): Uint8Array {
	const words = new Uint32Array(Math.ceil(length / 4));
	let state = Math.imul(tag + 1, 2_654_435_761) | 1;
	for (let i = 0; i < words.length; i++) {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
		// The low bits of such a generator hardly change.
		words[i] = state ^ (state >>> 16);
	}
	return new Uint8Array(words.buffer, 0, length);
}

export const text = (content: string): Uint8Array => new TextEncoder().encode(content);

export const readWrite = { read: true, write: true } as const;

/** One test's view: a directory of its own and the usual steps. */
export class Case {
	readonly harness: VolumeHarness;
	/** Where the test works. */
	readonly dir: NodeRef;

	constructor(harness: VolumeHarness, dir: NodeRef) {
		this.harness = harness;
		this.dir = dir;
	}

	get volume(): Volume {
		return this.harness.volume;
	}

	node(attributes: { readonly ino: number }): NodeRef {
		return this.volume.node(attributes.ino);
	}

	async mkdir(name: string, parent = this.dir, mode = 0o755): Promise<NodeRef> {
		return this.node((await this.volume.makeDirectory(root, parent, name, mode)).attributes);
	}

	/** An empty regular file. */
	async file(name: string, parent = this.dir, mode = 0o644): Promise<NodeRef> {
		return this.node((await this.volume.makeNode(root, parent, name, "file", mode, 0)).attributes);
	}

	open(name: string, disposition: Disposition = "open", more: Partial<OpenIntent> = {}, parent = this.dir): Promise<Opened> {
		return this.volume.open(root, { parent, name }, { disposition, access: readWrite, attributes: { mode: 0o644 }, ...more });
	}

	async openNode(node: NodeRef, more: Partial<OpenIntent> = {}): Promise<HandleId> {
		return (await this.volume.open(root, { node }, { disposition: "open", access: readWrite, ...more })).handle;
	}

	/** Writes all of it, in as many calls as it takes. */
	async writeAll(handle: HandleId, offset: number, bytes: Uint8Array): Promise<void> {
		for (let at = 0; at < bytes.length; ) {
			const { written } = await this.volume.write(handle, offset + at, bytes.subarray(at, at + 1024 * 1024));
			assert.ok(written > 0, "a write makes progress");
			at += written;
		}
	}

	/** Makes or replaces the contents of a file, acknowledged. */
	async put(name: string, bytes: Uint8Array, parent = this.dir): Promise<NodeRef> {
		const { handle, attributes } = await this.open(name, "overwrite-or-create", {}, parent);
		try {
			await this.writeAll(handle, 0, bytes);
		} finally {
			await this.volume.close(handle);
		}
		return this.node(attributes);
	}

	/** The same, durable. */
	async putDurable(name: string, bytes: Uint8Array, parent = this.dir): Promise<NodeRef> {
		const { handle, attributes } = await this.open(name, "overwrite-or-create", {}, parent);
		try {
			await this.writeAll(handle, 0, bytes);
			await this.volume.fsync(handle, false);
		} finally {
			await this.volume.close(handle);
		}
		return this.node(attributes);
	}

	async readHandle(handle: HandleId, offset: number, length: number): Promise<Uint8Array> {
		const parts: Uint8Array[] = [];
		for (let at = 0; at < length; ) {
			const part = await this.volume.read(handle, offset + at, Math.min(1024 * 1024, length - at));
			if (part.length === 0) break;
			parts.push(part.slice());
			at += part.length;
		}
		return new Uint8Array(Buffer.concat(parts));
	}

	/** All of a file by its name. */
	async get(name: string, parent = this.dir): Promise<Uint8Array> {
		const { handle, attributes } = await this.open(name, "open", { access: { read: true, write: false } }, parent);
		const bytes = await this.readHandle(handle, 0, attributes.size + 1);
		await this.volume.close(handle);
		return bytes;
	}

	attributes(node: NodeRef): Promise<Attributes> {
		return this.volume.getAttributes(root, node);
	}

	lookup(name: string, parent = this.dir): Promise<Attributes> {
		return this.volume.lookup(root, parent, name);
	}

	/** Names in the directory without "." and "..", in its order. */
	async names(node = this.dir, batch = 1000): Promise<string[]> {
		const names: string[] = [];
		for (let after = 0; ; ) {
			const items = await this.volume.readDirectory(root, node, after, batch, false);
			const last = items.at(-1);
			if (last === undefined) return names;
			after = last.cookie;
			for (const { name } of items) if (name !== "." && name !== "..") names.push(name);
		}
	}

	/** Waits until an inode is gone: nothing promises at which moment it goes. */
	async gone(node: NodeRef): Promise<void> {
		for (let waits = 0; ; waits++) {
			try {
				await this.attributes(node);
			} catch (error) {
				if (isFsError(error, "ESTALE")) return;
				throw error;
			}
			assert.ok(waits < 200, `inode ${node.ino} is still there`);
			await this.harness.sleep(50);
		}
	}
}

export type Check = (title: string, body: (c: Case) => Promise<void>) => void;

/** Tests that share a volume: opened once, each test in a new directory. */
export function shared(name: string, makeHarness: MakeVolumeHarness, tests: (check: Check) => void): void {
	describe(name, () => {
		let harness: VolumeHarness | undefined;
		let count = 0;
		before(async () => {
			harness = await makeHarness(1);
		});
		after(async () => {
			await harness?.close();
		});
		tests((title, body) => {
			test(title, async () => {
				assert.ok(harness, "the volume could not be opened");
				await runCase(harness, `t${count++}`, body);
			});
		});
	});
}

/** Tests that each have a volume to themselves. */
export function alone(name: string, makeHarness: MakeVolumeHarness, tests: (check: Check) => void, seed = 1): void {
	describe(name, () => {
		tests((title, body) => {
			test(title, async () => {
				const harness = await makeHarness(seed);
				try {
					await runCase(harness, "t", body);
				} finally {
					await harness.close();
				}
			});
		});
	});
}

async function runCase(harness: VolumeHarness, directory: string, body: (c: Case) => Promise<void>): Promise<void> {
	await harness.run(async () => {
		const { volume } = harness;
		const made = await volume.makeDirectory(root, volume.root, directory, 0o755);
		await body(new Case(harness, volume.node(made.attributes.ino)));
	});
}
