/** Telling the rpcbind of this machine what is served where (RFC 1833, RPCBPROC_SET and UNSET of version 4), over its UNIX socket: it believes only who is root there. */
import { Deferred } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Connection, Sockets } from "../../platform/interface.ts";
import { maxAuthBytes } from "./limits.ts";
import { portMapperProgram, portOfUniversal, type Registration, universalAddress } from "./port-mapper.ts";
import { RecordReader, recordMark } from "./record-marking.ts";
import { beginCall, decodeReply, requireSuccess } from "./rpc.ts";

const socketPath = "/run/rpcbind.sock";
const version = 4;
const procedures = { set: 1, unset: 2, dump: 4 } as const;
const owner = "superuser";

/** Clients ask for a program over the kind of addresses that they use: each is registered by itself (netids of RFC 5665). */
export type AddressFamily = "ipv4" | "ipv6";

export interface FamilyRegistration extends Registration {
	readonly family: AddressFamily;
}

export interface Registered {
	readonly registered: readonly FamilyRegistration[];
	/** Somebody else on this machine serves these, and answers. */
	readonly taken: readonly FamilyRegistration[];
}

export interface RegistrationModules {
	readonly sockets: Sockets;
	/** Whether a program answers on a port of this machine. */
	readonly answers: (registration: FamilyRegistration) => Promise<boolean>;
}

export function overFamilies(registrations: readonly Registration[], families: readonly AddressFamily[]): readonly FamilyRegistration[] {
	return families.flatMap((family) => registrations.map((one) => ({ ...one, family })));
}

/**
 * Each by itself: what this machine serves already (the lock manager and the status monitor of its own NFS client) stays as it is; what only a server that was killed has left there is taken over. What stands there already is left as it is.
 * @throws FsError ENOENT, ENOTCONN: no rpcbind.
 */
export async function register(
	registrations: readonly FamilyRegistration[],
	{ sockets, answers }: RegistrationModules,
): Promise<Registered> {
	const registered: FamilyRegistration[] = [];
	const taken: FamilyRegistration[] = [];
	await inSession(sockets, async (session) => {
		const ports = await session.ports();
		for (const one of registrations) {
			const port = ports.get(nameOf(one)) ?? 0;
			const stands = port === one.port;
			const isOthers = port !== 0 && !stands && (await answers({ ...one, port }));
			if (!isOthers && !stands && port !== 0) await session.unset(one);
			if (stands || (!isOthers && (await session.set(one)))) registered.push(one);
			else taken.push(one);
		}
	});
	return { registered, taken };
}

/** @throws FsError ENOENT, ENOTCONN (no rpcbind). */
export async function unregister(registrations: readonly FamilyRegistration[], sockets: Sockets): Promise<void> {
	await inSession(sockets, async (session) => {
		const ports = await session.ports();
		// Somebody else may have come meanwhile.
		for (const one of registrations) if (ports.get(nameOf(one)) === one.port) await session.unset(one);
	});
}

async function inSession(sockets: Sockets, work: (session: Session) => Promise<void>): Promise<void> {
	const connection = await sockets.connect(socketPath);
	try {
		await work(new Session(connection));
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

	async set(registration: FamilyRegistration): Promise<boolean> {
		return (await this.#call(procedures.set, (writer) => describe(writer, registration))).bool();
	}

	async unset(registration: FamilyRegistration): Promise<boolean> {
		return (await this.#call(procedures.unset, (writer) => describe(writer, registration))).bool();
	}

	/** Everything that is registered. (GETADDR answers for the transport that it is asked over, which is none of ours.) */
	async ports(): Promise<ReadonlyMap<string, number>> {
		const reader = await this.#call(procedures.dump, () => {});
		const ports = new Map<string, number>();
		while (reader.bool()) {
			const [program, ofVersion] = [reader.u32(), reader.u32()];
			const netid = reader.text(maxAuthBytes);
			ports.set(`${program} ${ofVersion} ${netid}`, portOfUniversal(reader.text(maxAuthBytes)));
			reader.text(maxAuthBytes);
		}
		return ports;
	}

	async #call(procedure: number, write: (writer: XdrWriter) => void): Promise<XdrReader> {
		const header = { xid: ++this.#xid, program: portMapperProgram, version, procedure, credential: { flavor: "none" } } as const;
		const writer = beginCall(header);
		write(writer);
		const message = writer.finish();
		const answer = new Deferred<Uint8Array>();
		this.#waiting = answer;
		await this.#connection.write(recordMark(message.length));
		await this.#connection.write(message);
		return requireSuccess(decodeReply(await answer.promise), "rpcbind");
	}
}

const netidOf = ({ transport, family }: FamilyRegistration): string => `${transport}${family === "ipv6" ? "6" : ""}`;

const nameOf = (one: FamilyRegistration): string => `${one.program} ${one.version} ${netidOf(one)}`;

function describe(writer: XdrWriter, one: FamilyRegistration): void {
	const everywhere = one.family === "ipv6" ? "::" : "0.0.0.0";
	writer.u32(one.program).u32(one.version).text(netidOf(one)).text(universalAddress(everywhere, one.port)).text(owner);
}
