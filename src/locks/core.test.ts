import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { apply, createLockState, holdsOf, isPlain, type LockState, nextTick, test as testLock, waitedFor } from "./core.ts";
import type { Command, Effect, LockDoor, Owner, Request, Want } from "./interface.ts";
import { type LockLimits, lockLimits } from "./limits.ts";
import { leaseBits, type LeaseFamily, type LockClass, type Mode, share } from "./matrix.ts";
import { type Range, wholeFile } from "./range.ts";

const ino = 5;
const R = leaseBits.read;
const RH = leaseBits.read | leaseBits.handle;
const RW = leaseBits.read | leaseBits.write;
const RWH = 7;
const owner = (id: string, door: LockDoor = "fuse", client = id): Owner => ({ id, client, door, pid: 1 });

/** A table, and what it says in short words. */
class Bench {
	readonly state: LockState;
	nowMs = 1000;
	#keys = 0;

	constructor(limits: Partial<LockLimits> = {}) {
		this.state = createLockState({ ...lockLimits, ...limits });
	}

	do(command: Command): string[] {
		return apply(this.state, command, this.nowMs)
			.map(inShort)
			.filter((text) => text !== "");
	}

	ask(by: Owner, want: Want, more: Partial<Request> = {}): string[] {
		const key = `${by.id}#${this.#keys++}`;
		return this.do({ kind: "request", ino, key, owner: by, want, patient: false, victim: true, deadlineMs: undefined, ...more });
	}

	lock(
		by: Owner,
		lock: LockClass,
		start = 0,
		end: Range["end"] = wholeFile.end,
		more: Partial<Request> & { handle?: number } = {},
	): string[] {
		const { handle, ...request } = more;
		return this.ask(by, { kind: "range", class: lock, range: { start, end }, handle }, request);
	}

	mode(by: Owner, mode: Mode): string[] {
		return this.ask(by, { kind: "mode", mode }, { patient: true });
	}

	lease(by: Owner, family: LeaseFamily, state: number, key = by.id): string[] {
		return this.do({ kind: "lease", ino, key, owner: by, family, state });
	}

	unlock(by: Owner, family: "fcntl" | "flock" | "nfs" | "smb", start = 0, end = wholeFile.end): string[] {
		return this.do({ kind: "unlock", ino, owner: by, family, range: { start, end } });
	}

	ranges(by: Owner): string[] {
		return holdsOf(this.state, ino)
			.filter((hold) => hold.owner.id === by.id)
			.map((hold) => `${hold.class} ${hold.range.start}-${hold.range.end}`)
			.sort();
	}
}

function inShort(effect: Effect): string {
	switch (effect.kind) {
		case "granted":
			return `granted ${effect.owner.id}`;
		case "refused":
			return effect.code;
		case "waiting":
			return "waiting";
		case "break":
			return `break ${effect.key} to ${effect.to}`;
		case "revoked":
			return `revoked ${effect.key}`;
		case "leased":
			return `leased ${effect.state}`;
		case "wanted":
			return `wanted ${effect.owner.id} ${effect.mode}`;
		case "give-way":
			return `give way ${effect.handle}`;
		case "set":
		case "clear":
			return "";
	}
}

