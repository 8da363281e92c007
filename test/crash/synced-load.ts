/** Programs that write and sync on a mount while something happens to its disks, and what they were promised: every byte whose fsync succeeded is there afterwards. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { sleep } from "../support/cairn.ts";
import { contents } from "./kill-model.ts";

const program = fileURLToPath(new URL("synced-writer.js", import.meta.url));
export const filesOfWriter = 8;
export const recordBytes = 5_000;

/** Without `promised` and `code`: it is about to begin. */
export interface SyncedLine {
	readonly writer: number;
	readonly number: number;
	readonly what: string;
	readonly lengthBytes: number;
	readonly promised?: true;
	readonly code?: string;
}

interface FileState {
	promised: SyncedLine | undefined;
	/** Begun since: any of them may be there instead. */
	attempted: SyncedLine[];
}

export class SyncedLoad {
	readonly #folder: string;
	readonly #seed: number;
	readonly #child: ChildProcess;
	readonly #files = new Map<string, FileState>();
	/** Of the journals: by writer and number. */
	readonly #records = new Map<string, SyncedLine>();
	readonly #errors = new Map<string, number>();
	readonly #ended: Promise<void>;
	#promises = 0;
	#stderr = "";

	constructor(folder: string, seed: number, writers: number) {
		this.#folder = folder;
		this.#seed = seed;
		this.#child = spawn(process.execPath, [program, folder, String(seed), String(writers)], { stdio: ["pipe", "pipe", "pipe"] });
		this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
			this.#stderr += text;
		});
		const lines = createInterface({ input: this.#child.stdout as NonNullable<ChildProcess["stdout"]> });
		lines.on("line", (line) => this.#hear(JSON.parse(line) as SyncedLine));
		this.#ended = new Promise((resolve) => lines.on("close", resolve));
	}

	/** How many things were promised so far. */
	get promises(): number {
		return this.#promises;
	}

	/** Codes of errors that programs got → how often. */
	get errors(): ReadonlyMap<string, number> {
		return this.#errors;
	}

	#hear(line: SyncedLine): void {
		const { writer, number, what, promised, code } = line;
		if (promised) this.#promises++;
		if (code !== undefined) this.#errors.set(code, (this.#errors.get(code) ?? 0) + 1);
		if (what === "journal") {
			if (promised) this.#records.set(`${writer}/${number}`, line);
			return;
		}
		const path = `w${writer}/${what}`;
		const file = this.#files.get(path) ?? { promised: undefined, attempted: [] };
		this.#files.set(path, file);
		if (promised) {
			file.promised = line;
			file.attempted = [];
		} else if (code === undefined) file.attempted.push(line);
	}

	/** `count` more things are promised from now on. */
	async progress(count: number, why: () => string): Promise<void> {
		const wanted = this.#promises + count;
		for (let i = 0; this.#promises < wanted; i++) {
			const said = [...this.#errors].map(([code, times]) => `${code} ${times} times`).join(", ");
			assert.ok(this.#child.exitCode === null, `the writers ended: ${this.#stderr}`);
			assert.ok(i < 2400, `${this.#promises} of ${wanted} promises within 2 minutes; errors: ${said || "none"}\n${why()}`);
			await sleep(50);
		}
	}

	/** Ends the programs at the end of what each is doing. */
	async stop(): Promise<void> {
		this.#child.stdin?.end();
		const limit = setTimeout(() => this.#child.kill("SIGKILL"), 120_000);
		await this.#ended;
		clearTimeout(limit);
		assert.equal(this.#stderr, "");
	}

	kill(): void {
		this.#child.kill("SIGKILL");
	}

	/** Everything that was promised is there, byte for byte. */
	check(when: string): void {
		for (const [path, { promised, attempted }] of this.#files) {
			const full = join(this.#folder, path);
			const found = existsSync(full) ? readFileSync(full) : undefined;
			const may = [...(promised === undefined ? [] : [promised]), ...attempted];
			if (found === undefined) assert.equal(promised, undefined, `${when}: ${path} is gone`);
			else
				assert.ok(
					may.some((line) => found.equals(this.#contents(line))),
					`${when}: ${path} of ${found.length} bytes is none of ${may.map(({ number }) => number).join()}`,
				);
		}
		const journals = new Map<number, Buffer>();
		for (const line of this.#records.values()) {
			const journal = journals.get(line.writer) ?? readFileSync(join(this.#folder, `w${line.writer}`, "journal"));
			journals.set(line.writer, journal);
			const at = line.number * recordBytes;
			assert.ok(journal.subarray(at, at + recordBytes).equals(this.#contents(line)), `${when}: record ${line.number} of w${line.writer}`);
		}
	}

	#contents({ writer, number, lengthBytes }: SyncedLine): Buffer {
		return contents(this.#seed * 1000 + writer, number, lengthBytes);
	}
}
