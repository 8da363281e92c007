/** Files that the kernel reads by itself, on a real mount: what the quick and the long suite share. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, openSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isFsError } from "../../src/base/errors.ts";
import type { RealNetwork } from "../../src/platform/real/network.ts";
import { asUser, NfsClient } from "../nfs/client.ts";
import { sleep, type TestVolume } from "../support/cairn.ts";

const program = fileURLToPath(new URL("native-worker.js", import.meta.url));

/** The contents of all these files: each word tells where it is. */
export const wordOf = (index: number): number => Math.imul(index + 1, 0x9e37_79b1) >>> 0;

export function contents(sizeBytes: number): Uint8Array {
	const words = new Uint32Array(sizeBytes / 4);
	for (let i = 0; i < words.length; i++) words[i] = wordOf(i);
	return new Uint8Array(words.buffer);
}

export interface NativeStatus {
	readonly unavailable: string | null;
	readonly stagedFiles: number;
	readonly handles: number;
	readonly heldFiles: number;
}

export async function nativeStatus(volume: TestVolume): Promise<NativeStatus> {
	const { nativeReads } = JSON.parse(await volume.cairn("status", volume.name, "--json")) as { nativeReads: NativeStatus };
	return nativeReads;
}

export async function until(what: string, volume: TestVolume, condition: () => Promise<boolean> | boolean): Promise<void> {
	const endMs = performance.now() + 60_000;
	while (!(await condition())) {
		assert.ok(performance.now() < endMs, `${what}: not within a minute\n${JSON.stringify(await nativeStatus(volume))}\n${volume.log()}`);
		await sleep(20);
	}
}

/** Opens the file often enough for it to be staged, and waits until it is. */
export async function stage(volume: TestVolume, path: string): Promise<void> {
	const { stagedFiles } = await nativeStatus(volume);
	for (let i = 0; i < 3; i++) closeSync(openSync(path, "r"));
	await until(`${path} is staged`, volume, async () => (await nativeStatus(volume)).stagedFiles > stagedFiles);
}

export interface Worker {
	/** It has read something. */
	readonly reading: Promise<void>;
	/** How often it has read. It stops when its stop file is there. */
	readonly ended: Promise<number>;
}

export function work(way: "reader" | "opener" | "mapper", path: string, stop: string): Worker {
	const child = spawn(process.execPath, [program, way, path, stop], { stdio: ["ignore", "pipe", "pipe"] });
	let [said, errors] = ["", ""];
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		errors += text;
	});
	let begun = (): void => {};
	const reading = new Promise<void>((resolve) => {
		begun = resolve;
	});
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		said += text;
		if (said.includes("reading\n")) begun();
	});
	const ended = new Promise<number>((resolve, reject) => {
		child.once("close", (code, signal) => {
			if (code === 0) resolve(Number(said.split("\n")[1]));
			else reject(new Error(`a ${way} ended with ${code ?? signal}:\n${errors}`));
		});
	});
	ended.catch(() => begun());
	return { reading, ended };
}

/** Reads a file through an export, again and again, over every change of daemons. */
export class NfsReader {
	count = 0;
	#stopped = false;
	readonly ended: Promise<void>;
	readonly #about: { readonly network: RealNetwork; readonly port: number; readonly path: string; readonly name: string };

	constructor(about: { readonly network: RealNetwork; readonly port: number; readonly path: string; readonly name: string }) {
		this.#about = about;
		this.ended = this.#run();
		this.ended.catch(() => {});
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		await this.ended;
	}

	async #run(): Promise<void> {
		while (!this.#stopped) {
			const client = await this.#connected();
			if (client === undefined) continue;
			try {
				const { handle } = await client.mount(this.#about.path);
				const file = await client.lookup(handle, this.#about.name);
				assert.equal(file.status, 0);
				for (let at = 0; !this.#stopped; at = (at + 11 * 4096) % (1 << 20)) await this.#readOne(client, file.handle, at);
			} catch (error) {
				// A daemon that was killed: anything else is a fault.
				if (!isFsError(error)) throw error;
			} finally {
				client.close();
			}
		}
	}

	async #readOne(client: NfsClient, file: Uint8Array, at: number): Promise<void> {
		const { data } = await client.read(file, at, 4096);
		const words = new Uint32Array(data.slice().buffer);
		for (let i = 0; i < words.length; i++) assert.equal(words[i], wordOf(at / 4 + i), `NFS: word at ${at + 4 * i}`);
		this.count++;
		await sleep(1);
	}

	async #connected(): Promise<NfsClient | undefined> {
		const { network, port } = this.#about;
		try {
			return await NfsClient.connect(network, port, asUser(0), Math.floor(performance.now() * 1000));
		} catch {
			await sleep(20);
			return undefined;
		}
	}
}

/** The first word of a file, by an open of its own. */
export function firstWord(path: string): number {
	const fd = openSync(path, "r");
	const word = new Uint32Array(1);
	readSync(fd, word, 0, 4, 0);
	closeSync(fd);
	return word[0] as number;
}

export function put(volume: TestVolume, name: string, sizeBytes: number): string {
	const path = join(volume.mountpoint, name);
	writeFileSync(path, contents(sizeBytes));
	return path;
}
