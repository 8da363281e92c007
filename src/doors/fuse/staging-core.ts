/**
 * Which files the kernel reads by itself (FUSE passthrough), from which staged copy, since when and until when. Pure: `apply(state, command, nowMs) → effects`. Who performs the effects is `native-reads.ts`; what they are for,
 * and what the kernel does, is in README.md.
 *
 * Phases of an inode: none → copying → ready ⇄ attaching → bound → leaving → ready → none.
 *
 * Invariants
 *  N1 While an inode has a native handle, every open of it is answered with the same number; that number is given up only when there is none.
 *  N2 No native handle is given out while an ordinary one is open.
 *  N3 From before its first native handle until nobody has its staged file open or mapped, an inode is held: nobody can write to it. Then, and only then, it is released.
 *  N4 A staged file is used only if the inode has not changed since before it was copied, and removed only when the inode is not held.
 *  N5 Every open is answered once. What a successor has to know of it is recorded before.
 *  N6 The sum of the sizes of staged files, those being copied included, is at most `spaceBytes`; what was restored counts, and may exceed it.
 */
import { assert } from "../../base/assert.ts";

export interface StagingLimits {
	readonly spaceBytes: number;
	readonly files: number;
	/** Smaller files are as fast from the page cache. */
	readonly minFileBytes: number;
	/** A file is staged at so many opens within that time. */
	readonly opens: number;
	readonly opensWithinMs: number;
	/** Inodes whose opens are counted. */
	readonly countedInodes: number;
	/** A number is kept so long after the last native handle is closed: who opens a file again and again pays once. */
	readonly idleMs: number;
	/** How long an open waits for a staged file to be attached before it is an ordinary one. */
	readonly attachMs: number;
	/** From one look whether a file is still mapped to the next: at first, doubling to at most. */
	readonly lookMs: number;
	readonly maxLookMs: number;
	/** After a copy, or attaching it, has failed. */
	readonly retryMs: number;
}

export type StagingCommand =
	/** Somebody opens a file; `key` names the open. `eligible`: nobody can write to it, other than by changing that first. */
	| {
			readonly kind: "open";
			readonly key: number;
			readonly ino: number;
			readonly reading: boolean;
			readonly eligible: boolean;
			readonly sizeBytes: number;
			readonly change: number;
	  }
	| { readonly kind: "close"; readonly ino: number; readonly native: boolean }
	/** What a predecessor of this process has left: handles, and an inode that it held. */
	| { readonly kind: "restore-ordinary"; readonly ino: number }
	| {
			readonly kind: "restore";
			readonly ino: number;
			readonly file: number;
			readonly sizeBytes: number;
			readonly number: number;
			/** Native ones. Undefined: it was being left, and handles are ordinary ones. */
			readonly handles: number | undefined;
	  }
	// What became of effects.
	| { readonly kind: "copied"; readonly ino: number; readonly done: boolean }
	| { readonly kind: "attached"; readonly ino: number; readonly number: number | undefined }
	/** `change`: of the inode, when nobody uses the file; it is still held. */
	| { readonly kind: "looked"; readonly ino: number; readonly inUse: boolean; readonly change: number }
	| { readonly kind: "tick" };

export type StagingEffect =
	/** `number` undefined: an ordinary handle. Refused: no handle at all; the volume has opened for writing what is held, which it must not. */
	| { readonly kind: "answer"; readonly key: number; readonly number: number | undefined; readonly refused?: true }
	| { readonly kind: "copy"; readonly ino: number; readonly file: number; readonly sizeBytes: number; readonly change: number }
	/** `change`: hold the inode first, and only if it is still that. Undefined: it is held. */
	| {
			readonly kind: "attach";
			readonly ino: number;
			readonly file: number;
			readonly change: number | undefined;
	  }
	/** Give the number up, if there is one, and look whether the file is in use. */
	| { readonly kind: "look"; readonly ino: number; readonly file: number; readonly number: number | undefined }
	/** To be known to a successor, before anything else is done: it is held, and its handles are native (`bound`), or ordinary. */
	| {
			readonly kind: "record";
			readonly ino: number;
			readonly file: number;
			readonly sizeBytes: number;
			readonly number: number;
			readonly bound: boolean;
	  }
	/** It is held no longer, and a successor need not know it. */
	| { readonly kind: "release"; readonly ino: number }
	| { readonly kind: "remove"; readonly file: number };

type Phase = "copying" | "ready" | "attaching" | "given-up" | "bound" | "leaving";

interface Entry {
	readonly ino: number;
	readonly file: number;
	readonly sizeBytes: number;
	change: number;
	phase: Phase;
	held: boolean;
	number: number | undefined;
	/** Native handles. */
	handles: number;
	/** Since when it is in its phase; of a bound one: since when it has no handle. */
	sinceMs: number;
	usedMs: number;
	looking: boolean;
	lookMs: number;
	/** Opens that are not answered. */
	waiting: Waiting[];
}

