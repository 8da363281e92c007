/**
 * The clients of `cairn bench` are processes of their own: they wait in the kernel, all at once, and this command can end them and clean up whatever they are at.
 * Each reads one JSON object a line (what to do) and answers one (what came of it).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { FsError, toFsError } from "../base/errors.ts";
import type { ErrorCode } from "../base/errors.ts";
import type { Random } from "../platform/interface.ts";
import { BenchClient, benchRows, type BenchSizes } from "./bench-rows.ts";

/** What the command is given as its first word to be a client. */
export const benchWord = "helper-bench";

type Order =
	| { readonly kind: "begin"; readonly folder: string; readonly sizes: BenchSizes }
	| { readonly kind: "prepare" | "run"; readonly row: number };

type Answer =
	| { readonly amount: number }
	| { readonly error: { readonly code: ErrorCode; readonly site: string; readonly message: string } };

export interface BenchProcesses {
	/** @throws FsError when the client could not be started. */
	start(folder: string, sizes: BenchSizes): Promise<BenchWorker>;
}

export interface BenchWorker {
	prepare(row: number): Promise<void>;
	/** Answers how much of the row's unit was done. @throws FsError with the code of the call that failed. */
	run(row: number): Promise<number>;
	/** Resolves when the process is gone. */
	end(): Promise<void>;
}

/** @param program this command, as a process is started with it. */
export function benchByProcess(program: readonly [string, ...string[]]): BenchProcesses {
	return {
		start: async (folder, sizes) => {
			const worker = new ClientProcess(program);
			await worker.ask({ kind: "begin", folder, sizes });
			return worker;
		},
	};
}

class ClientProcess implements BenchWorker {
	readonly #child: ChildProcess;
	readonly #lines: Interface;
	readonly #ended: Promise<string>;

	constructor([node, ...words]: readonly [string, ...string[]]) {
		const child = spawn(node, [...words, benchWord], { stdio: ["pipe", "pipe", "inherit"] });
		this.#child = child;
		child.stdin?.on("error", () => {});
		this.#lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
		this.#ended = new Promise((resolve) => {
			child.once("error", (error) => resolve(error.message));
			child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
		});
	}

	async ask(order: Order): Promise<number> {
		const answered = new Promise<Answer>((resolve) => this.#lines.once("line", (line) => resolve(JSON.parse(line) as Answer)));
		this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
		const answer = await Promise.race([answered, this.#ended]);
		if (typeof answer === "string") throw new FsError("EIO", "cli.bench-died", `a process of the benchmark has ended: ${answer}`);
		if ("amount" in answer) return answer.amount;
		const { code, site, message } = answer.error;
		throw new FsError(code, site, message);
	}

	async prepare(row: number): Promise<void> {
		await this.ask({ kind: "prepare", row });
	}

	run(row: number): Promise<number> {
		return this.ask({ kind: "run", row });
	}

	async end(): Promise<void> {
		this.#child.kill("SIGKILL");
		await this.#ended;
	}
}

/** The other side: obeys until its input ends. */
export async function beBenchClient(input: NodeJS.ReadableStream, say: (line: string) => void, random: Random): Promise<void> {
	let client: BenchClient | undefined;
	const obey = (order: Order): number => {
		if (order.kind === "begin") {
			mkdirSync(order.folder);
			client = new BenchClient(order.folder, order.sizes, random.bytes(1 << 20));
			return 0;
		}
		const row = benchRows[order.row];
		if (!row || !client) throw new FsError("EINVAL", "cli.bench-order", `no such row: ${order.row}`);
		if (order.kind === "run") return row.run(client);
		row.prepare?.(client);
		return 0;
	};
	for await (const line of createInterface({ input })) {
		let answer: Answer;
		try {
			answer = { amount: obey(JSON.parse(line) as Order) };
		} catch (error) {
			const { code, site, message } = toFsError(error, "cli.bench");
			answer = { error: { code, site, message } };
		}
		say(`${JSON.stringify(answer)}\n`);
	}
}
