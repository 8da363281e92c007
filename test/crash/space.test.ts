import { test } from "node:test";
import { fill } from "./space.ts";

const large = { fileBytes: 100 * 1024 * 1024, fits: 0.01, returns: 0.01 };

test("df is true to one percent for large files, on equal and on unequal disks", async () => {
	await fill(940, { redundancy: "rs:4+2", disksMiB: [48, 48, 48, 48, 48, 48], ...large });
	await fill(941, { redundancy: "replicate:2", disksMiB: [64, 128, 96], ...large });
});
