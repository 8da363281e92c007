/** MOUNT version 3 (RFC 1813, appendix I): from a path to the first file handle. */
import { isFsError } from "../../base/errors.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import { formatRange } from "./addresses.ts";
import { maxMounts, maxPathBytes } from "./limits.ts";
import { statusOf } from "./nfs3.ts";
import type { NfsState } from "./nfs-server.ts";
import { type CallContext, nullProcedure, type Procedure, type Program } from "./program.ts";
import { authFlavor } from "./rpc.ts";

export const mountProgram = 100005;

interface MountEntry {
	readonly address: string;
	readonly path: string;
}

/** What clients say that they have mounted; they forget to tell when they do not any more. */
export class MountList {
	readonly #mounts = new Map<string, MountEntry>();

	add(mount: MountEntry): void {
		const key = `${mount.address} ${mount.path}`;
		this.#mounts.delete(key);
		this.#mounts.set(key, mount);
		const [oldest] = this.#mounts.keys();
		if (this.#mounts.size > maxMounts && oldest !== undefined) this.#mounts.delete(oldest);
	}

	remove(address: string, path?: string): void {
		for (const [key, mount] of this.#mounts)
			if (mount.address === address && (path === undefined || mount.path === path)) this.#mounts.delete(key);
	}

	all(): readonly MountEntry[] {
		return [...this.#mounts.values()];
	}
}

export function createMountProgram(state: NfsState, mounts: MountList): Program {
	const procedures: readonly Procedure[] = [
		nullProcedure,
		{ name: "MNT", run: (reader, writer, context) => mount(state, mounts, reader, writer, context) },
		{ name: "DUMP", run: async (reader, writer) => dump(mounts, reader, writer) },
		{
			name: "UMNT",
			run: async (reader, _writer, { peer }) => {
				const path = reader.text(maxPathBytes);
				reader.end();
				mounts.remove(peer.address, path);
				return undefined;
			},
		},
		{
			name: "UMNTALL",
			run: async (reader, _writer, { peer }) => {
				reader.end();
				mounts.remove(peer.address);
				return undefined;
			},
		},
		{ name: "EXPORT", run: async (reader, writer) => listExports(state, reader, writer) },
	];
	return { number: mountProgram, transports: ["tcp", "udp"], versions: new Map([[3, procedures]]) };
}

async function mount(state: NfsState, mounts: MountList, reader: XdrReader, writer: XdrWriter, context: CallContext): Promise<undefined> {
	const path = reader.text(maxPathBytes);
	reader.end();
	const at = writer.length;
	writer.u32(0);
	try {
		const { entry, attributes } = await state.mountPoint(path, context);
		writer.opaque(state.handleOf(entry, attributes)).u32(1).u32(authFlavor.sys);
		mounts.add({ address: context.peer.address, path });
	} catch (error) {
		// The two lists of statuses (mountstat3, nfsstat3) agree where both have one.
		if (!isFsError(error) || isFsError(error, "ENOTCONN")) throw error;
		writer.cut(at).u32(statusOf(error));
	}
	return undefined;
}

function dump(mounts: MountList, reader: XdrReader, writer: XdrWriter): undefined {
	reader.end();
	for (const { address, path } of mounts.all()) writer.bool(true).text(address).text(path);
	writer.bool(false);
	return undefined;
}

/** Whom an export is for is told as groups; this machine alone as "localhost". */
function listExports(state: NfsState, reader: XdrReader, writer: XdrWriter): undefined {
	reader.end();
	for (const { path, clients } of state.exports) {
		writer.bool(true).text(path);
		for (const client of clients.length === 0 ? ["localhost"] : clients.map(formatRange)) writer.bool(true).text(client);
		writer.bool(false);
	}
	writer.bool(false);
	return undefined;
}
