/** Flags of V8, as far as the version at hand knows them: Node refuses to start with one that it does not know on its command line, and later V8 complains of one in the log. Known from `node --v8-options` of Node 20, 22 and 24. */
import { compileBudget, firstCodeBytes, keeperHeapMiB } from "./limits.ts";

/** Of the keeper's process. @param version `process.versions.v8`. */
export function keeperFlags(version: string): string[] {
	const small = [`--max-old-space-size=${keeperHeapMiB}`, "--max-semi-space-size=1", "--jitless", "--v8-pool-size=0", "--stack-size=256"];
	// Without compiler there is no WebAssembly: older ones say so in the log unless it is asked for, newer ones do not know the word.
	return isUpTo(version, 12, 4) ? [...small, "--no-expose-wasm"] : small;
}

/** Of a daemon, while it runs: it compiles earlier than other programs. @param version `process.versions.v8`. */
export function compilerFlags(version: string): string[] {
	const first = `--baseline-batch-compilation-threshold=${firstCodeBytes}`;
	// Newer ones count calls instead.
	return isUpTo(version, 11, 3) ? [`--interrupt-budget=${compileBudget}`, first] : [first];
}

function isUpTo(version: string, major: number, minor: number): boolean {
	const [itsMajor = 0, itsMinor = 0] = version.split(".").map(Number);
	return itsMajor < major || (itsMajor === major && itsMinor <= minor);
}
