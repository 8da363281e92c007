/**
 * The keeper's process: `node keeper.js NAME MOUNTPOINT [--log FILE] [--log-format json]`, started by the daemon (`keeping.ts`) with `/dev/fuse` and a connection to the daemon as descriptors
 * (`keeper-link.ts`). It holds the one, watches the other, and starts a successor when the daemon has ended without a word. Small: it lives as long as the mount does.
 *
 * It can do without everything but this: it is no parent of the first daemon, and what it knows it was told.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { appendFileSync, closeSync, openSync, realpathSync } from "node:fs";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { RealConnection } from "../platform/real/connection.ts";
import { abortDescriptor } from "../platform/real/fuse-abort.ts";
import { RealClock } from "../platform/real/clock.ts";
import { type Effect, type Happened, KeeperCore } from "./keeper-core.ts";
import { KeeperLink, type KeepersLink, keptDescriptors, type ToDaemon, type ToKeeper } from "./keeper-link.ts";
import { reportedWithinMs } from "./limits.ts";
import { formatJsonLine, formatLogLine, type LogData, type LogLevel } from "./log-line.ts";

class Keeper {
	readonly #clock = new RealClock();
	readonly #core = new KeeperCore(this.#clock.monotonicMs());
	readonly #log: string | undefined;
	/** Set: lines are JSON and name it. */
	readonly #volume: string | undefined;
	#link: KeepersLink | undefined;
	#daemon: ChildProcess | undefined;
	#cancel = () => {};
	#abandoned = false;

	constructor(log: string | undefined, volume: string | undefined) {
		this.#log = log;
		this.#volume = volume;
	}

	run(): void {
		this.#watch(new Socket({ fd: keptDescriptors.link, readable: true, writable: true }), Promise.resolve("its connection ended"));
		for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => this.#happened({ kind: "signal", signal }));
		this.#write("info", `process ${process.pid} keeps the mount`);
	}

	#watch(socket: Socket, how: Promise<string>): void {
		const told = (message: ToKeeper) => this.#happened({ kind: "told", message });
		const logger = {
			debug: () => {},
			info: this.#write.bind(this, "info"),
			warn: this.#write.bind(this, "warn"),
			error: this.#write.bind(this, "error"),
		};
		const link: KeepersLink = new KeeperLink<ToKeeper, ToDaemon>(new RealConnection(socket), told, logger);
		this.#link = link;
		// A thread that hangs in the kernel keeps a dead process from being reported, perhaps until its successor serves.
		const unreported = async (): Promise<string> => {
			await this.#clock.sleep(reportedWithinMs);
			return "its connection ended";
		};
		void link.lost.then(async () => this.#happened({ kind: "ended", how: await Promise.race([how, unreported()]) }));
	}

	#happened(happened: Happened): void {
		for (const effect of this.#core.apply(happened, this.#clock.monotonicMs())) this.#perform(effect);
	}

	#perform(effect: Effect): void {
		switch (effect.kind) {
			case "start":
				this.#start(effect);
				return;
			case "abandon":
				this.#abandon();
				return;
			case "timer":
				this.#cancel();
				if (effect.ms !== undefined) this.#cancel = this.#clock.after(effect.ms, () => this.#happened({ kind: "time" }));
				return;
			case "tell-stop":
				void this.#link?.tell({ kind: "stop", reason: effect.reason });
				return;
			case "kill":
				this.#daemon?.kill("SIGKILL");
				return;
			case "log":
				this.#write(effect.level, effect.message);
				return;
			case "end":
				process.exit(effect.exitCode);
		}
	}

	#abandon(): void {
		if (this.#abandoned) return;
		this.#abandoned = true;
		const inTheWay = abortDescriptor(keptDescriptors.fuse);
		if (inTheWay !== undefined) this.#write("warn", `the mount ends only with its last holder: ${inTheWay}`);
		closeSync(keptDescriptors.fuse);
	}

	#start({ plan, renewKeeper }: Extract<Effect, { kind: "start" }>): void {
		const [node, ...script] = plan.program as [string, ...string[]];
		const resume = plan.resume === null ? [] : ["--resume", JSON.stringify(plan.resume)];
		const words = [...script, ...plan.words, "--kept", ...resume, ...(renewKeeper ? ["--renew-keeper"] : [])];
		const log = openSync(this.#log ?? "/dev/null", "a", 0o600);
		const daemon = spawn(node, words, {
			detached: true,
			cwd: "/",
			stdio: ["ignore", log, log, "ignore", this.#abandoned ? "ignore" : keptDescriptors.fuse, "pipe"],
		});
		closeSync(log);
		this.#daemon = daemon;
		const how = new Promise<string>((resolve) => {
			daemon.once("error", (error) => resolve(`it could not be started: ${error.message}`));
			daemon.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
		});
		const socket = (daemon.stdio as readonly unknown[])[keptDescriptors.link] as Socket | null | undefined;
		if (socket) this.#watch(socket, how);
		else void how.then((text) => this.#happened({ kind: "ended", how: text }));
	}

	#write(level: LogLevel, message: string, data?: LogData): void {
		const said = [this.#clock.realtime(), level, `keeper: ${message}`] as const;
		const line =
			this.#volume === undefined
				? formatLogLine(...said, data)
				: formatJsonLine(...said, data, { volume: this.#volume, source: "daemon/keeper.js", request: undefined });
		try {
			if (this.#log === undefined) process.stderr.write(line);
			else appendFileSync(this.#log, line, { mode: 0o600 });
		} catch {
			// A log that cannot be written must not end what it reports on.
		}
	}
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
	const options = { log: { type: "string" }, "log-format": { type: "string" } } as const;
	const { values, positionals } = parseArgs({ args: process.argv.slice(2), allowPositionals: true, options });
	// The platform's timers do not keep a process alive; keeping does.
	setInterval(() => {}, 3_600_000);
	new Keeper(values.log, values["log-format"] === "json" ? positionals[0] : undefined).run();
}
