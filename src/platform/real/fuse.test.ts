import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../base/errors.ts";
import { createFuseHost, parseMountInfo } from "./fuse.ts";

test("mountinfo: blanks, optional fields, broken lines", () => {
	const text = [
		"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue",
		"40 35 0:39 / /mnt/a\\040b\\134c rw - fuse.cairn cairn:de\\011mo rw,user_id=0",
		"41 35 0:40 / /short",
		"",
	].join("\n");
	assert.deepEqual(parseMountInfo(text), [
		{ device: "98:0", mountpoint: "/mnt2", source: "/dev/root", type: "ext3" },
		{ device: "0:39", mountpoint: "/mnt/a b\\c", source: "cairn:de\tmo", type: "fuse.cairn" },
	]);
});

const host = createFuseHost();
const options = { source: "cairn:test", subtype: "cairn", allowOther: true, readOnly: false, maxReadBytes: 1 << 20, flags: [] };

test("faults of mounting and unmounting say what and where", { skip: (await host.unavailable()) ?? false }, async () => {
	await assert.rejects(
		host.mount("/nowhere/at-all", options),
		(error) => isFsError(error, "ENOENT") && /\/nowhere\/at-all/.test(error.message),
	);
	await assert.rejects(host.mount("/etc/hostname", options), (error) => isFsError(error, "ENOTDIR"));
	await assert.rejects(
		host.mount("/tmp", { ...options, flags: ["quickly"] }),
		(error) => isFsError(error, "EINVAL") && /nosuid/.test(error.message),
	);
	await assert.rejects(host.mount("/tmp", { ...options, subtype: "a,b" }), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(host.unmount("/etc", false), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(host.unmount("/nowhere/at-all", true), (error) => isFsError(error, "ENOENT"));
});
