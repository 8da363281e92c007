import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { compilerFlags, keeperFlags } from "./engine-flags.ts";

const node20 = "11.3.244.8-node.38";
const node22 = "12.4.254.21-node.57";
const node24 = "13.6.233.17-node.53";

test("flags that a version of V8 does not know are left away", () => {
	const has = (flags: readonly string[], name: string): boolean => flags.some((flag) => flag.startsWith(name));
	assert.deepEqual(
		[node20, node22, node24].map((version) => has(keeperFlags(version), "--no-expose-wasm")),
		[true, true, false],
	);
	assert.deepEqual(
		[node20, node22, node24].map((version) => has(compilerFlags(version), "--interrupt-budget")),
		[true, false, false],
	);
});

test("this Node takes them, and says nothing", () => {
	const { v8 } = process.versions;
	const setting = `for (const flag of ${JSON.stringify(compilerFlags(v8))}) require("node:v8").setFlagsFromString(flag); console.log("set")`;
	for (const words of [
		[...keeperFlags(v8), "-e", `console.log("set")`],
		["-e", setting],
	]) {
		const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
		assert.deepEqual([status, stdout, stderr], [0, "set\n", ""], words.join(" "));
	}
});
