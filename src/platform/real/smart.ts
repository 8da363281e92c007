/** SMART, by asking smartctl(8) where it is installed. */
import { execFile } from "node:child_process";
import { readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { DeviceReports } from "../interface.ts";
import { realLimits } from "./limits.ts";

export class RealDeviceReports implements DeviceReports {
	readonly #timeoutMs: number;
	/** Asked and not ended yet: a process that hangs in the kernel cannot even be killed, and is not followed by others. */
	readonly #asking = new Set<string>();

	constructor(timeoutMs: number = realLimits.smartTimeoutMs) {
		this.#timeoutMs = timeoutMs;
	}

	smart(domain: string): Promise<string | undefined> {
		const device = deviceOf(domain);
		return device === undefined ? Promise.resolve(undefined) : this.ask(device);
	}

	/** A disk that sleeps is left asleep. The exit code is a set of bits of which the first two say that nothing could be asked; what was said tells by itself. */
	ask(device: string): Promise<string | undefined> {
		const words = ["-j", "-H", "-A", "-n", "standby", device];
		const options = { timeout: this.#timeoutMs, killSignal: "SIGKILL", maxBuffer: realLimits.smartBytes, encoding: "utf8" } as const;
		if (this.#asking.has(device)) return Promise.resolve(undefined);
		this.#asking.add(device);
		return new Promise((resolve) => {
			const late = setTimeout(() => resolve(undefined), this.#timeoutMs + 1000);
			execFile("smartctl", words, options, (error, stdout) => {
				clearTimeout(late);
				this.#asking.delete(device);
				const code = typeof error?.code === "number" ? error.code : 0;
				const isUseless = error !== null && (typeof error.code !== "number" || error.killed === true || (code & 3) !== 0);
				resolve(isUseless ? undefined : stdout);
			});
		});
	}
}

/** `dev:8:0` to `/dev/sda`; undefined for what is no device. */
function deviceOf(domain: string): string | undefined {
	const number = /^dev:(\d+:\d+)$/.exec(domain)?.[1];
	if (number === undefined) return undefined;
	try {
		return `/dev/${basename(readlinkSync(`/sys/dev/block/${number}`))}`;
	} catch {
		return undefined;
	}
}
