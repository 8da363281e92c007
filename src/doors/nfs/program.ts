/** What the server of RPC programs knows of them: numbers, versions and procedures. */
import type { Peer } from "../../platform/interface.ts";
import type { CallToken, Ino } from "../../volume/interface.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Credential } from "./rpc.ts";

export interface CallContext {
	readonly peer: Peer;
	/** Of this machine, as the caller reaches it; "" over UDP. */
	readonly local: string;
	readonly credential: Credential;
	readonly transport: "tcp" | "udp";
	/** The call as it came; it may lie in a borrowed buffer, until it is answered. */
	readonly message: Uint8Array;
	/** What the volume shall note with the effect. */
	readonly noted?: CallToken;
	/** It was carried out already, by a process that was killed before it answered: it was about this inode. */
	readonly past?: Ino;
}

/** What follows the words that a procedure has written: the contents of an opaque, whose length it has written. */
export interface Results {
	readonly body?: Uint8Array;
	/** The body lies in a borrowed buffer: called once nobody needs it any more, or never. */
	readonly release?: (() => void) | undefined;
	/** False: "ask again later", which no cache of replies may keep. Default true. */
	readonly keep?: boolean;
}

export interface Procedure {
	readonly name: string;
	/** Carried out twice it would answer or do something else. */
	readonly once?: boolean;
	/** Its last argument says how many bytes the reply may have. */
	readonly counted?: boolean;
	/**
	 * Reads all arguments before its first await; writes results behind what is in `writer`.
	 * @throws FsError CORRUPT of codec.xdr while it reads: garbage arguments. ENOTCONN: the server is going, the call is not answered. Everything else is a fault of the server.
	 */
	run(reader: XdrReader, writer: XdrWriter, context: CallContext): Promise<Results | undefined>;
}

export interface Program {
	readonly number: number;
	readonly transports: readonly ("tcp" | "udp")[];
	/** By version; a procedure by its number. */
	readonly versions: ReadonlyMap<number, readonly (Procedure | undefined)[]>;
}

/** Procedure 0 of every program: does nothing, answers nothing. */
export const nullProcedure: Procedure = { name: "NULL", run: async (reader) => void reader.end() };
