/**
 * Random calls by several users on two file systems side by side: the volume under test and one of the kernel's own (ext4). Each call must answer the same on both, and what can be seen of each name afterwards
 * must be the same. What differs by design is left out where it is drawn.
 */
import assert from "node:assert/strict";
import { SeededRandom } from "../support/map-records.ts";
import {
	type Answer,
	Agent,
	accessName,
	defaultName,
	fileType,
	flag,
	omit,
	open,
	posixList,
	tag,
	type User,
	users,
	type Who,
} from "./harness.ts";
import type { CallName } from "./agent.ts";

export interface Side {
	readonly name: string;
	readonly folder: string;
}

type Call = readonly [who: Who, name: CallName, ...args: unknown[]];

/** Few names, so that they meet. */
const names = ["a", "b", "c", "d"] as const;

/** Major 238 is for experiments: nobody has it. */
const noDevice = 0xee01;

export class Comparison {
	readonly #random: SeededRandom;
	readonly #agents: readonly (readonly [Side, ReadonlyMap<Who, Agent>])[];
	readonly #history: string[] = [];

	constructor(seed: number, sides: readonly Side[]) {
		this.#random = new SeededRandom(seed);
		this.#agents = sides.map((side) => [
			side,
			new Map((Object.entries(users) as [Who, User][]).map(([who, user]) => [who, new Agent(side.folder, user)])),
		]);
	}

	/** The first differences end it. */
	async run(steps: number): Promise<void> {
		for (let step = 0; step < steps; step++) {
			const call = this.#draw();
			this.#history.push(call.map((word) => (typeof word === "string" && /[^ -~]/.test(word) ? "…" : String(word))).join(" "));
			await this.#both(call);
			if (step % 10 === 9) await this.#look();
		}
		await this.#look();
	}

	async end(): Promise<void> {
		for (const [, agents] of this.#agents) for (const agent of agents.values()) await agent.end();
	}

	async #both(call: Call): Promise<void> {
		const [who, name, ...args] = call;
		const answers: Answer[] = [];
		for (const [, agents] of this.#agents) answers.push(await (agents.get(who) as Agent).call(name, args));
		if (!foreseen(call, answers[0] as Answer, answers[1] as Answer)) assert.deepEqual(answers[0], answers[1], this.#told(answers));
	}

	#told(seen: readonly unknown[]): string {
		const said = this.#agents.map(([side], i) => `${side.name}: ${JSON.stringify(seen[i])}`).join("\n");
		return `${said}\nafter\n${this.#history.slice(-25).join("\n")}`;
	}

	/** All that is there, as root and others see it. */
	async #look(): Promise<void> {
		for (const path of this.#paths()) {
			const seen: unknown[] = [];
			for (const [, agents] of this.#agents) seen.push(await portrait(agents, path));
			assert.deepEqual(seen[0], seen[1], `${path}: ${this.#told(seen)}`);
		}
	}

	#paths(): string[] {
		return [...names, ...names.flatMap((outer) => names.map((inner) => `${outer}/${inner}`))];
	}

	#pick<T>(items: readonly T[]): T {
		return items[this.#random.below(items.length)] as T;
	}

	#path(): string {
		const inner = this.#random.below(10) < 5 ? `/${this.#pick(names)}` : "";
		return this.#pick(names) + inner;
	}

	#mode(): number {
		return this.#pick([0o644, 0o600, 0o755, 0o777, 0o700, 0o1777, 0o2775, 0o6755, 0o4711, 0o2745, 0o060, 0o007, 0]);
	}

	#draw(): Call {
		const who = this.#pick<Who>(["root", "root", "alice", "alice", "bob", "carol"]);
		const calls: readonly (() => readonly [CallName, ...unknown[]])[] = [
			() => ["mkdir", this.#path(), this.#mode()],
			() => ["mkdir", this.#path(), 0o777],
			() => ["touch", this.#path(), open.create | open.write | open.nonBlocking, this.#mode()],
			() => ["touch", this.#path(), open.create | open.write | open.nonBlocking, 0o666],
			() => [
				"touch",
				this.#path(),
				open.nonBlocking | this.#pick([0, 1, 2, open.write | open.truncate, open.write | open.append, open.create | open.exclusive | 1]),
				0o644,
			],
			() => ["mknod", this.#path(), this.#pick([fileType.fifo, fileType.socket, fileType.file]) | this.#mode()],
			() => ["mknod", this.#path(), this.#pick([fileType.character, fileType.block]) | 0o600, noDevice],
			() => ["symlink", this.#pick(["a", "../b", "nowhere", "c/d"]), this.#path()],
			() => ["link", this.#path(), this.#path()],
			() => ["unlink", this.#path()],
			() => ["rmdir", this.#path()],
			() => ["rename", this.#path(), this.#path()],
			() => ["rename", this.#path(), this.#path(), this.#random.below(8)],
			() => ["chmod", this.#path(), this.#mode()],
			() => ["chown", this.#path(), this.#pick([-1, 1001, 1002, 0]), this.#pick([-1, 2001, 3001, 2002])],
			() => ["append", this.#path(), "12345"],
			() => ["truncate", this.#path(), this.#random.below(20)],
			() => ["access", this.#path(), this.#random.below(8)],
			() => ["utimens", this.#path(), this.#time(), this.#time()],
			() => ["utimesNow", this.#path()],
			() => ["setxattr", this.#path(), this.#attribute(), "value", this.#random.below(3)],
			() => ["getxattr", this.#path(), this.#attribute()],
			() => ["removexattr", this.#path(), this.#attribute()],
			() => ["setxattr", this.#path(), this.#pick([accessName, defaultName]), this.#list()],
			() => ["setxattr", this.#path(), this.#pick([accessName, defaultName]), this.#list()],
			() => ["removexattr", this.#path(), this.#pick([accessName, defaultName])],
			() => ["setFlags", this.#path(), this.#pick([0, 0, flag.noDump, flag.immutable, flag.append])],
			() => ["names", this.#pick(names)],
			() => ["readlink", this.#path()],
			() => ["umask", this.#pick([0, 0o022, 0o077, 0o027])],
		];
		const [name, ...args] = this.#pick(calls)();
		return [who, name, ...args];
	}

	/** Never the time of now, which two file systems have apart. */
	#time(): readonly [number, number] {
		return this.#pick<readonly [number, number]>([
			[1, 2],
			[-3, 999_999_999],
			[2 ** 32, 5],
			[0, omit],
		]);
	}

	#attribute(): string {
		return this.#pick(["user.a", "user.b", "trusted.t", "security.s", "user.", "none", "system.what"]);
	}

	#list(): string {
		const bits = (): number => this.#random.below(8);
		const named: [number, number, number?][] = [];
		if (this.#random.below(2) === 0) named.push([tag.user, bits(), this.#pick([1001, 1002, 1003])]);
		const groups: [number, number, number?][] = this.#random.below(2) === 0 ? [[tag.namedGroup, bits(), this.#pick([3001, 2002])]] : [];
		const mask: [number, number][] = named.length + groups.length > 0 || this.#random.below(3) === 0 ? [[tag.mask, bits()]] : [];
		return posixList([tag.owner, 6 | this.#random.below(2)], ...named, [tag.group, bits()], ...groups, ...mask, [tag.other, bits()]);
	}
}

/**
 * Linux checks types, modes and access(2) of a FUSE file before it asks the server, which alone knows that a file is immutable or append-only: where ext4 says EPERM for that reason, the kernel may have
 * said something else already. Nothing has changed on either side then.
 */
function foreseen([, name, , attribute]: Call, here: Answer, reference: Answer): boolean {
	// Special files have flags nowhere; only whose they are is asked in another order.
	if (name === "setFlags" && reference.errno === "ENOTTY" && here.errno === "EPERM") return true;
	if (reference.errno !== "EPERM") return false;
	if (here.errno !== undefined) return ["ENOTDIR", "EISDIR", "EACCES"].includes(here.errno);
	return name === "access" || (name === "removexattr" && attribute === defaultName);
}

/** What can be compared of a name. Sizes of directories, inode numbers and times of now are each file system's own. */
async function portrait(agents: ReadonlyMap<Who, Agent>, path: string): Promise<unknown> {
	const root = agents.get("root") as Agent;
	const { value, errno } = await root.call("stat", [path]);
	if (errno !== undefined) return errno;
	const { type, mode, nlink, uid, gid, size, rdev, mtime } = value as Record<string, unknown>;
	const set = (time: unknown): unknown =>
		Array.isArray(time) && (time[0] as number) > 1_700_000_000 && (time[0] as number) < 2 ** 31 ? "now" : time;
	const lists = [await root.call("getxattr", [path, accessName]), await root.call("getxattr", [path, defaultName])];
	const attributes = (await root.call("listxattr", [path])).value;
	const flags = type === "file" || type === "directory" ? await flagsOf(root, path) : undefined;
	const seenBy: Answer[] = [];
	for (const who of ["alice", "bob", "carol"] as const) seenBy.push(await (agents.get(who) as Agent).call("access", [path, 4]));
	return { type, mode, nlink, uid, gid, size: type === "directory" ? 0 : size, rdev, mtime: set(mtime), lists, attributes, flags, seenBy };
}

/** Without what ext4 alone has (extents, inline data). */
async function flagsOf(root: Agent, path: string): Promise<unknown> {
	const { value, errno } = await root.call("getFlags", [path]);
	return errno ?? (value as number) & (flag.immutable | flag.append | flag.noDump | flag.noAccessTime);
}
