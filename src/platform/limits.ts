/** Default time limits of disk calls, with their reasons. */
export const deadlineLimits = {
	/** A disk that moves nothing for this long is treated as hung: longer than a drive's own error recovery (about 7 s). */
	callMs: 10_000,
	/** So often is looked within a limit; a disk is found out by so much late. */
	looks: 20,
	/** A look that comes late, because this thread was held up, counts as so many. */
	slowestLook: 2,
	/** Calls wait in line behind others, and for threads that do not get the processor; but no call waits longer than this many limits in all. */
	patience: 30,
} as const;
