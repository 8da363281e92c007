/** disk add, drain, remove, replace: disks that come and go while the volume is mounted. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { printableDeep } from "../daemon/text.ts";
import type {
	AddPlan,
	AddResult,
	DiskDetails,
	DiskName,
	DrainPlan,
	DrainResult,
	ChangePreview,
	RemovePlan,
	ReplacePlan,
	ReplaceResult,
} from "../volume/native/interface.ts";
import { callDaemon, callWithBar, type Context, type Outcome } from "./context.ts";
import { counted, formatBytes, formatDuration, paintState } from "./format.ts";

export interface DryRun {
	readonly dryRun?: boolean;
}

export interface Force {
	readonly force?: boolean;
}

export interface DrainFlags extends DryRun {
	readonly wait?: boolean;
	readonly cancel?: boolean;
	readonly allowDegraded?: boolean;
}

const done = (json: unknown, text: string): Outcome => ({ exitCode: exitCodes.done, json, text });

/** Where a disk is. Names by identity stay as they are: what they lead to is called differently after the next start of the machine. */
export async function diskPlace(context: Context, path: string): Promise<string> {
	return path.startsWith("/dev/disk/") ? path : context.processes.canonical(path);
}

/** `d3` as it is, a path as the daemon knows it. */
async function diskOf(context: Context, disk: string): Promise<string> {
	return /^d\d+$/.test(disk) ? disk : diskPlace(context, disk).catch(() => disk);
}

async function placeOf(context: Context, path: string): Promise<string> {
	const place = await diskPlace(context, path);
	if ((await context.platform.files.kind(place)) !== undefined) return place;
	throw new FsError(
		"NOTFOUND",
		"cli.disk-place",
		`${place} does not exist: mount the new disk there, make the directory, or name a device`,
	);
}

export async function diskAdd(context: Context, name: string, given: readonly string[], flags: DryRun & Force): Promise<Outcome> {
	const paths = await Promise.all(given.map((path) => placeOf(context, path)));
	const twice = paths.find((path, at) => paths.indexOf(path) !== at);
	if (twice !== undefined) throw new FsError("EINVAL", "cli.add-twice", `${twice} is given twice`);
	if (flags.dryRun === true) {
		const plan = printableDeep(await callDaemon<AddPlan>(context, name, "disk-add", { paths, force: flags.force === true, dryRun: true }));
		return done({ dryRun: true, ...plan }, addPlanText(name, plan));
	}
	const result = printableDeep(await callDaemon<AddResult>(context, name, "disk-add", { paths, force: flags.force === true }));
	const names = result.added.map(({ id, path, capacityBytes }) => `${id} (${path}, ${formatBytes(capacityBytes)})`);
	const { freeBytes, capacityBytes, balanceBytes } = result;
	const even =
		balanceBytes > 0
			? `. What is there stays where it is: cairn balance ${name} moves ${formatBytes(balanceBytes)} so that all disks are as free`
			: "";
	const text = `added ${names.join(", ")}; ${formatBytes(freeBytes)} free of ${formatBytes(capacityBytes)} now. What is under-protected is healed onto new disks${even}\n`;
	return done(result, text);
}

function addPlanText(name: string, plan: AddPlan): string {
	const { places, capacityBytes, freeBytes, degradedBytes } = plan;
	const lines = [
		`would add ${places.map(({ path, capacityBytes }) => `${path} (${formatBytes(capacityBytes)})`).join(", ")}`,
		`  capacity    ${formatBytes(capacityBytes.now)} -> ${formatBytes(capacityBytes.after)}`,
		`  free        ${formatBytes(freeBytes.now)} -> ${formatBytes(freeBytes.after)}`,
	];
	if (degradedBytes > 0)
		lines.push(`  protection  ${formatBytes(degradedBytes)} are under-protected now and would be healed as far as these disks allow`);
	lines.push(...changeLines(plan));
	lines.push(
		plan.levels
			? "  balance     space is short on the others: fragments then move here until they are even enough"
			: "  balance     nothing else moves by itself as long as there is room: new data comes here first",
	);
	if (plan.balanceBytes > 0)
		lines.push(`              cairn balance ${name} would then move ${formatBytes(plan.balanceBytes)} so that all disks are as free`);
	return `${lines.join("\n")}\nnothing was changed\n`;
}

