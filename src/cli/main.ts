#!/usr/bin/env node
/** `cairn`: a thin client of the daemons' control sockets. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import type { Logger } from "../base/telemetry.ts";
import { Home } from "../daemon/home.ts";
import { createFuseHost } from "../platform/real/fuse.ts";
import { createRealPlatform } from "../platform/real/platform.ts";
import { destroyVolume, inspectVolume } from "../volume/native/offline.ts";
import { createVolume } from "../volume/native/open.ts";
import { beBenchClient, benchByProcess, benchWord } from "./bench-process.ts";
import type { Context } from "./context.ts";
import { coloured, plain } from "./format.ts";
import { answerOffline, offlineByProcess, offlineWord } from "./offline-process.ts";
import { createProcesses } from "./processes.ts";
import { runCommand } from "./program.ts";
import { createProgress } from "./progress.ts";

function homePath(): string {
	const given = process.env["CAIRN_HOME"];
	if (given) return resolve(given);
	return process.getuid?.() === 0 ? "/var/lib/cairn" : `${homedir()}/.local/share/cairn`;
}

/** What the floors below have to say of a verb that runs in this process: only what went wrong. */
function createLogger(): Logger {
	const show = (message: string) => void process.stderr.write(`cairn: ${message}\n`);
	return { debug: () => {}, info: () => {}, warn: show, error: show };
}

function version(): string {
	const manifest = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
	return (JSON.parse(manifest) as { version: string }).version;
}

/** Ends with what was printed delivered: `exit` cuts a pipe off. */
async function drain(stream: NodeJS.WriteStream): Promise<void> {
	await new Promise<void>((done) => stream.write("", () => done()));
}

// The platform's timers do not keep a process alive; a verb that waits does.
const alive = setInterval(() => {}, 3_600_000);
process.stdout.on("error", () => {});
const platform = createRealPlatform({ fuse: createFuseHost() });
const tty = process.stderr.isTTY === true;
const program = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)] as const;
const context: Context = {
	platform,
	home: new Home(homePath(), { files: platform.files }),
	logger: createLogger(),
	offline: offlineByProcess(program),
	bench: benchByProcess(program),
	processes: createProcesses(),
	paint: process.stdout.isTTY === true && !process.env["NO_COLOR"] ? coloured : plain,
	show: (words) => void process.stdout.write(words),
	note: (words) => void process.stderr.write(words),
	progress: (title) => createProgress({ title, tty, write: (words) => void process.stderr.write(words) }),
};
const output = { out: (words: string) => void process.stdout.write(words), err: (words: string) => void process.stderr.write(words) };

/** See offline-process.ts: this process is the child. */
async function beOffline(): Promise<number> {
	const { logger } = context;
	output.out(await answerOffline(await text(process.stdin), { createVolume, inspectVolume, destroyVolume }, { platform, logger }));
	return 0;
}

/** See bench-process.ts. */
async function beClient(): Promise<number> {
	await beBenchClient(process.stdin, output.out, platform.random);
	return 0;
}

function run(words: readonly string[]): Promise<number> {
	if (words[0] === offlineWord) return beOffline();
	return words[0] === benchWord ? beClient() : runCommand(words, context, output, version());
}

const code = await run(process.argv.slice(2));
await drain(process.stdout);
await drain(process.stderr);
clearInterval(alive);
// Threads that hang in a call of a disk would keep `exit` waiting for ever.
if (platform.stuckDisks().length > 0) process.kill(process.pid, "SIGKILL");
process.exit(code);
