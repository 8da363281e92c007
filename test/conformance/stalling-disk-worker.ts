/** A disk's thread that can be made to hang, for tests: it sleeps while the flag file beside the disk (`PATH.hang`) exists. */
import fs from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { DiskWorkerData } from "../../src/platform/real/disk-protocol.ts";
import { serveDisk } from "../../src/platform/real/disk-server.ts";

if (parentPort === null) throw new Error("this runs as a worker thread only");
const given = workerData as DiskWorkerData;
const { path } = given;
const cell = new Int32Array(new SharedArrayBuffer(4));

serveDisk(parentPort, given, (request) => {
	while (fs.existsSync(`${path}.hang`)) Atomics.wait(cell, 0, 0, 2);
	if (request.kind === "open" && request.name === "crash-the-thread") process.exit(1);
});
