/** ONC RPC version 2 (RFC 5531): messages as bytes, both ways. Servers and clients (registration with a port mapper, tests) use the same. */
import { FsError } from "../../base/errors.ts";
import { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import { maxAuthBytes, maxGroups, maxMachineNameBytes } from "./limits.ts";

const rpcVersion = 2;
const call = 0;
const reply = 1;
const accepted = 0;
const denied = 1;

export const authFlavor = { none: 0, sys: 1 } as const;

/** RFC 5531, accept_stat. */
export const acceptStatus = {
	success: 0,
	programUnavailable: 1,
	programMismatch: 2,
	procedureUnavailable: 3,
	garbageArguments: 4,
	systemError: 5,
} as const;

/** RFC 5531, auth_stat. */
export const authStatus = { badCredential: 1, badVerifier: 3, tooWeak: 5 } as const;

/** What a client says of itself; nobody has checked it. */
export type Credential =
	| { readonly flavor: "none" }
	| {
			readonly flavor: "sys";
			readonly machineName: string;
			readonly uid: number;
			readonly gid: number;
			/** Supplementary groups. */
			readonly groups: readonly number[];
	  };

export interface RpcCall {
	readonly xid: number;
	readonly program: number;
	readonly version: number;
	readonly procedure: number;
	readonly credential: Credential;
	/** Stands at the arguments. */
	readonly reader: XdrReader;
}

/** A message that is a call, and that has to be answered with a refusal. */
export interface RefusedCall {
	readonly xid: number;
	readonly refusal: Uint8Array;
}

/**
 * @throws FsError CORRUPT: no call at all, or none that could be answered; whoever sent it does not speak this protocol.
 */
export function decodeCall(message: Uint8Array): RpcCall | RefusedCall {
	const reader = new XdrReader(message, "RPC call");
	const xid = reader.u32();
	if (reader.u32() !== call) throw reader.corrupt("it is no call");
	if (reader.u32() !== rpcVersion) return { xid, refusal: encodeVersionRefusal(xid) };
	const program = reader.u32();
	const version = reader.u32();
	const procedure = reader.u32();
	const flavor = reader.u32();
	const body = reader.opaque(maxAuthBytes);
	reader.u32();
	reader.opaque(maxAuthBytes);
	const credential = decodeCredential(flavor, body);
	if (typeof credential === "number") return { xid, refusal: encodeAuthRefusal(xid, credential) };
	return { xid, program, version, procedure, credential, reader };
}

/** The credential, or why there is none (auth_stat). */
function decodeCredential(flavor: number, body: Uint8Array): Credential | number {
	if (flavor === authFlavor.none) return body.length === 0 ? { flavor: "none" } : authStatus.badCredential;
	if (flavor !== authFlavor.sys) return authStatus.tooWeak;
	try {
		const reader = new XdrReader(body, "AUTH_SYS");
		reader.u32();
		const machineName = reader.text(maxMachineNameBytes);
		const uid = reader.u32();
		const gid = reader.u32();
		const count = reader.choice(maxGroups + 1, "number of groups");
		const groups = Array.from({ length: count }, () => reader.u32());
		reader.end();
		return { flavor: "sys", machineName, uid, gid, groups };
	} catch {
		return authStatus.badCredential;
	}
}

// ── replies ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** A writer that stands behind the head of a successful reply. */
export function beginReply(xid: number, initialBytes = 256): XdrWriter {
	return encodeAccepted(xid, acceptStatus.success, initialBytes);
}

function encodeAccepted(xid: number, status: number, initialBytes = 64): XdrWriter {
	return new XdrWriter(initialBytes).u32(xid).u32(reply).u32(accepted).u32(authFlavor.none).u32(0).u32(status);
}

export function encodeProgramMismatch(xid: number, low: number, high: number): Uint8Array {
	return encodeAccepted(xid, acceptStatus.programMismatch).u32(low).u32(high).finish();
}

/** One of the other statuses of an accepted call. */
export function encodeFailure(xid: number, status: number): Uint8Array {
	return encodeAccepted(xid, status).finish();
}

function encodeVersionRefusal(xid: number): Uint8Array {
	return new XdrWriter(32).u32(xid).u32(reply).u32(denied).u32(0).u32(rpcVersion).u32(rpcVersion).finish();
}

export function encodeAuthRefusal(xid: number, status: number): Uint8Array {
	return new XdrWriter(32).u32(xid).u32(reply).u32(denied).u32(1).u32(status).finish();
}

// ── the client's side ────────────────────────────────────────────────────────────────────────────────────────────

export interface CallHeader {
	readonly xid: number;
	readonly program: number;
	readonly version: number;
	readonly procedure: number;
	readonly credential: Credential;
}

/** A writer that stands at the arguments. */
export function beginCall({ xid, program, version, procedure, credential }: CallHeader, initialBytes = 256): XdrWriter {
	const writer = new XdrWriter(initialBytes).u32(xid).u32(call).u32(rpcVersion).u32(program).u32(version).u32(procedure);
	if (credential.flavor === "none") writer.u32(authFlavor.none).u32(0);
	else {
		const { machineName, uid, gid, groups } = credential;
		const body = new XdrWriter(64).u32(0).text(machineName).u32(uid).u32(gid).u32(groups.length);
		for (const group of groups) body.u32(group);
		writer.u32(authFlavor.sys).opaque(body.finish());
	}
	return writer.u32(authFlavor.none).u32(0);
}

export interface RpcReply {
	readonly xid: number;
	/** accept_stat; undefined: denied. */
	readonly status: number | undefined;
	/** With a denial: auth_stat, or undefined where the RPC version was the reason. */
	readonly authStatus: number | undefined;
	/** Stands at the results, or at the lowest and highest version of a mismatch. */
	readonly reader: XdrReader;
}

/** @throws FsError CORRUPT. */
export function decodeReply(message: Uint8Array): RpcReply {
	const reader = new XdrReader(message, "RPC reply");
	const xid = reader.u32();
	if (reader.u32() !== reply) throw reader.corrupt("it is no reply");
	if (reader.choice(2, "reply") === denied) {
		const isAuth = reader.choice(2, "denial") === 1;
		return { xid, status: undefined, authStatus: isAuth ? reader.u32() : undefined, reader };
	}
	reader.u32();
	reader.opaque(maxAuthBytes);
	return { xid, status: reader.choice(6, "status"), authStatus: undefined, reader };
}

/** What a reply must be for its results to be read. @throws FsError ENOTSUP. */
export function requireSuccess(answer: RpcReply, what: string): XdrReader {
	if (answer.status === acceptStatus.success) return answer.reader;
	const why = answer.status === undefined ? `denied (auth ${answer.authStatus ?? "-"})` : `status ${answer.status}`;
	throw new FsError("ENOTSUP", "nfs.rpc-refused", `${what}: the other side refused the call: ${why}`);
}
