/** scrub: reading everything by itself, so that damage is found while it can be mended. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { ScrubPassStatus, ScrubStatus } from "../volume/native/interface.ts";
import { callDaemon, type Context, type Outcome } from "./context.ts";
import { counted, formatAge, formatBytes, formatDuration } from "./format.ts";

export const scrubActions = ["start", "pause", "resume", "stop", "status", "schedule"] as const;
export type ScrubAction = (typeof scrubActions)[number];

export interface ScrubFlags {
	readonly dryRun?: boolean;
	readonly intensity?: string;
	readonly hour?: string;
}

export async function scrub(
	context: Context,
	name: string,
	action: string,
	schedule: string | undefined,
	flags: ScrubFlags,
): Promise<Outcome> {
	if (!(scrubActions as readonly string[]).includes(action))
		throw new FsError("EINVAL", "cli.scrub-action", `"${action}" is nothing a scrub does: ${scrubActions.join(", ")}`);
	if (action !== "schedule" && (schedule !== undefined || flags.hour !== undefined))
		throw new FsError("EINVAL", "cli.scrub-schedule", `${schedule ?? "--hour"} belongs to a schedule: cairn scrub ${name} schedule …`);
	if (action !== "start" && flags.dryRun === true)
		throw new FsError("EINVAL", "cli.scrub-dry-run", `--dry-run belongs to a pass that begins: cairn scrub ${name} start --dry-run`);
	if (action !== "start" && action !== "schedule" && flags.intensity !== undefined)
		throw new FsError(
			"EINVAL",
			"cli.scrub-intensity",
			`set it at any time with: cairn scrub ${name} schedule --intensity ${flags.intensity}`,
		);
	if (flags.hour !== undefined && !/^\d{1,2}$/.test(flags.hour))
		throw new FsError("EINVAL", "cli.scrub-hour", `"${flags.hour}" is no hour: 0 to 23, UTC`);
	const given = {
		action,
		dryRun: flags.dryRun === true,
		...(schedule === undefined ? {} : { schedule }),
		...(flags.intensity === undefined ? {} : { intensity: flags.intensity }),
		...(flags.hour === undefined ? {} : { hour: Number(flags.hour) }),
	};
	const now = await callDaemon<ScrubStatus>(context, name, "scrub", given);
	return { exitCode: exitCodes.done, json: now, text: scrubText(context, now) };
}

function scrubText(context: Context, now: ScrubStatus): string {
	const lines = [`scrub ${stateText(now)}`, `  schedule    ${scheduleText(now)}, intensity ${now.intensity}`];
	if (now.active && (now.totalBytes ?? 0) > 0) {
		const eta = now.etaSeconds === null ? "" : `, about ${formatDuration(now.etaSeconds)}`;
		lines.push(`  progress    ${formatBytes(now.pass?.bytes)} of ${formatBytes(now.totalBytes)}${eta}`);
	}
	if (now.pass !== null && now.pass.endedAt === null) lines.push(`  this pass   ${passText(context, now.pass)}`);
	if (now.pass !== null && now.pass.endedAt !== null && now.pass.dryRun) lines.push(`  dry run     ${passText(context, now.pass)}`);
	lines.push(`  last pass   ${now.lastPass === null ? "none has come to its end yet" : passText(context, now.lastPass)}`);
	return `${lines.join("\n")}\n`;
}

function stateText({ state, active, pass }: ScrubStatus): string {
	if (state === "paused") return "is paused: it goes on with cairn scrub NAME resume";
	if (state === "idle") return pass !== null && pass.endedAt === null ? "was stopped" : "is idle";
	return active ? `reads${pass?.dryRun === true ? " (dry run)" : ""}` : "waits for its hours";
}

function scheduleText({ schedule, hourUtc }: ScrubStatus): string {
	const hour = (value: number): string => `${String(value % 24).padStart(2, "0")}:00`;
	return schedule === "nightly" ? `nightly, ${hour(hourUtc)} to ${hour(hourUtc + 6)} UTC` : schedule;
}

function passText({ platform }: Context, pass: ScrubPassStatus): string {
	const when =
		pass.endedAt === null
			? `begun ${formatAge(pass.startedAt ?? "", platform.clock.realtime())}`
			: `ended ${formatAge(pass.endedAt, platform.clock.realtime())}`;
	const mended = pass.dryRun ? "nothing changed (dry run)" : `${pass.repaired} repaired`;
	const found = `${pass.corrupt} corrupt, ${pass.missing} missing, ${mended}, ${pass.unrecoverable} beyond recovery`;
	return `${when}: ${counted(pass.fragments, "fragment")} in ${counted(pass.segments, "segment")}, ${formatBytes(pass.bytes)}; ${found}`;
}

/** One line for `status`. */
export function scrubLine(context: Context, now: ScrubStatus): string {
	const last = now.lastPass === null ? "nothing read to the end yet" : passText(context, now.lastPass);
	return `${now.state === "idle" ? scheduleText(now) : `${now.state}${now.active ? "" : ", waiting"}`}; ${last}`;
}
