/** A machine in a simulated world with a kernel that can mount: the command, daemons and real volumes on simulated disks, in one process. */
import { Deferred } from "../base/async.ts";
import { latin1ToUtf8 } from "../base/bytes.ts";
import { FsError, toFsError } from "../base/errors.ts";
import { silentLogger } from "../base/telemetry.ts";
import { connectControl } from "../daemon/control.ts";
import { Daemon } from "../daemon/daemon.ts";
import { exitCodeOf } from "../daemon/exit-codes.ts";
import { Home } from "../daemon/home.ts";
import type { ReadyMessage } from "../daemon/main.ts";
import type { FuseServer } from "../doors/fuse/server.ts";
import type { FuseChannel, FuseHost, HostFiles, Platform } from "../platform/interface.ts";
import { SimWorld } from "../platform/sim/world.ts";
import type { NativeVolume } from "../volume/native/interface.ts";
import { destroyVolume, inspectVolume } from "../volume/native/offline.ts";
import { createVolume, openVolume } from "../volume/native/open.ts";
import type { Context, DaemonStart, Processes } from "./context.ts";
import { plain } from "./format.ts";
import { runCommand } from "./program.ts";
import { createProgress } from "./progress.ts";

const homePath = "/var/lib/cairn";

interface Mounted {
	readonly mountpoint: string;
	readonly source: string;
	readonly type: string;
	readonly pid: number;
	readonly ended: Deferred<void>;
	readOnly: boolean;
	dead: boolean;
}

export interface CommandResult {
	readonly code: number;
	readonly out: string;
	readonly err: string;
	/** Of --json. */
	// biome-ignore lint/suspicious/noExplicitAny: tests look at what the contract promises
	readonly json: any;
}

export class Machine {
	readonly world: SimWorld;
	readonly mounts: Mounted[] = [];
	readonly volumes = new Map<number, NativeVolume>();
	readonly daemons = new Map<number, Daemon>();
	readonly lines: string[] = [];
	/** Until then (virtual time) looks at mount points of dead daemons hang: their last threads are still in the kernel. */
	hangsUntilMs = 0;
	/** A program has files open below a mount point. */
	busy = false;
	fuseMissing: string | undefined;
	/** What smartctl prints of the device of a domain. */
	smart: (domain: string) => string | undefined = () => undefined;
	#node;
	#pids = new Set<number>();
	#lastPid = 100;

	constructor(seed: number, disks = 6) {
		this.world = new SimWorld({ seed });
		this.#node = this.world.node();
		for (let i = 1; i <= disks; i++) this.world.addDisk(`/d${i}`, { capacityBytes: 1 << 30 });
		this.#node.host.makeFolder("/mnt");
	}

	get host() {
		return this.#node.host;
	}

	cairn(...words: string[]): Promise<CommandResult> {
		return this.world.run(() => this.#command(words), { limitMs: 600_000 });
	}

	/** A call on the control socket that must fail. */
	call(name: string, verb: string, given: Readonly<Record<string, unknown>>): Promise<FsError> {
		return this.world.run(async () => {
			const platform = this.#platform(0);
			const home = new Home(homePath, { files: platform.files });
			const client = await connectControl(home.socketPath(name), platform.sockets);
			if (!client) throw new Error(`nobody serves ${name}`);
			try {
				await client.call(verb, given);
			} catch (error) {
				return toFsError(error, "test.call");
			} finally {
				client.close();
			}
			throw new Error(`${verb} did not fail`);
		});
	}

	/** kill -9 of every daemon. */
	kill(): void {
		this.#node.kill();
		this.#pids.clear();
		for (const mount of this.mounts) mount.dead = true;
	}

	/** The machine loses power: mounts are gone, and what was not synced may be. */
	cutPower(): void {
		this.#node.powerCut();
		this.#pids.clear();
		this.mounts.length = 0;
	}

	/** The daemon behind a mount, for writing through the volume's own API. */
	volumeAt(mountpoint: string): NativeVolume {
		const mount = this.mounts.find((one) => one.mountpoint === mountpoint && !one.dead);
		const volume = this.volumes.get(mount?.pid ?? -1);
		if (!volume) throw new Error(`nothing serves ${mountpoint}`);
		return volume;
	}

	async #command(words: readonly string[]): Promise<CommandResult> {
		let out = "";
		let err = "";
		const platform = this.#platform(0);
		const context: Context = {
			platform,
			home: new Home(homePath, { files: platform.files }),
			logger: silentLogger,
			offline: {
				createVolume: (options, modules) => createVolume({ ...options, logSegmentBytes: 256 * 1024, logSegmentCount: 4 }, modules),
				inspectVolume,
				destroyVolume,
			},
			bench: { start: () => Promise.reject(new FsError("ENOTSUP", "cli.bench", "a simulated machine has no directories to measure")) },
			processes: this.#processes(),
			paint: plain,
			show: (text) => {
				out += text;
			},
			note: (text) => {
				err += text;
			},
			progress: (title) =>
				createProgress({
					title,
					tty: false,
					write: (text) => {
						err += text;
					},
				}),
		};
		const output = {
			out: (text: string) => {
				out += text;
			},
			err: (text: string) => {
				err += text;
			},
		};
		const code = await runCommand(words, context, output, "1.2.3");
		return { code, out, err, json: words.includes("--json") && out !== "" ? JSON.parse(out) : undefined };
	}