type Waiting = Pick<Open, "key" | "reading">;

interface Heat {
	opens: number;
	sinceMs: number;
	notBeforeMs: number;
}

export interface StagingState {
	readonly limits: StagingLimits;
	readonly entries: Map<number, Entry>;
	/** Ordinary handles; inodes without one are not in it. */
	readonly ordinary: Map<number, number>;
	/** The least recently opened first. */
	readonly heat: Map<number, Heat>;
	stagedBytes: number;
	nextFile: number;
	isCopying: boolean;
}

export function createStagingState(limits: StagingLimits): StagingState {
	return { limits, entries: new Map(), ordinary: new Map(), heat: new Map(), stagedBytes: 0, nextFile: 1, isCopying: false };
}

export function apply(state: StagingState, command: StagingCommand, nowMs: number): StagingEffect[] {
	const effects: StagingEffect[] = [];
	switch (command.kind) {
		case "open":
			open(state, command, nowMs, effects);
			break;
		case "close":
			close(state, command, nowMs);
			break;
		case "restore-ordinary":
			addOrdinary(state, command.ino);
			break;
		case "restore":
			restore(state, command, nowMs, effects);
			break;
		case "copied":
			copied(state, command, nowMs, effects);
			break;
		case "attached":
			attached(state, command, nowMs, effects);
			break;
		case "looked":
			looked(state, command, nowMs, effects);
			break;
		default:
			for (const entry of [...state.entries.values()]) tick(state, entry, nowMs, effects);
	}
	return effects;
}

/** When a `tick` is due, monotonic ms; undefined: not before something else happens. */
export function nextTickMs({ entries, limits }: StagingState): number | undefined {
	let next: number | undefined;
	for (const entry of entries.values()) {
		const at = dueMs(entry, limits);
		if (at !== undefined && (next === undefined || at < next)) next = at;
	}
	return next;
}

export function isBound({ entries }: StagingState, ino: number): boolean {
	return entries.get(ino)?.phase === "bound";
}

export interface StagingFigures {
	readonly stagedFiles: number;
	readonly stagedBytes: number;
	/** Handles that the kernel serves by itself. */
	readonly handles: number;
	/** Files whose contents nobody may change because of that. */
	readonly heldFiles: number;
}

export function figures({ entries, stagedBytes }: StagingState): StagingFigures {
	const all = [...entries.values()];
	const stagedFiles = all.filter(({ phase }) => phase !== "copying").length;
	const handles = all.reduce((sum, entry) => sum + entry.handles, 0);
	return { stagedFiles, stagedBytes, handles, heldFiles: all.filter(({ held }) => held).length };
}

// ── opens and closes ─────────────────────────────────────────────────────────────────────────────────────────────

type Open = Extract<StagingCommand, { kind: "open" }>;

function open(state: StagingState, command: Open, nowMs: number, effects: StagingEffect[]): void {
	const entry = state.entries.get(command.ino);
	if (entry !== undefined) entry.usedMs = nowMs;
	if (entry === undefined) {
		answerOrdinary(state, command, effects);
		warm(state, command, nowMs, effects);
		return;
	}
	if (entry.phase === "bound") answerNative(entry, command, effects);
	else if (entry.phase === "attaching" || (entry.phase === "leaving" && entry.looking))
		entry.waiting.push({ key: command.key, reading: command.reading });
	else if (entry.phase === "leaving" && command.reading && !state.ordinary.has(entry.ino)) {
		entry.waiting.push({ key: command.key, reading: command.reading });
		attach(entry, nowMs, effects);
	} else if (entry.phase === "ready") openReady(state, entry, command, nowMs, effects);
	else answerOrdinary(state, command, effects);
}

function openReady(state: StagingState, entry: Entry, command: Open, nowMs: number, effects: StagingEffect[]): void {
	if (entry.change !== command.change) {
		drop(state, entry, effects);
		answerOrdinary(state, command, effects);
	} else if (command.reading && command.eligible && !state.ordinary.has(entry.ino) && nowMs >= notBefore(state, entry.ino)) {
		entry.waiting.push({ key: command.key, reading: command.reading });
		attach(entry, nowMs, effects);
	} else answerOrdinary(state, command, effects);
}

function attach(entry: Entry, nowMs: number, effects: StagingEffect[]): void {
	const { ino, file, held, change } = entry;
	enter(entry, "attaching", nowMs);
	effects.push({ kind: "attach", ino, file, change: held ? undefined : change });
}

function answerNative(entry: Entry, { key, reading }: Waiting, effects: StagingEffect[]): void {
	if (reading) entry.handles++;
	effects.push(reading ? { kind: "answer", key, number: entry.number } : { kind: "answer", key, number: undefined, refused: true });
}

