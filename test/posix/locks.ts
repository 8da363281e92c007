/** What the lock suites share: processes that lock, and lives of many of them. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { SeededRandom } from "../support/map-records.ts";
import { sleep, type TestVolume } from "../support/cairn.ts";

const worker = fileURLToPath(new URL("./locks-worker.js", import.meta.url));

export type LockType = "read" | "write" | "unlock";
export type LockCommand = "test" | "set" | "wait" | "test-ofd" | "set-ofd" | "wait-ofd";

/** A process that carries out one call after the other. */
export class Agent {
	readonly #child: ChildProcess;
	readonly #answers: ((answer: { done?: unknown; error?: string }) => void)[] = [];
	readonly ready: Promise<unknown>;

	constructor(inherit: readonly number[] = []) {
		this.#child = spawn(process.execPath, [worker, "agent"], { stdio: ["pipe", "pipe", "inherit", ...inherit] });
		this.ready = new Promise((resolve) => this.#answers.push(resolve));
		createInterface({ input: this.#child.stdout as NonNullable<ChildProcess["stdout"]> }).on("line", (line) => {
			this.#answers.shift()?.(JSON.parse(line) as { done?: unknown; error?: string });
		});
	}

	static async start(inherit: readonly number[] = []): Promise<Agent> {
		const agent = new Agent(inherit);
		await agent.ready;
		return agent;
	}

	get pid(): number {
		return this.#child.pid as number;
	}

	/** What it answered, or the code of its error; a call that waits settles when it is done. */
	call(verb: string, ...words: readonly (string | number)[]): Promise<unknown> {
		this.#child.stdin?.write(`${JSON.stringify([verb, ...words])}\n`);
		return new Promise((resolve) => this.#answers.push(({ done, error }) => resolve(error ?? done)));
	}

	async open(path: string, flags = "r+"): Promise<number> {
		const fd = await this.call("open", path, flags);
		assert.equal(typeof fd, "number", `open ${path}: ${fd}`);
		return fd as number;
	}

	/** "ok", what is in the way (of test), or an error. */
	async lock(fd: number, command: LockCommand, type: LockType, start: number | bigint = 0, length: number | bigint = 0): Promise<string> {
		const answer = await this.call("lock", fd, command, type, String(start), String(length));
		if (typeof answer === "string") return answer;
		return command.startsWith("test") ? (answer as readonly (string | number)[]).join(" ") : "ok";
	}

	async flock(fd: number, operation: number): Promise<string> {
		return ((await this.call("flock", fd, operation)) as string | null) ?? "ok";
	}

	async kill(): Promise<void> {
		const ended = once(this.#child, "exit");
		this.#child.kill("SIGKILL");
		await ended;
	}

	async end(): Promise<void> {
		const ended = once(this.#child, "exit");
		this.#child.stdin?.end();
		await ended;
	}
}

export interface StressOptions {
	readonly seed: number;
	readonly workers: number;
	readonly seconds: number;
	/** kill -9 of the daemon so often. */
	readonly daemonKills: number;
	/** kill -9 of workers so often; others take their place. */
	readonly workerKills: number;
}

interface Running {
	readonly pid: number;
	readonly ended: Promise<{
		readonly code: number | null;
		readonly signal: string | null;
		readonly stdout: string;
		readonly stderr: string;
	}>;
	readonly kill: () => void;
}

function startStress(words: readonly string[]): Running {
	const child = spawn(process.execPath, [worker, "stress", ...words], { stdio: ["ignore", "pipe", "pipe"] });
	let [stdout, stderr] = ["", ""];
	child.stdout.on("data", (bytes) => {
		stdout += String(bytes);
	});
	child.stderr.on("data", (bytes) => {
		stderr += String(bytes);
	});
	const ended = once(child, "close").then(([code, signal]) => ({
		code: code as number | null,
		signal: signal as string | null,
		stdout,
		stderr,
	}));
	return { pid: child.pid as number, ended, kill: () => child.kill("SIGKILL") };
}

function lookAt(pid: number): string {
	const read = (name: string): string => {
		try {
			return readFileSync(`/proc/${pid}/${name}`, "latin1");
		} catch (error) {
			return String(error);
		}
	};
	return `${read("syscall")}${read("wchan")}\n${read("stack")}`;
}

/** Undefined when it takes longer; no timer is left that would keep the process. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
	let timer: NodeJS.Timeout | undefined;
	const late = new Promise<undefined>((resolve) => {
		timer = setTimeout(() => resolve(undefined), ms);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

/** Answers how many locks were granted, and deadlocks refused. */
export async function lockStress(
	volume: TestVolume,
	options: StressOptions,
): Promise<{ readonly grants: number; readonly deadlocks: number }> {
	const { seed, workers, seconds, daemonKills, workerKills } = options;
	const random = new SeededRandom(seed);
	const tokens = mkdtempSync(join(tmpdir(), "cairn-locks-"));
	const file = join(volume.mountpoint, `stress-${seed}`);
	writeFileSync(file, "");
	mkdirSync(join(tokens, "held"));
	const stop = join(tokens, "stop");
	let next = seed * 1000;
	const start = (): Running => startStress([file, join(tokens, "held"), String(next++), stop]);
	try {
		const running = Array.from({ length: workers }, start);
		const all = [...running];
		const killed = new Set<number>();
		const killWorkers = async (): Promise<void> => {
			for (let i = 0; i < workerKills; i++) {
				await sleep((seconds * 1000) / (workerKills + 1));
				const place = random.below(running.length);
				const { pid, kill } = running[place] as Running;
				writeFileSync(join(tokens, "held", `killed-${pid}`), "");
				killed.add(pid);
				kill();
				const successor = start();
				running[place] = successor;
				all.push(successor);
			}
		};
		const killDaemons = async (): Promise<void> => {
			for (let i = 0; i < daemonKills; i++) {
				await sleep((seconds * 1000) / (daemonKills + 1));
				await volume.successorOf(volume.killDaemon());
			}
		};
		await Promise.all([sleep(seconds * 1000), killWorkers(), killDaemons()]);
		writeFileSync(stop, "");
		let [grants, deadlocks] = [0, 0];
		for (const { ended, pid } of all) {
			// Generous: a machine may be busy, and who waits for a lock that nobody lets go of waits for ever.
			const end = await within(400_000, ended);
			if (end === undefined)
				assert.fail(`seed ${seed}: process ${pid} does not end\n${lookAt(pid)}\n${await volume.cairn("locks", volume.name)}`);
			if (killed.has(pid)) continue;
			assert.equal(end.code, 0, `seed ${seed}: ${end.signal} ${end.stderr}`);
			grants += Number(end.stdout.split(" ")[0]);
			deadlocks += Number(end.stdout.split(" ")[1]);
		}
		return { grants, deadlocks };
	} finally {
		writeFileSync(stop, "");
		rmSync(tokens, { recursive: true, force: true });
	}
}