	#processes(): Processes {
		const absolute = (path: string) => (path.startsWith("/") ? path : `/${path}`);
		return {
			startDaemon: (options) => this.#startDaemon(options),
			daemonProgram: () => ["/usr/bin/node", "/daemon/main.js"],
			runForeground: async (options) => {
				const message = await this.#startDaemon(options);
				options.onReady(message);
				return "error" in message ? message.error.exitCode : 0;
			},
			holders: async () => (this.busy ? ["bash (4711)"] : []),
			alive: (pid) => this.#pids.has(pid),
			lingers: () => false,
			canonical: async (path) => absolute(path),
			canonicalParent: async (path) => absolute(path),
			onStop: () => () => {},
			uid: 0,
			gid: 0,
		};
	}

	async #startDaemon(options: DaemonStart): Promise<ReadyMessage> {
		const pid = ++this.#lastPid;
		this.#pids.add(pid);
		const platform = this.#platform(pid);
		try {
			const daemon = await Daemon.start(
				{ ...options, pid },
				{
					platform,
					home: new Home(options.home, { files: platform.files }),
					logger: silentLogger,
					openVolume: async (open, modules) => {
						const volume = await openVolume(open, modules);
						this.volumes.set(pid, volume);
						return volume;
					},
					serveFuse: ({ readOnly }, { channel }) => this.#serve(pid, channel, readOnly === true),
					crash: (error) => this.lines.push(`crash: ${String(error)}`),
				},
			);
			this.daemons.set(pid, daemon);
			void daemon.ended.then((end) => {
				this.lines.push(`ended ${pid} ${end.clean ? "cleanly" : end.message}`);
				this.#pids.delete(pid);
			});
			return { ready: true, pid, warnings: await daemon.warnings() };
		} catch (error) {
			this.#pids.delete(pid);
			const { code, site, message } = toFsError(error, "test.daemon");
			return { error: { code, site, message, exitCode: exitCodeOf(error) } };
		}
	}

	#serve(pid: number, channel: FuseChannel, readOnly: boolean): FuseServer {
		const mount = this.mounts.find((one) => one.pid === pid);
		if (mount) mount.readOnly = readOnly;
		const counters = () => {
			throw new Error("not in this test");
		};
		const changedElsewhere = async (): Promise<boolean> => true;
		const observe = (): void => {};
		return { destroyed: false, ended: channel.ended, stop: async () => {}, detach: async () => {}, changedElsewhere, observe, counters };
	}

	#platform(pid: number): Platform {
		const platform = this.#node.boot();
		const devices = { smart: async (domain: string) => this.smart(domain) };
		return { ...platform, devices, files: this.#files(platform.files), fuse: this.#fuse(pid) };
	}

	/** Looking at the mount point of a dead daemon fails, as the kernel does it. */
	#files(files: HostFiles): HostFiles {
		const wrapped: HostFiles = {
			read: (path) => files.read(path),
			write: (path, bytes) => files.write(path, bytes),
			list: (path) => files.list(path),
			remove: (path) => files.remove(path),
			makeFolder: (path) => files.makeFolder(path),
			probe: async (path) => {
				if (this.mounts.some((one) => one.mountpoint === path && one.dead)) {
					await this.world.sleep(Math.max(0, this.hangsUntilMs - this.world.nowMs));
					throw new FsError("ENOTCONN", "test.dead", "not connected");
				}
			},
			kind: async (path) => {
				// Disks are folders of the host.
				if (this.world.disks().some((disk) => disk.path === path)) return "directory";
				return files.kind(path);
			},
		};
		return wrapped;
	}

	#fuse(pid: number): FuseHost {
		return {
			unavailable: async () => this.fuseMissing,
			mounts: async () => this.mounts,
			resume: async () => {
				throw new Error("not in this test");
			},
			abort: async () => {
				throw new Error("not in this test");
			},
			mount: async (mountpoint, { source, subtype, readOnly }) => {
				const ended = new Deferred<void>();
				this.mounts.push({ mountpoint, source, type: `fuse.${subtype}`, pid, ended, readOnly, dead: false });
				return { ended: ended.promise } as FuseChannel;
			},
			unmount: async (mountpoint, lazy) => {
				const index = this.mounts.findLastIndex((one) => one.mountpoint === mountpoint);
				const mount = this.mounts[index];
				if (!mount) throw new FsError("EINVAL", "test.unmount", `nothing is mounted on ${latin1ToUtf8(mountpoint)}`);
				if (this.busy && !lazy) throw new FsError("EBUSY", "test.busy", "in use");
				this.mounts.splice(index, 1);
				mount.ended.resolve();
			},
		};
	}
}