function answerOrdinary(state: StagingState, { ino, key }: { readonly ino: number; readonly key: number }, effects: StagingEffect[]): void {
	addOrdinary(state, ino);
	effects.push({ kind: "answer", key, number: undefined });
}

function addOrdinary({ ordinary }: StagingState, ino: number): void {
	ordinary.set(ino, (ordinary.get(ino) ?? 0) + 1);
}

function close(state: StagingState, { ino, native }: Extract<StagingCommand, { kind: "close" }>, nowMs: number): void {
	if (native) {
		const entry = state.entries.get(ino);
		assert(entry?.phase === "bound" && entry.handles > 0, "N1: a native handle is of a bound inode");
		entry.handles--;
		entry.usedMs = entry.sinceMs = nowMs;
		return;
	}
	const left = (state.ordinary.get(ino) ?? 0) - 1;
	assert(left >= 0, "more ordinary handles closed than opened");
	if (left === 0) state.ordinary.delete(ino);
	else state.ordinary.set(ino, left);
}

type Restore = Extract<StagingCommand, { kind: "restore" }>;

function restore(
	state: StagingState,
	{ ino, file, sizeBytes, number, handles = 0 }: Restore,
	nowMs: number,
	effects: StagingEffect[],
): void {
	assert(!state.entries.has(ino) && (handles === 0 || !state.ordinary.has(ino)), "N2: native handles or ordinary ones");
	const times = { sinceMs: nowMs, usedMs: nowMs, looking: false, lookMs: state.limits.lookMs };
	const entry: Entry = { ino, file, sizeBytes, number, handles, change: -1, phase: "bound", held: true, waiting: [], ...times };
	state.entries.set(ino, entry);
	state.stagedBytes += sizeBytes;
	state.nextFile = Math.max(state.nextFile, file + 1);
	if (handles === 0) leave(entry, nowMs, effects);
}

// ── heat and room ────────────────────────────────────────────────────────────────────────────────────────────────

function notBefore({ heat }: StagingState, ino: number): number {
	return heat.get(ino)?.notBeforeMs ?? 0;
}

function heatOf(state: StagingState, ino: number, nowMs: number): Heat {
	const known = state.heat.get(ino) ?? { opens: 0, sinceMs: nowMs, notBeforeMs: 0 };
	state.heat.delete(ino);
	state.heat.set(ino, known);
	const [oldest] = state.heat.keys();
	if (state.heat.size > state.limits.countedInodes && oldest !== undefined) state.heat.delete(oldest);
	return known;
}

/** Counts an open of an inode of which nothing is staged, and begins to stage it. */
function warm(state: StagingState, command: Open, nowMs: number, effects: StagingEffect[]): void {
	const { ino, reading, eligible, sizeBytes, change } = command;
	const { limits } = state;
	if (!reading || !eligible || sizeBytes < limits.minFileBytes || sizeBytes > limits.spaceBytes) return;
	const heat = heatOf(state, ino, nowMs);
	if (nowMs - heat.sinceMs > limits.opensWithinMs) {
		heat.sinceMs = nowMs;
		heat.opens = 0;
	}
	heat.opens++;
	if (heat.opens < limits.opens || nowMs < heat.notBeforeMs || state.isCopying || !makeRoom(state, sizeBytes, effects)) return;
	const file = state.nextFile++;
	const times = { sinceMs: nowMs, usedMs: nowMs, looking: false, lookMs: limits.lookMs };
	const fresh = { handles: 0, held: false, number: undefined, waiting: [], ...times };
	state.entries.set(ino, { ino, file, sizeBytes, change, phase: "copying", ...fresh });
	state.stagedBytes += sizeBytes;
	state.isCopying = true;
	effects.push({ kind: "copy", ino, file, sizeBytes, change });
}

/** Lets go of what was used least recently and is nobody's at the moment. False, and nothing goes, when that is not enough. */
function makeRoom(state: StagingState, sizeBytes: number, effects: StagingEffect[]): boolean {
	const free = [...state.entries.values()].filter(({ phase }) => phase === "ready").sort((a, b) => a.usedMs - b.usedMs);
	const going: Entry[] = [];
	let [bytes, files] = [state.stagedBytes, state.entries.size];
	while (bytes + sizeBytes > state.limits.spaceBytes || files >= state.limits.files) {
		const next = free[going.length];
		if (next === undefined) return false;
		going.push(next);
		bytes -= next.sizeBytes;
		files--;
	}
	for (const entry of going) drop(state, entry, effects);
	return true;
}

function drop(state: StagingState, entry: Entry, effects: StagingEffect[]): void {
	assert(!entry.held && entry.handles === 0 && entry.waiting.length === 0, "N4: a staged file that is in use is not removed");
	state.entries.delete(entry.ino);
	state.stagedBytes -= entry.sizeBytes;
	effects.push({ kind: "remove", file: entry.file });
}

