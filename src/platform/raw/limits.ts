/** Bounds of raw disks, with their reasons. */
export const rawLimits = {
	/** Space is given to files in these units: what a small fragment wastes at most, and what a table entry is worth. */
	unitBytes: 64 * 1024,
	/** Room for a header at either end. */
	headBytes: 64 * 1024,
	/** Writes to header, journal and tables are whole pages: a page is the unit in which devices read, change and write. */
	pageBytes: 4096,
	/** A device this small would hold hardly more than the tables. */
	minimumBytes: 4 * 1024 * 1024,
	/** Part of the device, least and most: the journal is written over again when it is full, after the table was written whole. */
	journalFraction: 4096,
	journalBytes: [256 * 1024, 4 * 1024 * 1024],
	/** The same of one copy of the table. An extent takes 12 bytes in it: of 1 MiB on the average where the table just fits the device, of fewer on small ones. */
	tableFraction: 1024,
	tableBytes: [256 * 1024, 64 * 1024 * 1024],
	/** What a foreign device is looked at for. */
	lookFirstBytes: 128 * 1024,
	lookLastBytes: 64 * 1024,
} as const;
