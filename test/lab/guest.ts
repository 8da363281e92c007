/**
 * A guest of lab/vm.sh with disks that lose what was not flushed when the power goes: the disks are a process on this machine (disk-server.ts), in the network namespace of the guest, that the guest's kernel reaches by NBD. Everything
 * lies below one folder, which `close` removes with the guest, its namespace and the disks.
 */
import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { execute, missingPrograms, type Outcome, type RunLimits } from "../support/cairn.ts";
import type { CutCommand } from "./disk-server.ts";
import type { CutResult } from "./volatile-disk.ts";

const repository = fileURLToPath(new URL("../../..", import.meta.url));
const machines = join(repository, "lab/vm.sh");
const serverProgram = fileURLToPath(new URL("disk-server.js", import.meta.url));
const image = process.env["LAB_OUT"] ?? "/var/tmp/nodelab";
const port = 10_809;

/** The tree of this program as guests see it. */
export const guestRepository = "/host/repository";

/** Why no guest can be started here; undefined when one can. */
export function cannotStartGuests(): string | undefined {
	if (process.platform !== "linux" || process.getuid?.() !== 0) return "guests need Linux and root";
	if (!existsSync(join(image, "rootfs.ext4")))
		return `no image of a guest in ${image}: make it with lab/build-image.sh (2 minutes), or set LAB_OUT`;
	return missingPrograms("ip", "nsenter", "setsid", "taskset");
}

export interface GuestOptions {
	readonly disks: number;
	readonly diskBytes: number;
	readonly memoryMiB: number;
	/** Folders of this machine that it sees too, `NAME=FOLDER[:ro]` as /host/NAME. */
	readonly shares?: readonly string[];
	/** The last number of its address, 10.77.0.N: the same after a reboot. Default: the first that is free. */
	readonly address?: number;
}

export class Guest {
	/** On this machine; guests see it as /host/base, and what they write there with O_SYNC outlives them. */
	readonly base: string;
	readonly #options: GuestOptions;
	/** Of the machine, in the lab and to itself. */
	readonly #name: string;
	readonly #environment: Readonly<Record<string, string>>;
	readonly #network: string;
	#server: ChildProcessWithoutNullStreams | undefined;
	readonly #answers: ((results: CutResult[]) => void)[] = [];
	#told = "";

