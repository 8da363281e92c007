/** Random calls on a volume and on ext4 side by side. `npm run test:long compare -- --seed N --steps 2000 --seeds 10`. */
import { mkdirSync, truncateSync, writeFileSync, chmodSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, missingPrograms, must, TestVolume } from "../support/cairn.ts";
import { Comparison } from "./compare.ts";

const first = Number(process.env["CAIRN_SEED"] ?? 1);
const seeds = Number(process.env["CAIRN_SEEDS"] ?? 10);
const steps = Number(process.env["CAIRN_STEPS"] ?? 2000);
const reason = cannotMount() ?? missingPrograms("mkfs.ext4", "mount");

let volume: TestVolume | undefined;
let reference: string | undefined;
after(async () => {
	if (reference !== undefined) await execute("umount", [reference]);
	await volume?.close();
});

test("as ext4 does it", { skip: reason ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	const image = join(volume.base, "reference.img");
	writeFileSync(image, "");
	truncateSync(image, 256 * 1024 * 1024);
	await must("mkfs.ext4", ["-q", "-F", image]);
	const mountpoint = join(volume.base, "reference");
	mkdirSync(mountpoint);
	await must("mount", ["-o", "loop,acl,user_xattr", image, mountpoint]);
	reference = mountpoint;
	for (let seed = first; seed < first + seeds; seed++) {
		await t.test(`seed ${seed}`, async () => {
			const sides = [
				{ name: "the volume", folder: join((volume as TestVolume).mountpoint, `seed${seed}`) },
				{ name: "ext4", folder: join(mountpoint, `seed${seed}`) },
			];
			for (const { folder } of sides) {
				mkdirSync(folder);
				chmodSync(folder, 0o777);
			}
			const comparison = new Comparison(seed, sides);
			try {
				await comparison.run(steps);
			} finally {
				await comparison.end();
			}
		});
	}
});
