/**
 * The fsx suite on a real mount: processes with random operations on their own files (fsx-worker.ts), in rounds; between rounds the volume is
 * remounted, its daemon killed, or the kernel's caches dropped.
 */
import assert from "node:assert/strict";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execute, sleep, TestVolume } from "../support/cairn.ts";
import { SeededRandom } from "../support/map-records.ts";

const worker = fileURLToPath(new URL("./fsx-worker.js", import.meta.url));

export interface FsxOptions {
	readonly seed: number;
	readonly processes: number;
	readonly rounds: number;
	readonly roundMs: number;
	/** The mount reads natively (`-o native_reads=on`): files become immutable, are read, and become mutable again. Fails if none was read natively. */
	readonly native?: boolean;
}

/** Answers how many operations there were. */
export async function fsx(options: FsxOptions, log: (line: string) => void): Promise<number> {
	const { seed, processes, rounds, roundMs } = options;
	log(`seed ${seed}: ${processes} processes, ${rounds} rounds of ${roundMs} ms`);
	const random = new SeededRandom(seed);
	const copies = mkdtempSync(join(tmpdir(), "cairn-fsx-"));
	const volume = await TestVolume.start({ disks: 4, redundancy: "rs:2+1" });
	const native = options.native === true ? new NativeWatch(volume) : undefined;
	let operations = 0;
	try {
		for (let i = 0; i < processes; i++) for (const base of [volume.mountpoint, copies]) mkdirSync(join(base, `p${i}`));
		for (let round = 0; round <= rounds; round++) {
			// The last round only compares.
			operations += await runRound(volume, copies, options, round, round === rounds ? 0 : roundMs);
			if (round < rounds) await between(volume, random, log);
			if (round < rounds && native !== undefined) await readOnly(volume, copies, processes, native);
		}
		await native?.end(log);
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], "verify finds nothing");
		return operations;
	} finally {
		await native?.stop();
		await volume.close();
		rmSync(copies, { recursive: true, force: true });
	}
}

async function runRound(volume: TestVolume, copies: string, options: FsxOptions, round: number, ms: number): Promise<number> {
	const runs = Array.from({ length: options.processes }, async (_, i) => {
		const words = [
			worker,
			join(volume.mountpoint, `p${i}`),
			join(copies, `p${i}`),
			String(options.seed * 1000 + round * 50 + i),
			String(ms),
			options.native === true ? "frozen" : "",
		];
		const { code, signal, stdout, stderr } = await execute(process.execPath, words, { timeoutMs: ms + 120_000 });
		assert.equal(code, 0, `seed ${options.seed}, round ${round}, process ${i} (${code ?? signal}):\n${stderr}\n${volume.log()}`);
		return Number(stdout.split(" ")[0]);
	});
	const results = await Promise.allSettled(runs);
	let operations = 0;
	for (const result of results) {
		if (result.status === "rejected") throw result.reason;
		operations += result.value;
	}
	return operations;
}

async function between(volume: TestVolume, random: SeededRandom, log: (line: string) => void): Promise<void> {
	const choice = random.below(4);
	log(["the kernel's caches dropped", "remounted", "daemon killed", "nothing"][choice] as string);
	if (choice === 0) writeFileSync("/proc/sys/vm/drop_caches", "3");
	else if (choice === 1) await volume.remount();
	else if (choice === 2) {
		await volume.kill();
		await execute("umount", ["-l", volume.mountpoint]);
		await volume.mount();
	}
}

/** Whether the kernel has read anything by itself: it tells nobody, but who has files open so is in the status. */
class NativeWatch {
	readonly #volume: TestVolume;
	readonly #looking: Promise<void>;
	#seen = 0;
	/** The volume is mounted for reading alone at the moment. */
	readOnly = false;
	#stopped = false;

	constructor(volume: TestVolume) {
		this.#volume = volume;
		this.#looking = this.#look();
	}

	async #look(): Promise<void> {
		for (; !this.#stopped; await sleep(200)) if (!this.readOnly && (await this.areOpen()) && !this.readOnly) this.#seen++;
	}

	/** Some file is open natively. Between two mounts there is nobody to ask. */
	async areOpen(): Promise<boolean> {
		const { code, stdout } = await this.#volume.try("status", this.#volume.name, "--json");
		const { nativeReads } = (code === 0 ? JSON.parse(stdout) : {}) as { nativeReads?: { readonly handles: number } | null };
		return (nativeReads?.handles ?? 0) > 0;
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		await this.#looking;
	}

	async end(log: (line: string) => void): Promise<void> {
		await this.stop();
		log(`immutable files were open natively at ${this.#seen} of the looks at the status`);
		assert.ok(this.#seen > 0, `nothing was ever read natively\n${await this.#volume.cairn("status", this.#volume.name)}`);
	}
}

/** On a mount for reading alone every large file may be read natively: they are compared until one is. */
async function readOnly(volume: TestVolume, copies: string, processes: number, native: NativeWatch): Promise<void> {
	await volume.unmount();
	await volume.mount("-o", "ro");
	native.readOnly = true;
	const all = Array.from({ length: processes }, (_, i) => [`p${i}/f0`, `p${i}/f1`]).flat();
	const names = all.filter((name) => existsSync(join(copies, name)));
	let isNative = false;
	for (let turn = 0; !isNative; turn++) {
		assert.ok(turn < 200, `after ${turn} turns no file is read natively\n${volume.log()}`);
		const held = names.map((name) => openSync(join(volume.mountpoint, name), "r"));
		for (const [i, name] of names.entries()) {
			const same = readFileSync(held[i] as number).equals(readFileSync(join(copies, name)));
			assert.ok(same, `${name} on a mount for reading alone, turn ${turn}\n${volume.log()}`);
		}
		isNative = await native.areOpen();
		for (const fd of held) closeSync(fd);
	}
	native.readOnly = false;
	await volume.unmount();
	await volume.mount();
}
