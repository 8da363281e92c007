/** The process of a `HangingDisk`: `node hanging-disk-server.js MOUNTPOINT`. Takes words on its input, says each when it is done. */
import { createInterface } from "node:readline";
import { Deferred } from "../../src/base/async.ts";
import { FsError } from "../../src/base/errors.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import { serveFuse } from "../../src/doors/fuse/server.ts";
import { MemoryVolume } from "../../src/doors/fuse/test/memory-volume.ts";
import { createFuseHost } from "../../src/platform/real/fuse.ts";
import { createRealPlatform } from "../../src/platform/real/platform.ts";

const syncs = ["fsync", "syncAll", "durable"];
const everything = Object.getOwnPropertyNames(MemoryVolume.prototype);

const [mountpoint = ""] = process.argv.slice(2);
const host = createFuseHost();
const options = { allowOther: true, readOnly: false, maxReadBytes: 1 << 20, flags: [] };
const channel = await host.mount(mountpoint, { source: `hanging:${process.pid}`, subtype: "hanging", ...options });
const volume = new MemoryVolume();
// Nothing is answered from the kernel's cache of names.
const times = { entryTimeoutMs: 0, attributeTimeoutMs: 0, negativeTimeoutMs: 0 };
const server = serveFuse(times, { volume, channel, platform: createRealPlatform(), logger: silentLogger });
let gate = new Deferred<void>();

function say(word: string): void {
	process.stdout.write(`${word}\n`);
}

function fail(methods: readonly string[], map: Map<string, unknown>): void {
	for (const method of methods) map.set(method, new FsError("EIO", "test.hanging-disk", `${method} fails as it was told to`));
}

function obey(word: string): void {
	if (word === "answer") {
		volume.gates.clear();
		volume.faults.clear();
		volume.failing.clear();
		gate.resolve();
		gate = new Deferred<void>();
	} else if (word === "fail-one-sync") fail(["fsync"], volume.faults);
	else if (word === "fail-syncs") fail(syncs, volume.failing);
	else if (word === "fail-writes") fail([...syncs, "write", "allocate"], volume.failing);
	else if (word === "end") void host.unmount(mountpoint, true).catch(() => {});
	else for (const method of word === "syncs" ? syncs : everything) volume.gates.set(method, gate.promise);
	say(word);
}

createInterface({ input: process.stdin }).on("line", obey);
say("mounted");
await server.ended;
await server.stop();
process.exit(0);
