/**
 * What a device says of itself, from the JSON of smartctl(8) (`smartctl -j -H -A`, smartmontools 7). Pure, and for any text: what is not understood is no opinion.
 *
 * Counters of an ATA disk are told by the numbers that all makers give them: 5 reallocated, 197 pending, 198 uncorrectable. A few reallocated sectors are normal; sectors that cannot be read are not.
 */
import { smartPendingSectors } from "./limits.ts";

/** `why` is for people; "" when the device finds itself well. */
export interface DeviceOpinion {
	readonly why: string;
}

/** Undefined: nothing can be said. */
export function readSmart(text: string): DeviceOpinion | undefined {
	let report: unknown;
	try {
		report = JSON.parse(text);
	} catch {
		return undefined;
	}
	const passed = at(report, "smart_status", "passed");
	const nvme = at(report, "nvme_smart_health_information_log");
	const unreadable = Math.max(rawOf(report, 197), rawOf(report, 198));
	const warning = number(at(nvme, "critical_warning"));
	const used = number(at(nvme, "percentage_used"));
	if (typeof passed !== "boolean" && warning === undefined) return undefined;
	const reasons = [
		...(passed === false ? ["it expects to fail"] : []),
		...(warning !== undefined && warning !== 0 ? [`critical warning ${warning}`] : []),
		...(unreadable >= smartPendingSectors ? [`${unreadable} sectors cannot be read`] : []),
		...(used !== undefined && used >= 100 ? [`${used} % of its life is used`] : []),
	];
	return { why: reasons.join(", ") };
}

function at(value: unknown, ...path: readonly string[]): unknown {
	let now = value;
	for (const key of path)
		now = typeof now === "object" && now !== null && Object.hasOwn(now, key) ? (now as Record<string, unknown>)[key] : undefined;
	return now;
}

const number = (value: unknown): number | undefined => (typeof value === "number" && Number.isFinite(value) ? value : undefined);

function rawOf(report: unknown, id: number): number {
	const table = at(report, "ata_smart_attributes", "table");
	const row = Array.isArray(table) ? (table as unknown[]).find((one) => at(one, "id") === id) : undefined;
	return number(at(row, "raw", "value")) ?? 0;
}
