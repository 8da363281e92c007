/** ledger: what is protected, and how far that is proven. */
import { exitCodes } from "../daemon/exit-codes.ts";
import type { Ledger, LedgerCause } from "../volume/native/interface.ts";
import { callDaemon, type Context, type Outcome } from "./context.ts";
import { causeTexts, metadataText } from "./status-verbs.ts";
import { counted, formatAge, formatBytes, formatDuration, formatTable } from "./format.ts";

export async function ledger(context: Context, name: string): Promise<Outcome> {
	const found = await callDaemon<Ledger>(context, name, "ledger");
	return { exitCode: exitCodes.done, json: found, text: ledgerText(context, name, found), warnings: advice(name, found) };
}

function ledgerText(context: Context, name: string, found: Ledger): string {
	const { dirtyBytes, healing, shortages, levels, recordedBytes } = found;
	if (levels.length === 0)
		return `no data is in segments yet${dirtyBytes > 0 ? `; ${formatBytes(dirtyBytes)} are in memory and log` : ""}\n`;
	const lines = [`${levelTable(context, found)}\n${survivalTable(found)}`];
	for (const shortage of shortages) lines.push(shortageText(shortage));
	if (found.leavingBytes > 0 && !healing.active)
		lines.push(`${formatBytes(found.leavingBytes)} that are to leave a disk wait for their turn, or for room on others`);
	if (healing.active) {
		const eta = healing.etaSeconds === null ? "" : `, about ${formatDuration(healing.etaSeconds)}`;
		lines.push(`healing: ${formatBytes(healing.remainingBytes)} to do${eta}`);
	}
	lines.push(`metadata: ${metadataText(context, found)}`);
	if (dirtyBytes > 0) lines.push(`${formatBytes(dirtyBytes)} are in memory and log, in no segment yet`);
	if (recordedBytes > 0) lines.push(`what is only recorded is proven by reading it: cairn verify ${name}`);
	return `${lines.join("\n")}\n`;
}

function levelTable({ platform }: Context, { levels }: Ledger): string {
	const rows = levels.map((level) => [
		level.redundancy,
		formatBytes(level.wantedBytes),
		formatBytes(level.provenBytes),
		formatBytes(level.recordedBytes),
		formatBytes(level.degradedBytes),
		formatBytes(level.lostBytes),
		level.oldestProofAt === null ? "never" : formatAge(level.oldestProofAt, platform.clock.realtime()),
	]);
	return formatTable(["ASKED FOR", "BYTES", "PROVEN", "RECORDED", "DEGRADED", "LOST", "OLDEST PROOF"], rows, [1, 2, 3, 4, 5]);
}

function survivalTable({ survival }: Ledger): string {
	const rows = survival.map(({ losses, recordedBytes, provenBytes }) => [
		losses < 0 ? "cannot be read, or not proven to" : `survives ${losses} more ${losses === 1 ? "loss" : "losses"}`,
		formatBytes(recordedBytes),
		formatBytes(provenBytes),
	]);
	return formatTable(["", "BY RECORDS", "PROVEN"], rows, [1, 2]);
}

function shortageText({ cause, bytes, segments, disks }: Ledger["shortages"][number]): string {
	const gone = disks.length === 0 ? "" : ` (fragments on ${disks.join(", ")} cannot be read)`;
	return `${formatBytes(bytes)} in ${counted(segments, "segment")} ${cause === "lost" ? "" : "degraded: "}${causeTexts[cause]}${gone}`;
}

function advice(name: string, { shortages, healing }: Ledger): string[] {
	const given: string[] = [];
	const has = (cause: LedgerCause): boolean => shortages.some((one) => one.cause === cause);
	if (has("waiting") && !healing.active) given.push(`what a dry run found is mended when it is asked for, or read: cairn heal ${name}`);
	if (has("paused")) given.push(`go on healing: cairn heal ${name} --resume`);
	if (has("no-disk")) given.push(`give lost disks back or add others: cairn disk replace ${name} DISK, cairn disk add ${name} PATH`);
	if (has("awaited"))
		given.push(`put another disk in its place (cairn disk replace ${name} DISK), or heal onto the others now (cairn heal ${name})`);
	if (has("no-space")) given.push(`delete something or add disks: cairn disk add ${name} PATH`);
	if (has("lost")) given.push(`some data is lost: cairn verify ${name} --lost names the files`);
	return given;
}
