/**
 * What monitoring is told, in the text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4). Pure: a status becomes text.
 *
 * Labels are bounded: disks (at most 256), states, kinds of errors, protections that were asked for (a table in the volume's record). Nothing here is about files or users.
 */
import { parseTime } from "../base/time.ts";
import type { HistogramStatus, LedgerCause, VolumeStatus } from "../volume/native/interface.ts";

type Labels = Readonly<Record<string, string>>;

interface Sample {
	/** Of a histogram: `_bucket`, `_sum`, `_count`. */
	readonly suffix?: string;
	readonly labels?: Labels;
	readonly value: number;
}

interface Metric {
	readonly name: string;
	readonly type: "gauge" | "counter" | "histogram";
	readonly help: string;
	samples(status: VolumeStatus, about: MetricsContext): readonly Sample[];
}

export interface MetricsContext {
	/** Seconds since 1970, now and when the status was made. */
	readonly nowSeconds: number;
	readonly statusSeconds: number;
}

const volumeStates = ["starting", "running", "degraded", "recovering", "failed"];
const diskStates = ["healthy", "degraded", "suspect", "draining", "failed", "missing"];
const causes: readonly LedgerCause[] = ["waiting", "paused", "awaited", "no-space", "no-disk", "lost"];
const one = (value: number): readonly Sample[] => [{ value }];
const each = (label: string, values: Readonly<Record<string, number>>): readonly Sample[] =>
	Object.entries(values).map(([key, value]) => ({ labels: { [label]: key }, value }));
const hot = (label: string, all: readonly string[], now: string): readonly Sample[] =>
	all.map((key) => ({ labels: { [label]: key }, value: key === now ? 1 : 0 }));
const gauge = (name: string, help: string, samples: Metric["samples"]): Metric => ({ name, type: "gauge", help, samples });
const counter = (name: string, help: string, samples: Metric["samples"]): Metric => ({ name, type: "counter", help, samples });
const histogram = (name: string, help: string, of: (status: VolumeStatus) => HistogramStatus): Metric => ({
	name,
	type: "histogram",
	help,
	samples: (status) => {
		const { buckets, sumSeconds, count } = of(status);
		const below = [...buckets.map(({ seconds, count }) => ({ le: String(seconds), count })), { le: "+Inf", count }];
		const bucketed = below.map(({ le, count }) => ({ suffix: "_bucket", labels: { le }, value: count }));
		return [...bucketed, { suffix: "_sum", value: sumSeconds }, { suffix: "_count", value: count }];
	},
});
const perDisk = (value: (disk: VolumeStatus["disks"][number]) => number): Metric["samples"] => {
	return ({ disks }) => disks.map((disk) => ({ labels: { disk: disk.id }, value: value(disk) }));
};

