/** Programs that a suite needs, installed from the distribution's packages where that can be done. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { execute, missingPrograms } from "./cairn.ts";

/**
 * Why programs are not there; undefined when they are. What is missing is installed from Debian packages first, if this is a Debian machine and we are root. Says nothing
 * unless it fails; where everything is there, nothing is asked of the package manager.
 */
export async function programsFrom(packages: readonly string[], ...programs: readonly string[]): Promise<string | undefined> {
	const missing = missingPrograms(...programs);
	if (missing === undefined || process.getuid?.() !== 0 || missingPrograms("apt-get") !== undefined) return missing;
	const failed = await install(packages);
	const still = missingPrograms(...programs);
	return still === undefined || failed === undefined ? still : `${still} (${failed})`;
}

/** Undefined, or the last line of what apt-get said. Package lists of a fresh machine are empty or old: then they are fetched once. */
export async function install(packages: readonly string[]): Promise<string | undefined> {
	const env = { DEBIAN_FRONTEND: "noninteractive" };
	const attempt = () => execute("apt-get", ["-qq", "-y", "--no-install-recommends", "install", ...packages], { env, timeoutMs: 600_000 });
	let outcome = await attempt();
	if (outcome.code !== 0 && (await execute("apt-get", ["-qq", "update"], { env, timeoutMs: 300_000 })).code === 0)
		outcome = await attempt();
	return outcome.code === 0 ? undefined : (outcome.stderr.trim().split("\n").at(-1) ?? `apt-get ended with ${outcome.code}`);
}

/** The first of `folders` that holds all programs. */
export function folderWith(folders: readonly string[], ...programs: readonly string[]): string | undefined {
	return folders.find((folder) => programs.every((program) => existsSync(join(folder, program))));
}
