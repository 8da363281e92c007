/**
 * The project's own POSIX suite on a folder of a mounted volume (or of any other file system): what each call answers to whom. System calls are made by agents, processes of one user each, as a suite
 * that works for root alone proves little. Table driven: a row is `[expected, who, call, ...arguments]`; expected is an errno, "" for success with any value, or the value itself.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { chmodSync, chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { CallName, Calls } from "./agent.ts";

const agentProgram = fileURLToPath(new URL("agent.js", import.meta.url));
/** A call that has not answered after this time hangs. */
const answerMs = 120_000;

export interface Stat {
	readonly hasBirth: boolean;
	readonly nlink: number;
	readonly uid: number;
	readonly gid: number;
	readonly type: string;
	readonly mode: number;
	readonly ino: number;
	readonly size: number;
	readonly atime: readonly [number, number];
	readonly btime: readonly [number, number];
	readonly ctime: readonly [number, number];
	readonly mtime: readonly [number, number];
	readonly rdev: readonly [number, number];
}

export interface Answer {
	readonly value?: unknown;
	readonly errno?: string;
}

export interface User {
	readonly uid: number;
	readonly gid: number;
	readonly groups: readonly number[];
}

/** alice and carol share group 3001. */
export const users = {
	root: { uid: 0, gid: 0, groups: [] },
	alice: { uid: 1001, gid: 2001, groups: [3001] },
	bob: { uid: 1002, gid: 2002, groups: [] },
	carol: { uid: 1003, gid: 2003, groups: [3001, 3002] },
} as const satisfies Record<string, User>;

export type Who = keyof typeof users;

/** One process of one user; its calls are answered one after the other. */
export class Agent {
	readonly #child: ChildProcessWithoutNullStreams;
	readonly #waiting: ((answer: Answer) => void)[] = [];
	#said = "";

	constructor(folder: string, { uid, gid, groups }: User) {
		// The folder is entered by the agent itself, not by `cwd`: whoever serves the mount must not wait for it.
		this.#child = spawn(process.execPath, [agentProgram, folder, String(uid), String(gid), groups.join(","), "0"]);
		this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
			this.#said = (this.#said + text).slice(-2000);
		});
		createInterface({ input: this.#child.stdout }).on("line", (line) => this.#waiting.shift()?.(JSON.parse(line) as Answer));
		this.#child.on("close", () => {
			for (const give of this.#waiting.splice(0)) give({ errno: `the agent died: ${this.#said}` });
		});
	}

	call(name: CallName, args: readonly unknown[]): Promise<Answer> {
		return new Promise((resolve, reject) => {
			const timer = setTimeout(() => reject(new Error(`${name} ${JSON.stringify(args)} has not answered after ${answerMs} ms`)), answerMs);
			this.#waiting.push((answer) => {
				clearTimeout(timer);
				resolve(answer);
			});
			this.#child.stdin.write(`${JSON.stringify([name, ...args])}\n`);
		});
	}

	async end(): Promise<void> {
		const gone = new Promise((resolve) => this.#child.once("close", resolve));
		this.#child.stdin.end();
		await gone;
	}
}

/** A row of a table. */
export type Row = readonly [expected: unknown, who: Who, call: CallName, ...args: unknown[]];

/** One test: a folder of its own, writable for everybody, in which every agent is. */
export class Case {
	readonly name: string;
	readonly #agents: ReadonlyMap<Who, Agent>;

	constructor(name: string, agents: ReadonlyMap<Who, Agent>) {
		this.name = name;
		this.#agents = agents;
	}

	#agent(who: Who): Agent {
		const agent = this.#agents.get(who);
		assert.ok(agent !== undefined, `no agent ${who}`);
		return agent;
	}

	async rows(rows: readonly Row[]): Promise<void> {
		for (const [i, [expected, who, call, ...args]] of rows.entries()) {
			const { value, errno } = await this.#agent(who).call(call, args);
			const what = `row ${i + 1}: ${who} ${call}(${args.map((arg) => shown(arg)).join(", ")})`;
			if (typeof expected === "string" && (expected === "" || /^E[A-Z0-9]+$/.test(expected))) assert.equal(errno ?? "", expected, what);
			else assert.deepEqual(errno ?? value, expected, what);
		}
	}

	/** A call that must succeed. */
	async do<Name extends CallName>(who: Who, call: Name, ...args: Parameters<Calls[Name]>): Promise<ReturnType<Calls[Name]>> {
		const { value, errno } = await this.#agent(who).call(call, args);
		assert.equal(errno, undefined, `${who} ${call}(${args.map((arg) => shown(arg)).join(", ")})`);
		return value as ReturnType<Calls[Name]>;
	}

	async stat(path: string, who: Who = "root"): Promise<Stat> {
		return (await this.do(who, "stat", path)) as Stat;
	}

	async mode(path: string): Promise<number> {
		return (await this.stat(path)).mode;
	}
}

