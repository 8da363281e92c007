import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";

/** Lets go of the process's files, opens one of its own, and writes to the number that the process's had, as the runtime might. */
const thread = `
	const { parentPort, workerData } = require("node:worker_threads");
	const fs = require("node:fs");
	import(workerData.module).then(({ letGoOfFiles }) => {
		letGoOfFiles(undefined);
		const own = fs.openSync(workerData.own, "w");
		fs.writeSync(own, "mine");
		fs.writeSync(workerData.number, "stray");
		parentPort.postMessage(own);
	});
`;

test("a thread's own file never gets the number of one that the process has open: what is written there by mistake goes nowhere", async () => {
	const folder = mkdtempSync(join(tmpdir(), "cairn-own-files-"));
	const number = openSync(join(folder, "process"), "w");
	try {
		const module = new URL("./own-files.js", import.meta.url).href;
		const worker = new Worker(thread, { eval: true, workerData: { module, number, own: join(folder, "own") } });
		const own = await new Promise((resolve, reject) => {
			worker.once("message", resolve);
			worker.once("error", reject);
		});
		await worker.terminate();
		assert.notEqual(own, number);
		assert.equal(readFileSync(join(folder, "own"), "utf8"), "mine");
		assert.equal(readFileSync(join(folder, "process"), "utf8"), "", "the thread has let go of it");
	} finally {
		closeSync(number);
		rmSync(folder, { recursive: true });
	}
});
