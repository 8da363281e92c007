/** The disks that are the volume's now. */
import type { DiskSet, DiskSlot } from "../../log/interface.ts";
import { wasReplaced } from "../../log/roster.ts";

/** All but those that others have taken the place of: the roster remembers these only so that they are not taken in again. */
export function memberSlots(disks: DiskSet): readonly DiskSlot[] {
	const replaced = new Set(disks.roster.disks.filter(wasReplaced).map((entry) => entry.id));
	return disks.slots().filter((slot) => !replaced.has(slot.id));
}
