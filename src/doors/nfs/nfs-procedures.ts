/** The 22 procedures of NFS version 3 (RFC 1813), each on the volume's interface. Permissions are the volume's to check; what a door that sees no opens decides itself is in `mayRead` and `mayWrite`. */
import { latin1ToBytes } from "../../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Attributes, Ino, Opened, OpenIntent, Permissions, SetAttributes } from "../../volume/interface.ts";
import { maxTargetBytes, maxTransferBytes } from "./limits.ts";
import {
	accessBits,
	createMode,
	type At,
	fsProperties,
	readAt,
	readDevice,
	readHandle,
	readSetAttributes,
	readTime,
	specialType,
	stable,
	status,
	statusOf,
	writeAttributes,
	writeChange,
	writePostAttributes,
	writePostHandle,
} from "./nfs3.ts";
import type { Change, NfsState, Target } from "./nfs-server.ts";
import { type CallContext, nullProcedure, type Procedure, type Results } from "./program.ts";
import { readDirectory, readDirectoryPlus } from "./read-directory.ts";

/** Answers a call whose arguments were read; what it throws becomes the status. */
type Answer = (writer: XdrWriter, context: CallContext) => Promise<Results | undefined>;

/** What a failed call tells besides its status. */
type Failure = (writer: XdrWriter) => void;

/** Attributes for replies of failed calls: the newest that are known, or none. */
export class Seen {
	target: Target | undefined;
	other: Target | undefined;
	readonly #state: NfsState;

	constructor(state: NfsState) {
		this.#state = state;
	}

	/** The first node that a call names, remembered for its failure. */
	async first(handle: Uint8Array, context: CallContext): Promise<Target> {
		this.target = await this.#state.target(handle, context);
		return this.target;
	}

	async second(handle: Uint8Array, context: CallContext): Promise<Target> {
		this.other = await this.#state.target(handle, context);
		return this.other;
	}

	/** As they are now, after the failure. */
	async refresh(): Promise<void> {
		this.target = await this.#fresh(this.target);
		this.other = await this.#fresh(this.other);
	}

	async #fresh(target: Target | undefined): Promise<Target | undefined> {
		if (target === undefined) return undefined;
		try {
			return { ...target, attributes: await this.#state.volume.getAttributes(target.caller, target.node) };
		} catch {
			return undefined;
		}
	}
}

const noFsid = { high: 0, low: 0 };

/** post_op_attr of the first node. */
function tellAttributes(seen: Seen): Failure {
	return (writer) => writePostAttributes(writer, seen.target?.attributes, seen.target?.fsid ?? noFsid);
}

/** wcc_data of the first node. */
function tellChange(seen: Seen): Failure {
	return (writer) => writeChange(writer, undefined, seen.target?.attributes, seen.target?.fsid ?? noFsid);
}

/** wcc_data of both. */
function tellChanges(seen: Seen): Failure {
	return (writer) => {
		tellChange(seen)(writer);
		writeChange(writer, undefined, seen.other?.attributes, seen.other?.fsid ?? noFsid);
	};
}

/** Puts a status before what a procedure writes. */
async function answered(
	state: NfsState,
	writer: XdrWriter,
	seen: Seen,
	{ failure, failed }: { readonly failure: Failure; readonly failed: (code: number) => Promise<void> },
	work: () => Promise<Results | undefined>,
): Promise<Results> {
	const at = writer.length;
	writer.u32(status.OK);
	try {
		return (await work()) ?? {};
	} catch (error) {
		// The volume is going: whoever comes after answers the call when it is sent again.
		if (isFsError(error, "ENOTCONN") || !isFsError(error)) throw error;
		const wrong = toFsError(error, "nfs.procedure");
		const code = wrong.site === "locks.denied" ? state.denials.status(seen.target) : statusOf(wrong);
		await failed(code);
		await seen.refresh();
		if (code === status.IO || code === status.SERVERFAULT)
			state.modules.logger.error(`an NFS call failed: ${wrong.message}`, { code: wrong.code, site: wrong.site });
		failure(writer.cut(at).u32(code));
		return { keep: code !== status.JUKEBOX };
	}
}

