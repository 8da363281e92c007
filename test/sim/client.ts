/**
 * One client of the volume, as a door would be one: it does one thing after the other, knows its own open files, and holds every answer against the model.
 */
import type { FsError } from "../../src/base/errors.ts";
import { isFsError } from "../../src/base/errors.ts";
import type { Prng } from "../../src/platform/sim/prng.ts";
import type { Caller, HandleId, NodeRef } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { nowFirst } from "../support/now-first.ts";
import { type Content, type Source, strangeByte, timeText } from "./content.ts";
import type { FileModel } from "./file-model.ts";
import {
	appendOnly,
	describeNode,
	errorOfOpening,
	type Identity,
	immutable,
	may,
	maybe,
	type NameOperation,
	type Tree,
	type TreeNode,
} from "./tree.ts";
import type { Life, Simulation } from "./simulation.ts";

export interface OpenFile {
	readonly handle: HandleId;
	readonly file: FileModel;
	readonly append: boolean;
	readonly sync: boolean;
	/** Under a daemon that is gone something may have failed for want of space, and it is told still. */
	readonly mayHaveFailed?: boolean;
}

/** Changes of one file side by side: enough for races, few enough that every order can be followed. */
const changesAtOnce = 2;
const contentsKept = 24;

/** Access lists name user 4 and group 4 (tree.ts). */
const people: readonly Identity[] = [
	{ uid: 1, gid: 1, groups: [2] },
	{ uid: 2, gid: 2, groups: [] },
	{ uid: 3, gid: 3, groups: [1, 4] },
	{ uid: 4, gid: 4, groups: [] },
];

/** How contents are changed: at their end, where somebody says, or so that something goes. */
export type Way = "append" | "place" | "cut";

/** What the flags of a file answer to that. Where its end is now is not looked at. */
function boundBy(node: TreeNode | undefined, how: Way): string {
	if (node === undefined) return maybe;
	const { flags = 0 } = node;
	if ((flags & immutable) !== 0) return "EPERM";
	if ((flags & appendOnly) === 0 || how === "append") return "";
	return how === "cut" ? "EPERM" : maybe;
}

export class Client {
	readonly number: number;
	readonly caller: Caller;
	/** Of the operation that it does now. */
	random: Prng;
	readonly sim: Simulation;
	readonly life: Life;
	readonly open: OpenFile[] = [];
	readonly #quick: NativeVolume;
	/** It asks for what can be done at once first, as the FUSE door does. */
	isQuick = false;
	/** Who asks for the names and attributes of the operation that it does now. */
	who: Caller;

	/** `open`: what the session of an earlier life has left it. */
	constructor(sim: Simulation, life: Life, number: number, open: readonly OpenFile[]) {
		this.open.push(...open);
		this.#quick = nowFirst(life.volume);
		this.sim = sim;
		this.life = life;
		this.number = number;
		this.random = sim.randomOf(`client${number}`);
		this.caller = {
			uid: 0,
			gid: 0,
			groups: [],
			principal: undefined,
			door: "test",
			clientInstance: `client${number}`,
			share: undefined,
			trusted: number % 3 !== 2,
		};
		this.who = this.caller;
	}

	chooseCaller(random: Prng): void {
		const { others } = this.sim.plan;
		const { umask } = this.caller;
		this.who = { ...this.caller, umask: others > 0 ? random.pick([0, 0, 0o022, 0o077]) : (umask ?? 0) };
		// A door that checks by itself may ask for anybody.
		if (random.chance(others)) this.who = { ...this.who, ...random.pick(people), trusted: random.chance(0.2) };
	}

	/** Whose permissions the volume has to ask for. */
	get by(): Identity | undefined {
		return this.who.trusted ? undefined : this.who;
	}

	get volume(): NativeVolume {
		return this.isQuick ? this.#quick : this.life.volume;
	}

	node(ino: number): NodeRef {
		return this.volume.node(ino);
	}

	/** The answer, when the daemon still lives and the event in which it came is over; otherwise never. */
	async answer<T>(call: Promise<T>): Promise<{ readonly value: T } | { readonly error: FsError }> {
		let result: { readonly value: T } | { readonly error: FsError };
		try {
			result = { value: await call };
		} catch (error) {
			if (!isFsError(error)) {
				// Of the dead nothing is heard, not even their assertions.
				if (!this.life.alive) return new Promise(() => {});
				throw error;
			}
			result = { error };
		}
		if (!this.life.alive) return new Promise(() => {});
		return result;
	}

