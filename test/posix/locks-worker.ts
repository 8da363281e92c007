/**
 * Processes of the lock suites. `agent`: carries out calls, a line of JSON each. `stress FILE TOKENS SEED STOP`: locks ranges of a file at random and makes sure, by files elsewhere, that nobody else is where it must be
 * alone.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import koffi from "koffi";
import { SeededRandom } from "../support/map-records.ts";
import { SystemError } from "../support/syscalls.ts";

const library = koffi.load("libc.so.6");
const calls = {
	// Two calls with a variable third argument: a pointer and nothing.
	fcntl: library.func("int fcntl(int fd, int command, void *lock)"),
	flock: library.func("int flock(int fd, int operation)"),
	dup: library.func("int dup(int fd)"),
};
const commands = { test: 5, set: 6, wait: 7, "test-ofd": 36, "set-ofd": 37, "wait-ofd": 38 } as const;
type Command = keyof typeof commands;
const types = { read: 0, write: 1, unlock: 2 } as const;
type Type = keyof typeof types;

/** `struct flock` of a 64-bit machine. Answers type, start, length and process of what is in the way. */
function lock(fd: number, command: Command, type: Type, start: string, length: string): readonly [Type, string, string, number] {
	const bytes = Buffer.alloc(32);
	bytes.writeInt16LE(types[type], 0);
	bytes.writeBigInt64LE(BigInt(start), 8);
	bytes.writeBigInt64LE(BigInt(length), 16);
	if (calls.fcntl(fd, commands[command], bytes) !== 0) throw new SystemError("fcntl");
	const found = (Object.keys(types) as Type[]).find((name) => types[name] === bytes.readInt16LE(0)) as Type;
	return [found, String(bytes.readBigInt64LE(8)), String(bytes.readBigInt64LE(16)), bytes.readInt32LE(24)];
}

/** LOCK_SH 1, LOCK_EX 2, LOCK_NB 4, LOCK_UN 8. */
function flock(fd: number, operation: number): void {
	if (calls.flock(fd, operation) !== 0) throw new SystemError("flock");
}

function call(verb: string, words: readonly (string | number)[]): unknown {
	const [a, b, c, d, e] = words as [never, never, never, never, never];
	switch (verb) {
		case "open":
			return openSync(a, b, 0o644);
		case "close":
			return closeSync(a);
		case "dup":
			return calls.dup(a);
		case "lock":
			return lock(a, b, c, d, e);
		case "flock":
			return flock(a, b);
		default:
			throw new Error(`no verb ${verb}`);
	}
}

function agent(): void {
	createInterface({ input: process.stdin }).on("line", (line) => {
		const [verb, ...words] = JSON.parse(line) as [string, ...(string | number)[]];
		let answer: unknown;
		try {
			answer = { done: call(verb, words) ?? null };
		} catch (error) {
			answer = { error: (error as { code?: string }).code ?? String(error) };
		}
		process.stdout.write(`${JSON.stringify(answer)}\n`);
	});
	process.stdout.write('{"done":"ready"}\n');
}

const slots = 6;

class Stress {
	readonly #fd: number;
	readonly #tokens: string;
	readonly #random: SeededRandom;
	readonly #stop: string;
	readonly #kinds: { readonly ofd: boolean };
	grants = 0;
	deadlocks = 0;

	constructor([file, tokens, seed, stop]: readonly string[]) {
		this.#fd = openSync(file as string, "r+");
		this.#tokens = tokens as string;
		this.#stop = stop as string;
		this.#random = new SeededRandom(Number(seed));
		this.#kinds = { ofd: Number(seed) % 3 === 0 };
	}

	run(): void {
		while (!existsSync(this.#stop)) this.#round();
	}

	/** Some slots, in any order (so that circles arise), each locked as reader or writer; then checked, and let go of. */
	#round(): void {
		const wanted = Array.from({ length: 1 + this.#random.below(3) }, () => this.#random.below(slots));
		const held: { readonly slot: number; readonly writes: boolean }[] = [];
		for (const slot of new Set(wanted)) {
			const writes = this.#random.below(2) === 0;
			if (!this.#take(slot, writes)) break;
			this.grants++;
			this.#enter(slot, writes);
			held.push({ slot, writes });
		}
		for (const { slot, writes } of held) this.#leave(slot, writes);
		// All at once, now and then; each by itself otherwise.
		if (this.#random.below(3) === 0) this.#lock("unlock", 0, 0, "set");
		else for (const { slot } of held) this.#lock("unlock", slot * 10, 10, "set");
	}

	#lock(type: Type, start: number, length: number, how: "set" | "wait"): void {
		lock(this.#fd, this.#kinds.ofd ? `${how}-ofd` : how, type, String(start), String(length));
	}

	#take(slot: number, writes: boolean): boolean {
		try {
			// Open file descriptions are told of no deadlock: they do not wait while they hold something.
			this.#lock(writes ? "write" : "read", slot * 10, 10, this.#kinds.ofd || this.#random.below(4) === 0 ? "set" : "wait");
			return true;
		} catch (error) {
			const { code } = error as { code?: string };
			if (code === "EDEADLK") this.deadlocks++;
			else if (code !== "EAGAIN") throw error;
			return false;
		}
	}

	#token(slot: number, writes: boolean, pid: number): string {
		return join(this.#tokens, `${slot}-${writes ? "w" : "r"}-${pid}`);
	}

	#enter(slot: number, writes: boolean): void {
		writeFileSync(this.#token(slot, writes, process.pid), "");
		for (const name of readdirSync(this.#tokens)) {
			const [at, kind, pid] = name.split("-");
			if (Number(at) !== slot || Number(pid) === process.pid || (kind === "r" && !writes)) continue;
			// Whoever was killed could not take its own away.
			if (existsSync(join(this.#tokens, `killed-${pid}`))) continue;
			if (!existsSync(join(this.#tokens, name))) continue;
			throw new Error(`process ${process.pid} (${writes ? "writes" : "reads"}) and ${pid} (${kind}) are both in slot ${slot}`);
		}
	}

	#leave(slot: number, writes: boolean): void {
		unlinkSync(this.#token(slot, writes, process.pid));
	}
}

const [mode, ...words] = process.argv.slice(2);
if (mode === "agent") agent();
else {
	const stress = new Stress(words);
	stress.run();
	process.stdout.write(`${stress.grants} ${stress.deadlocks} ${readFileSync("/proc/self/stat", "latin1").split(" ")[0]}`);
}
