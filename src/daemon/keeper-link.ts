/**
 * What a daemon and its keeper say to each other: one JSON object per line over a socket pair that both have inherited. The end of one of the two is the end of the connection.
 *
 * The keeper (keeper.ts) holds the descriptor of `/dev/fuse`, so that the mount lives on when the daemon dies, and starts a successor, which is given that descriptor and this connection
 * under fixed numbers.
 */
import { FsError, isFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Negotiated } from "../doors/fuse/door.ts";
import type { Connection } from "../platform/interface.ts";
import { LineSplitter } from "./control.ts";
import { keeperLineBytes } from "./limits.ts";

/** Descriptors of a daemon that a keeper started, and of a keeper. */
export const keptDescriptors = { fuse: 4, link: 5 } as const;

/** Node, its flags, and the daemon's script: absolute paths. */
export type Program = readonly string[];

/** Raised with every change of what is said here that an older program would misunderstand. */
export const resumeVersion = 1;

/** What a successor needs to go on with the mount. */
export interface ResumeState {
	readonly version: typeof resumeVersion;
	readonly session: number;
	/** Null until the kernel has asked. */
	readonly negotiated: Negotiated | null;
}

export interface Plan {
	readonly program: Program;
	/** Arguments of the successor. */
	readonly words: readonly string[];
	/** Null: the mount is abandoned and the successor makes a new one. */
	readonly resume: ResumeState | null;
}

export type ToKeeper =
	| { readonly kind: "plan"; readonly plan: Plan }
	/** The successor has taken the mount over (or made a new one). */
	| { readonly kind: "serving" }
	/** The mount is gone, or another keeper has it: nothing is left to keep. */
	| { readonly kind: "bye" }
	/** The daemon is about to end; this program takes its place at once. */
	| { readonly kind: "hand-over"; readonly program: Program };

export type ToDaemon = {
	/** Somebody wants the keeper to end: unmount and end cleanly. */
	readonly kind: "stop";
	readonly reason: string;
};

/** Exactly these: what is not known here was agreed with the kernel by another version, and would be broken. */
const negotiatedKinds: Readonly<Record<keyof Negotiated, "number" | "boolean">> = {
	minor: "number",
	killPriv: "boolean",
	setxattrExt: "boolean",
	dontMask: "boolean",
	noOpendir: "boolean",
	locks: "boolean",
	resend: "boolean",
	passthrough: "boolean",
};

/** @throws FsError REFUSED for what this version does not understand in full: whoever said it goes on with the mount. */
export function decodeResumeState(text: string): ResumeState {
	const state = JSON.parse(text) as Partial<Record<string, unknown>> | null;
	const { version, session, negotiated, ...unknown } = state ?? {};
	const refuse = (why: string): FsError =>
		new FsError(
			"REFUSED",
			"daemon.resume-unknown",
			`the mount was begun by another version of Cairn (${why}): only that one can go on with it`,
		);
	if (version !== resumeVersion) throw refuse(`it speaks version ${String(version)}, this is ${resumeVersion}`);
	if (Object.keys(unknown).length > 0) throw refuse(`unknown: ${Object.keys(unknown).join(", ")}`);
	if (!Number.isSafeInteger(session)) throw refuse("no session");
	return { version, session: session as number, negotiated: negotiated === null ? null : decodeNegotiated(negotiated, refuse) };
}

function decodeNegotiated(negotiated: unknown, refuse: (why: string) => FsError): Negotiated {
	if (typeof negotiated !== "object" || negotiated === null) throw refuse("what was agreed with the kernel is missing");
	const kinds: Readonly<Record<string, string>> = negotiatedKinds;
	const wrong = Object.entries(negotiated).filter(([key, value]) => typeof value !== kinds[key]);
	if (wrong.length > 0) throw refuse(`it agreed with the kernel on ${wrong.map(([key]) => key).join(", ")}`);
	const missing = Object.keys(kinds).filter((key) => !(key in negotiated));
	if (missing.length > 0) throw refuse(`it did not agree with the kernel on ${missing.join(", ")}`);
	return negotiated as Negotiated;
}

const encode = (message: ToKeeper | ToDaemon): Uint8Array => new TextEncoder().encode(`${JSON.stringify(message)}\n`);

/** One end. `In` is what the other side says. */
export class KeeperLink<In extends ToKeeper | ToDaemon, Out extends ToKeeper | ToDaemon> {
	/** The other side is gone, or does not speak the protocol. */
	readonly lost: Promise<void>;
	readonly #connection: Connection;

	constructor(connection: Connection, onMessage: (message: In) => void, logger: Logger) {
		this.#connection = connection;
		const lines = new LineSplitter(keeperLineBytes);
		connection.onData((bytes) => {
			try {
				for (const line of lines.push(bytes)) onMessage(JSON.parse(line) as In);
			} catch (error) {
				logger.error("daemon and keeper do not understand each other", { error: String(error) });
				connection.close();
			}
		});
		this.lost = new Promise((resolve) => connection.onClose(resolve));
	}

	/** Resolves when the kernel has it: the other side gets it even if this process dies. False: there is nobody any more. */
	async tell(message: Out): Promise<boolean> {
		try {
			await this.#connection.write(encode(message));
			return true;
		} catch (error) {
			if (isFsError(error, "ENOTCONN")) return false;
			throw error;
		}
	}

	close(): void {
		this.#connection.close();
	}
}

/** The daemon's end. */
export type DaemonsLink = KeeperLink<ToDaemon, ToKeeper>;
/** The keeper's end. */
export type KeepersLink = KeeperLink<ToKeeper, ToDaemon>;
