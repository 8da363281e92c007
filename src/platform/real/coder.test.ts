import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { isFsError } from "../../base/errors.ts";
import type { ShardWork } from "../../codec/interface.ts";
import { RealCoder } from "./coder.ts";
import { coderThreadName } from "./coder-protocol.ts";

const sibling = (name: string) => new URL(`./${name}${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url);

function work(blocks = 1): ShardWork {
	const shard = () => new Uint8Array(new SharedArrayBuffer(blocks * 4096));
	return {
		dataShards: 2,
		parityShards: 1,
		present: [0, 1],
		sources: [shard(), shard()],
		wanted: [2],
		targets: [shard()],
		blockBytes: 4096,
		sums: "all",
	};
}

async function until<T>(what: string, look: () => T | undefined): Promise<T> {
	for (let i = 0; i < 10_000; i++) {
		const found = look();
		if (found !== undefined) return found;
		await new Promise((resolve) => setTimeout(resolve, 2));
	}
	throw new Error(`${what} never came`);
}

const ready = (coder: RealCoder, ask = work): Promise<Promise<Uint32Array>> => until("the thread", () => coder.begin(ask()));

function hasThread(): boolean {
	const name = (thread: string): string => {
		const path = `/proc/self/task/${thread}/comm`;
		return existsSync(path) ? readFileSync(path, "utf8").trim() : "";
	};
	return readdirSync("/proc/self/task").some((thread) => name(thread) === coderThreadName);
}

describe("the coder's thread", () => {
	it("is started by the first work, once, and takes none before it has come up", async () => {
		const coder = new RealCoder(sibling("coder-worker"));
		assert.equal(hasThread(), false);
		assert.equal(coder.begin(work()), undefined);
		assert.equal((await await ready(coder)).length, 3);
		assert.equal(hasThread(), true);
	});

	it("says what it cannot do, and goes on", async () => {
		const coder = new RealCoder(sibling("coder-worker"));
		await await ready(coder);
		const wrong = coder.begin({ ...work(), present: [1, 1] });
		await assert.rejects(wrong as Promise<unknown>, (error) => isFsError(error, "EIO") && error.site === "platform.coder-failed");
		assert.equal((await coder.begin(work()))?.length, 3);
	});

	it("when it dies: all that is open fails, nothing is taken any more", async () => {
		// Its second work ends it, in the middle of others.
		const script = `import { parentPort } from "node:worker_threads";
			let works = 0;
			parentPort.on("message", ({ id }) => {
				if (++works === 2) throw new Error("planted");
				parentPort.postMessage({ id, sums: new Uint32Array(3) });
			});
			parentPort.postMessage("ready");`;
		const coder = new RealCoder(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
		await await ready(coder);
		const open = [coder.begin(work()), coder.begin(work()), coder.begin(work())] as Promise<unknown>[];
		for (const end of await Promise.allSettled(open)) {
			assert.ok(end.status === "rejected" && isFsError(end.reason, "EIO") && end.reason.message.includes("planted"));
		}
		assert.equal(coder.begin(work()), undefined);
	});

	it("where it cannot be started nothing is taken, ever", async () => {
		const coder = new RealCoder(sibling("no-such-worker"));
		assert.equal(coder.begin(work()), undefined);
		await new Promise((resolve) => setTimeout(resolve, 200));
		assert.equal(coder.begin(work()), undefined);
	});

	it("does not keep an idle process alive, and a work does", () => {
		const script = `const { RealCoder } = await import(${JSON.stringify(sibling("coder").href)});
			const coder = new RealCoder(new URL(${JSON.stringify(sibling("coder-worker").href)}));
			const shard = () => new Uint8Array(new SharedArrayBuffer(4 << 20));
			const work = { dataShards: 2, parityShards: 1, present: [0, 1], sources: [shard(), shard()], wanted: [2], targets: [shard()], blockBytes: 4096, sums: "all" };
			let begun;
			while ((begun = coder.begin(work)) === undefined) await new Promise((resolve) => setTimeout(resolve, 2));
			console.log((await begun).length);`;
		const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", timeout: 60_000 });
		assert.equal(output, "3072\n");
	});
});
