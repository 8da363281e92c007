/** A directory that can be made to hang in the kernel, or to fail: a FUSE file system of its own, in a process of its own, whose requests are read and then not answered, or answered EIO. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("hanging-disk-server.js", import.meta.url));

/** Which requests hang: all, or only those that make files durable. */
export type Hanging = "everything" | "syncs";

/** What fails: the next fsync of a file alone, everything that makes durable, or that and every write. */
export type Failing = "one-sync" | "syncs" | "writes";

export class HangingDisk {
	readonly #server: ChildProcess;
	#said = "";

	private constructor(server: ChildProcess) {
		this.#server = server;
		server.stdout?.setEncoding("utf8").on("data", (text: string) => {
			this.#said += text;
		});
	}

	/** Mounted on `path`. */
	static async on(path: string): Promise<HangingDisk> {
		const disk = new HangingDisk(spawn(process.execPath, [program, path], { stdio: ["pipe", "pipe", "inherit"] }));
		await disk.#hear("mounted");
		return disk;
	}

	async hang(what: Hanging): Promise<void> {
		await this.#tell(what);
	}

	async fail(what: Failing): Promise<void> {
		await this.#tell(`fail-${what}`);
	}

	/** Everything is answered and works, what waits too. */
	async answer(): Promise<void> {
		await this.#tell("answer");
	}

	/** Unmounts. */
	async close(): Promise<void> {
		if (this.#server.exitCode !== null) return;
		const ended = new Promise((resolve) => this.#server.once("exit", resolve));
		this.#server.stdin?.write("answer\nend\n");
		await ended;
	}

	async #tell(word: string): Promise<void> {
		this.#server.stdin?.write(`${word}\n`);
		await this.#hear(word);
	}

	async #hear(word: string): Promise<void> {
		while (!this.#said.includes(`${word}\n`)) {
			assert.equal(this.#server.exitCode, null, "the file system of the hanging disk has ended");
			await new Promise((resolve) => setTimeout(resolve, 10));
		}
		this.#said = this.#said.replace(`${word}\n`, "");
	}
}
