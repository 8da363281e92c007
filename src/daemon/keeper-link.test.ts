import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import { decodeResumeState, type ResumeState } from "./keeper-link.ts";

const negotiated = {
	minor: 45,
	killPriv: true,
	setxattrExt: true,
	dontMask: true,
	noOpendir: false,
	locks: true,
	resend: true,
	passthrough: false,
};
const state: ResumeState = { version: 1, session: 2 ** 52 + 1, negotiated };

test("what a daemon told its keeper is understood as it was meant", () => {
	assert.deepEqual(decodeResumeState(JSON.stringify(state)), state);
	assert.deepEqual(decodeResumeState(JSON.stringify({ ...state, negotiated: null })), { ...state, negotiated: null });
});

test("what another version has told it, and agreed with the kernel, is refused and never half understood", () => {
	const { locks: _locks, ...lacking } = negotiated;
	const { version: _version, ...before } = state;
	const others: readonly (readonly [unknown, RegExp])[] = [
		[{ ...state, version: 2 }, /version 2/],
		[before, /version undefined/],
		[{ ...state, tomorrow: 1 }, /tomorrow/],
		[{ ...state, negotiated: { ...negotiated, tomorrow: true } }, /tomorrow/],
		[{ ...state, negotiated: { ...negotiated, killPriv: "v3" } }, /killPriv/],
		[{ ...state, negotiated: lacking }, /locks/],
		[{ ...state, negotiated: undefined }, /missing/],
		[{ ...state, session: "7" }, /session/],
		[null, /version/],
	];
	for (const [other, why] of others)
		assert.throws(
			() => decodeResumeState(JSON.stringify(other) ?? "null"),
			(error: unknown) => isFsError(error, "REFUSED") && why.test(error.message),
			JSON.stringify(other),
		);
});