describe("ranges", () => {
	test("a lock replaces what its owner has there: split, join, upgrade, downgrade", () => {
		const bench = new Bench();
		const [a, b] = [owner("a"), owner("b")];
		bench.lock(a, "fcntl-exclusive", 0, 99);
		bench.lock(a, "fcntl-shared", 40, 59);
		assert.deepEqual(bench.ranges(a), ["fcntl-exclusive 0-39", "fcntl-exclusive 60-99", "fcntl-shared 40-59"]);
		assert.deepEqual(bench.lock(b, "fcntl-shared", 40, 59), ["granted b"]);
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 40, 59), ["EAGAIN"], "an upgrade past a reader");
		assert.deepEqual(
			bench.ranges(a),
			["fcntl-exclusive 0-39", "fcntl-exclusive 60-99", "fcntl-shared 40-59"],
			"a refused one changes nothing",
		);
		bench.unlock(b, "fcntl", 40, 40);
		bench.unlock(b, "fcntl", 41, 59);
		bench.lock(a, "fcntl-exclusive", 40, 59);
		assert.deepEqual(bench.ranges(a), ["fcntl-exclusive 0-99"]);
		bench.unlock(a, "fcntl", 10, 19);
		assert.deepEqual(bench.ranges(a), ["fcntl-exclusive 0-9", "fcntl-exclusive 20-99"]);
		bench.lock(a, "fcntl-exclusive", 100, wholeFile.end);
		assert.deepEqual(bench.ranges(a).length, 2, "what touches is one");
		assert.equal(testLock(bench.state, ino, "b", { class: "fcntl-shared", range: { start: 15, end: 30 } })?.range.start, 20);
		assert.equal(testLock(bench.state, ino, "b", { class: "fcntl-shared", range: { start: 10, end: 19 } }), undefined);
	});

	test("SMB stacks, unlocks exactly what was locked, and locks no bytes", () => {
		const bench = new Bench();
		const [a, b] = [owner("a", "smb"), owner("b", "smb")];
		assert.deepEqual(bench.lock(a, "smb-exclusive", 0, 9), ["granted a"]);
		assert.deepEqual(bench.lock(a, "smb-shared", 0, 9), ["granted a"]);
		assert.deepEqual(bench.lock(a, "smb-exclusive", 0, 9), ["EAGAIN"]);
		assert.deepEqual(bench.unlock(a, "smb", 0, 8), ["ENOENT"]);
		assert.deepEqual(bench.unlock(a, "smb", 0, 9), []);
		assert.deepEqual(bench.ranges(a), ["smb-shared 0-9"], "the exclusive one goes first");
		assert.deepEqual(bench.lock(b, "smb-exclusive", 0, -1), ["granted b"]);
		assert.deepEqual(bench.lock(b, "smb-exclusive", 5, 4), ["EAGAIN"], "no bytes, strictly inside");
		assert.deepEqual(bench.lock(b, "smb-exclusive", 10, 9), ["granted b"]);
		assert.deepEqual(bench.unlock(a, "smb", 0, 9), []);
		assert.deepEqual(bench.unlock(a, "smb", 0, 9), ["ENOENT"]);
	});

	test("flock(2) gives up what it has before it asks for the other kind, and knows nothing of fcntl", () => {
		const bench = new Bench();
		const [a, b, c] = [owner("a"), owner("b"), owner("c")];
		bench.lock(a, "flock-shared");
		bench.lock(b, "flock-shared");
		assert.deepEqual(bench.lock(c, "fcntl-exclusive"), ["granted c"]);
		assert.deepEqual(bench.lock(a, "flock-exclusive"), ["EAGAIN"]);
		assert.deepEqual(bench.ranges(a), []);
		assert.deepEqual(bench.lock(b, "flock-exclusive"), ["granted b"]);
		assert.deepEqual(bench.lock(owner("n", "nfs"), "nfs-shared", 0, 9), ["EAGAIN"], "fcntl");
		bench.unlock(c, "fcntl");
		assert.deepEqual(bench.lock(owner("n", "nfs"), "nfs-shared", 0, 9), ["granted n"]);
		assert.deepEqual(bench.lock(owner("m", "nfs"), "nfs-shared"), ["EAGAIN"], "the whole file from elsewhere is somebody's flock");
	});

	test("what was locked through an open file goes with it, and what a process has with any of its descriptors", () => {
		const bench = new Bench();
		const [process, file] = [owner("files"), owner("file")];
		bench.lock(process, "fcntl-exclusive", 0, 9, { handle: 1 });
		bench.lock(file, "fcntl-exclusive", 10, 19, { handle: 1 });
		bench.lock(file, "flock-exclusive", 0, wholeFile.end, { handle: 1 });
		bench.do({ kind: "drop-owner", ino, owner: "files", family: "fcntl" });
		assert.deepEqual(bench.ranges(process), []);
		bench.do({ kind: "drop-handle", ino, handle: 2 });
		assert.equal(bench.ranges(file).length, 2);
		bench.do({ kind: "drop-handle", ino, handle: 1 });
		assert.equal(bench.state.resources.size, 0);
	});
});