export async function diskDrain(context: Context, name: string, which: string, flags: DrainFlags): Promise<Outcome> {
	const disk = await diskOf(context, which);
	if (flags.cancel === true) return cancelDrain(context, name, disk, flags);
	const given = { disk, allowDegraded: flags.allowDegraded === true };
	if (flags.dryRun === true) {
		const { plan } = await callDaemon<{ plan: DrainPlan }>(context, name, "disk-drain", { ...given, dryRun: true });
		const shown = printableDeep(plan);
		return done({ dryRun: true, ...shown }, drainPlanText(shown));
	}
	if (flags.wait === true) {
		const answer = await callWithBar<{ plan: DrainPlan; result: DrainResult }>(
			context,
			name,
			"disk-drain",
			{ ...given, wait: true },
			"draining",
		);
		return drainOutcome(name, printableDeep(answer.result));
	}
	const { plan } = printableDeep(await callDaemon<{ plan: DrainPlan }>(context, name, "disk-drain", given));
	const text =
		`${plan.id} (${plan.path}) is being emptied: ${formatBytes(plan.moveBytes)} in ${counted(plan.fragments, "fragment")} move to other disks. ` +
		`Watch it with: cairn status ${name}; when it is empty: cairn disk remove ${name} ${plan.id}\n`;
	const outcome = done(plan, text);
	return plan.unplacedBytes > 0 ? { ...outcome, warnings: [unplacedText(plan)] } : outcome;
}

const unplacedText = ({ unplacedBytes }: DrainPlan): string =>
	`for ${formatBytes(unplacedBytes)} of it no other disk that may hold it has room now: that stays until a disk is added or something is deleted`;

async function cancelDrain(context: Context, name: string, disk: string, flags: DrainFlags): Promise<Outcome> {
	if (flags.wait === true || flags.dryRun === true || flags.allowDegraded === true) {
		throw new FsError("EINVAL", "cli.drain-cancel", "--cancel goes with no other option");
	}
	const result = printableDeep(await callDaemon<DiskName>(context, name, "disk-drain-cancel", { disk }));
	return done(result, `${result.id} (${result.path}) is used again\n`);
}

function drainPlanText(plan: DrainPlan): string {
	const lines = [
		`draining ${plan.id} (${plan.path}) would move ${formatBytes(plan.moveBytes)} in ${counted(plan.fragments, "fragment")}${plan.metadata ? ", and metadata" : ""}`,
		plan.fits
			? `  free        ${formatBytes(plan.freeBytes.now)} -> ${formatBytes(plan.freeBytes.after)}`
			: "  free        what it holds has no room on the other disks",
	];
	if (plan.unplacedBytes > 0) lines.push(`  room        ${unplacedText(plan)}`);
	for (const { redundancy, becomes, isAsAsked, survivesAsMany } of plan.shapes) {
		const kept = isAsAsked
			? "stays as it is"
			: `becomes ${becomes ?? "impossible"}, ${survivesAsMany ? "which survives as many losses (--allow-degraded)" : "which would survive fewer losses: refused"}`;
		lines.push(`  protection  ${redundancy} ${kept}`);
	}
	lines.push(...changeLines(plan));
	return `${lines.join("\n")}\nnothing was changed\n`;
}

function drainOutcome(name: string, result: DrainResult): Outcome {
	const { id, path, state, leftBytes, needed } = result;
	if (state === "removed") return done(result, `${id} (${path}) was empty and has left the volume\n`);
	if (state === "draining" && leftBytes === 0 && needed === null) {
		const next = result.leaves ? "It leaves the volume by itself" : `Let it go: cairn disk remove ${name} ${id}`;
		return done(result, `${id} (${path}) is empty. ${next}\n`);
	}
	const what = [leftBytes > 0 ? formatBytes(leftBytes) : "", needed ?? ""].filter((one) => one !== "").join(" and ");
	const text = state === "draining" ? `${id} (${path}) still holds ${what}\n` : `${id} (${path}) is ${state} now\n`;
	if (state === "draining" && result.paused) {
		const paused = `the healer is paused and moves nothing: cairn heal ${name} --resume lets it go on`;
		return { exitCode: exitCodes.refused, json: result, text, warnings: [paused] };
	}
	const advice =
		state === "draining"
			? `no other disk fits, or has room for, what is left: add a disk or delete something, and it goes on by itself; or cairn disk drain ${name} ${id} --cancel`
			: `cairn status ${name} tells more`;
	return { exitCode: exitCodes.degraded, json: result, text, warnings: [advice] };
}

export async function diskRemove(context: Context, name: string, which: string, flags: DryRun): Promise<Outcome> {
	const disk = await diskOf(context, which);
	if (flags.dryRun === true) {
		const plan = printableDeep(await callDaemon<RemovePlan>(context, name, "disk-remove", { disk, dryRun: true }));
		const can = plan.removable ? "could leave now" : `cannot leave now: ${plan.reasons.join("; ")}`;
		return done({ dryRun: true, ...plan }, `${plan.id} (${plan.path}) ${can}\nnothing was changed\n`);
	}
	const result = printableDeep(await callDaemon<DiskName & { cleared: boolean }>(context, name, "disk-remove", { disk }));
	const outcome = done(
		result,
		`${result.id} (${result.path}) has left volume ${name}${result.cleared ? "; nothing of it is left there" : ""}\n`,
	);
	if (result.cleared) return outcome;
	const left = `${result.path} was not there or could not be cleared: should it turn up again, it is left alone; empty it before you use it elsewhere`;
	return { ...outcome, warnings: [left] };
}

