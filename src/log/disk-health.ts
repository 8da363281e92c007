/**
 * How far a disk that answers is trusted: a pure core, told what happens to the disk and when, which says when its health changes.
 *
 * Read errors and slow answers are points; points wear off with time. Health gets worse at once and better only after a calm, one step at a time: a disk on the edge does not flap. Damaged contents are no
 * points: they are mended in place, and a disk that takes writes and gives them back is not distrusted for what happened to its bytes. What fails writes or hangs is not here either: such a disk is failed.
 *
 * Invariants
 *  H1 Health changes by events alone, from `state` and `now` alone; `now` never goes back.
 *  H2 It gets better by one step at the most in `calmMs`, and never while its points say worse.
 *  H3 What the operator set stays until the operator says `auto`; events are counted meanwhile.
 */
import type { DiskHealth } from "./interface.ts";
import { healthCalmMs, healthDegradedPoints, healthMaximumPoints, healthPointMs, suspectErrors } from "./limits.ts";

/** `failed` is only ever set by the operator. */
const order: readonly DiskHealth[] = ["healthy", "degraded", "suspect", "failed"];

export interface HealthState {
	readonly health: DiskHealth;
	/** The operator said so. */
	readonly isSet: boolean;
	readonly readPoints: number;
	readonly slowPoints: number;
	/** What the device itself complains of, twice in turn; "" nothing. Does not wear off. */
	readonly complaint: string;
	/** Until when points have worn off. */
	readonly wornMs: number;
	/** When the last trouble was, or the last change for the better. */
	readonly troubleMs: number;
}

export type HealthEvent =
	| { readonly kind: "read-error" | "slow" | "tick" }
	| { readonly kind: "device"; readonly complaint: string }
	/** Undefined: automatic again. */
	| { readonly kind: "set"; readonly health: DiskHealth | undefined };

export function initialHealth(health: DiskHealth, isSet: boolean, nowMs: number): HealthState {
	// A disk that was distrusted when the volume was left keeps the points that say so: otherwise one calm hour of being unmounted would clear it.
	const readPoints = health === "suspect" ? suspectErrors : health === "degraded" ? healthDegradedPoints : 0;
	return { health, isSet, readPoints: isSet ? 0 : readPoints, slowPoints: 0, complaint: "", wornMs: nowMs, troubleMs: nowMs };
}

export function applyHealth(before: HealthState, event: HealthEvent, nowMs: number): HealthState {
	const state = worn(before, nowMs);
	switch (event.kind) {
		case "set":
			return event.health === undefined
				? graded({ ...state, health: "healthy", isSet: false }, nowMs)
				: { ...state, health: event.health, isSet: true };
		case "read-error":
			return graded({ ...state, readPoints: more(state.readPoints), troubleMs: nowMs }, nowMs);
		case "slow":
			return graded({ ...state, slowPoints: more(state.slowPoints), troubleMs: nowMs }, nowMs);
		case "device":
			return graded({ ...state, complaint: event.complaint, troubleMs: event.complaint === "" ? state.troubleMs : nowMs }, nowMs);
		case "tick":
			return graded(state, nowMs);
	}
}

const more = (points: number): number => Math.min(healthMaximumPoints, points + 1);

function worn(state: HealthState, nowMs: number): HealthState {
	const steps = Math.floor((nowMs - state.wornMs) / healthPointMs);
	if (steps <= 0) return state;
	return {
		...state,
		readPoints: Math.max(0, state.readPoints - steps),
		slowPoints: Math.max(0, state.slowPoints - steps),
		wornMs: state.wornMs + steps * healthPointMs,
	};
}

function graded(state: HealthState, nowMs: number): HealthState {
	if (state.isSet) return state;
	const wanted = order.indexOf(wantedBy(state));
	const now = order.indexOf(state.health);
	if (wanted > now) return { ...state, health: order[wanted] as DiskHealth, troubleMs: nowMs };
	if (wanted === now || nowMs - state.troubleMs < healthCalmMs) return state;
	return { ...state, health: order[now - 1] as DiskHealth, troubleMs: nowMs };
}

/** A device that only complains still keeps what it is given: not to write to it would leave data with less protection than to do so. */
function wantedBy({ readPoints, slowPoints, complaint }: HealthState): DiskHealth {
	if (readPoints >= suspectErrors) return "suspect";
	return complaint !== "" || readPoints >= healthDegradedPoints || slowPoints >= healthDegradedPoints ? "degraded" : "healthy";
}

/** Why, for people. */
export function healthReason({ health, isSet, readPoints, slowPoints, complaint }: HealthState): string {
	if (isSet) return health === "healthy" ? "" : "set by the operator";
	if (health === "healthy") return "";
	const why = [
		...(complaint === "" ? [] : [`the device says (SMART): ${complaint}`]),
		...(readPoints > 0 ? [`${readPoints} read errors that have not worn off`] : []),
		...(slowPoints > 0 ? [`${slowPoints} slow answers that have not worn off`] : []),
	];
	return why.length === 0 ? "calm now; it has to stay so for a while" : why.join(", ");
}