	/** `beside`: a further machine in the network of that one, without disks of its own. */
	private constructor(options: GuestOptions, name = "guest", beside?: Guest) {
		this.#options = options;
		this.#name = name;
		// Journals that guests write with O_SYNC: memory is fast.
		this.base = beside?.base ?? mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "cairn-lab-"));
		this.#network = basename(this.base);
		this.#environment = { LAB_RUN: join(this.base, "run"), LAB_NETNS: this.#network, LAB_OUT: image };
	}

	/** The network namespace of this machine that it lives in; this machine is 10.77.0.1 there. */
	get network(): string {
		return this.#network;
	}

	/** Another machine in the same network, with the same shares, not yet started. It is gone with this one. */
	another(name: string, address: number): Guest {
		return new Guest({ ...this.#options, disks: 0, address }, name, this);
	}

	/** With its disks, not yet started. */
	static async prepare(options: GuestOptions): Promise<Guest> {
		const guest = new Guest(options);
		try {
			await guest.#machine("net", "up");
			await guest.#serveDisks();
		} catch (error) {
			await guest.close();
			throw error;
		}
		return guest;
	}

	async #serveDisks(): Promise<void> {
		const { disks, diskBytes } = this.#options;
		this.#diskFolder = mkdtempSync(join(tmpdir(), "cairn-lab-disks-"));
		const words = [serverProgram, this.#diskFolder, String(disks), String(diskBytes), "10.77.0.1", String(port)];
		const server = spawn("nsenter", [`--net=/run/netns/${this.#network}`, process.execPath, ...words]);
		this.#server = server;
		server.stderr.on("data", (bytes: Buffer) => {
			this.#told = `${this.#told}${bytes.toString()}`.slice(-4000);
		});
		createInterface({ input: server.stdout }).on("line", (line) => {
			this.#answers.shift()?.((JSON.parse(line) as { results: CutResult[] }).results);
		});
		await this.#answer(() => {});
	}

	#diskFolder: string | undefined;

	#answer(ask: (server: ChildProcessWithoutNullStreams) => void): Promise<CutResult[]> {
		const server = this.#server as ChildProcessWithoutNullStreams;
		return new Promise((resolve, reject) => {
			const failed = (): void => reject(new Error(`the server of the disks ended:\n${this.#told}`));
			server.once("exit", failed);
			this.#answers.push((results) => {
				server.off("exit", failed);
				resolve(results);
			});
			ask(server);
		});
	}

	#machine(...words: readonly string[]): Promise<Outcome> {
		return execute(machines, words, { env: this.#environment, timeoutMs: 200_000 });
	}

	/** Boots; its disks are /dev/nbd0 and so on. */
	async start(): Promise<void> {
		const { shares: further = [] } = this.#options;
		const shares = [`repository=${repository}:ro`, `base=${this.base}`, ...further].flatMap((share) => ["--share", share]);
		// Guests on networks of their own have the same address, by which the lab would give all of them the same processor.
		const words = ["--engine", "uml", "--mem", String(this.#options.memoryMiB), "--pin", String(process.pid % cpus().length)];
		if (this.#options.address !== undefined) words.push("--ip", String(this.#options.address));
		const { code, stderr } = await this.#machine("start", this.#name, ...words, ...shares);
		assert.equal(code, 0, `the guest did not start:\n${stderr}`);
		await this.must(`modprobe -a nbd fuse loop ext4 xfs; ${this.attaching(this.allDisks) || "true"}`);
	}

	get allDisks(): number[] {
		return Array.from({ length: this.#options.disks }, (_, i) => i + 1);
	}

	/** The shell command that connects disks (1 and up). */
	attaching(numbers: readonly number[]): string {
		return numbers.map((number) => `nbd-client $LAB_HOST ${port} /dev/nbd${number - 1} -N ${number} -b 512 >/dev/null 2>&1`).join(" && ");
	}

	/** A shell command in the guest, whatever its end. */
	run(command: string, limits: RunLimits = {}): Promise<Outcome> {
		const timeoutMs = limits.timeoutMs ?? 300_000;
		const words = ["exec", this.#name, "--timeout", String(Math.ceil(timeoutMs / 1000)), "--", command];
		return execute(machines, words, { env: this.#environment, timeoutMs: timeoutMs + 10_000 });
	}

	/** The same, and it must succeed. Answers what it printed. */
	async must(command: string, limits: RunLimits = {}): Promise<string> {
		const { code, stdout, stderr } = await this.run(command, limits);
		assert.equal(code, 0, `in the guest, ${command} ended with ${code}:\n${stdout.slice(-6000)}${stderr.slice(-2000)}`);
		return stdout;
	}

	/** Power cut of single disks: the guest's kernel gets errors from them until they are connected again. */
	cutDisks(command: CutCommand): Promise<CutResult[]> {
		return this.#answer((server) => server.stdin.write(`${JSON.stringify(command)}\n`));
	}

	/** Power cut of everything. */
	async cut(command: Omit<CutCommand, "cut">): Promise<CutResult[]> {
		const results = await this.cutDisks({ ...command, cut: this.allDisks });
		await this.kill();
		return results;
	}

	/** Its power goes. What it had in memory is gone; `start` boots it again. */
	async kill(): Promise<void> {
		await this.#machine("kill", this.#name);
	}

	async console(): Promise<string> {
		return (await this.#machine("console", this.#name)).stdout.slice(-3000);
	}

	async close(): Promise<void> {
		await this.kill();
		this.#server?.stdin.end();
		await this.#machine("net", "down");
		for (const folder of [this.base, this.#diskFolder]) if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
	}

	/** On this machine, a folder below `base`. */
	folder(name: string): string {
		mkdirSync(join(this.base, name), { recursive: true });
		return join(this.base, name);
	}
}
