/** The memory files of a volume: what was acknowledged and is not on the disks yet. */
export function memoryNames(volume: string): { readonly log: string; readonly dirty: string } {
	return { log: `cairn-${volume}.log`, dirty: `cairn-${volume}.dirty` };
}