describe("waiting", () => {
	test("in order of arrival; a reader does not pass a writer who waits, but who does not wait is told of holders alone", () => {
		const bench = new Bench();
		const [a, w, r] = [owner("a"), owner("w"), owner("r")];
		bench.lock(a, "fcntl-shared");
		assert.deepEqual(bench.lock(w, "fcntl-exclusive", 0, 9, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(r, "fcntl-shared", 5, 5, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(owner("t"), "fcntl-shared", 5, 5), ["granted t"]);
		assert.deepEqual(bench.lock(owner("far"), "fcntl-shared", 50, 50, { patient: true }), ["granted far"]);
		assert.deepEqual(bench.lock(a, "fcntl-shared", 0, 20, { patient: true }), ["granted a"], "who is waited for anyway is not barred");
		assert.deepEqual(bench.unlock(owner("t"), "fcntl"), []);
		assert.deepEqual(bench.unlock(a, "fcntl"), ["granted w"]);
		assert.deepEqual(bench.unlock(w, "fcntl"), ["granted r"]);
	});

	test("what nobody holds is no deadlock: who is waited for, through however many others, passes those who wait", () => {
		const bench = new Bench();
		const [process, first, second, third] = [owner("p"), owner("x"), owner("y"), owner("z")];
		bench.lock(process, "fcntl-exclusive", 0, 0);
		assert.deepEqual(bench.lock(first, "fcntl-exclusive", 0, 1, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(second, "fcntl-exclusive", 1, 2, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(third, "fcntl-exclusive", 2, 3, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(process, "fcntl-exclusive", 3, 3, { patient: true }), ["granted p"]);
		assert.deepEqual(bench.lock(owner("q"), "fcntl-exclusive", 3, 3, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.unlock(process, "fcntl"), ["granted x"]);
		assert.deepEqual(bench.unlock(first, "fcntl"), ["granted y"]);
		assert.deepEqual(bench.unlock(second, "fcntl"), ["granted z"]);
		assert.deepEqual(bench.unlock(third, "fcntl"), ["granted q"]);
		assert.equal(bench.state.counters.deadlocks, 0);
	});

	test("who gives up lets those behind go; the same request twice waits once", () => {
		const bench = new Bench();
		const [a, w, r] = [owner("a"), owner("w"), owner("r")];
		bench.lock(a, "fcntl-shared");
		assert.deepEqual(bench.lock(w, "fcntl-exclusive", 0, 9, { patient: true, key: "w" }), ["waiting"]);
		assert.deepEqual(bench.lock(w, "fcntl-exclusive", 0, 9, { patient: true, key: "w" }), ["waiting"]);
		assert.equal(bench.state.waiters.size, 1);
		bench.lock(r, "fcntl-shared", 0, 9, { patient: true });
		assert.deepEqual(bench.do({ kind: "cancel", key: "w" }), ["ECANCELED", "granted r"]);
		assert.deepEqual(bench.do({ kind: "cancel", key: "w" }), []);
	});

	test("deadlines", () => {
		const bench = new Bench();
		bench.lock(owner("a"), "fcntl-exclusive");
		bench.lock(owner("b"), "fcntl-exclusive", 0, 1, { patient: true, deadlineMs: 3000 });
		assert.equal(nextTick(bench.state), 3000);
		bench.nowMs = 2999;
		assert.deepEqual(bench.do({ kind: "tick" }), []);
		bench.nowMs = 3000;
		assert.deepEqual(bench.do({ kind: "tick" }), ["EAGAIN"]);
		assert.equal(nextTick(bench.state), Number.POSITIVE_INFINITY);
	});

	test("a circle of three over three files is refused to who closes it; flock waits for ever, as it does", () => {
		const bench = new Bench();
		const all = [owner("a"), owner("b", "nfs"), owner("c", "smb")] as const;
		const classes = ["fcntl-exclusive", "nfs-exclusive", "smb-exclusive"] as const;
		const at = (who: number, file: number, more: Partial<Request> = {}): string[] =>
			bench.lock(all[who] as Owner, classes[who] as LockClass, 0, 0, { patient: true, ino: file, ...more });
		for (const file of [0, 1, 2]) at(file, file);
		assert.deepEqual(at(0, 1), ["waiting"]);
		assert.deepEqual(at(1, 2), ["waiting"]);
		assert.deepEqual(at(2, 0, { victim: false, key: "flock-like" }), ["waiting"]);
		bench.do({ kind: "cancel", key: "flock-like" });
		assert.deepEqual(at(2, 0), ["EDEADLK"]);
		assert.equal(bench.state.counters.deadlocks, 1);
	});

	test("two readers who both want to write: the second is refused, and the first gets it", () => {
		const bench = new Bench();
		const [a, b] = [owner("a"), owner("b")];
		bench.lock(a, "fcntl-shared");
		bench.lock(b, "fcntl-shared");
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 0, wholeFile.end, { patient: true, key: "up" }), ["waiting"]);
		assert.deepEqual(
			waitedFor(bench.state, "up").map(({ id }) => id),
			["b"],
		);
		assert.deepEqual(bench.lock(b, "fcntl-exclusive", 0, wholeFile.end, { patient: true }), ["EDEADLK"]);
		assert.deepEqual(bench.unlock(b, "fcntl"), ["granted a"]);
	});

	test("a circle that a second thread closes is refused to the first, and who waited behind it goes", () => {
		const bench = new Bench();
		const [o, p, q, w] = [owner("o"), owner("p"), owner("q"), owner("w")];
		bench.lock(p, "fcntl-exclusive", 0, 0);
		bench.lock(q, "fcntl-shared", 0, 9, { ino: 6 });
		assert.deepEqual(bench.lock(o, "fcntl-exclusive", 0, 1, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(w, "fcntl-exclusive", 1, 1, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.lock(p, "fcntl-exclusive", 0, 9, { patient: true, ino: 6 }), ["waiting"]);
		assert.deepEqual(bench.lock(o, "fcntl-shared", 0, 9, { ino: 6 }), ["granted o", "EDEADLK", "granted w"]);
	});

	test("order alone closes no circle over several files: who would be in one passes those who wait", () => {
		const bench = new Bench();
		const [a, w, r] = [owner("a"), owner("w"), owner("r")];
		bench.lock(a, "fcntl-shared");
		bench.lock(r, "fcntl-exclusive", 0, 0, { ino: 6 });
		bench.lock(w, "fcntl-exclusive", 0, 0, { patient: true });
		bench.lock(r, "fcntl-shared", 0, 0, { patient: true });
		assert.deepEqual(bench.lock(w, "fcntl-exclusive", 0, 0, { patient: true, ino: 6 }), ["waiting", "granted r"]);
		assert.deepEqual(bench.do({ kind: "unlock", ino: 6, owner: r, family: "fcntl", range: wholeFile }), ["granted w"]);
		assert.deepEqual(bench.unlock(a, "fcntl"), []);
		assert.deepEqual(bench.unlock(r, "fcntl"), ["granted w"]);
		assert.equal(bench.state.counters.deadlocks, 0);
	});

	test("a circle of order is opened by a grant too, over three files, and one of what is held is still refused", () => {
		const bench = new Bench();
		const [a, b, c, d] = [owner("a"), owner("b"), owner("c"), owner("d")];
		const at = (who: Owner, ino: number, kind: "shared" | "exclusive", more: Partial<Request> = {}): string[] =>
			bench.lock(who, `fcntl-${kind}`, 0, 0, { patient: true, ino, ...more });
		at(a, 1, "shared");
		at(c, 2, "exclusive");
		at(d, 3, "exclusive");
		assert.deepEqual(at(b, 1, "exclusive"), ["waiting"], "for a");
		assert.deepEqual(at(c, 1, "shared"), ["waiting"], "behind b alone");
		assert.deepEqual(at(a, 3, "exclusive"), ["waiting"], "for d");
		assert.deepEqual(at(d, 2, "shared"), ["waiting", "granted c"], "for c, which waits by order for b, b for a, and a for d");
		assert.deepEqual(at(c, 3, "shared"), ["EDEADLK"], "c would wait for d, which waits for what c holds");
	});
});

describe("bounds", () => {
	test("locks of a file, of a client, of all, and who waits; unlocking splits beyond the bound", () => {
		const bench = new Bench({ perFile: 3, perClient: 4, total: 5, waitersPerFile: 1 });
		const a = owner("a");
		for (const at of [0, 10, 20]) bench.lock(a, "fcntl-exclusive", at, at + 4);
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 30, 30), ["ENOLCK"]);
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 5, 9), ["granted a"], "it joins two");
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 40, 40), ["granted a"]);
		assert.deepEqual(bench.unlock(a, "fcntl", 2, 2), [], "one becomes two");
		assert.equal(bench.ranges(a).length, 4);
		assert.deepEqual(bench.lock(a, "fcntl-exclusive", 0, 0, { ino: 6 }), ["ENOLCK"], "of a client");
		assert.deepEqual(bench.lock(owner("b"), "fcntl-exclusive", 0, 0, { ino: 6 }), ["granted b"]);
		assert.deepEqual(bench.lock(owner("b"), "fcntl-exclusive", 2, 2, { ino: 6 }), ["ENOLCK"], "of all");
		assert.equal(bench.state.counters.overLimit, 3);
		const queue = new Bench({ waitersPerFile: 1 });
		queue.lock(a, "fcntl-exclusive");
		assert.deepEqual(queue.lock(owner("c"), "fcntl-exclusive", 0, 0, { patient: true }), ["waiting"]);
		assert.deepEqual(queue.lock(owner("d"), "fcntl-exclusive", 0, 0, { patient: true }), ["ENOLCK"]);
	});

	test("a client that dies takes all it has and waits for with it, and only that: its name is no prefix", () => {
		const bench = new Bench();
		bench.lock(owner("a", "nfs", "client1"), "nfs-exclusive");
		bench.lock(owner("b", "nfs", "client10"), "nfs-exclusive", 0, 1, { patient: true });
		bench.lock(owner("c", "nfs", "client1"), "nfs-exclusive", 0, 1, { patient: true });
		bench.mode(owner("d", "nfs", "client1"), "EX");
		assert.deepEqual(bench.do({ kind: "drop-client", client: "client1" }), ["ECANCELED", "granted b"]);
		assert.equal(bench.state.byClient.get("client1"), undefined);
		bench.do({ kind: "drop-client", client: "client10" });
		assert.equal(bench.state.resources.size, 0);
	});

	test("an operator breaks locks of one owner, or of all, and waiters go on", () => {
		const bench = new Bench();
		bench.lock(owner("a"), "fcntl-exclusive", 0, 9);
		bench.lock(owner("b"), "flock-exclusive");
		bench.lock(owner("c"), "fcntl-shared", 5, 5, { patient: true });
		assert.deepEqual(bench.do({ kind: "break-locks", ino, owner: "a" }), ["granted c"]);
		bench.do({ kind: "break-locks", ino, owner: undefined });
		assert.deepEqual(holdsOf(bench.state, ino), []);
		assert.equal(bench.state.counters.broken, 3);
	});

	test("what the daemon itself denies is no operator's to take away", () => {
		const bench = new Bench();
		bench.do({ kind: "enter-open", ino, id: "mine", owner: { ...owner("d"), firm: true }, sharing: { access: 1, deny: 2 } });
		bench.do({ kind: "enter-open", ino, id: "another's", owner: owner("e"), sharing: { access: 1, deny: 4 } });
		for (const one of ["d", undefined]) bench.do({ kind: "break-locks", ino, owner: one });
		assert.deepEqual(
			bench.state.resources.get(ino)?.opens.map(({ id }) => id),
			["mine"],
		);
	});
});

