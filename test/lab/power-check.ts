/**
 * Looks at what a power cut has left, in the guest: `node power-check.js MOUNTPOINT JSON` with [{folder, seed?, journal?}]: with a journal the folder is judged by what its writer did, without one it is only looked at. Prints
 * one line, Looked[].
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseJournal, sum } from "../crash/kill-model.ts";
import { type FoundFile, PowerModel } from "./power-model.ts";

export interface LookedAt {
	readonly folder: string;
	readonly seed?: number;
	readonly journal?: string;
}

export interface Looked {
	readonly folder: string;
	readonly faults: readonly string[];
	readonly operations: number;
	readonly synced: number;
	readonly exactFiles: number;
	/** Of all names and contents. */
	readonly fingerprint: string;
}

function lookAt(mountpoint: string, { folder, seed, journal }: LookedAt): Looked {
	const files = new Map<string, FoundFile>();
	const folders = new Set<string>();
	const walk = (prefix: string): void => {
		for (const item of readdirSync(join(mountpoint, folder, prefix), { withFileTypes: true })) {
			const path = prefix === "" ? item.name : `${prefix}/${item.name}`;
			const whole = join(mountpoint, folder, path);
			if (!item.isDirectory()) files.set(path, { bytes: readFileSync(whole), mtimeMs: statSync(whole).mtimeMs });
			else {
				folders.add(path);
				walk(path);
			}
		}
	};
	if (existsSync(join(mountpoint, folder))) walk("");
	const lines = [...files].map(([path, { bytes, mtimeMs }]) => `${path} ${sum(bytes)} ${mtimeMs}`);
	const fingerprint = sum(Buffer.from([...lines, ...folders].sort().join("\n")));
	if (seed === undefined || journal === undefined) return { folder, faults: [], operations: 0, synced: 0, exactFiles: 0, fingerprint };
	const model = new PowerModel(seed, parseJournal(existsSync(journal) ? readFileSync(journal, "utf8") : ""));
	const { faults, exactFiles } = model.judge({ files, folders });
	return { folder, faults, operations: model.operations, synced: model.synced, exactFiles, fingerprint };
}

const [mountpoint = "", request = "[]"] = process.argv.slice(2);
console.log(JSON.stringify((JSON.parse(request) as LookedAt[]).map((item) => lookAt(mountpoint, item))));
