/** heal, verify: what makes a volume whole again. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { GarbageItem, GarbageReport, HealingStatus, HealResult, VerifyResult } from "../volume/native/interface.ts";
import { printableDeep } from "../daemon/text.ts";
import { callDaemon, callWithBar, type Context, type Outcome } from "./context.ts";
import { counted, formatBytes, formatDuration, formatTable } from "./format.ts";

export interface HealFlags {
	readonly wait?: boolean;
	readonly tranquility?: string;
	readonly pause?: boolean;
	readonly resume?: boolean;
}

export async function heal(context: Context, name: string, flags: HealFlags): Promise<Outcome> {
	if (flags.tranquility !== undefined || flags.pause === true || flags.resume === true) return configureHealing(context, name, flags);
	if (flags.wait !== true) {
		const answer = await callDaemon<{ readonly healing: HealingStatus; readonly degradedBytes: number }>(context, name, "heal", {});
		const nothing = answer.degradedBytes === 0 && !answer.healing.active;
		if (answer.healing.paused && !nothing) return { exitCode: exitCodes.refused, json: answer, text: "", warnings: [pausedText(name)] };
		const text = nothing
			? `${name} lacks nothing that is known; to prove it by reading everything: cairn verify ${name}\n`
			: `healing ${name} has begun; watch it with: cairn status ${name}\n`;
		return { exitCode: exitCodes.done, json: answer, text };
	}
	const result = await callWithBar<HealResult>(context, name, "heal", { wait: true }, "healing");
	const { remainingBytes, leavingBytes, lostBytes, paused } = result;
	const whole = remainingBytes === 0 && lostBytes === 0;
	if (paused && remainingBytes + leavingBytes > 0) {
		const text = `${formatBytes(remainingBytes)} are under-protected${leavingBytes > 0 ? `, ${formatBytes(leavingBytes)} wait to leave a disk` : ""}\n`;
		return { exitCode: exitCodes.refused, json: result, text, warnings: [pausedText(name)] };
	}
	const text = whole
		? `healed: ${result.rebuiltSegments} segments (${formatBytes(result.rebuiltBytes)}) rebuilt, everything is written in full; to prove it by reading: cairn verify ${name}\n`
		: `${result.rebuiltSegments} segments (${formatBytes(result.rebuiltBytes)}) rebuilt; ` +
			`${formatBytes(remainingBytes)} stay under-protected, ${formatBytes(lostBytes)} are lost\n`;
	return { exitCode: whole ? exitCodes.done : exitCodes.degraded, json: result, text, warnings: healAdvice(name, result) };
}

const pausedText = (name: string): string => `the healer is paused and rebuilds nothing: cairn heal ${name} --resume lets it go on`;

async function configureHealing(context: Context, name: string, { tranquility, pause, resume, wait }: HealFlags): Promise<Outcome> {
	if (pause === true && resume === true) throw new FsError("EINVAL", "cli.heal-pause", "--pause and --resume contradict each other");
	if (wait === true) throw new FsError("EINVAL", "cli.heal-wait", "--wait does not go with --tranquility, --pause and --resume");
	if (tranquility !== undefined && !/^\d{1,3}$/.test(tranquility))
		throw new FsError("EINVAL", "cli.heal-tranquility", `"${tranquility}" is no tranquility: a whole number from 0 to 100`);
	const given = {
		...(tranquility === undefined ? {} : { tranquility: Number(tranquility) }),
		...(pause === true ? { paused: true } : resume === true ? { paused: false } : {}),
	};
	const answer = await callDaemon<{ readonly healing: HealingStatus }>(context, name, "heal", given);
	const { paused, tranquility: times } = answer.healing;
	const rests = times === 0 ? "rests not at all" : `rests ${times} times as long as it works`;
	return { exitCode: exitCodes.done, json: answer, text: `the healer ${paused ? "is paused" : "is not paused"} and ${rests}\n` };
}

function healAdvice(name: string, { remainingBytes, lostBytes }: HealResult): string[] {
	const advice: string[] = [];
	if (remainingBytes > 0)
		advice.push(
			`no disk fits, or has room for, what is left to rebuild: give lost disks back (cairn disk replace ${name} DISK) or delete something, then heal again`,
		);
	if (lostBytes > 0) advice.push(`some data cannot be read any more: cairn verify ${name} --lost names the files`);
	return advice;
}

export interface VerifyFlags {
	readonly dryRun?: boolean;
	readonly lost?: boolean;
	readonly resume?: boolean;
	readonly garbage?: boolean;
}

export async function verify(context: Context, name: string, flags: VerifyFlags): Promise<Outcome> {
	if (flags.garbage === true) return garbage(context, name, flags);
	const given = { dryRun: flags.dryRun === true, lost: flags.lost === true, resume: flags.resume === true };
	const result = await callWithBar<VerifyResult & { readonly lostPathsTotal: number }>(context, name, "verify", given, "verifying");
	const whole = result.unrecoverable === 0 && result.miscounted === 0 && result.repaired >= result.corrupt + result.missing;
	return {
		exitCode: whole ? exitCodes.done : exitCodes.degraded,
		json: result,
		text: verifyText(result, given),
		warnings: verifyAdvice(name, result, given),
	};
}

function verifyText(
	result: VerifyResult & { readonly lostPathsTotal: number },
	{ dryRun, lost }: { dryRun: boolean; lost: boolean },
): string {
	const { checkedFragments, corrupt, missing, repaired, unrecoverable } = result;
	const mended = dryRun ? "nothing changed (dry run)" : `${repaired} repaired`;
	const lines = [
		`${checkedFragments} fragments read: ${corrupt} corrupt, ${missing} missing, ${mended}, ${unrecoverable} segments beyond recovery`,
	];
	if (result.skippedSegments > 0) lines.push(`${result.skippedSegments} segments were proven before it was interrupted and not read again`);
	if (result.miscounted > 0) lines.push(`${result.miscounted} chunks and segments are counted wrongly; the daemon's log names them`);
	if (lost) {
		lines.push(result.lostPathsTotal === 0 ? "no file has lost anything" : `${result.lostPathsTotal} files have lost contents:`);
		for (const path of result.lostPaths) lines.push(`  ${path}`);
		if (result.lostPathsTotal > result.lostPaths.length) lines.push("  …");
	}
	return `${lines.join("\n")}\n`;
}

function verifyAdvice(name: string, result: VerifyResult, { dryRun, lost }: { dryRun: boolean; lost: boolean }): string[] {
	const open = result.corrupt + result.missing - result.repaired;
	const advice: string[] = [];
	if (dryRun && open > 0) advice.push(`without --dry-run this is repaired: cairn verify ${name}`);
	if (!dryRun && open > 0)
		advice.push(
			`not everything could be repaired now: see cairn status ${name} for disks that are missing, then cairn heal ${name} --wait`,
		);
	if (result.miscounted > 0)
		advice.push("wrong counts leak space or give it back too early: copy what matters to another volume before you delete anything here");
	if (result.unrecoverable > 0 && !lost) advice.push(`cairn verify ${name} --lost names the files with lost contents`);
	return advice;
}

async function garbage(context: Context, name: string, { dryRun = false, lost, resume }: VerifyFlags): Promise<Outcome> {
	if (lost === true || resume === true) throw new FsError("EINVAL", "cli.verify-garbage", "--garbage goes with --dry-run alone");
	const report = printableDeep(await callDaemon<GarbageReport>(context, name, "garbage", { dryRun }));
	const warnings: string[] = [];
	if (report.unaccountedBytes > 0)
		warnings.push(
			`${formatBytes(report.unaccountedBytes)} are taken and explained by nothing, a fault of CairnFS: the next mount gives them back; please report it with the daemon's log`,
		);
	if (report.foreign > 0)
		warnings.push(
			`${counted(report.foreign, "name")} on the disks ${report.foreign === 1 ? "is" : "are"} none of CairnFS; they are left alone`,
		);
	if (report.away.length > 0) warnings.push(`not looked at, because they are away: ${report.away.join(", ")}`);
	return { exitCode: exitCodes.done, json: report, text: garbageText(report), warnings };
}

function garbageText(report: GarbageReport): string {
	const { dryRun, foundBytes, youngBytes, agedBytes, removedBytes, clearedBytes, items, itemsTotal } = report;
	const age = formatDuration(report.ageSeconds);
	const what = dryRun ? `${formatBytes(agedBytes)} would be given back` : `${formatBytes(removedBytes)} given back`;
	const lines = [
		foundBytes === 0
			? "nothing lies on the disks that no record names"
			: `${formatBytes(foundBytes)} that no record names: ${what}, ${formatBytes(youngBytes)} found for less than ${age} and left alone`,
	];
	if (clearedBytes > 0) lines.push(`${formatBytes(clearedBytes)} that earlier daemons left were given back since the mount`);
	if (items.length > 0) lines.push(formatTable(["DISK", "WHAT", "SIZE", "FOUND FOR", "STATE", "NAME"], items.map(row), [2]).trimEnd());
	if (itemsTotal > items.length) lines.push(`and ${itemsTotal - items.length} more`);
	return `${lines.join("\n")}\n`;
}

function row({ disk, kind, bytes, ageSeconds, state, name }: GarbageItem): string[] {
	return [disk, kind, formatBytes(bytes), formatDuration(ageSeconds), state, name];
}
