/** upgrade: another daemon behind a living mount. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { startWithinMs } from "../daemon/limits.ts";
import { type Context, findDaemon, type Outcome, requireDaemon } from "./context.ts";

interface Hello {
	readonly pid: number;
	readonly mountpoint: string | null;
	/** Absent in daemons older than this verb. */
	readonly script?: string | null;
}

const pollMs = 50;

/** The daemon that serves the volume is replaced by that of this installation. */
export async function upgrade(context: Context, name: string): Promise<Outcome> {
	const program = context.processes.daemonProgram();
	const client = await requireDaemon(context, name);
	let before: Hello;
	try {
		before = (await client.call("hello")) as Hello;
		await client.call("hand-over", { program });
	} finally {
		client.close();
	}
	const now = await successor(context, name, before);
	const wanted = program.at(-1);
	if (now.script !== wanted) {
		const message = `${wanted} could not serve ${name}: ${now.script} goes on (pid ${now.pid}); see ${context.home.logPath(name)}`;
		throw new FsError("EIO", "cli.upgrade-fell-back", message, { exitCode: exitCodes.failed });
	}
	return {
		exitCode: exitCodes.done,
		json: { volume: name, mountpoint: now.mountpoint, pid: now.pid, from: before.script ?? null, to: now.script },
		text: `${name} on ${now.mountpoint} is served by ${now.script} now (pid ${now.pid})\n`,
	};
}

/** Who serves the volume after `before`. @throws FsError ETIMEDOUT: nobody, within the time that a keeper gives. */
async function successor(context: Context, name: string, before: Hello): Promise<Hello> {
	const { clock } = context.platform;
	// The new one, and if it fails the old one.
	const endMs = clock.monotonicMs() + 2 * startWithinMs;
	while (clock.monotonicMs() < endMs) {
		const hello = await ask(context, name);
		if (hello !== undefined && hello.pid !== before.pid && hello.mountpoint !== null) return hello;
		await clock.sleep(pollMs);
	}
	throw new FsError("ETIMEDOUT", "cli.upgrade-lost", `no daemon serves ${name} any more: see ${context.home.logPath(name)}`, {
		exitCode: exitCodes.unreachable,
	});
}

/** Undefined: nobody answers at the moment. */
async function ask(context: Context, name: string): Promise<Hello | undefined> {
	let client: Awaited<ReturnType<typeof findDaemon>>;
	try {
		// Even to connect may fail: a connection that the old daemon has not accepted before it ended is reset.
		client = await findDaemon(context, name);
		return (await client?.call("hello")) as Hello | undefined;
	} catch (error) {
		if (error instanceof FsError && error.site.startsWith("control.unreachable")) return undefined;
		throw error;
	} finally {
		client?.close();
	}
}
