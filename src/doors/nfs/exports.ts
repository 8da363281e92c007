/** Which part of the volume which clients may reach, and as whom. */
import { FsError } from "../../base/errors.ts";
import type { Peer } from "../../platform/interface.ts";
import type { Caller, Ino } from "../../volume/interface.ts";
import { inRanges, isLoopback, type Range } from "./addresses.ts";
import type { Credential } from "./rpc.ts";

export type Squash = "root" | "all" | "none";

export interface Export {
	/** Of its record. */
	readonly id: number;
	/** As the operator named it: `photos`, `photos:/public`. */
	readonly name: string;
	/** What clients mount, a byte string: `/photos`, `/photos/public`. */
	readonly path: string;
	/** Below the volume's root, a byte string: empty, or `public/holidays`. */
	readonly folder: string;
	/** Empty: this machine alone. */
	readonly clients: readonly Range[];
	readonly squash: Squash;
	readonly anonymousUid: number;
	readonly anonymousGid: number;
	readonly readOnly: boolean;
	/** Only clients whose port says that root, or who may use privileged ports, has sent the call (below 1024). */
	readonly privilegedPorts: boolean;
}

/** An export whose folder was found. */
export interface LiveExport extends Export {
	/** Names it in file handles: inode numbers are never used again. */
	readonly rootIno: Ino;
}

const lastPrivilegedPort = 1023;

/** @throws FsError EACCES. */
export function admit(entry: Export, { address, port }: Peer): void {
	const isClient = entry.clients.length === 0 ? isLoopback(address) : inRanges(address, entry.clients);
	if (!isClient) throw new FsError("EACCES", "nfs.client", `${address} is no client of ${entry.name}`, { address, export: entry.name });
	if (entry.privilegedPorts && port > lastPrivilegedPort)
		throw new FsError(
			"EACCES",
			"nfs.client-port",
			`${address} asks from port ${port}, which any user could: ${entry.name} wants one below 1024`,
			{
				address,
				port,
			},
		);
}

/** Who the caller is for the volume: what a client says of its users is believed as far as the export allows. */
export function callerOf(entry: Export, credential: Credential, { address }: Peer): Caller {
	const { anonymousUid, anonymousGid } = entry;
	const common = { principal: undefined, door: "nfs", clientInstance: address, share: entry.name, trusted: false } as const;
	if (credential.flavor === "none" || entry.squash === "all") return { ...common, uid: anonymousUid, gid: anonymousGid, groups: [] };
	const { uid, gid, groups } = credential;
	if (entry.squash === "none") return { ...common, uid, gid, groups };
	return {
		...common,
		uid: uid === 0 ? anonymousUid : uid,
		gid: gid === 0 ? anonymousGid : gid,
		groups: groups.map((group) => (group === 0 ? anonymousGid : group)),
	};
}