	complain(what: string): never {
		this.sim.fail(`client ${this.number}: ${what}`);
	}

	/** An error that the state of the world explains. */
	tolerated(error: FsError): boolean {
		if (error.site === "volume.handle-failed-before") return this.open.some((open) => open.mayHaveFailed);
		return error.code === "ENOSPC" && this.life.spaceTight;
	}

	// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** A change of names. `call` answers its position and, of a creation, the inode. */
	async change(
		what: string,
		operation: NameOperation,
		call: () => Promise<{ readonly position: number; readonly made?: number; readonly changed?: boolean }>,
	): Promise<{ readonly made: number } | undefined> {
		const { names } = this.sim;
		while (names.alone !== undefined) await names.alone;
		const pending = names.begin({ ...operation, by: this.by });
		const promise = call();
		let answered = false;
		void promise.then(
			({ position, made = 0, changed = true }) => {
				// In the very event of the commit, so that positions and answers can be put in order.
				if (!this.life.alive || !changed) return;
				answered = true;
				if (made > 0) this.sim.fileOf(made);
				names.done(pending, position, made, (wrong) => this.complain(`${what}: ${wrong}`));
			},
			() => {},
		);
		const result = await this.answer(promise);
		await this.sim.nextEvent(this.life);
		if ("error" in result) {
			this.sim.note(`${this.number} ${what} → ${result.error.code} ${result.error.site}`);
			if (this.tolerated(result.error)) {
				names.dropped(pending);
				return undefined;
			}
			if (["EACCES", "EPERM"].includes(result.error.code)) this.sim.stats.count("outcomes", `names refused ${result.error.code}`);
			const wrong = names.ended(pending, result.error.code);
			if (wrong !== undefined) this.complain(`${what}: ${wrong} (${result.error.site}: ${result.error.message})`);
			return undefined;
		}
		const { position, made = 0 } = result.value;
		this.sim.note(`${this.number} ${what} → ${answered ? `position ${position}` : "nothing to do"}${made > 0 ? ` inode ${made}` : ""}`);
		names.settle();
		if (!answered) {
			const wrong = names.ended(pending, "");
			if (wrong !== undefined) this.complain(`${what}: ${wrong}`);
		}
		return { made };
	}

	/** Something that only looks at names and attributes. */
	async look(what: string, expect: (tree: Tree) => string, call: () => Promise<string>): Promise<void> {
		const { names } = this.sim;
		const look = names.look(expect);
		const result = await this.answer(call());
		await this.sim.nextEvent(this.life);
		const answer = "error" in result ? result.error.code.replace("ESTALE", "ENOENT") : result.value;
		this.sim.note(`${this.number} ${what} → ${answer.slice(0, 80)}`);
		const wrong = names.looked(look, answer);
		if (wrong !== undefined && answer !== "ENOENT") this.complain(`${what}: ${wrong}`);
		if (wrong !== undefined && ![...look.answers].includes(maybe)) this.complain(`${what}: ${wrong}`);
	}

	// ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** True when one more change of the file can be followed. Each that failed doubles what is possible, until somebody has read which it is. */
	mayChange(file: FileModel): boolean {
		return file.pins === 0 && file.busy < changesAtOnce && file.possible().length < contentsKept;
	}

	/** A change of a file's contents. */
	async alter(
		what: string,
		file: FileModel,
		apply: (content: Content) => Content,
		call: () => Promise<unknown>,
		how: Way,
		divisible = false,
	): Promise<boolean> {
		const { names, stats } = this.sim;
		const change = { id: this.sim.nextNumber(), apply, divisible };
		const bound = names.look((tree) => boundBy(tree.get(file.ino), how));
		file.begin(change);
		const result = await this.answer(call());
		const isRefused = "error" in result && result.error.code === "EPERM";
		// What is refused has changed nothing; what is made in several calls may have been refused in the midst.
		const isUntouched = isRefused && !divisible;
		file.end(change, "error" in result ? (isUntouched ? false : undefined) : true);
		await this.sim.nextEvent(this.life);
		const isWrong = names.looked(bound, isRefused ? "EPERM" : "") !== undefined;
		if (isWrong && (isRefused || !("error" in result)))
			this.complain(`${what}: ${isRefused ? "refused" : "not refused"}; flags allow: ${[...bound.answers].join(" or ") || "it"}`);
		if (isRefused) stats.count("outcomes", "contents that a flag binds");
		if ("error" in result) {
			this.sim.note(`${this.number} ${what} → ${result.error.code} ${result.error.site}`);
			if (!isRefused && !this.tolerated(result.error))
				this.complain(`${what}: ${result.error.code} ${result.error.site}: ${result.error.message}`);
		} else this.sim.note(`${this.number} ${what}`);
		return !("error" in result);
	}

