/**
 * What a power cut may leave of a kill writer's folder. The names are those after some operation, no older than the newest sync, as the log has one order; the contents of each file are what its newest sync
 * made durable, changed by any part of what came later. What was synced and not touched since is exactly there.
 */
import { type JournalLine, type Operation, Tree } from "../crash/kill-model.ts";

const temporary = ".saving";

interface ModelInode {
	/** The newest durable contents first, then what later operations made of them. */
	versions: Buffer[];
	/** Set explicitly by the last thing that changed it. */
	mtimeSeconds: number | undefined;
	/** And that is durable. */
	mtimeSynced: boolean;
}

/** Names at one moment. */
interface State {
	readonly files: ReadonlyMap<string, ModelInode>;
	readonly folders: ReadonlySet<string>;
}

export interface FoundFile {
	readonly bytes: Buffer;
	readonly mtimeMs: number;
}

export interface Found {
	readonly files: ReadonlyMap<string, FoundFile>;
	readonly folders: ReadonlySet<string>;
}

export interface Verdict {
	/** What is wrong, for people; none: all is well. */
	readonly faults: readonly string[];
	/** Files that had to be there byte for byte. */
	readonly exactFiles: number;
}

export class PowerModel {
	readonly #seed: number;
	readonly #newest = new Tree();
	readonly #files = new Map<string, ModelInode>();
	readonly #folders = new Set<string>();
	/** Those that may be seen, oldest first. */
	#states: State[] = [{ files: new Map(), folders: new Set() }];
	/** Syncs that were acknowledged, and all that was. */
	synced = 0;
	operations = 0;

	constructor(seed: number, journal: readonly JournalLine[]) {
		this.#seed = seed;
		let open: { readonly number: number; readonly operation: Operation } | undefined;
		for (const line of journal) {
			if ("begin" in line) open = { number: line.begin, operation: line.operation };
			else if ("done" in line && open !== undefined) {
				this.#apply(open.number, open.operation, true);
				this.operations++;
				open = undefined;
			}
		}
		if (open !== undefined) this.#apply(open.number, open.operation, false);
	}

	#apply(number: number, operation: Operation, isDone: boolean): void {
		this.#newest.apply(this.#seed, number, operation);
		const { kind, path } = operation;
		if (kind === "save") this.#save(operation, isDone);
		else if (kind === "rename") this.#rename(path, operation.to);
		else if (kind === "mkdir") this.#folders.add(path);
		else if (kind === "unlink") this.#files.delete(path);
		else if (kind === "touch") this.#touch(path, operation.seconds);
		else if (kind !== "fsync") this.#change(path);
		else if (isDone) this.#sync(path);
		this.#remember();
	}

	/** Another state of the names that may be seen. */
	#remember(): void {
		this.#states.push({ files: new Map(this.#files), folders: new Set(this.#folders) });
	}

	/** As many steps as a program takes: new or cut to nothing, written, synced, renamed. */
	#save({ path, careful, synced }: Operation & { readonly kind: "save" }, isDone: boolean): void {
		const at = careful ? temporary : path;
		const known = this.#files.get(at);
		if (known === undefined) this.#files.set(at, { versions: [Buffer.alloc(0)], mtimeSeconds: undefined, mtimeSynced: false });
		else known.versions.push(Buffer.alloc(0));
		this.#remember();
		const inode = this.#files.get(at) as ModelInode;
		inode.versions.push(this.#newest.files.get(path)?.bytes as Buffer);
		inode.mtimeSeconds = undefined;
		if (synced && isDone) this.#sync(at);
		if (careful) this.#rename(temporary, path);
	}

	#rename(from: string, to: string): void {
		const inode = this.#files.get(from) as ModelInode;
		this.#files.delete(from);
		this.#files.set(to, inode);
	}

	#change(path: string): void {
		const inode = this.#files.get(path) as ModelInode;
		inode.versions.push(this.#newest.files.get(path)?.bytes as Buffer);
		inode.mtimeSeconds = undefined;
	}

	#touch(path: string, seconds: number): void {
		const inode = this.#files.get(path) as ModelInode;
		inode.mtimeSeconds = seconds;
		inode.mtimeSynced = false;
	}

	/** The file's bytes are durable, and all names. */
	#sync(path: string): void {
		const inode = this.#files.get(path) as ModelInode;
		inode.versions = inode.versions.slice(-1);
		inode.mtimeSynced = true;
		this.synced++;
		this.#states = [];
		this.#remember();
	}

	judge(found: Found): Verdict {
		const names = namesOf(found.files.keys(), found.folders);
		const candidates = this.#states.filter((state) => namesOf(state.files.keys(), state.folders) === names);
		const newest = this.#states[this.#states.length - 1] as State;
		if (candidates.length === 0) return { faults: [describeNames(newest, found, this.#states.length)], exactFiles: 0 };
		let best: readonly string[] | undefined;
		for (const state of candidates) {
			const faults = [...state.files].flatMap(([path, inode]) => faultsOf(path, inode, found.files.get(path) as FoundFile));
			const exactFiles = [...state.files.values()].filter((inode) => inode.versions.length === 1).length;
			if (faults.length === 0) return { faults, exactFiles };
			if (best === undefined || faults.length < best.length) best = faults;
		}
		return { faults: best ?? [], exactFiles: 0 };
	}
}

function namesOf(files: Iterable<string>, folders: ReadonlySet<string>): string {
	return `${[...files].sort().join("\n")}\n\n${[...folders].sort().join("\n")}`;
}

function describeNames(newest: State, found: Found, states: number): string {
	const [have, want] = [found, newest].map(({ files, folders }) => new Set([...files.keys(), ...folders])) as [Set<string>, Set<string>];
	const more = [...have].filter((path) => !want.has(path));
	const less = [...want].filter((path) => !have.has(path));
	return `the names are those of none of the ${states} states since the newest sync; beside the newest one: too many [${more.join()}], missing [${less.join()}]`;
}

function faultsOf(path: string, { versions, mtimeSeconds, mtimeSynced }: ModelInode, { bytes, mtimeMs }: FoundFile): string[] {
	if (!isPossible(bytes, versions)) {
		const what = versions.length === 1 ? "was synced and not touched since" : `has ${versions.length} versions since its newest sync`;
		return [
			`${path} (${bytes.length} bytes) ${what} (${versions.map((version) => version.length).join()} bytes): ${firstWrong(bytes, versions)}`,
		];
	}
	if (mtimeSynced && mtimeSeconds !== undefined && mtimeMs !== mtimeSeconds * 1000) return [`${path}: its time is ${mtimeMs}`];
	return [];
}

function isPossible(bytes: Buffer, versions: readonly Buffer[]): boolean {
	return versions.some((version) => version.equals(bytes)) || firstWrong(bytes, versions) === undefined;
}

/** Undefined: each byte is what some version has there, and the size is none beyond theirs. */
function firstWrong(bytes: Buffer, versions: readonly Buffer[]): string | undefined {
	const sizes = versions.map((version) => version.length);
	if (bytes.length < Math.min(...sizes) || bytes.length > Math.max(...sizes)) return `${bytes.length} bytes are no size it ever had`;
	for (let at = 0; at < bytes.length; at++) {
		if (!versions.some((version) => version[at] === bytes[at])) return `byte ${at} was never ${bytes[at]}`;
	}
	return versions.length === 1 && !versions[0]?.equals(bytes) ? "it differs" : undefined;
}