describe("the six modes", () => {
	test("conversions keep what they have, holders are told who wants what, and two upgrades are a deadlock", () => {
		const bench = new Bench();
		const [a, b, c] = [owner("a", "node"), owner("b", "node"), owner("c", "node")];
		bench.mode(a, "PR");
		bench.mode(b, "PR");
		assert.deepEqual(bench.mode(c, "EX"), ["waiting", "wanted a EX", "wanted b EX"]);
		assert.deepEqual(bench.mode(a, "EX"), ["waiting", "wanted b EX"], "its own upgrade is not behind who waits for it");
		assert.deepEqual(bench.mode(b, "EX"), ["EDEADLK"]);
		assert.deepEqual(bench.do({ kind: "release-mode", ino, owner: "b" }), ["granted a"]);
		assert.deepEqual(bench.mode(a, "CR"), ["granted a"]);
		assert.deepEqual(bench.do({ kind: "release-mode", ino, owner: "a" }), ["granted c"]);
	});
});

describe("opens that yield", () => {
	const away = {
		kind: "enter-open",
		ino,
		id: "o1",
		owner: owner("away", "smb"),
		sharing: { access: share.read, deny: share.write },
	} as const;
	const write: Want = { kind: "open", id: "o2", sharing: { access: share.write, deny: 0 } };

	test("who is in conflict with one waits for its end, whether it is patient or not; it is told once", () => {
		const bench = new Bench();
		bench.do({ ...away, yields: 7 });
		assert.deepEqual(bench.ask(owner("a"), write), ["waiting", "give way 7"]);
		assert.deepEqual(bench.ask(owner("b"), { ...write, id: "o3" }), ["waiting"]);
		assert.deepEqual(bench.do({ kind: "close", ino, id: "o1" }), ["granted a", "granted b"]);
	});

	test("what is locked through it gives way with it; what is not in the way stays", () => {
		const bench = new Bench();
		const smb = owner("smb:7", "smb");
		bench.lock(smb, "smb-exclusive", 0, 9, { handle: 7 });
		bench.do({ ...away, sharing: { access: share.read, deny: 0 }, yields: 7 });
		assert.deepEqual(bench.lock(owner("a"), "fcntl-exclusive", 10, 19), ["granted a"]);
		assert.deepEqual(bench.lock(owner("b"), "nfs-shared", 5, 5), ["waiting", "give way 7"]);
		assert.deepEqual(bench.do({ kind: "drop-handle", ino, handle: 7 }), ["granted b"]);
	});

	test("not for somebody whom another refuses anyway; when that one goes it is asked", () => {
		const bench = new Bench();
		bench.do({ ...away, yields: 7 });
		const firm = { ...away, id: "firm", owner: owner("firm", "smb") };
		bench.do(firm);
		assert.deepEqual(bench.ask(owner("a"), write), ["EBUSY"]);
		bench.lock(owner("p"), "fcntl-exclusive", 0, 9);
		bench.lock(owner("smb:7", "smb"), "smb-shared", 20, 29, { handle: 7 });
		assert.deepEqual(bench.lock(owner("q"), "fcntl-exclusive", 0, 29, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.unlock(owner("p"), "fcntl"), ["give way 7"]);
		assert.deepEqual(bench.do({ kind: "drop-handle", ino, handle: 7 }), ["granted q"]);
	});

	test("its client is back while somebody waits for its end: that one is refused, or waits on", () => {
		const bench = new Bench();
		bench.do({ ...away, yields: 7 });
		bench.ask(owner("a"), write);
		assert.deepEqual(bench.do({ ...away, yields: undefined }), ["EBUSY"]);
		bench.lock(owner("smb:7", "smb"), "smb-exclusive", 0, 9, { handle: 7 });
		assert.deepEqual(bench.lock(owner("q"), "fcntl-exclusive", 0, 9, { patient: true }), ["waiting"]);
		assert.deepEqual(bench.do({ ...away, yields: 7 }), ["give way 7"], "it is away again, and somebody waits already");
	});
});

describe("leases", () => {
	const op = (id: string, event: "read" | "write" | "lifecycle" | "attributes", access = 0): Want => {
		return { kind: "operation", id, event, io: undefined, range: undefined, leaseKey: undefined, access };
	};

	test("one break for each lease however many ask; what they ask for adds up; the epoch rises with each", () => {
		const bench = new Bench();
		const smb = owner("smb", "smb");
		assert.deepEqual(bench.lease(smb, "smb", RWH), [`leased ${RWH}`]);
		assert.deepEqual(bench.ask(owner("r"), op("1", "read")), [`break smb to ${RH}`, "waiting"]);
		assert.deepEqual(bench.ask(owner("w"), op("2", "write")), ["waiting"]);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: RW }), ["EINVAL"]);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: RH }), ["break smb to 0", "granted r"]);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: 0 }), ["granted w"]);
		assert.deepEqual(bench.lease(smb, "smb", RWH), ["leased 0"], "not so soon again");
		bench.do({ kind: "done", ino, id: "1" });
		bench.do({ kind: "done", ino, id: "2" });
		bench.nowMs += lockLimits.quietMs;
		assert.deepEqual(bench.lease(smb, "smb", RWH), [`leased ${RWH}`]);
	});

	test("who does not answer loses it; two breaks in a row have a deadline each", () => {
		const bench = new Bench();
		bench.lease(owner("n", "node"), "node", RW);
		assert.deepEqual(bench.ask(owner("x"), op("1", "read")), [`break n to ${R}`, "waiting"]);
		bench.nowMs = nextTick(bench.state);
		assert.equal(bench.nowMs, 1000 + lockLimits.breakMs.node);
		assert.deepEqual(bench.do({ kind: "tick" }), ["revoked n", "granted x"]);
	});

	test("an operation under way keeps others from caching what it changes", () => {
		const bench = new Bench();
		bench.ask(owner("x"), op("1", "write"));
		assert.deepEqual(bench.lease(owner("n", "node"), "node", RW), ["leased 0"]);
		bench.do({ kind: "done", ino, id: "1" });
		bench.ask(owner("x"), op("2", "read"));
		assert.deepEqual(bench.lease(owner("n", "node"), "node", RW), [`leased ${R}`]);
		bench.do({ kind: "done", ino, id: "2" });
		assert.deepEqual(bench.lease(owner("m", "nfs"), "delegation", RW), ["leased 0"], "a write delegation beside a cache is none");
		assert.deepEqual(bench.lease(owner("m", "nfs"), "delegation", R), [`leased ${R}`]);
	});

	test("who only keeps a file open for later closes it when asked: the open waits for that, then is refused or not", () => {
		const bench = new Bench();
		const smb = owner("smb", "smb");
		const deny = { access: share.read, deny: share.write };
		bench.ask(smb, { kind: "open", id: "o1", sharing: deny });
		bench.lease(smb, "smb", RH);
		const want: Want = { kind: "open", id: "o2", sharing: { access: share.write, deny: 0 } };
		assert.deepEqual(bench.ask(owner("f"), want), [`break smb to ${R}`, "waiting"]);
		assert.deepEqual(bench.do({ kind: "close", ino, id: "o1" }), ["granted f"]);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: R }), []);
		bench.do({ kind: "close", ino, id: "o2" });
		bench.ask(smb, { kind: "open", id: "o3", sharing: deny });
		assert.deepEqual(bench.ask(owner("f"), { ...want, id: "o4" }), ["EBUSY"], "it holds no handle lease any more");
	});

	test("when who denied it is gone, the open is something else for those who cache: more is broken, it does not wait for ever", () => {
		const bench = new Bench();
		const smb = owner("smb", "smb");
		bench.ask(smb, { kind: "open", id: "o1", sharing: { access: share.read, deny: share.write } });
		bench.lease(smb, "smb", RWH);
		const want: Want = { kind: "open", id: "o2", sharing: { access: share.write, deny: 0 } };
		assert.deepEqual(bench.ask(owner("f"), want), [`break smb to ${RW}`, "waiting"]);
		assert.deepEqual(bench.do({ kind: "close", ino, id: "o1" }), []);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: RW }), [`break smb to ${R}`]);
		assert.deepEqual(bench.do({ kind: "lease-answer", ino, key: "smb", state: R }), ["granted f"]);
	});

	test("what was leased before is leased again, but for what others are in the way of now", () => {
		const bench = new Bench();
		const smb = owner("smb", "smb");
		const restore = { kind: "restore-lease", ino, key: "k", owner: smb, family: "smb", state: RWH, epoch: 9 } as const;
		bench.do({ kind: "enter-open", ino, id: "o", owner: owner("f"), sharing: { access: share.read, deny: 0 } });
		assert.deepEqual(bench.do(restore), [`leased ${RH}`]);
		assert.deepEqual(bench.ask(owner("w"), op("1", "write")), ["break k to 0", "waiting"]);
	});

	test("PLAIN: nothing of others that a fast path would have to ask about", () => {
		const bench = new Bench();
		assert.ok(isPlain(bench.state, ino));
		bench.lock(owner("a"), "fcntl-exclusive");
		bench.ask(owner("a"), { kind: "open", id: "1", sharing: { access: 3, deny: 0 } });
		assert.ok(isPlain(bench.state, ino));
		bench.lease(owner("b", "nfs"), "delegation", R);
		assert.ok(isPlain(bench.state, ino), "there is a lock and an open: no delegation");
		bench.ask(owner("b", "smb"), { kind: "open", id: "2", sharing: { access: 1, deny: 4 } });
		assert.ok(!isPlain(bench.state, ino));
	});
});

