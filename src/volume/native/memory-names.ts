/** The memory files of a volume: what was acknowledged and is not on the disks yet, and what a mount has open and locked. */
export function memoryNames(volume: string): {
	readonly log: string;
	readonly dirty: string;
	readonly handles: string;
	readonly locks: string;
	readonly witness: string;
} {
	const name = (what: string): string => `cairn-${volume}.${what}`;
	return { log: name("log"), dirty: name("dirty"), handles: name("handles"), locks: name("locks"), witness: name("witness") };
}
