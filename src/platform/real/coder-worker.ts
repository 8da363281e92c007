/** Entry point of the coder's thread. It makes no call that could hang, and holds nothing of a work that it has answered. */
import { writeFileSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { doShardWork } from "../../codec/shard-work.ts";
import { type CoderCall, type CoderReply, coderThreadName } from "./coder-protocol.ts";

const port = parentPort;
assert(port !== null, "coder-worker runs as a worker thread only");
try {
	// For people who look at threads (top -H).
	writeFileSync("/proc/thread-self/comm", coderThreadName);
} catch {
	// It works without a name.
}
const say = (reply: CoderReply, moved: readonly ArrayBuffer[] = []): void => port.postMessage(reply, moved);
port.on("message", ({ id, work }: CoderCall) => {
	let sums: Uint32Array<ArrayBuffer>;
	try {
		sums = doShardWork(work) as Uint32Array<ArrayBuffer>;
	} catch (error) {
		say({ id, failed: error instanceof Error ? error.message : String(error) });
		return;
	}
	say({ id, sums }, [sums.buffer]);
});
say("ready");
