/** All mirrors of the log are lost at once, which is more than a volume promises to survive: it says so, and goes on only when told. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { cannotMount, execute, TestVolume } from "../support/cairn.ts";

test("a mount without any readable log is refused with 5, and goes on with --accept-loss", { skip: cannotMount() ?? false }, async () => {
	const volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	try {
		writeFileSync(join(volume.mountpoint, "old"), "old");
		await volume.remount();
		writeFileSync(join(volume.mountpoint, "new"), "new");
		await execute("sync", ["-f", volume.mountpoint]);
		await volume.kill();
		await execute("umount", ["-l", volume.mountpoint]);
		volume.forgetMemory();
		for (const disk of volume.diskPaths) for (const name of readdirSync(join(disk, "log"))) rmSync(join(disk, "log", name));
		for (let time = 0; time < 2; time++) {
			const refused = await volume.try("mount", volume.name, volume.mountpoint);
			assert.equal(refused.code, 5, `${refused.stdout}${refused.stderr}\n${volume.log()}`);
			assert.match(refused.stderr, /the log of its last mount can be read on none of the disks.*disk1.*disk3.*--accept-loss/s);
		}
		await volume.cairn("mount", volume.name, volume.mountpoint, "--accept-loss");
		assert.equal(readFileSync(join(volume.mountpoint, "old"), "utf8"), "old");
		await volume.remount();
		assert.deepEqual(readdirSync(volume.mountpoint), ["old"]);
	} finally {
		await volume.close();
	}
});