// ── permissions of a server that sees no opens ───────────────────────────────────────────────────────────────────

/** RFC 1813, 4.4: who may run a program may read it, and the owner may go on with what it has opened. */
function mayRead({ caller, attributes }: Target, { read, execute }: Permissions): boolean {
	return read || (execute && attributes.type === "file") || caller.uid === attributes.uid;
}

function mayWrite({ caller, attributes }: Target, { write }: Permissions): boolean {
	return write || caller.uid === attributes.uid;
}

function refused({ caller, node }: Target, what: string): FsError {
	return new FsError("EACCES", "nfs.permission", `uid ${caller.uid} may not ${what} inode ${node.ino}`, { ino: node.ino, uid: caller.uid });
}

/** @throws FsError EISDIR, EINVAL. */
function requireFile({ attributes, node }: Target): void {
	if (attributes.type === "directory") throw new FsError("EISDIR", "nfs.directory", `inode ${node.ino} is a directory`);
	if (attributes.type !== "file") throw new FsError("EINVAL", "nfs.no-file", `inode ${node.ino} is a ${attributes.type}`);
}

/** Two exports are two file systems for clients. @throws FsError EXDEV. */
function requireSameExport(a: Target, b: Target): void {
	if (a.entry.rootIno !== b.entry.rootIno) throw new FsError("EXDEV", "nfs.exports-differ", "the two directories are of two exports");
}

/** The contents of a directory are its listing, which the kernel keeps too. */
function namesChange(parent: Ino, name: string, nodes: readonly Ino[]): Change {
	return { nodes: [{ ino: parent, contentsFrom: 0 }, ...nodes.map((ino) => ({ ino }))], names: [{ parent, name }] };
}

function renameChange(source: Target, name: string, target: Target, newName: string, nodes: readonly Ino[]): Change {
	const from = namesChange(source.node.ino, name, []);
	const to = namesChange(target.node.ino, newName, nodes);
	return { nodes: [...from.nodes, ...to.nodes], names: [...from.names, ...to.names] };
}

function withoutSize({ size: _size, ...rest }: SetAttributes): SetAttributes {
	return rest;
}

// ── the procedures ───────────────────────────────────────────────────────────────────────────────────────────────

/** What a call changes names by, where it does: directory and name. */
type Names = () => readonly (readonly [Target | undefined, string])[];

/** Reads the arguments of a call and says how it is answered. */
type Decode = (reader: XdrReader, seen: Seen) => { readonly failure: Failure; readonly work: Answer; readonly names?: Names };

export class NfsProcedures {
	readonly #state: NfsState;

	constructor(state: NfsState) {
		this.#state = state;
	}

