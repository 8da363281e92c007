/**
 * The process of a `SyncedLoad`: `node synced-writer.js FOLDER SEED WRITERS`. Writes and syncs until its input ends, and says each thing that it was promised as one line of JSON: what it had asked for, and the code of
 * its error if there was one. A file that had an error is opened anew.
 */
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename } from "node:fs/promises";
import { join } from "node:path";
import { contents, randomOf } from "./kill-model.ts";
import { filesOfWriter, recordBytes, type SyncedLine } from "./synced-load.ts";

const [folder = "", seedText = "", writersText = ""] = process.argv.slice(2);
let stopped = false;
process.stdin.resume().on("end", () => {
	stopped = true;
});

function say(line: SyncedLine): void {
	process.stdout.write(`${JSON.stringify(line)}\n`);
}

function codeOf(error: unknown): string {
	return (error as NodeJS.ErrnoException).code ?? String(error);
}

async function closeQuietly(file: FileHandle | undefined): Promise<void> {
	// An error that was told at fsync is told again.
	await file?.close().catch(() => {});
}

/** A whole new file, synced, under its name, and the name synced. */
async function save(path: string, bytes: Buffer): Promise<void> {
	let file: FileHandle | undefined;
	try {
		file = await open(`${path}.new`, "w");
		await file.write(bytes, 0, bytes.length, 0);
		await file.sync();
	} finally {
		await closeQuietly(file);
	}
	await rename(`${path}.new`, path);
	const directory = await open(join(path, ".."), constants.O_RDONLY | constants.O_DIRECTORY);
	try {
		await directory.sync();
	} finally {
		await closeQuietly(directory);
	}
}

async function write(writer: number): Promise<void> {
	const seed = Number(seedText) * 1000 + writer;
	const random = randomOf(seed);
	const own = join(folder, `w${writer}`);
	await mkdir(own, { recursive: true });
	let journal: FileHandle | undefined;
	for (let number = 0; !stopped; number++) {
		const appends = random(3) > 0;
		const what = appends ? "journal" : `f${random(filesOfWriter)}`;
		const lengthBytes = appends ? recordBytes : 1 + random(random(4) === 0 ? 900_000 : 20_000);
		const bytes = contents(seed, number, lengthBytes);
		say({ writer, number, what, lengthBytes });
		try {
			if (appends) {
				journal ??= await open(join(own, "journal"), constants.O_WRONLY | constants.O_CREAT);
				await journal.write(bytes, 0, bytes.length, number * recordBytes);
				await journal.datasync();
			} else await save(join(own, what), bytes);
			say({ writer, number, what, lengthBytes, promised: true });
		} catch (error) {
			say({ writer, number, what, lengthBytes, code: codeOf(error) });
			if (appends) await closeQuietly(journal);
			if (appends) journal = undefined;
			await new Promise((resolve) => setTimeout(resolve, 20));
		}
	}
	await closeQuietly(journal);
}

await Promise.all(Array.from({ length: Number(writersText) }, (_, writer) => write(writer)));
