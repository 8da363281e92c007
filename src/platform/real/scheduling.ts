/**
 * Who runs first where threads of this process wait for the same processor. A program that waits for its fsync waits for disk threads that need a processor for 30 µs each. Where V8's own threads (they compile, and help with
 * the garbage) had it they waited for a whole slice, 1 to 4 ms: half of the time of all appends in a daemon that had just started.
 *
 * So disks' threads ask for short slices: who does goes before longer ones when it is woken, and gets no more of the processor (Linux 6.12; without effect before). V8's get longer ones, and little weight, as a short slice counts only while its
 * thread has not had more than its share.
 */
import { readdirSync, readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { libc } from "./fuse-libc.ts";
import { diskSliceMs, engineNice, engineSliceMs } from "./fuse-limits.ts";

const mostNice = 19;
const defaultEngineThreads = 4;

/** For the calling thread. */
export function runFirst(): void {
	libc().schedule(0, scheduleOf({ nice: getPriority(), sliceMs: diskSliceMs }));
}

/** For V8's threads, which must have begun before any other was made. */
export function letEngineWait(): void {
	const schedule = scheduleOf({ nice: Math.min(mostNice, getPriority() + engineNice), sliceMs: engineSliceMs });
	for (const thread of engineThreads(readThreads(), process.pid, enginePool(process.execArgv))) libc().schedule(thread, schedule);
}

export interface ThreadSeen {
	readonly id: number;
	readonly name: string;
	/** In clock ticks since the machine started. */
	readonly startedTicks: number;
}

/** How many threads V8 has for its work. */
export function enginePool(flags: readonly string[]): number {
	const last = flags.findLast((flag) => /^--v8-pool-size=\d+$/.test(flag));
	return last === undefined ? defaultEngineThreads : Number(last.slice(last.indexOf("=") + 1));
}

/** Those that V8 works in. Newer Node gives them names; otherwise they are the first after the main thread and the one that keeps time for them. */
export function engineThreads(threads: readonly ThreadSeen[], main: number, pool: number): number[] {
	const named = threads.filter(({ name }) => name.startsWith("V8Worker"));
	if (named.length > 0) return named.map(({ id }) => id);
	const others = threads.filter(({ id }) => id !== main).sort((a, b) => a.startedTicks - b.startedTicks || a.id - b.id);
	return others.slice(1, 1 + pool).map(({ id }) => id);
}

function readThreads(): ThreadSeen[] {
	const found: ThreadSeen[] = [];
	for (const id of readdirSync("/proc/self/task")) {
		try {
			found.push(parseThread(readFileSync(`/proc/self/task/${id}/stat`, "latin1")));
		} catch {
			// It has ended meanwhile.
		}
	}
	return found;
}

/** proc_pid_stat(5). The name may hold brackets and blanks; the time of the start is the 22nd field. */
export function parseThread(stat: string): ThreadSeen {
	const end = stat.lastIndexOf(")");
	const fields = stat.slice(end + 2).split(" ");
	return { id: Number.parseInt(stat, 10), name: stat.slice(stat.indexOf("(") + 1, end), startedTicks: Number(fields[22 - 3]) };
}

/** SCHED_FLAG_KEEP_POLICY of `<linux/sched.h>`. */
const keepPolicy = 8;

/**
 * `struct sched_attr` of `<linux/sched/types.h>`; its `sched_runtime` is the slice. Whoever has given the process another policy (`chrt`, CPUSchedulingPolicy= of systemd) meant all of its threads: batch and idle ones keep theirs, and
 * for real-time ones the kernel refuses the call, which leaves them as they are.
 */
function scheduleOf({ nice, sliceMs }: { readonly nice: number; readonly sliceMs: number }): Uint8Array {
	const bytes = new Uint8Array(48);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, bytes.length, true);
	view.setUint32(8, keepPolicy, true);
	view.setInt32(16, nice, true);
	// Below four seconds.
	view.setUint32(24, sliceMs * 1e6, true);
	return bytes;
}
