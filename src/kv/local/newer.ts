/** What a newer version of this engine may have left on a disk. */
import { isNewerFormat } from "../../base/errors.ts";
import type { Disk } from "../../platform/interface.ts";
import { localLimits } from "../limits.ts";
import { readManifestSlots } from "./manifest-disk.ts";
import { refuseNewerRun, runHeaderBytes } from "./run.ts";

/** Looks at manifest and runs, and changes nothing. Damage is not its matter. @throws FsError REFUSED (a newer format). */
export async function refuseNewerMetadata(disk: Disk, volume: string): Promise<void> {
	await readManifestSlots(disk, volume, localLimits.manifestSlotBytes);
	for (const name of await disk.list("kv")) {
		if (!name.startsWith("run-")) continue;
		const file = await disk.open(`kv/${name}`);
		try {
			refuseNewerRun(await file.read(0, runHeaderBytes), `kv/${name} on ${disk.path}`);
		} catch (error) {
			if (isNewerFormat(error)) throw error;
		} finally {
			await file.close();
		}
	}
}
