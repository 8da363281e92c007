/** What a newer version of this floor may have left on a disk. */
import { isNewerFormat } from "../base/errors.ts";
import type { Disk } from "../platform/interface.ts";
import { decodeHeader, headerLength } from "./fragment.ts";
import { limits } from "./limits.ts";

const lengthAt = 12;
const pageBytes = 4096;

/**
 * Looks at the first fragment of the newest pack, a sample: there may be millions. A fragment of a newer format that is met later counts as damaged: it is read from others, or not at all.
 * @throws FsError REFUSED (a newer format).
 */
export async function refuseNewerFragments(disk: Disk): Promise<void> {
	const newest = (await disk.list("pack"))
		.filter((name) => /^[0-9]+$/.test(name))
		.sort()
		.at(-1);
	if (newest === undefined) return;
	const file = await disk.open(`pack/${newest}`);
	try {
		const page = await file.read(0, pageBytes);
		if (page.length < pageBytes) return;
		const lengthBytes = new DataView(page.buffer, page.byteOffset).getUint32(lengthAt, true);
		if (lengthBytes > headerLength(limits.maxPayloadBytes)) return;
		decodeHeader(await file.read(0, lengthBytes));
	} catch (error) {
		if (isNewerFormat(error)) throw Object.assign(error, { message: `pack/${newest} on ${disk.path}: ${error.message}` });
	} finally {
		await file.close();
	}
}
