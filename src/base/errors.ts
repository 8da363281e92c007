/**
 * The one error type (architecture, rule 9).
 *
 * Every failure that leaves a module is an `FsError`: an errno-style code that doors translate once at their border, a
 * unique site id that names the line that gave up, typed data, and the cause. The message says what happened, to what,
 * and what to do about it.
 */

/** Errno names as in <errno.h>, plus the few states that errno has no name for. */
export type ErrorCode =
	| "EPERM"
	| "ENOENT"
	| "EINTR"
	| "EIO"
	| "ENXIO"
	| "E2BIG"
	| "EBADF"
	| "EAGAIN"
	| "ENOMEM"
	| "EACCES"
	| "EBUSY"
	| "EEXIST"
	| "EXDEV"
	| "ENODEV"
	| "ENOTDIR"
	| "EISDIR"
	| "EINVAL"
	| "ENOLCK"
	| "ENOTTY"
	| "EMFILE"
	| "EFBIG"
	| "ENOSPC"
	| "ESPIPE"
	| "EROFS"
	| "EMLINK"
	| "ERANGE"
	| "EDEADLK"
	| "ENAMETOOLONG"
	| "ENOSYS"
	| "ENOTEMPTY"
	| "ELOOP"
	| "ENODATA"
	| "EOVERFLOW"
	| "ENOTSUP"
	| "ETIMEDOUT"
	| "ESTALE"
	| "ENOTCONN"
	| "ECANCELED"
	/** Bytes that were read do not match their checksum or their identity. */
	| "CORRUPT"
	/** The request is understood and refused for the safety of data; the message says what would allow it. */
	| "REFUSED"
	/** A named thing (volume, disk, path) does not exist. */
	| "NOTFOUND";

export type ErrorData = Readonly<Record<string, string | number | boolean | readonly (string | number)[] | undefined>>;

/** Answers rather than faults: a lookup of an absent name is one, and every create begins with it. Their site says enough; a stack would cost more than the answer. */
const answers: ReadonlySet<ErrorCode> = new Set([
	"ENOENT",
	"EEXIST",
	"ENODATA",
	"ENOTEMPTY",
	"EAGAIN",
	"ERANGE",
	"ESTALE",
	"ENOSYS",
	"ENOTTY",
	"ENOTSUP",
	"EDEADLK",
	"ENOLCK",
	"ECANCELED",
]);

function stackFrames(code: ErrorCode): number {
	const usual = Error.stackTraceLimit;
	if (answers.has(code)) Error.stackTraceLimit = 0;
	return usual;
}

export class FsError extends Error {
	readonly code: ErrorCode;
	/** Unique in the source tree, `floor.what`, for instance `log.append-full`. */
	readonly site: string;
	readonly data: ErrorData;

	constructor(code: ErrorCode, site: string, message: string, data: ErrorData = {}, cause?: unknown) {
		const frames = stackFrames(code);
		super(message, cause === undefined ? undefined : { cause });
		Error.stackTraceLimit = frames;
		this.name = "FsError";
		this.code = code;
		this.site = site;
		this.data = data;
	}
}

export function isFsError(error: unknown, code?: ErrorCode): error is FsError {
	return error instanceof FsError && (code === undefined || error.code === code);
}

/** Wraps anything thrown by a runtime into an FsError, keeping errno names that are already there. */
export function toFsError(error: unknown, site: string, fallback: ErrorCode = "EIO"): FsError {
	if (error instanceof FsError) return error;
	const code = (error as { code?: unknown } | null)?.code;
	const message = error instanceof Error ? error.message : String(error);
	return new FsError(typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? (code as ErrorCode) : fallback, site, message, {}, error);
}

/** What a newer Cairn has written is no damage: nothing is repaired there, and nothing written over it. `format`: as it stands there. */
export function newerFormat(site: string, what: string, format: string): FsError {
	const message = `${what} was written by a newer Cairn (format ${format}): install that one, or a later one, and use it`;
	return new FsError("REFUSED", site, message, { newerFormat: true });
}

/** The version in the first eight bytes (magic u32, version u32, little-endian) where it is a newer one than `known`. */
export function newerVersion(head: Uint8Array, magic: number, known: number): number | undefined {
	if (head.length < 8) return undefined;
	const view = new DataView(head.buffer, head.byteOffset, head.length);
	const version = view.getUint32(4, true);
	return view.getUint32(0, true) === magic && version > known ? version : undefined;
}

export function isNewerFormat(error: unknown): error is FsError {
	return error instanceof FsError && error.data["newerFormat"] === true;
}