	/** Reads a range and compares; the size too. */
	async read(open: OpenFile, offset: number, lengthBytes: number): Promise<void> {
		const { file } = open;
		const watch = file.watch();
		const result = await this.answer(this.volume.read(open.handle, offset, lengthBytes));
		file.unwatch(watch);
		const what = `read inode ${file.ino} ${offset}+${lengthBytes}`;
		if ("error" in result) {
			this.sim.note(`${this.number} ${what} → ${result.error.code} ${result.error.site}`);
			this.complain(`${what}: ${result.error.code} ${result.error.site}: ${result.error.message}`);
		}
		const bytes = result.value;
		this.sim.note(`${this.number} ${what} → ${bytes.length} bytes`);
		this.sim.stats.bytesRead += bytes.length;
		const expected = (content: Content): number => Math.max(0, Math.min(lengthBytes, content.size - offset));
		const possible = [...watch.seen.values()];
		const fitting = possible.filter((content) => expected(content) === bytes.length);
		if (fitting.length === 0 && watch.mixed) return this.sim.nextEvent(this.life);
		if (fitting.length === 0) {
			const sizes = [...new Set(possible.map((content) => content.size))].join(", ");
			this.complain(`${what} gave ${bytes.length} bytes; possible sizes of the file: ${sizes}`);
		}
		const matches = (content: Content): boolean =>
			expected(content) === bytes.length && Buffer.compare(this.sim.ink.range(content, offset, offset + bytes.length), bytes) === 0;
		if (!fitting.some(matches)) {
			if (watch.mixed && strangeByte(this.sim.ink, fitting, offset, bytes) === undefined) return this.sim.nextEvent(this.life);
			const at = strangeByte(this.sim.ink, fitting, offset, bytes);
			this.complain(
				`${what}: ${at === undefined ? "a mixture of several contents" : `byte ${at} is ${bytes[at - offset]}, which it cannot be`}: ${fitting.map((one) => one.key).join(" or ")}`,
			);
		}
		if (watch.quiet) file.narrow(matches);
		await this.sim.nextEvent(this.life);
	}

	async size(open: OpenFile): Promise<void> {
		const { file } = open;
		const watch = file.watch();
		const result = await this.answer(this.volume.getAttributes(this.caller, this.node(file.ino), open.handle));
		file.unwatch(watch);
		if ("error" in result) this.complain(`attributes of inode ${file.ino}: ${result.error.code} ${result.error.message}`);
		const possible = [...watch.seen.values()];
		const { size } = result.value;
		const time = timeText(result.value.mtime);
		this.sim.note(`${this.number} size of inode ${file.ino} → ${size} of ${time}`);
		if (!watch.mixed && !possible.some((content) => content.size === size && content.mayBeOf(time))) {
			const known = possible.map((content) => `${content.size} of ${content.time ?? "some time"}`);
			this.complain(`inode ${file.ino} says it has ${size} bytes of ${time}; possible: ${known.join(", ")}`);
		}
		if (watch.quiet) file.dated(time);
		await this.sim.nextEvent(this.life);
	}

	/** Everything that was answered before is durable when `call` resolves; of `files` the contents too. */
	async persist(what: string, files: readonly FileModel[], call: () => Promise<unknown>): Promise<void> {
		this.sim.names.settle();
		const position = this.sim.names.lastPosition;
		const ticks = files.map((file) => [file, file.tick] as const);
		const result = await this.answer(call());
		if ("error" in result) {
			this.sim.note(`${this.number} ${what} → ${result.error.code} ${result.error.site}`);
			if (!this.tolerated(result.error)) this.complain(`${what}: ${result.error.code} ${result.error.site}: ${result.error.message}`);
		} else {
			this.sim.note(`${this.number} ${what}`);
			this.sim.names.durable(position);
			for (const [file, tick] of ticks) file.durableSince(tick);
		}
		await this.sim.nextEvent(this.life);
	}

