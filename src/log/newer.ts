/** What a newer version of this floor may have left on a disk. */
import type { Disk } from "../platform/interface.ts";
import { decodeSegmentHeader, segmentHeaderBytes, segmentNumber } from "./record.ts";
import { isNewerFormat } from "../base/errors.ts";

/** Looks at the segments of the log, and changes nothing. Damage is not its matter. @throws FsError REFUSED (a newer format). */
export async function refuseNewerLog(disk: Disk): Promise<void> {
	for (const name of await disk.list("log")) {
		if (segmentNumber(name) === undefined) continue;
		const file = await disk.open(`log/${name}`);
		try {
			decodeSegmentHeader(await file.read(0, segmentHeaderBytes), `log/${name} on ${disk.path}`);
		} catch (error) {
			if (isNewerFormat(error)) throw error;
		} finally {
			await file.close();
		}
	}
}
