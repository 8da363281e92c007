/** Loaded before a daemon (`--import`): umount(2) ends the connection at once and returns late, as where the kernel has a million files to forget. */
import { controlDrainMs } from "../../src/daemon/limits.ts";
import { libc } from "../../src/platform/real/fuse-libc.ts";
import { sleep } from "./cairn.ts";

const calls = libc();
const { umount } = calls;
calls.umount = async (target, flags) => {
	const result = await umount(target, flags);
	await sleep(controlDrainMs + 1000);
	return result;
};
