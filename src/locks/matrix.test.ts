/** The tables entry by entry, against the rules in words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
	cell,
	familyOf,
	type IoClass,
	ioClasses,
	isExclusive,
	leaseAfter,
	leaseBits,
	leaseEvents,
	leaseFamilies,
	type LockClass,
	lockClasses,
	type Mode,
	modes,
	modesConflict,
	share,
	sharingConflict,
} from "./matrix.ts";

function lockRule(held: LockClass, asked: LockClass): string {
	if (!isExclusive(held) && !isExclusive(asked)) return "-";
	const [a, b] = [familyOf(held), familyOf(asked)];
	if (a === "flock" && b === "flock") return "o";
	if (a !== "flock" && b !== "flock") return "o";
	return a === "fcntl" || b === "fcntl" ? "-" : "w";
}

function ioRule(held: LockClass, asked: IoClass): string {
	if (asked === "read" || asked === "write" || familyOf(held) === "flock") return "-";
	return asked === "bound-write" || isExclusive(held) ? "o" : "-";
}

test("each of the 96 entries for different owners is what the rules say", () => {
	let seen = 0;
	for (const held of lockClasses) {
		for (const asked of lockClasses) {
			assert.equal(cell(held, asked, false), lockRule(held, asked), `${held}, ${asked}`);
			assert.equal(cell(held, asked, false), cell(asked, held, false), `symmetric: ${held}, ${asked}`);
			seen++;
		}
		for (const asked of ioClasses) {
			assert.equal(cell(held, asked, false), ioRule(held, asked), `${held}, ${asked}`);
			seen++;
		}
	}
	assert.equal(seen, 96);
});

test("of the 96 entries for one owner only three stand in its way, all of SMB", () => {
	const inTheWay: string[] = [];
	for (const held of lockClasses)
		for (const asked of [...lockClasses, ...ioClasses]) if (cell(held, asked, true) !== "-") inTheWay.push(`${held} ${asked}`);
	assert.deepEqual(inTheWay, ["smb-shared smb-exclusive", "smb-shared bound-write", "smb-exclusive smb-exclusive"]);
});

test("the six modes: what a mode lets others do", () => {
	/** [reads, writes, lets others read, lets others write] */
	const means: Readonly<Record<Mode, readonly [boolean, boolean, boolean, boolean]>> = {
		NL: [false, false, true, true],
		CR: [true, false, true, true],
		CW: [false, true, true, true],
		PR: [true, false, true, false],
		PW: [false, true, true, false],
		EX: [true, true, false, false],
	};
	// The classic table is this rule, but that "concurrent" readers ask for no protection, and writers that protect themselves read, too.
	const classic: Readonly<Record<Mode, string>> = { NL: "111111", CR: "111110", CW: "111000", PR: "110100", PW: "110000", EX: "100000" };
	for (const held of modes) {
		for (const asked of modes) {
			assert.equal(!modesConflict(held, asked), classic[held][modes.indexOf(asked)] === "1", `${held}, ${asked}`);
			assert.equal(modesConflict(held, asked), modesConflict(asked, held));
			const [, writes] = means[asked];
			if (!means[held][3] && writes) assert.ok(modesConflict(held, asked), `${held} keeps writers out`);
		}
	}
});

test("every pair of opens: somebody does what the other denies", () => {
	const all = [0, 1, 2, 3, 4, 5, 6, 7];
	for (const access of all)
		for (const deny of all)
			for (const otherAccess of all)
				for (const otherDeny of all) {
					let clash = false;
					for (const bit of Object.values(share))
						if (((access & bit) !== 0 && (otherDeny & bit) !== 0) || ((deny & bit) !== 0 && (otherAccess & bit) !== 0)) clash = true;
					assert.equal(sharingConflict({ access, deny }, { access: otherAccess, deny: otherDeny }), clash);
				}
});

test("each entry of what a lease loses: never more than it has, never a state that does not exist, a delegation all or nothing", () => {
	const { read: R, write: W, handle: H } = leaseBits;
	const wanted: Readonly<Record<string, readonly [number, number, number]>> = {
		attributes: [R | W | H, 0, R | H],
		"change-attributes": [R | W | H, 0, 0],
		open: [R | H, 0, R | W | H],
		"share-violation": [R | W, 0, R | W],
		read: [R | H, 0, R | H],
		write: [0, 0, 0],
		lock: [0, 0, R | H],
		names: [0, 0, 0],
		lifecycle: [0, 0, 0],
	};
	for (const event of leaseEvents)
		leaseFamilies.forEach((family, at) => {
			assert.equal(leaseAfter(family, R | W | H, event), wanted[event]?.[at], `${family}, ${event}`);
			for (const state of [0, R, R | W, R | H, R | W | H]) {
				const left = leaseAfter(family, state, event);
				assert.equal(left & ~state, 0);
				assert.ok(left === 0 || (left & R) !== 0);
				assert.equal(leaseAfter(family, left, event), left, "broken once is enough");
				if (family === "delegation") assert.ok(left === 0 || left === state);
			}
		});
});
