/** What the server of RPC programs knows of them: numbers, versions and procedures. */
import type { Peer } from "../../platform/interface.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Credential } from "./rpc.ts";

export interface CallContext {
	readonly peer: Peer;
	/** Of this machine, as the caller reaches it; "" over UDP. */
	readonly local: string;
	readonly credential: Credential;
	readonly transport: "tcp" | "udp";
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
