/** `npm run test:long crash`. Of small files metadata counts: on disks as small as these their records, in three copies with room to merge them, take a tenth. */
import { test } from "node:test";
import { fill } from "./space.ts";

const shapes = [
	["rs:4+2", [64, 64, 64, 64, 64, 64]],
	["replicate:3", [64, 64, 64, 64, 64, 64]],
	["rs:2+1", [64, 128, 96]],
	["replicate:2", [64, 128, 96, 200]],
	["rs:4+2", [100, 64, 64, 80, 64, 64, 150]],
] as const;

for (const [i, [redundancy, disksMiB]] of shapes.entries()) {
	test(`df is true: ${redundancy} on ${disksMiB.join(", ")} MiB`, async () => {
		const seed = 950 + 10 * i;
		await fill(seed, { redundancy, disksMiB, fileBytes: 100 * 1024 * 1024, fits: 0.01, returns: 0.01 });
		await fill(seed + 1, { redundancy, disksMiB, fileBytes: 300_000, fits: 0.01, returns: 0.02 });
		await fill(seed + 2, { redundancy, disksMiB, fileBytes: 20_000, fits: 0.15, returns: 0.25 });
	});
}
