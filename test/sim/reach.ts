/**
 * Which errors and messages of the product ever came up: the engine's own block coverage says which of the places were passed where they are made, so the product needs no counters.
 * Collected from the compiled sources: every `new FsError("CODE", "site"` and every `logger.warn("message"` of the floors that a simulation runs.
 */
import { readdirSync, readFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Doors, command line and real platforms do not run in simulations. */
const floors = ["base", "codec", "kv", "locks", "log", "namespace", "platform/raw", "records", "storage", "volume"];
const folder = fileURLToPath(new URL("../../src", import.meta.url));
const places = /new FsError\(\s*"[A-Z0-9]+",\s*"([a-z0-9.-]+)"|logger\.(?:info|warn|error)\("([^"]+)"/g;

interface Place {
	/** `site`, or the message in quotation marks. */
	readonly name: string;
	readonly offset: number;
}

/** By the URL of the module. */
function allPlaces(): Map<string, Place[]> {
	const found = new Map<string, Place[]>();
	for (const floor of floors)
		for (const file of readdirSync(join(folder, floor), { recursive: true, encoding: "utf8" })) {
			if (!file.endsWith(".js") || file.endsWith(".test.js")) continue;
			const path = join(folder, floor, file);
			const matches = [...readFileSync(path, "utf8").matchAll(places)];
			const list = matches.map((match) => ({ name: match[1] ?? `“${match[2]}”`, offset: match.index }));
			if (list.length > 0) found.set(pathToFileURL(path).href, list);
		}
	return found;
}

/** Names of all places where the product makes an error or says something. */
export function everyPlace(): string[] {
	return [...new Set([...allPlaces().values()].flat().map(({ name }) => name))].sort();
}

/** Watches this process from `begin` to `end`. */
export class Reach {
	readonly #session = new Session();

	async begin(): Promise<void> {
		this.#session.connect();
		await this.#session.post("Profiler.enable");
		await this.#session.post("Profiler.startPreciseCoverage", { callCount: false, detailed: true });
	}

	/** @returns the names of the places that were passed. */
	async end(): Promise<string[]> {
		const { result } = await this.#session.post("Profiler.takePreciseCoverage");
		this.#session.disconnect();
		const reached = new Set<string>();
		const all = allPlaces();
		for (const { url, functions } of result) {
			const ranges = functions.flatMap((one) => one.ranges);
			for (const { name, offset } of all.get(url) ?? []) {
				// The smallest range around it counts.
				let count = 0;
				let least = Number.POSITIVE_INFINITY;
				for (const { startOffset, endOffset, count: times } of ranges) {
					if (offset < startOffset || offset >= endOffset || endOffset - startOffset > least) continue;
					least = endOffset - startOffset;
					count = times;
				}
				if (count > 0) reached.add(name);
			}
		}
		return [...reached].sort();
	}
}