	/** By their numbers. */
	all(): readonly Procedure[] {
		const of = (name: string, decode: Decode, once = false): Procedure => ({
			name,
			once,
			counted: name === "READ" || name === "READDIR" || name === "READDIRPLUS",
			run: async (reader, writer, context) => {
				const seen = new Seen(this.#state);
				const { failure, work, names } = decode(reader, seen);
				reader.end();
				const failed = (code: number): Promise<void> => this.#tellAgain(code, names);
				const carryOut = (now: CallContext): Promise<Results> =>
					answered(this.#state, writer, seen, { failure, failed }, () => work(writer, now));
				if (names === undefined) return carryOut(context);
				return this.#state.pastCalls.carryOut(context.peer.address, context.message, (call) => carryOut({ ...context, ...call }));
			},
		});
		return [
			nullProcedure,
			of("GETATTR", (reader, seen) => this.#getattr(reader, seen)),
			of("SETATTR", (reader, seen) => this.#setattr(reader, seen), true),
			of("LOOKUP", (reader, seen) => this.#lookup(reader, seen)),
			of("ACCESS", (reader, seen) => this.#access(reader, seen)),
			of("READLINK", (reader, seen) => this.#readlink(reader, seen)),
			of("READ", (reader, seen) => this.#read(reader, seen)),
			of("WRITE", (reader, seen) => this.#write(reader, seen), true),
			of("CREATE", (reader, seen) => this.#create(reader, seen), true),
			of("MKDIR", (reader, seen) => this.#mkdir(reader, seen), true),
			of("SYMLINK", (reader, seen) => this.#symlink(reader, seen), true),
			of("MKNOD", (reader, seen) => this.#mknod(reader, seen), true),
			of("REMOVE", (reader, seen) => this.#remove(reader, seen, false), true),
			of("RMDIR", (reader, seen) => this.#remove(reader, seen, true), true),
			of("RENAME", (reader, seen) => this.#rename(reader, seen), true),
			of("LINK", (reader, seen) => this.#link(reader, seen), true),
			of("READDIR", (reader, seen) => this.#readdir(reader, seen)),
			of("READDIRPLUS", (reader, seen) => this.#readdirplus(reader, seen)),
			of("FSSTAT", (reader, seen) => this.#fsstat(reader, seen)),
			of("FSINFO", (reader, seen) => this.#fsinfo(reader, seen)),
			of("PATHCONF", (reader, seen) => this.#pathconf(reader, seen)),
			of("COMMIT", (reader, seen) => this.#commit(reader, seen)),
		];
	}

	/**
	 * "Exists" or "no such name" may be the answer to a call that a predecessor of this process has carried out, and was killed before it told the kernel behind the mount.
	 */
	async #tellAgain(code: number, names: Names | undefined): Promise<void> {
		if (names === undefined || (code !== status.NOENT && code !== status.EXIST)) return;
		const known = names().flatMap(([directory, name]) => (directory === undefined ? [] : [{ parent: directory.node.ino, name }]));
		await this.#state.modules.changed({ nodes: known.map(({ parent }) => ({ ino: parent, contentsFrom: 0 })), names: known });
	}

	// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────

	#getattr(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const work: Answer = async (writer, context) => {
			const { attributes, fsid } = await seen.first(handle, context);
			writeAttributes(writer, attributes, fsid);
			return undefined;
		};
		return { failure: () => {}, work };
	}

	#setattr(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const change = readSetAttributes(reader);
		const guard = reader.bool() ? readTime(reader) : undefined;
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			this.#state.requireWritable(target);
			const guarded = guard === undefined ? change : { ...change, onlyIfCtime: guard };
			const { before, after } = await this.#change(target, guarded);
			writeChange(writer, change.size === undefined ? before : undefined, after, target.fsid);
			return undefined;
		};
		return { failure: tellChange(seen), work };
	}

	/** Changes attributes; the owner may cut what it has opened, whatever the mode says now. */
	async #change(target: Target, change: SetAttributes): Promise<{ readonly before: Attributes | undefined; readonly after: Attributes }> {
		const { volume, files } = this.#state;
		const { caller, node, attributes } = target;
		if (change.size !== undefined) {
			requireFile(target);
			if (!Number.isSafeInteger(change.size)) throw new FsError("EFBIG", "nfs.size", "files end before 2^53 bytes");
		}
		const asOwner = change.size !== undefined && caller.uid !== 0 && caller.uid === attributes.uid;
		const changed = asOwner
			? await files.write(node.ino, false, (handle) => volume.setAttributes(caller, node, change, handle))
			: await this.#changeAsOther(target, change);
		const contents = change.size === undefined ? {} : { contentsFrom: Math.min(change.size, attributes.size) };
		await this.#state.settled(changed.position, { nodes: [{ ino: node.ino, ...contents }], names: [] });
		return changed;
	}

	/**
	 * Clients tell an open that cuts as "size 0, modified now", and only "modified now" when it is empty already: for who may write that is no more than writing, though setting one time alone is the owner's right (utimensat(2)).
	 */
	async #changeAsOther(target: Target, change: SetAttributes): ReturnType<NfsState["volume"]["setAttributes"]> {
		const { volume } = this.#state;
		const { caller, node, attributes } = target;
		const { mtime, atime, ...rest } = change;
		const isOwner = caller.uid === 0 || caller.uid === attributes.uid;
		if (isOwner || mtime !== "now" || atime !== undefined) return volume.setAttributes(caller, node, change);
		// Cutting sets it.
		if (rest.size !== undefined) return volume.setAttributes(caller, node, rest);
		if (!mayWrite(target, await volume.permissions(caller, node))) throw refused(target, "set the times of");
		if (Object.keys(rest).some((key) => key !== "onlyIfCtime")) return volume.setAttributes(caller, node, change);
		return volume.setAttributes({ ...caller, trusted: true }, node, { ...rest, mtime });
	}

	#access(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const asked = reader.u32();
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			const { read, write, execute, attributes } = await this.#state.volume.permissions(target.caller, target.node);
			const isDirectory = attributes.type === "directory";
			const changes = write && (!isDirectory || execute) && !this.#state.isReadOnly(target.entry);
			let may = read ? accessBits.read : 0;
			if (changes) may |= accessBits.modify | accessBits.extend | (isDirectory ? accessBits.delete : 0);
			if (execute) may |= isDirectory ? accessBits.lookup : accessBits.execute;
			writePostAttributes(writer, attributes, target.fsid);
			writer.u32(may & asked);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

	#lookup(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const at = readAt(reader);
		const work: Answer = async (writer, context) => {
			const directory = await seen.first(at.directory, context);
			const { entry, caller, node, fsid } = directory;
			// Above the root of an export there is nothing for its clients.
			const name = at.name === ".." && node.ino === entry.rootIno ? "." : at.name;
			const { volume, now } = this.#state;
			const found = now?.lookup(caller, node, name) ?? (await volume.lookup(caller, node, name));
			writer.opaque(this.#state.handleOf(entry, found));
			writePostAttributes(writer, found, fsid);
			writePostAttributes(writer, now?.getAttributes(caller, node) ?? (await volume.getAttributes(caller, node)), fsid);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	#readlink(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const work: Answer = async (writer, context) => {
			const { caller, node, attributes, fsid } = await seen.first(handle, context);
			const target = await this.#state.volume.readSymlink(caller, node);
			writePostAttributes(writer, attributes, fsid);
			writer.opaque(latin1ToBytes(target));
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	#create(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const at = readAt(reader);
		const mode = reader.choice(3, "create mode");
		const change = mode === createMode.exclusive ? {} : readSetAttributes(reader);
		const verifier = mode === createMode.exclusive ? reader.fixed(8) : undefined;
		const work: Answer = async (writer, context) => {
			const directory = await seen.first(at.directory, context);
			if (context.past !== undefined) return this.#madeBefore(writer, directory, at.name, change, context.past);
			this.#state.requireWritable(directory);
			const exclusive = verifier === undefined ? {} : { verifier };
			const disposition = mode === createMode.unchecked ? "open-or-create" : "create";
			const attributes = { mode: (change.mode ?? 0) & 0o777 };
			const opened = await this.#openNew(directory, at.name, {
				disposition,
				attributes,
				access: { read: false, write: false },
				...exclusive,
			});
			const rest = opened.created ? { ...change } : change.size === undefined ? {} : { size: change.size };
			const made = await this.#initialise(directory, opened.attributes, rest, opened.created);
			await this.#state.settled(opened.position, namesChange(directory.node.ino, at.name, [opened.attributes.ino]));
			await this.#tellMade(writer, directory, made, opened.parentBefore, opened.parentAfter);
			return undefined;
		};
		return { failure: tellChange(seen), work, names: () => [[seen.target, at.name]] };
	}

	async #openNew({ caller, node }: Target, name: string, intent: OpenIntent): Promise<Opened> {
		const { volume } = this.#state;
		// "." and ".." exist, whatever is to be made.
		if (name === "." || name === "..") throw new FsError("EEXIST", "nfs.create-dots", `"${name}" exists already`);
		const opened = await volume.open(caller, { parent: node, name }, intent).catch((error: unknown) => {
			// What is there is no file: only a file can be opened, and anything can be in the way.
			const isOther = isFsError(error, "EISDIR") || isFsError(error, "ENXIO") || isFsError(error, "ELOOP");
			throw isOther ? new FsError("EEXIST", "nfs.create-other", error.message, {}, error) : error;
		});
		await volume.close(opened.handle);
		return opened;
	}

	/** The attributes that a new node is to have. Those that making it has settled already are left out. */
	async #initialise(directory: Target, made: Attributes, change: SetAttributes, created: boolean): Promise<Attributes> {
		const rest: { -readonly [K in keyof SetAttributes]: SetAttributes[K] } = { ...change };
		if (rest.mode !== undefined && (rest.mode & 0o7000) === 0) delete rest.mode;
		// Set-id and sticky bits are not for everybody to set; what a directory has inherited stays.
		else if (rest.mode !== undefined && made.type === "directory") rest.mode |= made.mode & 0o2000;
		// As Linux servers do: what only root may ask for is left out, not refused.
		if (directory.caller.uid !== 0) {
			delete rest.uid;
			delete rest.gid;
		}
		if (rest.uid === made.uid) delete rest.uid;
		if (rest.gid === made.gid) delete rest.gid;
		if (rest.size === made.size) delete rest.size;
		if (Object.keys(rest).length === 0) return made;
		const node = this.#state.volume.node(made.ino);
		if (rest.size !== undefined && !created) {
			const target = { ...directory, node, attributes: made };
			if (!mayWrite(target, await this.#state.volume.permissions(directory.caller, node))) throw refused(target, "cut");
		}
		return (await this.#change({ ...directory, node, attributes: made }, rest)).after;
	}

	/** post_op_fh3, post_op_attr and wcc_data of the directory. */
	async #tellMade(
		writer: XdrWriter,
		directory: Target,
		made: Attributes,
		before: Attributes | undefined,
		after: Attributes | undefined,
	): Promise<void> {
		const { entry, caller, node, fsid } = directory;
		writePostHandle(writer, this.#state.handleOf(entry, made));
		writePostAttributes(writer, made, fsid);
		writeChange(writer, before, after ?? (await this.#state.volume.getAttributes(caller, node)), fsid);
	}

	#mkdir(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const at = readAt(reader);
		const change = readSetAttributes(reader);
		const work: Answer = async (writer, context) =>
			this.#make(writer, context, seen, at, change, ({ caller, node }, mode) =>
				this.#state.volume.makeDirectory(caller, node, at.name, mode),
			);
		return { failure: tellChange(seen), work, names: () => [[seen.target, at.name]] };
	}

	#symlink(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const at = readAt(reader);
		const { mode: _mode, ...change } = readSetAttributes(reader);
		const target = reader.text(maxTargetBytes);
		const work: Answer = async (writer, context) =>
			this.#make(writer, context, seen, at, change, ({ caller, node }) => this.#state.volume.makeSymlink(caller, node, at.name, target));
		return { failure: tellChange(seen), work, names: () => [[seen.target, at.name]] };
	}

	#mknod(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const at = readAt(reader);
		const number = reader.u32();
		const type = specialType(number);
		const change = type === undefined ? {} : readSetAttributes(reader);
		const rdev = type === "block" || type === "character" ? readDevice(reader) : 0;
		const work: Answer = async (writer, context) => {
			if (type === undefined) {
				await seen.first(at.directory, context);
				throw new FsError("EINVAL", "nfs.bad-type", `a node of type ${number} is not made by MKNOD`);
			}
			return this.#make(writer, context, seen, at, change, ({ caller, node }, mode) =>
				this.#state.volume.makeNode(caller, node, at.name, type, mode, rdev),
			);
		};
		return { failure: tellChange(seen), work, names: () => [[seen.target, at.name]] };
	}

	async #make(
		writer: XdrWriter,
		context: CallContext,
		seen: Seen,
		at: At,
		change: SetAttributes,
		make: (directory: Target, mode: number) => ReturnType<NfsState["volume"]["makeDirectory"]>,
	): Promise<Results | undefined> {
		const directory = await seen.first(at.directory, context);
		if (context.past !== undefined) return this.#madeBefore(writer, directory, at.name, change, context.past);
		this.#state.requireWritable(directory);
		const made = await make(directory, (change.mode ?? 0) & 0o777);
		const attributes = await this.#initialise(directory, made.attributes, withoutSize(change), true);
		await this.#state.settled(made.position, namesChange(directory.node.ino, at.name, []));
		await this.#tellMade(writer, directory, attributes, made.parentBefore, made.parentAfter);
		return undefined;
	}

	/** A predecessor has made it, and may have been killed before it had all of its attributes. */
	async #madeBefore(writer: XdrWriter, directory: Target, name: string, change: SetAttributes, ino: Ino): Promise<undefined> {
		const { volume, modules } = this.#state;
		await modules.changed(namesChange(directory.node.ino, name, [ino]));
		const made = await volume.getAttributes(directory.caller, volume.node(ino)).catch((error: unknown) => {
			if (isFsError(error, "ESTALE")) return undefined;
			throw error;
		});
		// Others have removed it since: it was made all the same.
		if (made === undefined || made.nlink === 0) {
			writer.bool(false).bool(false);
			writeChange(writer, undefined, await volume.getAttributes(directory.caller, directory.node), directory.fsid);
			return;
		}
		// What others have written since is not cut.
		const isEmptyFile = made.type === "file" && made.size === 0;
		const attributes = await this.#initialise(directory, made, isEmptyFile ? change : withoutSize(change), true);
		await this.#tellMade(writer, directory, attributes, undefined, undefined);
	}

	#remove(reader: XdrReader, seen: Seen, isDirectory: boolean): ReturnType<Decode> {
		const at = readAt(reader);
		const work: Answer = async (writer, context) => {
			const directory = await seen.first(at.directory, context);
			const { caller, node, fsid } = directory;
			const { volume, files, modules } = this.#state;
			if (context.past !== undefined) {
				await modules.changed(namesChange(node.ino, at.name, [context.past]));
				writeChange(writer, undefined, directory.attributes, fsid);
				return undefined;
			}
			this.#state.requireWritable(directory);
			if (at.name === "." && isDirectory) throw new FsError("EINVAL", "nfs.rmdir-dot", '"." cannot be removed');
			if (at.name === "..") throw new FsError("EEXIST", "nfs.remove-dots", '".." cannot be removed');
			const gone = isDirectory ? await volume.removeDirectory(caller, node, at.name) : await volume.unlink(caller, node, at.name);
			if (gone.attributes.nlink === 0) files.forget(gone.attributes.ino);
			await this.#state.settled(gone.position, namesChange(node.ino, at.name, [gone.attributes.ino]));
			writeChange(writer, gone.parentBefore, gone.parentAfter, fsid);
			return undefined;
		};
		return { failure: tellChange(seen), work, names: () => [[seen.target, at.name]] };
	}

	#rename(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const from = readAt(reader);
		const to = readAt(reader);
		const work: Answer = async (writer, context) => {
			const source = await seen.first(from.directory, context);
			const target = await seen.second(to.directory, context);
			if (context.past !== undefined) {
				await this.#state.modules.changed(renameChange(source, from.name, target, to.name, [context.past]));
				writeChange(writer, undefined, source.attributes, source.fsid);
				writeChange(writer, undefined, target.attributes, target.fsid);
				return undefined;
			}
			this.#state.requireWritable(source);
			requireSameExport(source, target);
			for (const name of [from.name, to.name])
				if (name === "." || name === "..") throw new FsError("EINVAL", "nfs.rename-dots", `"${name}" cannot be renamed or replaced`);
			const moved = await this.#state.volume.rename(source.caller, source.node, from.name, target.node, to.name, 0);
			const { replaced } = moved;
			if (replaced?.nlink === 0) this.#state.files.forget(replaced.ino);
			const nodes = [moved.attributes.ino, ...(replaced ? [replaced.ino] : [])];
			await this.#state.settled(moved.position, renameChange(source, from.name, target, to.name, nodes));
			writeChange(writer, moved.parentBefore, moved.parentAfter, source.fsid);
			writeChange(writer, moved.newParentBefore, moved.newParentAfter, target.fsid);
			return undefined;
		};
		const names: Names = () => [
			[seen.target, from.name],
			[seen.other, to.name],
		];
		return { failure: tellChanges(seen), work, names };
	}

	#link(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const at = readAt(reader);
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			const directory = await seen.second(at.directory, context);
			if (context.past !== undefined) {
				await this.#state.modules.changed(namesChange(directory.node.ino, at.name, [target.node.ino]));
				writePostAttributes(writer, target.attributes, target.fsid);
				writeChange(writer, undefined, directory.attributes, directory.fsid);
				return undefined;
			}
			this.#state.requireWritable(target);
			requireSameExport(target, directory);
			const linked = await this.#state.volume.link(directory.caller, target.node, directory.node, at.name);
			await this.#state.settled(linked.position, namesChange(directory.node.ino, at.name, [target.node.ino]));
			writePostAttributes(writer, linked.attributes, target.fsid);
			writeChange(writer, linked.parentBefore, linked.parentAfter, directory.fsid);
			return undefined;
		};
		const failure: Failure = (writer) => {
			tellAttributes(seen)(writer);
			writeChange(writer, undefined, seen.other?.attributes, seen.other?.fsid ?? noFsid);
		};
		return { failure, work, names: () => [[seen.other, at.name]] };
	}

	#readdir(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const cookie = reader.u64();
		const verifier = reader.fixed(8);
		const countBytes = reader.u32();
		const work: Answer = async (writer, context) => {
			await readDirectory(this.#state, await seen.first(handle, context), { cookie, verifier, countBytes }, writer);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	#readdirplus(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const cookie = reader.u64();
		const verifier = reader.fixed(8);
		const namesBytes = reader.u32();
		const countBytes = reader.u32();
		const work: Answer = async (writer, context) => {
			await readDirectoryPlus(this.#state, await seen.first(handle, context), { cookie, verifier, countBytes, namesBytes }, writer);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	// ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────

	#read(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const offset = reader.u64();
		const countBytes = reader.u32();
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			requireFile(target);
			const { caller, node, fsid } = target;
			const { volume, files } = this.#state;
			if (!mayRead(target, await volume.permissions(caller, node))) throw refused(target, "read");
			const wanted = Math.min(countBytes, maxTransferBytes);
			// Beyond what a file can have there is its end.
			const at = Number.isSafeInteger(offset + wanted) ? offset : Number.MAX_SAFE_INTEGER - maxTransferBytes;
			const lent = this.#state.readBuffers.take(wanted);
			const bytes = await files.read(node.ino, (file) => volume.read(file, at, wanted, lent?.bytes, caller));
			const attributes = await volume.getAttributes(caller, node);
			const isEnd = at + bytes.length >= attributes.size;
			writePostAttributes(writer, attributes, fsid);
			writer.u32(bytes.length).bool(isEnd).u32(bytes.length);
			return { body: bytes, release: lent?.release };
		};
		return { failure: tellAttributes(seen), work };
	}

	#write(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const offset = reader.u64();
		const countBytes = reader.u32();
		const how = reader.choice(3, "stability");
		const data = reader.opaque(maxTransferBytes);
		if (countBytes > data.length) throw reader.corrupt(`${countBytes} bytes to write, ${data.length} sent`);
		const bytes = data.subarray(0, countBytes);
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			requireFile(target);
			this.#state.requireWritable(target);
			if (!mayWrite(target, await this.#state.volume.permissions(target.caller, target.node))) throw refused(target, "write");
			if (!Number.isSafeInteger(offset + bytes.length)) throw new FsError("EFBIG", "nfs.write-end", "files end before 2^53 bytes");
			// Taken before: what is lost while it is written makes clients send it again.
			const { verifier } = this.#state;
			const { written, attributes } = await this.#writeFile(target, offset, bytes, how !== stable.unstable);
			writeChange(writer, undefined, attributes, target.fsid);
			writer
				.u32(written)
				.u32(how === stable.unstable ? stable.unstable : stable.file)
				.fixed(verifier);
			return undefined;
		};
		return { failure: tellChange(seen), work };
	}

	async #writeFile(
		{ caller, node }: Target,
		offset: number,
		bytes: Uint8Array,
		isStable: boolean,
	): Promise<{ readonly written: number; readonly attributes: Attributes }> {
		const { volume, files, modules } = this.#state;
		return files.write(node.ino, caller.uid === 0, async (handle, file) => {
			const done = await volume.write(handle, offset, bytes, caller).finally(() => {
				// Afterwards: a sync that began in between has not covered it. After a failure too, something may have been written.
				file.unsynced = true;
			});
			const sync = isStable ? files.fsync(file) : undefined;
			await Promise.all([sync, modules.changed({ nodes: [{ ino: node.ino, contentsFrom: offset }], names: [] })]);
			return done;
		});
	}

	#commit(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		reader.u64();
		reader.u32();
		const work: Answer = async (writer, context) => {
			const target = await seen.first(handle, context);
			requireFile(target);
			const { volume, files, verifier } = this.#state;
			await files.commit(target.node.ino);
			writeChange(writer, undefined, await volume.getAttributes(target.caller, target.node), target.fsid);
			writer.fixed(verifier);
			return undefined;
		};
		return { failure: tellChange(seen), work };
	}

	// ── the file system ──────────────────────────────────────────────────────────────────────────────────────────

	#fsstat(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const work: Answer = async (writer, context) => {
			const { attributes, fsid } = await seen.first(handle, context);
			const space = await this.#state.space();
			writePostAttributes(writer, attributes, fsid);
			writer.u64(space.capacityBytes).u64(space.freeBytes).u64(space.freeBytes);
			// 0: it may change at any time.
			writer.u64(space.inodes).u64(space.freeInodes).u64(space.freeInodes).u32(0);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	#fsinfo(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const work: Answer = async (writer, context) => {
			const { attributes, fsid } = await seen.first(handle, context);
			writePostAttributes(writer, attributes, fsid);
			for (const _ of ["read", "write"]) writer.u32(maxTransferBytes).u32(maxTransferBytes).u32(4096);
			// Preferred size of directory replies; greatest file; times are exact to the nanosecond.
			writer.u32(65_536).u64(Number.MAX_SAFE_INTEGER).u32(0).u32(1).u32(fsProperties);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}

	#pathconf(reader: XdrReader, seen: Seen): ReturnType<Decode> {
		const handle = readHandle(reader);
		const work: Answer = async (writer, context) => {
			const { attributes, fsid } = await seen.first(handle, context);
			const { maximumNameBytes } = await this.#state.space();
			writePostAttributes(writer, attributes, fsid);
			// Links of a file; longer names are refused, only root gives files away; case counts and is kept.
			writer.u32(65_000).u32(maximumNameBytes).bool(true).bool(true).bool(false).bool(true);
			return undefined;
		};
		return { failure: tellAttributes(seen), work };
	}
}