const metrics: readonly Metric[] = [
	gauge("cairn_info", "Always 1; what the volume is.", ({ redundancy }) => [{ labels: { redundancy }, value: 1 }]),
	gauge("cairn_state", "1 for the state that the volume is in.", ({ state }) => hot("state", volumeStates, state)),
	gauge("cairn_status_age_seconds", "How old these figures are.", (_status, about) => one(about.nowSeconds - about.statusSeconds)),
	gauge("cairn_capacity_bytes", "User data that fits in all.", ({ capacityBytes }) => one(capacityBytes)),
	gauge("cairn_used_bytes", "User data stored.", ({ usedBytes }) => one(usedBytes)),
	gauge("cairn_free_bytes", "User data that still fits.", ({ freeBytes }) => one(freeBytes)),
	gauge("cairn_dirty_bytes", "Acknowledged, in memory and log, in no segment yet.", ({ dirtyBytes }) => one(dirtyBytes)),
	gauge("cairn_protection_bytes", "User data by what is known of its protection.", ({ protection }) =>
		each("state", {
			proven: protection.provenBytes,
			recorded: protection.fullBytes - protection.provenBytes,
			degraded: protection.degradedBytes,
			lost: protection.lostBytes,
		}),
	),
	gauge(
		"cairn_ledger_bytes",
		"User data by what was asked for and what is known of it; wanted is the sum of the others.",
		({ protection }) =>
			protection.targets.flatMap(({ redundancy, bytes, provenBytes, recordedBytes, degradedBytes, lostBytes }) => {
				const states = { wanted: bytes, proven: provenBytes, recorded: recordedBytes, degraded: degradedBytes, lost: lostBytes };
				return each("state", states).map(({ labels, value }) => ({ labels: { redundancy, ...labels }, value }));
			}),
	),
	gauge("cairn_shortage_bytes", "User data that is degraded or lost, by why it is so still.", ({ protection: { shortages } }) =>
		each("cause", Object.fromEntries(causes.map((cause) => [cause, shortages.find((one) => one.cause === cause)?.bytes ?? 0]))),
	),
	gauge(
		"cairn_oldest_proof_age_seconds",
		"Since the proof that is longest ago; absent while nothing is proven.",
		({ protection }, about) => {
			const seconds = protection.oldestProofAt === null ? undefined : parseTime(protection.oldestProofAt);
			return seconds === undefined ? [] : one(Math.max(0, about.nowSeconds - seconds));
		},
	),
	gauge("cairn_metadata_copies", "Copies of the metadata.", ({ metadataCopies: { wanted, present } }) => each("kind", { wanted, present })),
	gauge("cairn_metadata_proof_age_seconds", "Since all metadata was last read and right; absent while it never was.", (status, about) => {
		const seconds = status.metadataProvenAt === null ? undefined : parseTime(status.metadataProvenAt);
		return seconds === undefined ? [] : one(Math.max(0, about.nowSeconds - seconds));
	}),
	gauge("cairn_disk_state", "1 for the state that the disk is in.", ({ disks }) =>
		disks.flatMap(({ id, state }) =>
			hot("state", diskStates, state).map(({ labels, value }) => ({ labels: { disk: id, ...labels }, value })),
		),
	),
	gauge(
		"cairn_disk_capacity_bytes",
		"Raw bytes of the disk.",
		perDisk((disk) => disk.capacityBytes),
	),
	gauge(
		"cairn_disk_used_bytes",
		"Raw bytes that the volume uses on the disk.",
		perDisk((disk) => disk.usedBytes),
	),
	counter("cairn_disk_errors_total", "Errors of the disk since the mount.", ({ disks }) =>
		disks.flatMap(({ id, errorKinds }) => Object.entries(errorKinds).map(([kind, value]) => ({ labels: { disk: id, kind }, value }))),
	),
	gauge("cairn_healing_active", "1 while the healer is at work.", ({ healing }) => one(healing.active ? 1 : 0)),
	gauge("cairn_healing_done_bytes", "User data brought to its target since this healing began.", ({ healing }) => one(healing.doneBytes)),
	gauge("cairn_healing_remaining_bytes", "User data that has still to be brought to its target or off a disk.", ({ healing }) =>
		one(healing.remainingBytes),
	),
	gauge(
		"cairn_healing_eta_seconds",
		"Until what can be healed now is; absent while nothing is at work or the speed is unknown.",
		({ healing }) => (healing.etaSeconds === null ? [] : one(healing.etaSeconds)),
	),
	gauge("cairn_healing_paused", "1 while the operator has paused the healer.", ({ healing }) => one(healing.paused ? 1 : 0)),
	gauge("cairn_balancing_active", "1 from the moment that a balance is asked for until the disks are even.", ({ balancing }) =>
		one(balancing.active ? 1 : 0),
	),
	gauge("cairn_balancing_remaining_bytes", "Raw bytes that the balance has still to move.", ({ balancing }) =>
		one(balancing.remainingBytes),
	),
	gauge("cairn_scrub_active", "1 while the scrub reads.", ({ scrub }) => one(scrub.active ? 1 : 0)),
	gauge("cairn_scrub_last_end_age_seconds", "Since the scrub last read everything; absent while it never did.", ({ scrub }, about) => {
		const seconds = parseTime(scrub.lastPass?.endedAt ?? "");
		return seconds === undefined ? [] : one(Math.max(0, about.nowSeconds - seconds));
	}),
	gauge("cairn_scrub_last_found", "What the last whole scrub found: fragments and pieces of metadata.", ({ scrub: { lastPass } }) => {
		if (lastPass === null) return [];
		const { corrupt, missing, repaired, unrecoverable } = lastPass;
		return each("kind", { corrupt, missing, repaired, unrecoverable });
	}),
	counter("cairn_compaction_moved_bytes_total", "Live bytes that compaction has copied since the mount.", ({ compaction }) =>
		one(compaction.movedBytes),
	),
	counter("cairn_compaction_freed_bytes_total", "Dead bytes that compaction has given back since the mount.", ({ compaction }) =>
		one(compaction.freedBytes),
	),
	gauge("cairn_garbage_bytes", "Raw bytes on the disks that no record names, as of the last look.", ({ garbage }) => one(garbage.bytes)),
	gauge("cairn_garbage_unaccounted_bytes", "Raw bytes that are taken and explained by nothing: a fault.", ({ garbage }) =>
		one(garbage.unaccountedBytes),
	),
	counter("cairn_garbage_removed_bytes_total", "Raw bytes given back that no record named, since the mount.", ({ garbage }) =>
		one(garbage.removedBytes),
	),
	gauge("cairn_locks", "Ranges and files that are locked, and requests that wait for one.", ({ locks: { held, waiting } }) =>
		each("state", { held, waiting }),
	),
	gauge("cairn_lock_shares", "Open files that deny others something.", ({ locks }) => one(locks.shares)),
	gauge("cairn_lock_leases", "Files and directories that somebody elsewhere caches.", ({ locks }) => one(locks.leases)),
	gauge("cairn_durable_opens", "Opens that are kept by record: their client is there, or they wait for it.", ({ locks: { durable } }) =>
		each("state", { connected: durable.connected, waiting: durable.waiting }),
	),
	gauge("cairn_persistent_opens", "Of these, the ones that nobody who is in conflict with them may end.", ({ locks }) =>
		one(locks.durable.persistent),
	),
	counter("cairn_durable_opens_granted_total", "Opens that were made durable, since this daemon began.", ({ locks }) =>
		one(locks.durable.granted),
	),
	counter("cairn_durable_opens_reconnected_total", "Opens that their clients have had again, since this daemon began.", ({ locks }) =>
		one(locks.durable.reconnected),
	),
	counter("cairn_durable_opens_refused_total", "Clients that were refused an open of before, and opens beyond the bound.", ({ locks }) =>
		each("what", { reconnect: locks.durable.refused, limit: locks.durable.overLimit }),
	),
	counter("cairn_durable_opens_ended_total", "Durable opens that ended without their clients, by why.", ({ locks: { durable } }) =>
		each("why", { timeout: durable.timedOut, conflict: durable.conflicts, operator: durable.broken }),
	),
	counter("cairn_locks_acquired_total", "Locks given, since this daemon began.", ({ locks }) => each("class", locks.acquired)),
	counter("cairn_locks_released_total", "Locks given back or taken away, since this daemon began.", ({ locks }) =>
		each("class", locks.released),
	),
	counter("cairn_locks_refused_total", "Requests that did not get their lock at once, by what became of them.", ({ locks }) =>
		each("outcome", locks.refused),
	),
	counter("cairn_lock_reclaims_total", "Locks that clients asked for again after a restart, by what they were told.", ({ locks }) =>
		each("outcome", { ...locks.reclaims }),
	),
	histogram("cairn_lock_wait_seconds", "How long those who got their lock at last had waited.", ({ locks }) => locks.waits),
	histogram("cairn_lock_hold_seconds", "How long locks were held.", ({ locks }) => locks.holds),
	gauge("cairn_warnings", "Sentences that `cairn status` would warn with.", ({ warnings }) => one(warnings.length)),
];

export const metricNames: readonly string[] = metrics.map(({ name }) => name);

export function renderMetrics(status: VolumeStatus, about: MetricsContext): string {
	const lines: string[] = [];
	for (const metric of metrics) {
		lines.push(`# HELP ${metric.name} ${metric.help}`, `# TYPE ${metric.name} ${metric.type}`);
		for (const { suffix, labels, value } of metric.samples(status, about)) {
			const all = Object.entries({ volume: status.volume, ...labels }).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
			lines.push(`${metric.name}${suffix ?? ""}{${all.join(",")}} ${value}`);
		}
	}
	return `${lines.join("\n")}\n`;
}

function escapeLabel(text: string): string {
	return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
