/**
 * Verbs on the disks of volumes that no daemon serves, in a process of their own: a thread that waits in the kernel for a disk that hangs keeps its process until the disk answers, and whoever waits for a
 * command would wait as long. The child says what came of it on its output, one JSON object in a line; what is left of it then is nobody's business any more.
 */
import { spawn } from "node:child_process";
import { FsError, toFsError } from "../base/errors.ts";
import type { ErrorCode, ErrorData } from "../base/errors.ts";
import type { VolumeModules } from "../volume/native/interface.ts";
import type { OfflineVerbs } from "./context.ts";

/** What the command is given as its first word to be such a process. */
export const offlineWord = "helper-offline";

type Verb = keyof OfflineVerbs;

interface Question {
	readonly verb: Verb;
	readonly options: unknown;
}

type Answer =
	| { readonly value: unknown }
	| { readonly error: { readonly code: ErrorCode; readonly site: string; readonly message: string; readonly data: ErrorData } };

/** @param program this command, as a process is started with it. */
export function offlineByProcess(program: readonly [string, ...string[]]): OfflineVerbs {
	const ask = (verb: Verb, options: unknown): Promise<never> => askProcess(program, { verb, options }) as Promise<never>;
	return {
		createVolume: (options) => ask("createVolume", options),
		inspectVolume: (options) => ask("inspectVolume", options),
		destroyVolume: (options) => ask("destroyVolume", options),
	};
}

async function askProcess([node, ...words]: readonly [string, ...string[]], question: Question): Promise<unknown> {
	const answer = await new Promise<Answer>((resolve, reject) => {
		const child = spawn(node, [...words, offlineWord], { stdio: ["pipe", "pipe", "inherit"] });
		const died = (why: string): FsError => new FsError("EIO", "cli.offline-died", `the process that looks at the disks has ended: ${why}`);
		let text = "";
		child.once("error", (error) => reject(died(error.message)));
		child.once("close", (code, signal) => reject(died(signal ?? `exit code ${code}`)));
		child.stdin.on("error", () => {});
		child.stdin.end(JSON.stringify(question));
		child.stdout.setEncoding("utf8").on("data", (more: string) => {
			text += more;
			if (text.endsWith("\n")) resolve(JSON.parse(text) as Answer);
		});
	});
	if ("value" in answer) return answer.value;
	const { code, site, message, data } = answer.error;
	throw new FsError(code, site, message, data);
}

/** The other side. Answers what is to be said. */
export async function answerOffline(text: string, verbs: OfflineVerbs, modules: VolumeModules): Promise<string> {
	let answer: Answer;
	try {
		const { verb, options } = JSON.parse(text) as Question;
		answer = { value: await verbs[verb](options as never, modules) };
	} catch (error) {
		const { code, site, message, data } = toFsError(error, "cli.offline");
		answer = { error: { code, site, message, data } };
	}
	return `${JSON.stringify(answer)}\n`;
}
