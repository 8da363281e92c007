/**
 * Who stands in whose way: the tables, and nothing else. `matrix.test.ts` walks them entry by entry. Pure.
 *
 * What is written here once holds for all doors: fcntl and open-file-description locks are FUSE's, nfs stands for NLM and NFSv4, smb for SMB's byte ranges.
 */

export type LockFamily = "fcntl" | "flock" | "nfs" | "smb";
export type LockClass = `${LockFamily}-${"shared" | "exclusive"}`;
/** I/O of those whom ranges bind (SMB, and everybody where the share says so), and of those whom they only advise. */
export type IoClass = "read" | "write" | "bound-read" | "bound-write";

export const lockClasses: readonly LockClass[] = [
	"fcntl-shared",
	"fcntl-exclusive",
	"flock-shared",
	"flock-exclusive",
	"nfs-shared",
	"nfs-exclusive",
	"smb-shared",
	"smb-exclusive",
];
export const ioClasses: readonly IoClass[] = ["read", "write", "bound-read", "bound-write"];

/** o: where they overlap. w: when the one that is no flock covers the whole file, as NFS clients do for flock(2). */
export type Cell = "-" | "o" | "w";

/**
 * Different owners; a row is held, a column is asked for, in the order of `lockClasses` and `ioClasses`. flock and fcntl on one machine know nothing of each other (flock(2)); what comes from elsewhere as a range over
 * everything may be somebody's flock.
 */
const foreign: Readonly<Record<LockClass, string>> = {
	"fcntl-shared": /*   */ "-o -- -o -o  ---o",
	"fcntl-exclusive": /**/ "oo -- oo oo  --oo",
	"flock-shared": /*   */ "-- -o -w -w  ----",
	"flock-exclusive": /**/ "-- oo ww ww  ----",
	"nfs-shared": /*     */ "-o -w -o -o  ---o",
	"nfs-exclusive": /*  */ "oo ww oo oo  --oo",
	"smb-shared": /*     */ "-o -w -o -o  ---o",
	"smb-exclusive": /*  */ "oo ww oo oo  --oo",
};

/**
 * The same owner: fcntl, flock and NFS replace what they have. An SMB open stacks a shared lock on anything of its own, never an exclusive one; and its own shared lock keeps it from writing.
 */
const own: Readonly<Record<LockClass, string>> = {
	"fcntl-shared": /*   */ "-- -- -- --  ----",
	"fcntl-exclusive": /**/ "-- -- -- --  ----",
	"flock-shared": /*   */ "-- -- -- --  ----",
	"flock-exclusive": /**/ "-- -- -- --  ----",
	"nfs-shared": /*     */ "-- -- -- --  ----",
	"nfs-exclusive": /*  */ "-- -- -- --  ----",
	"smb-shared": /*     */ "-- -- -- -o  ---o",
	"smb-exclusive": /*  */ "-- -- -- -o  ----",
};

type Cells = ReadonlyMap<LockClass, ReadonlyMap<LockClass | IoClass, Cell>>;

/** What is held → what is asked for: each request looks at every hold, which is no place to make words. */
function parsed(table: Readonly<Record<LockClass, string>>): Cells {
	const columns = [...lockClasses, ...ioClasses];
	const rowOf = (held: LockClass): ReadonlyMap<LockClass | IoClass, Cell> => {
		const row = table[held].replaceAll(" ", "");
		return new Map(columns.map((asked, at) => [asked, row[at] as Cell]));
	};
	return new Map(lockClasses.map((held) => [held, rowOf(held)]));
}

const foreignCells = parsed(foreign);
const ownCells = parsed(own);

export function cell(held: LockClass, asked: LockClass | IoClass, sameOwner: boolean): Cell {
	return (sameOwner ? ownCells : foreignCells).get(held)?.get(asked) as Cell;
}

export function familyOf(lock: LockClass): LockFamily {
	return lock.slice(0, lock.indexOf("-")) as LockFamily;
}

export function isExclusive(lock: LockClass): boolean {
	return lock.endsWith("-exclusive");
}

// ── opens ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Bits of what an open does, and of what it does not let others do. */
export const share = { read: 1, write: 2, delete: 4 } as const;

export interface Sharing {
	readonly access: number;
	readonly deny: number;
}

/** An open that only looks at attributes does nothing and denies nothing. */
export function sharingConflict(held: Sharing, asked: Sharing): boolean {
	return (held.access & asked.deny) !== 0 || (held.deny & asked.access) !== 0;
}

// ── the six modes of a lock service ──────────────────────────────────────────────────────────────────────────────

export type Mode = "NL" | "CR" | "CW" | "PR" | "PW" | "EX";
export const modes: readonly Mode[] = ["NL", "CR", "CW", "PR", "PW", "EX"];

/** A row is held; the columns that go with it. */
const compatible: Readonly<Record<Mode, readonly Mode[]>> = {
	NL: ["NL", "CR", "CW", "PR", "PW", "EX"],
	CR: ["NL", "CR", "CW", "PR", "PW"],
	CW: ["NL", "CR", "CW"],
	PR: ["NL", "CR", "PR"],
	PW: ["NL", "CR"],
	EX: ["NL"],
};

export function modesConflict(held: Mode, asked: Mode): boolean {
	return !compatible[held].includes(asked);
}

// ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Read, write and handle caching. */
export const leaseBits = { read: 1, write: 2, handle: 4 } as const;

export type LeaseFamily = "smb" | "delegation" | "node";
export const leaseFamilies: readonly LeaseFamily[] = ["smb", "delegation", "node"];

/**
 * What somebody else does. change-attributes: mode, owner, times, extended attributes. share-violation: an open that fails unless the holder closes what it only keeps open for later. names: a change of a directory's entries. lifecycle: remove, replace, rename, truncate.
 */
export type LeaseEvent =
	| "attributes"
	| "change-attributes"
	| "open"
	| "share-violation"
	| "read"
	| "write"
	| "lock"
	| "names"
	| "lifecycle";
export const leaseEvents: readonly LeaseEvent[] = [
	"attributes",
	"change-attributes",
	"open",
	"share-violation",
	"read",
	"write",
	"lock",
	"names",
	"lifecycle",
];

/** The bits that a holder loses by it, for each family. A delegation has nothing in between: it goes as a whole. */
const lost: Readonly<Record<LeaseEvent, Readonly<Record<LeaseFamily, string>>>> = {
	attributes: { smb: "", delegation: "w", node: "w" },
	"change-attributes": { smb: "", delegation: "rwh", node: "rwh" },
	open: { smb: "w", delegation: "w", node: "" },
	"share-violation": { smb: "h", delegation: "h", node: "h" },
	read: { smb: "w", delegation: "w", node: "w" },
	write: { smb: "rwh", delegation: "rwh", node: "rwh" },
	lock: { smb: "rwh", delegation: "rwh", node: "w" },
	names: { smb: "rwh", delegation: "rwh", node: "rwh" },
	lifecycle: { smb: "rwh", delegation: "rwh", node: "rwh" },
};

/** What is left of a lease: without reading there is no writing and no keeping of handles either. */
export function leaseAfter(family: LeaseFamily, state: number, event: LeaseEvent): number {
	const letters = lost[event][family];
	let gone = 0;
	if (letters.includes("r")) gone |= leaseBits.read;
	if (letters.includes("w")) gone |= leaseBits.write;
	if (letters.includes("h")) gone |= leaseBits.handle;
	const left = state & ~gone;
	if (left === state) return state;
	return family === "delegation" ? 0 : validLease(left);
}

export function validLease(state: number): number {
	return (state & leaseBits.read) === 0 ? 0 : state;
}
