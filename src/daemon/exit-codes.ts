/** What a failure means to whoever called the command: the one table from error codes to exit codes (docs: command line). */
import type { ErrorCode } from "../base/errors.ts";
import { FsError } from "../base/errors.ts";

export const exitCodes = { done: 0, failed: 1, usage: 2, notFound: 3, refused: 4, degraded: 5, unreachable: 6 } as const;

/** Refusals and losses that are about data, whatever their code. */
const dataLossSites: ReadonlySet<string> = new Set([
	"log.roster-stale",
	"log.too-many-missing",
	"log.mirrors-missing",
	"log.manifest-missing",
	"log.lost",
	"log.gone",
	"kv.manifest-lost",
	"kv.run-lost",
]);

const byCode: Partial<Record<ErrorCode, number>> = {
	NOTFOUND: exitCodes.notFound,
	ENOENT: exitCodes.notFound,
	REFUSED: exitCodes.refused,
	EBUSY: exitCodes.refused,
	EEXIST: exitCodes.refused,
	ENOTEMPTY: exitCodes.refused,
	ENOTDIR: exitCodes.refused,
	EPERM: exitCodes.refused,
	EACCES: exitCodes.refused,
	EROFS: exitCodes.refused,
	EINVAL: exitCodes.usage,
	CORRUPT: exitCodes.degraded,
};

export function exitCodeOf(error: unknown): number {
	if (!(error instanceof FsError)) return exitCodes.failed;
	// An error that came over the control socket carries the daemon's own judgement.
	const carried = error.data["exitCode"];
	if (typeof carried === "number") return carried;
	if (dataLossSites.has(error.site)) return exitCodes.degraded;
	if (error.site.startsWith("control.unreachable")) return exitCodes.unreachable;
	return byCode[error.code] ?? exitCodes.failed;
}
