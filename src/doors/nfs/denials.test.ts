import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../platform/interface.ts";
import { Denials } from "./denials.ts";
import { deniedLaterMs, sameDenialMs } from "./limits.ts";
import { status } from "./nfs3.ts";
import type { Target } from "./nfs-server.ts";

test("who is denied something is told to come later, and in the end that it may not; each machine and each file by itself", () => {
	let nowMs = 1000;
	const denials = new Denials({ monotonicMs: () => nowMs } as Clock);
	const target = (clientInstance: string, ino: number): Target => ({ caller: { clientInstance }, node: { ino } }) as unknown as Target;
	assert.equal(denials.status(target("a", 1)), status.JUKEBOX);
	nowMs += deniedLaterMs - 1;
	assert.equal(denials.status(target("a", 1)), status.JUKEBOX);
	nowMs += 1;
	assert.equal(denials.status(target("b", 1)), status.JUKEBOX);
	assert.equal(denials.status(target("a", 2)), status.JUKEBOX);
	assert.equal(denials.status(target("a", 1)), status.ACCES);
	nowMs += sameDenialMs;
	assert.equal(denials.status(target("a", 1)), status.ACCES);
	nowMs += sameDenialMs + 1;
	assert.equal(denials.status(target("a", 1)), status.JUKEBOX, "another time");
});
