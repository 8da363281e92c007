/** Entry point of a disk's thread: a call on a disk that hangs may outlive the process (own-files.ts). */
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import type { DiskWorkerData } from "./disk-protocol.ts";
import { serveDisk } from "./disk-server.ts";
import { letGoOfFiles } from "./own-files.ts";
import { runFirst } from "./scheduling.ts";

assert(parentPort !== null, "disk-worker runs as a worker thread only");
const given = workerData as DiskWorkerData;
letGoOfFiles(undefined);
if (given.runsFirst) runFirst();
serveDisk(parentPort, given);
