/** What the engine needs of the log floor, as one argument: the real one, or a test's own. */
import { chooseMembers } from "../../log/disk-set.ts";
import type { DiskId, DiskSet, Log, LogModules, RecoveredLog } from "../../log/interface.ts";
import { maximumRecordPayload, startLog } from "../../log/log.ts";
import { recoverLog } from "../../log/recover.ts";

export interface LogBinding {
	/** All records after that sequence. */
	recover(after: number): Promise<RecoveredLog>;
	/** A new log epoch. Everything before `firstSequence` must be in a durable checkpoint that the roster names. */
	start(firstSequence: number, previousChecksum: number): Promise<Log>;
	/** W healthy disks of distinct domains, the log's mirrors first, without those in `except`. */
	chooseMembers(disks: DiskSet, except?: ReadonlySet<DiskId>): readonly DiskId[];
	/** Most bytes of one record. */
	readonly maximumPayloadBytes: number;
}

export function mirroredLog(modules: LogModules, acceptLoss: boolean | undefined): LogBinding {
	return {
		recover: (after) => recoverLog(acceptLoss === undefined ? { after } : { after, acceptLoss }, modules),
		start: (firstSequence, previousChecksum) => startLog({ firstSequence, previousChecksum }, modules),
		chooseMembers: (disks, except) => chooseMembers(disks, undefined, except),
		maximumPayloadBytes: maximumRecordPayload(modules.disks.roster.config.logSegmentBytes),
	};
}
