/** Arguments of the daemon's process (`main.ts` reads them). */
import type { DaemonOptions } from "./daemon.ts";
import { mountOptionWords } from "./mountpoint.ts";

export interface DaemonArguments extends Omit<DaemonOptions, "pid" | "resume"> {
	readonly home: string;
	/** Where the log goes; undefined = standard error. */
	readonly logPath: string | undefined;
}

export function encodeArguments(options: DaemonArguments): string[] {
	const words = [options.name, options.mountpoint, "--home", options.home];
	for (const path of options.diskPaths) words.push("--disk", path);
	const mountWords = mountOptionWords(options.mountOptions);
	if (mountWords.length > 0) words.push("-o", mountWords.join(","));
	if (options.acceptLoss) words.push("--accept-loss");
	if (options.logPath !== undefined) words.push("--log", options.logPath);
	return words;
}