function shown(arg: unknown): string {
	const text = JSON.stringify(arg) ?? "";
	return text.length > 60 ? `${text.slice(0, 40)}… (${text.length})` : text;
}

export class Suite {
	readonly #agents = new Map<Who, Agent>();
	readonly #folder: () => string;
	/** Where the agents are, relative to the folder. */
	#at: string | undefined;
	#next = 1;

	readonly #prefix: string;

	/** `folder` is asked for when the first test begins. */
	constructor(folder: () => string, prefix = "case") {
		this.#folder = folder;
		this.#prefix = prefix;
	}

	/** Registers a test. */
	check(title: string, body: (c: Case) => Promise<void>): void {
		test(title, async () => body(await this.begin()));
	}

	/** A case in a new folder of its own, or in one that is there. */
	async begin(known?: string): Promise<Case> {
		const name = known ?? `${this.#prefix}${this.#next++}`;
		const own = join(this.#folder(), name);
		if (known === undefined) {
			mkdirSync(own);
			chmodSync(own, 0o777);
			chownSync(own, 0, 0);
		}
		for (const [who, user] of Object.entries(users) as [Who, User][]) {
			const agent = this.#agents.get(who) ?? new Agent(this.#folder(), user);
			this.#agents.set(who, agent);
			// Relative: the folder may lie where only root gets to.
			assert.deepEqual(await agent.call("chdir", [this.#at === undefined ? name : `../${name}`]), { value: 0 });
			await agent.call("umask", [0]);
		}
		this.#at = name;
		return new Case(name, this.#agents);
	}

	async end(): Promise<void> {
		for (const agent of this.#agents.values()) await agent.end();
		this.#agents.clear();
		this.#at = undefined;
	}
}

/** Flags of open(2), x86-64 and arm64 where they do not differ. */
export const open = {
	read: 0,
	write: 1,
	readWrite: 2,
	create: 0o100,
	exclusive: 0o200,
	truncate: 0o1000,
	append: 0o2000,
	/** So that a pipe without another end is ENXIO instead of a wait. */
	nonBlocking: 0o4000,
	directory: process.arch === "arm64" ? 0o40000 : 0o200000,
	noFollow: process.arch === "arm64" ? 0o100000 : 0o400000,
	unnamed: 0o20000000 | (process.arch === "arm64" ? 0o40000 : 0o200000),
} as const;

export const renameFlags = { noReplace: 1, exchange: 2, whiteout: 4 } as const;
/** tv_nsec of utimensat(2). */
export const now = 0x3fff_ffff;
export const omit = 0x3fff_fffe;
export const fileType = {
	fifo: 0o010000,
	character: 0o020000,
	directory: 0o040000,
	block: 0o060000,
	file: 0o100000,
	socket: 0o140000,
} as const;
export const flag = { immutable: 0x10, append: 0x20, noDump: 0x40, noAccessTime: 0x80 } as const;

/** `[tag, bits, id]` each, `<linux/posix_acl_xattr.h>`, as text. */
export function posixList(...entries: readonly (readonly [tag: number, bits: number, id?: number])[]): string {
	const view = new DataView(new ArrayBuffer(4 + entries.length * 8));
	view.setUint32(0, 2, true);
	for (const [i, [tag, bits, id]] of entries.entries()) {
		view.setUint16(4 + i * 8, tag, true);
		view.setUint16(6 + i * 8, bits, true);
		view.setUint32(8 + i * 8, id ?? 0xffff_ffff, true);
	}
	return Buffer.from(view.buffer).toString("latin1");
}

export const tag = { owner: 1, user: 2, group: 4, namedGroup: 8, mask: 16, other: 32 } as const;
export const accessName = "system.posix_acl_access";
export const defaultName = "system.posix_acl_default";
