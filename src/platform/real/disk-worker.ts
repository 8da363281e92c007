/** Entry point of a disk's thread. */
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import type { DiskWorkerData } from "./disk-protocol.ts";
import { serveDisk } from "./disk-server.ts";

assert(parentPort !== null, "disk-worker runs as a worker thread only");
serveDisk(parentPort, (workerData as DiskWorkerData).path);
