/** Errors at the door's border: into errno for the kernel, into the log for people, without flooding it. */
import { isFsError } from "../../base/errors.ts";
import type { FsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import { fullLogsPerSite, maxLogSites } from "./limits.ts";
import { errnoOf } from "./protocol.ts";

export class FaultLog {
	readonly #logger: Logger;
	readonly #seen = new Map<string, number>();

	constructor(logger: Logger) {
		this.#logger = logger;
	}

	/** The errno for the kernel. Faults (as against ordinary answers such as ENOENT) are logged with their site. */
	errno(error: unknown, opcode: number, nodeid: number): number {
		if (!isFsError(error)) return errnoOf.EIO;
		const errno = this.#translate(error);
		if (errno === errnoOf.EIO || error.code === "REFUSED" || error.code === "ENOSYS") {
			this.#log(error.site, `request failed: ${error.message}`, { code: error.code, site: error.site, opcode, ino: nodeid });
		}
		return errno;
	}

	#translate(error: FsError): number {
		if (error.code === "REFUSED" && error.data["readOnly"] === true) return errnoOf.EROFS;
		// The kernel takes ENOSYS as "never ask again", and for FSYNC as success.
		if (error.code === "ENOSYS") return errnoOf.ENOTSUP;
		return errnoOf[error.code] ?? errnoOf.EIO;
	}

	/** A fault of the program. */
	fatal(error: unknown): void {
		const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
		this.#log("fuse.fatal", `the FUSE door met a fault of the program: ${text}`, { site: "fuse.fatal" });
	}

	closing(error: FsError, handle: number): void {
		this.#log(error.site, `closing a file that the kernel had left open: ${error.message}`, { code: error.code, site: error.site, handle });
	}

	unsynced(error: FsError): void {
		const data = { code: error.code, site: error.site };
		this.#log(error.site, `unmounted, but not everything is durable: ${error.message}`, data);
	}

	#log(site: string, message: string, data: Record<string, unknown>): void {
		const seen = (this.#seen.get(site) ?? 0) + 1;
		if (seen > 1 || this.#seen.size < maxLogSites) this.#seen.set(site, seen);
		if (seen <= fullLogsPerSite) this.#logger.error(message, data);
		else if (seen % 1000 === 0) this.#logger.error(`${message} (${seen} times at ${site})`, data);
	}
}
