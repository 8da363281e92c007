/** balance: all disks equally free. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { printableDeep } from "../daemon/text.ts";
import type { BalancePlan, BalanceResult, BalancingStatus } from "../volume/native/interface.ts";
import { callDaemon, callWithBar, type Context, type Outcome } from "./context.ts";
import { changeLines } from "./disk-verbs.ts";
import { counted, formatBytes, formatDuration } from "./format.ts";

export interface BalanceFlags {
	readonly wait?: boolean;
	readonly dryRun?: boolean;
	readonly cancel?: boolean;
}

interface Begun {
	readonly balancing: BalancingStatus;
}

const done = (json: unknown, text: string): Outcome => ({ exitCode: exitCodes.done, json, text });

export async function balance(context: Context, name: string, flags: BalanceFlags): Promise<Outcome> {
	const { wait = false, dryRun = false, cancel = false } = flags;
	if (Number(wait) + Number(dryRun) + Number(cancel) > 1)
		throw new FsError("EINVAL", "cli.balance", "--wait, --dry-run and --cancel exclude each other");
	if (dryRun) {
		const { plan } = printableDeep(await callDaemon<{ plan: BalancePlan }>(context, name, "balance", { dryRun }));
		return done({ dryRun: true, ...plan }, planText(name, plan));
	}
	if (cancel) {
		const answer = await callDaemon<Begun>(context, name, "balance", { cancel });
		return done(answer, `the balance of ${name} is called off; what has moved stays where it is\n`);
	}
	if (wait) {
		const { result } = await callWithBar<Begun & { result: BalanceResult }>(context, name, "balance", { wait }, "balancing");
		return outcome(name, result);
	}
	const answer = await callDaemon<Begun>(context, name, "balance", {});
	const { waitingFor } = answer.balancing;
	const text = `the balance of ${name} has begun; watch it with: cairn status ${name}\n`;
	return waitingFor === "" ? done(answer, text) : { ...done(answer, text), warnings: [`nothing moves yet: ${waitingFor}`] };
}

function planText(name: string, plan: BalancePlan): string {
	const { capacityBytes, freeBytes, usedBytes, work } = plan;
	if (plan.isEven) return `the disks of ${name} are even: nothing is worth moving\nnothing was changed\n`;
	const rows = usedBytes.map(({ disk, usedBytes: held }) => `${disk}: ${formatBytes(held.now)} -> ${formatBytes(held.after)}`);
	const lines = [
		`a balance would move ${formatBytes(work.payloadBytes)} in about ${counted(work.segments, "fragment")}${plan.running ? "; it is under way" : ""}`,
		`  capacity    ${formatBytes(capacityBytes.now)} -> ${formatBytes(capacityBytes.after)}`,
		`  free        ${formatBytes(freeBytes.now)} -> ${formatBytes(freeBytes.after)}`,
		...changeLines(plan, "fragment"),
		...rows.map((row, at) => `  ${at === 0 ? "holds       " : "            "}${row}`),
	];
	return `${lines.join("\n")}\nnothing was changed\n`;
}

function outcome(name: string, result: BalanceResult): Outcome {
	const moved = `${formatBytes(result.movedBytes)} moved`;
	if (result.cancelled) return { exitCode: exitCodes.refused, json: result, text: `${moved}, then the balance was called off\n` };
	if (result.paused) {
		const paused = `the healer is paused, by whose budget the balance works: cairn heal ${name} --resume lets it go on`;
		return { exitCode: exitCodes.refused, json: result, text: `${moved}, ${formatBytes(result.leftBytes)} to do\n`, warnings: [paused] };
	}
	if (result.isEven) return done(result, `${moved}: the disks are even\n`);
	const why =
		"no more can be moved now: disks have no room or failed, or segments are damaged; cairn status and the daemon's log tell more";
	return {
		exitCode: exitCodes.degraded,
		json: result,
		text: `${moved}; ${formatBytes(result.leftBytes)} would still have to move for even disks\n`,
		warnings: [why],
	};
}

/** Of a balance that is under way. */
export function balancingText({ movedBytes, remainingBytes, etaSeconds, waitingFor }: BalancingStatus): string {
	const time = etaSeconds === null || remainingBytes === 0 ? "" : `, about ${formatDuration(etaSeconds)}`;
	const waits = waitingFor === "" ? "" : `; waits: ${waitingFor}`;
	return `${formatBytes(movedBytes)} moved, ${formatBytes(remainingBytes)} to do${time}${waits}`;
}
