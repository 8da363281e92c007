/** Default time limits of disk calls, with their reasons. */
export const deadlineLimits = {
	/** A disk that moves nothing for this long is treated as hung: longer than a drive's own error recovery (about 7 s). */
	callMs: 10_000,
	/** Calls wait in line, so the limit counts from the last sign of life; but no call waits longer than this many limits in all. */
	patience: 6,
} as const;
