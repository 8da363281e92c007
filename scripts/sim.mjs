/** `npm run sim -- --seed N`, `--seeds A..B`: the simulator (test/sim/README.md). */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ensureBuilt, ensureInstalled, root } from "./tools.mjs";

try {
	await ensureInstalled();
	await ensureBuilt();
	const { simCommand } = await import(pathToFileURL(join(root, "dist/test/sim/command.js")).href);
	process.exitCode = await simCommand(process.argv.slice(2), console.log);
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
}