/** Each door holds what is typical of it, and each of the five, another client of the same door included, does what is typical of it. */
describe("every ordered pair of doors", () => {
	const doors = ["fuse", "nfs", "smb", "s3", "node"] as const;
	type Door = (typeof doors)[number];
	const client = (door: Door, at: number): Owner => owner(`${door}${at}`, door);

	const hold: Readonly<Record<Door, (bench: Bench) => void>> = {
		fuse: (bench) => {
			bench.ask(client("fuse", 1), { kind: "open", id: "h", sharing: { access: 3, deny: 0 } });
			bench.lock(client("fuse", 1), "fcntl-exclusive", 0, 9);
		},
		nfs: (bench) => void bench.lock(client("nfs", 1), "nfs-exclusive", 0, 9),
		smb: (bench) => {
			bench.ask(client("smb", 1), { kind: "open", id: "h", sharing: { access: 3, deny: share.write | share.delete } });
			bench.lease(client("smb", 1), "smb", RWH);
		},
		s3: (bench) => {
			const want = {
				kind: "operation",
				id: "put",
				event: "lifecycle",
				io: undefined,
				range: undefined,
				leaseKey: undefined,
				access: 6,
			} as const;
			bench.ask(client("s3", 1), want);
		},
		node: (bench) => void bench.lease(client("node", 1), "node", RW),
	};

	const bytes = { start: 5, end: 5 };
	const operation = (door: Door, event: "write" | "lifecycle", access: number): Want => {
		const io = event === "write" ? (door === "smb" ? "bound-write" : "write") : undefined;
		return { kind: "operation", id: "op", event, io, range: io === undefined ? undefined : bytes, leaseKey: undefined, access };
	};
	/** A lock and a write, an open and a lock, an upload, a cache. */
	const act: Readonly<Record<Door, (bench: Bench) => string[][]>> = {
		fuse: (bench) => [
			bench.ask(client("fuse", 2), operation("fuse", "write", share.write)),
			bench.lock(client("fuse", 2), "fcntl-shared", 5, 5),
		],
		nfs: (bench) => [bench.ask(client("nfs", 2), operation("nfs", "write", share.write)), bench.lock(client("nfs", 2), "nfs-shared", 5, 5)],
		smb: (bench) => [
			bench.ask(client("smb", 2), { kind: "open", id: "s2", sharing: { access: 3, deny: 0 } }),
			bench.lock(client("smb", 2), "smb-shared", 5, 5),
			bench.ask(client("smb", 2), operation("smb", "write", 0)),
		],
		s3: (bench) => [bench.ask(client("s3", 2), operation("s3", "lifecycle", share.write | share.delete))],
		node: (bench) => [bench.lease(client("node", 2), "node", RW)],
	};

	const ok = (door: Door): string[] => [`granted ${door}2`];
	const no = ["EAGAIN"];
	const busy = ["EBUSY"];
	/** Of SMB, where bytes are locked. */
	const locked = ["EAGAIN"];
	const expected: Readonly<Record<`${Door} ${Door}`, readonly (readonly string[])[]>> = {
		"fuse fuse": [ok("fuse"), no],
		"fuse nfs": [ok("nfs"), no],
		"fuse smb": [ok("smb"), no, locked],
		"fuse s3": [ok("s3")],
		"fuse node": [["leased 0"]],
		"nfs fuse": [ok("fuse"), no],
		"nfs nfs": [ok("nfs"), no],
		"nfs smb": [ok("smb"), no, locked],
		"nfs s3": [ok("s3")],
		"nfs node": [["leased 0"]],
		// The open denies writing; locks wait for the cached ones to be known.
		"smb fuse": [["break smb1 to 0", ...busy], ["waiting"]],
		"smb nfs": [["break smb1 to 0", ...busy], ["waiting"]],
		"smb smb": [[`break smb1 to ${RW}`, "waiting"], ["waiting"], ["waiting"]],
		"smb s3": [["break smb1 to 0", ...busy]],
		"smb node": [["leased 0"]],
		"s3 fuse": [ok("fuse"), ok("fuse")],
		"s3 nfs": [ok("nfs"), ok("nfs")],
		// Its own shared lock keeps an SMB open from writing.
		"s3 smb": [ok("smb"), ok("smb"), locked],
		"s3 s3": [ok("s3")],
		"s3 node": [["leased 0"]],
		"node fuse": [["break node1 to 0", "waiting"], ["waiting"]],
		"node nfs": [["break node1 to 0", "waiting"], ["waiting"]],
		"node smb": [ok("smb"), [`break node1 to ${R}`, "waiting"], ["waiting"]],
		"node s3": [["break node1 to 0", "waiting"]],
		"node node": [["leased 0"]],
	};
	for (const holder of doors)
		for (const asker of doors)
			test(`${holder} holds, ${asker} comes`, () => {
				const bench = new Bench();
				hold[holder](bench);
				assert.deepEqual(act[asker](bench), expected[`${holder} ${asker}`]);
			});
});
