/** Telling the rpcbind of this machine what is served where (RFC 1833, RPCBPROC_SET and UNSET of version 4), over its UNIX socket: it believes only who is root there. */
import { Deferred } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import type { XdrWriter } from "../../codec/xdr.ts";
import type { Connection, Sockets } from "../../platform/interface.ts";
import { portMapperProgram, type Registration, universalAddress } from "./port-mapper.ts";
import { RecordReader, recordMark } from "./record-marking.ts";
import { beginCall, decodeReply, requireSuccess } from "./rpc.ts";

const socketPath = "/run/rpcbind.sock";
const version = 4;
const procedures = { set: 1, unset: 2 } as const;
const owner = "superuser";

/** @throws FsError ENOENT, ENOTCONN (no rpcbind), REFUSED (somebody else is registered there). */
export function register(registrations: readonly Registration[], sockets: Sockets): Promise<void> {
	return tell(registrations, sockets, "set");
}

export function unregister(registrations: readonly Registration[], sockets: Sockets): Promise<void> {
	return tell(registrations, sockets, "unset");
}

async function tell(registrations: readonly Registration[], sockets: Sockets, what: "set" | "unset"): Promise<void> {
	const connection = await sockets.connect(socketPath);
	try {
		const session = new Session(connection);
		for (const one of registrations) {
			// What a server that was killed has left there is taken away first.
			if (what === "set") await session.call(procedures.unset, one);
			const done = await session.call(procedures[what], one);
			if (!done && what === "set")
				throw new FsError(
					"REFUSED",
					"nfs.rpcbind",
					`rpcbind does not register program ${one.program} version ${one.version} (${one.transport})`,
				);
		}
	} finally {
		connection.close();
	}
}

/** One call after the other. */
class Session {
	readonly #connection: Connection;
	#xid = 0;
	#waiting: Deferred<Uint8Array> | undefined;

	constructor(connection: Connection) {
		this.#connection = connection;
		const reader = new RecordReader((record) => this.#waiting?.resolve(record));
		connection.onData((bytes) => {
			try {
				reader.feed(bytes);
			} catch (error) {
				this.#waiting?.reject(error);
			}
		});
		connection.onClose(() => this.#waiting?.reject(new FsError("ENOTCONN", "nfs.rpcbind-closed", "rpcbind has closed the connection")));
	}

	async call(procedure: number, { program, version: ofProgram, transport, port }: Registration): Promise<boolean> {
		const header = { xid: ++this.#xid, program: portMapperProgram, version, procedure, credential: { flavor: "none" } } as const;
		const message = describe(beginCall(header), program, ofProgram, transport, port).finish();
		const answer = new Deferred<Uint8Array>();
		this.#waiting = answer;
		await this.#connection.write(recordMark(message.length));
		await this.#connection.write(message);
		return requireSuccess(decodeReply(await answer.promise), "rpcbind").bool();
	}
}

function describe(writer: XdrWriter, program: number, version: number, netid: string, port: number): XdrWriter {
	return writer.u32(program).u32(version).text(netid).text(universalAddress("0.0.0.0", port)).text(owner);
}