function replacePlanText(plan: ReplacePlan): string {
	const how = plan.moving
		? `would take over from ${plan.id} (${plan.path}), which leaves when everything has moved`
		: `would take the place of ${plan.id} (${plan.path}); what that one held is made anew`;
	const lines = [
		`${plan.newPath} (${formatBytes(plan.capacityBytes)}) ${how}`,
		plan.fits
			? `  free        ${formatBytes(plan.freeBytes.now)} -> ${formatBytes(plan.freeBytes.after)}`
			: "  free        what the old one holds has no room there and on the other disks: refused for a disk that works",
		...changeLines(plan),
	];
	return `${lines.join("\n")}\nnothing was changed\n`;
}

/** Work, time, risk and the space of each disk, the same for every change. */
export function changeLines({ work, survives, disks }: ChangePreview, unit = "segment"): string[] {
	const by = work.basis === "measured" ? "at the speed that healing had last" : "by reading some of it now; not measured yet";
	const time = work.segments === 0 ? "nothing to rebuild or to move" : `about ${formatDuration(work.seconds)} (${by})`;
	const what = work.segments === 0 ? "" : `${counted(work.segments, unit)} of ${formatBytes(work.payloadBytes)}, `;
	const losses = (count: number): string => (count < 0 ? "not all of this" : `${count} more ${count === 1 ? "loss" : "losses"}`);
	return [
		`  work        ${what}${time}`,
		`  risk        everything survives ${losses(survives.now)} now and meanwhile, ${losses(survives.after)} afterwards`,
		...disks.map(({ disk, freeBytes }, at) => {
			const change = `${disk}: ${formatBytes(freeBytes.now)} -> ${formatBytes(freeBytes.after)}`;
			return `  ${at === 0 ? "free on     " : "            "}${change}`;
		}),
	];
}

export async function diskReplace(
	context: Context,
	name: string,
	disk: string,
	newPath: string | undefined,
	flags: Force & DryRun,
): Promise<Outcome> {
	const which = await diskOf(context, disk);
	const path = newPath === undefined ? undefined : await placeOf(context, newPath);
	// Without a new place it is the disk's own, which may be named by its path.
	if (path === undefined && which.startsWith("/")) await placeOf(context, which);
	const given = { disk: which, force: flags.force === true, ...(path === undefined ? {} : { newPath: path }) };
	if (flags.dryRun === true) {
		const plan = printableDeep(await callDaemon<ReplacePlan>(context, name, "disk-replace", { ...given, dryRun: true }));
		return done({ dryRun: true, ...plan }, replacePlanText(plan));
	}
	const result = printableDeep(await callDaemon<ReplaceResult>(context, name, "disk-replace", given));
	const text = result.moving
		? `${result.id} (${result.path}) takes over from ${disk}, which leaves by itself when everything has moved (cairn disk drain ${name} ${disk} --wait waits for it)\n`
		: `${result.id} (${result.path}) takes the place of ${disk}; healing has begun (cairn heal ${name} --wait waits for it)\n`;
	return done(result, text);
}

// ── how far disks are trusted ────────────────────────────────────────────────────────────────────────────────────

const healths = ["auto", "healthy", "degraded", "suspect", "failed"];

export async function diskShow(context: Context, name: string, which: string): Promise<Outcome> {
	const shown = printableDeep(await callDaemon<DiskDetails>(context, name, "disk-show", { disk: await diskOf(context, which) }));
	return done(shown, detailsText(context, shown));
}

export async function diskSet(context: Context, name: string, which: string, health: string): Promise<Outcome> {
	if (!healths.includes(health)) throw new FsError("EINVAL", "cli.disk-health", `"${health}" is no health: ${healths.join(", ")}`);
	const given = { disk: await diskOf(context, which), health };
	const shown = printableDeep(await callDaemon<DiskDetails>(context, name, "disk-set", given));
	return done(shown, detailsText(context, shown));
}

function detailsText({ paint }: Context, disk: DiskDetails): string {
	const { errorKinds, history, healthSet } = disk;
	const errors = Object.entries(errorKinds).filter(([, count]) => count > 0);
	const lines = [
		`${disk.id} (${disk.path}) is ${paintState(disk.state, paint)}${disk.reason === "" ? "" : `: ${disk.reason}`}`,
		`  trust       ${healthSet === null ? "automatic" : `set to ${healthSet} by the operator; cairn disk set NAME ${disk.id} auto undoes that`}`,
		`  holds       ${counted(disk.fragments, "fragment")}, ${formatBytes(disk.usedBytes)}${disk.capacityBytes === 0 ? "" : ` of ${formatBytes(disk.capacityBytes)}`}`,
		`  errors      ${errors.length === 0 ? "none" : errors.map(([kind, count]) => `${count} ${kind}`).join(", ")} since the mount`,
		...history.map(
			({ at, state, reason }, i) => `  ${i === 0 ? "history     " : "            "}${at}  ${state}${reason === "" ? "" : `: ${reason}`}`,
		),
	];
	return `${lines.join("\n")}\n`;
}
