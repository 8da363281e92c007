import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { applyHealth, type HealthEvent, type HealthState, healthReason, initialHealth } from "./disk-health.ts";
import { healthCalmMs, healthDegradedPoints, healthPointMs, suspectErrors } from "./limits.ts";

const rank = (state: HealthState): number => ["healthy", "degraded", "suspect", "failed"].indexOf(state.health);

function many(state: HealthState, kind: "read-error" | "slow", count: number, nowMs: number): HealthState {
	let next = state;
	for (let i = 0; i < count; i++) next = applyHealth(next, { kind }, nowMs);
	return next;
}

describe("the health of a disk", () => {
	test("gets worse at once, better only after a calm, one step at a time", () => {
		let state = many(initialHealth("healthy", false, 0), "read-error", healthDegradedPoints - 1, 0);
		assert.equal(state.health, "healthy");
		state = many(state, "read-error", 1, 1);
		assert.equal(state.health, "degraded");
		state = many(state, "read-error", suspectErrors, 2);
		assert.equal(state.health, "suspect");
		assert.match(healthReason(state), /\d+ read errors/);
		const tick = (atMs: number) => {
			state = applyHealth(state, { kind: "tick" }, atMs);
			return state.health;
		};
		assert.equal(tick(healthCalmMs), "suspect", "its points say so still");
		const worn = 64 * healthPointMs;
		assert.equal(tick(worn), "degraded", "one step");
		assert.match(healthReason(state), /calm now/);
		assert.equal(tick(worn + healthCalmMs - 1), "degraded");
		assert.equal(tick(worn + healthCalmMs), "healthy");
		assert.equal(healthReason(state), "");
	});

	test("slow answers make it the last choice, never suspect", () => {
		const state = many(initialHealth("healthy", false, 0), "slow", 1000, 5);
		assert.equal(state.health, "degraded");
		assert.match(healthReason(state), /slow answers/);
	});

	test("distrust is not forgotten over a mount", () => {
		const state = initialHealth("suspect", false, 0);
		assert.equal(applyHealth(state, { kind: "tick" }, healthCalmMs - 1).health, "suspect");
		const calm = applyHealth(state, { kind: "tick" }, healthCalmMs);
		assert.equal(calm.health, "degraded");
		assert.equal(applyHealth(calm, { kind: "tick" }, 2 * healthCalmMs).health, "degraded", "its points say so still");
		assert.equal(applyHealth(initialHealth("degraded", false, 0), { kind: "tick" }, healthPointMs).health, "degraded");
	});

	test("model: any events in any order", () => {
		const event = fc.oneof(
			fc.constantFrom<HealthEvent>({ kind: "read-error" }, { kind: "slow" }, { kind: "tick" }),
			fc.constantFrom("healthy", "degraded", "suspect", undefined).map((health): HealthEvent => ({ kind: "set", health })),
		);
		const step = fc.record({ event, afterMs: fc.integer({ min: 0, max: 3_000_000 }) });
		fc.assert(
			fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
				let nowMs = 0;
				let state = initialHealth("healthy", false, 0);
				let betteredMs = Number.NEGATIVE_INFINITY;
				for (const one of steps) {
					nowMs += one.afterMs;
					const before = state;
					state = applyHealth(before, one.event, nowMs);
					assert.ok(state.readPoints >= 0 && state.slowPoints >= 0 && state.readPoints <= 64 && state.slowPoints <= 64);
					if (one.event.kind === "set") {
						assert.equal(state.isSet, one.event.health !== undefined);
						if (one.event.health !== undefined) assert.equal(state.health, one.event.health);
						betteredMs = Number.NEGATIVE_INFINITY;
						continue;
					}
					if (before.isSet) assert.equal(state.health, before.health);
					// At once: never better than the points say.
					else if (state.readPoints >= suspectErrors) assert.equal(state.health, "suspect");
					else if (state.readPoints >= healthDegradedPoints || state.slowPoints >= healthDegradedPoints) assert.ok(rank(state) >= 1);
					if (rank(state) < rank(before)) {
						assert.equal(rank(before) - rank(state), 1);
						assert.ok(nowMs - betteredMs >= healthCalmMs, "not twice within a calm");
						betteredMs = nowMs;
					}
				}
			}),
			{ numRuns: 300 },
		);
	});
});