	/** Opens a name, making a file when there is none. */
	async openName(
		parent: TreeNode,
		name: string,
		flags: { readonly append: boolean; readonly sync: boolean; readonly empty: boolean },
	): Promise<void> {
		const mode = 0o600 + this.random.below(0o100);
		const { uid, gid, umask = 0 } = this.who;
		const there = this.sim.names.tree.child(parent.ino, name);
		const file = there?.type === "file" ? this.sim.fileOf(there.ino) : undefined;
		// What is emptied must be known beforehand.
		const empty = flags.empty && file !== undefined && this.mayChange(file) && this.sim.names.underWay === 0;
		const operation: NameOperation = {
			kind: "create",
			parent: parent.ino,
			name,
			type: "file",
			mode,
			uid,
			gid,
			umask,
			rdev: 0,
			target: undefined,
			orOpen: true,
			appends: flags.append,
			empties: empty,
		};
		const intent = {
			disposition: empty ? "overwrite-or-create" : "open-or-create",
			access: { read: true, write: true },
			attributes: { mode },
			append: flags.append,
			sync: flags.sync,
		} as const;
		const what = `open ${parent.ino}/${name}${empty ? " emptied" : ""}`;
		const change =
			empty && file !== undefined ? { id: this.sim.nextNumber(), apply: (content: Content) => content.truncate(0) } : undefined;
		if (change !== undefined) file?.begin(change);
		let opened: { readonly handle: HandleId; readonly ino: number; readonly created: boolean } | undefined;
		await this.change(what, operation, async () => {
			const answer = await this.volume.open(this.who, { parent: this.node(parent.ino), name }, intent);
			opened = { handle: answer.handle, ino: answer.attributes.ino, created: answer.created };
			return { position: answer.position, made: answer.created ? answer.attributes.ino : 0, changed: answer.created };
		});
		const isEmptied = opened !== undefined && opened.ino === file?.ino && !opened.created;
		if (change !== undefined) file?.end(change, isEmptied ? true : undefined);
		if (opened !== undefined)
			this.open.push({ handle: opened.handle, file: this.sim.fileOf(opened.ino), append: flags.append, sync: flags.sync });
	}

	/** O_TMPFILE. */
	async openUnnamed(parent: TreeNode, linkable: boolean): Promise<void> {
		const mode = 0o600 + this.random.below(0o100);
		const { uid, gid, umask = 0 } = this.who;
		const operation: NameOperation = { kind: "unnamed", parent: parent.ino, mode, uid, gid, umask, linkable };
		let opened: { readonly handle: HandleId; readonly ino: number } | undefined;
		await this.change(`open without a name in ${parent.ino}`, operation, async () => {
			const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode }, unnamed: true, linkable } as const;
			const answer = await this.volume.open(this.who, { parent: this.node(parent.ino), name: "" }, intent);
			opened = { handle: answer.handle, ino: answer.attributes.ino };
			return { position: answer.position, made: answer.attributes.ino };
		});
		if (opened !== undefined) this.open.push({ handle: opened.handle, file: this.sim.fileOf(opened.ino), append: false, sync: false });
	}

	async close(open: OpenFile): Promise<void> {
		this.open.splice(this.open.indexOf(open), 1);
		const owner = lockOwner(open.handle);
		this.sim.locks.keepOwners((one) => one !== owner);
		const result = await this.answer(this.volume.close(open.handle));
		if ("error" in result) this.complain(`close: ${result.error.code} ${result.error.message}`);
		this.sim.note(`${this.number} close inode ${open.file.ino}`);
		await this.sim.nextEvent(this.life);
	}

	newSource(base: number): Source {
		return { id: this.sim.nextNumber(), base };
	}
}

/** Of the locks that are taken through an open file. */
export function lockOwner(handle: HandleId): string {
	return handle.toString(16).padStart(16, "0");
}

/** What a look at a name answers. */
export function lookupAnswer(tree: Tree, parent: number, name: string, by: Identity | undefined): string {
	const at = tree.get(parent);
	if (at === undefined) return "ENOENT";
	if (at.entries === undefined) return "ENOTDIR";
	if (at.nlink === 0) return maybe;
	if (!may(at, by, 1)) return "EACCES";
	const child = tree.child(parent, name);
	return child === undefined ? "ENOENT" : describeNode(child);
}

export { errorOfOpening };
