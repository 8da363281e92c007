/** The memory files of a volume: what was acknowledged and is not on the disks yet, and what a mount has open and locked. */
export function memoryNames(volume: string): {
	readonly log: string;
	readonly dirty: string;
	readonly handles: string;
	readonly locks: string;
} {
	return { log: `cairn-${volume}.log`, dirty: `cairn-${volume}.dirty`, handles: `cairn-${volume}.handles`, locks: `cairn-${volume}.locks` };
}
