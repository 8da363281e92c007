/** Names that may reach the kernel: checked in one place, the same for the real and the simulated platform. */
import { FsError } from "../base/errors.ts";

const segment = /^[A-Za-z0-9._-]{1,255}$/;

function plain(part: string): boolean {
	return segment.test(part) && part !== "." && part !== "..";
}

/** A slash-separated relative file name on a disk. @throws FsError EINVAL. */
export function checkDiskName(name: string): void {
	if (name.split("/").every(plain)) return;
	throw new FsError(
		"EINVAL",
		"platform.disk-name",
		`not a file name on a disk: ${JSON.stringify(name)}; use letters, digits, ._- and single slashes`,
	);
}

/** A folder on a disk, "" = top. @throws FsError EINVAL. */
export function checkDiskFolder(folder: string): void {
	if (folder !== "") checkDiskName(folder);
}

/** @throws FsError EINVAL. */
export function checkMemoryName(name: string, sizeBytes: number): void {
	if (!plain(name) || name.startsWith(".") || name.length > 200) {
		throw new FsError(
			"EINVAL",
			"platform.memory-name",
			`not a name for a memory file: ${JSON.stringify(name)}; use up to 200 of letters, digits, ._-`,
		);
	}
	if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
		throw new FsError("EINVAL", "platform.memory-size", `memory file ${name}: ${sizeBytes} is not a size in bytes`);
	}
}

/** @throws FsError EINVAL. */
export function checkRange(name: string, offset: number, lengthBytes: number): void {
	if (Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(lengthBytes) && lengthBytes >= 0) return;
	throw new FsError("EINVAL", "platform.disk-range", `${name}: offset ${offset}, length ${lengthBytes} is not a range of bytes`);
}