function copied(
	state: StagingState,
	{ ino, done }: Extract<StagingCommand, { kind: "copied" }>,
	nowMs: number,
	effects: StagingEffect[],
): void {
	const entry = state.entries.get(ino);
	assert(entry?.phase === "copying", "only what is being copied is copied");
	state.isCopying = false;
	if (done) enter(entry, "ready", nowMs);
	else {
		heatOf(state, ino, nowMs).notBeforeMs = nowMs + state.limits.retryMs;
		drop(state, entry, effects);
	}
}

// ── attached, left ───────────────────────────────────────────────────────────────────────────────────────────────

function enter(entry: Entry, phase: Phase, nowMs: number): void {
	entry.phase = phase;
	entry.sinceMs = nowMs;
}

type Attached = Extract<StagingCommand, { kind: "attached" }>;

function attached(state: StagingState, { ino, number }: Attached, nowMs: number, effects: StagingEffect[]): void {
	const entry = state.entries.get(ino);
	assert(entry?.phase === "attaching" || entry?.phase === "given-up", "only what is being attached is attached");
	const waiting = takeWaiting(entry);
	if (number === undefined) {
		heatOf(state, ino, nowMs).notBeforeMs = nowMs + state.limits.retryMs;
		for (const { key } of waiting) answerOrdinary(state, { ino, key }, effects);
		if (entry.held) rest(entry, state.limits, nowMs);
		else enter(entry, "ready", nowMs);
		return;
	}
	entry.held = true;
	entry.number = number;
	if (entry.phase === "given-up") {
		leave(entry, nowMs, effects);
		return;
	}
	enter(entry, "bound", nowMs);
	record(entry, number, effects);
	for (const one of waiting) answerNative(entry, one, effects);
}

function takeWaiting(entry: Entry): readonly Waiting[] {
	const { waiting } = entry;
	entry.waiting = [];
	return waiting;
}

/** Gives the number up, so that nothing of this process keeps the file in use. */
function leave(entry: Entry, nowMs: number, effects: StagingEffect[]): void {
	assert(entry.handles === 0, "N1: the number of native handles stays");
	const { ino, file, number } = entry;
	enter(entry, "leaving", nowMs);
	if (number !== undefined) record(entry, number, effects);
	entry.number = undefined;
	entry.looking = true;
	effects.push({ kind: "look", ino, file, number });
}

function record({ ino, file, sizeBytes, phase }: Entry, number: number, effects: StagingEffect[]): void {
	effects.push({ kind: "record", ino, file, sizeBytes, number, bound: phase === "bound" });
}

/** Until the next look. */
function rest(entry: Entry, { lookMs, maxLookMs }: StagingLimits, nowMs: number): void {
	enter(entry, "leaving", nowMs);
	entry.looking = false;
	entry.lookMs = Math.min(Math.max(entry.lookMs * 2, lookMs), maxLookMs);
}

type Looked = Extract<StagingCommand, { kind: "looked" }>;

function looked(state: StagingState, { ino, inUse, change }: Looked, nowMs: number, effects: StagingEffect[]): void {
	const entry = state.entries.get(ino);
	assert(entry?.phase === "leaving" && entry.looking, "only who looks has looked");
	entry.looking = false;
	if (entry.waiting.length > 0 && !state.ordinary.has(ino)) {
		attach(entry, nowMs, effects);
		return;
	}
	// N2: opens that waited come after ordinary ones.
	for (const { key } of takeWaiting(entry)) answerOrdinary(state, { ino, key }, effects);
	if (inUse) rest(entry, state.limits, nowMs);
	else {
		entry.held = false;
		entry.change = change;
		entry.lookMs = state.limits.lookMs;
		enter(entry, "ready", nowMs);
		effects.push({ kind: "release", ino });
	}
}

// ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function dueMs(entry: Entry, limits: StagingLimits): number | undefined {
	const { phase, handles, looking, sinceMs } = entry;
	if (phase === "attaching") return sinceMs + limits.attachMs;
	if (phase === "bound" && handles === 0) return sinceMs + limits.idleMs;
	return phase === "leaving" && !looking ? sinceMs + entry.lookMs : undefined;
}

function tick(state: StagingState, entry: Entry, nowMs: number, effects: StagingEffect[]): void {
	const due = dueMs(entry, state.limits);
	if (due === undefined || nowMs < due) return;
	if (entry.phase === "bound") leave(entry, nowMs, effects);
	else if (entry.phase === "leaving") {
		entry.looking = true;
		effects.push({ kind: "look", ino: entry.ino, file: entry.file, number: undefined });
	} else {
		for (const { key } of takeWaiting(entry)) answerOrdinary(state, { ino: entry.ino, key }, effects);
		enter(entry, "given-up", nowMs);
	}
}
