/**
 * One volume served on one mount point, from its start to a clean end.
 *
 * Invariants
 *  D1 Whatever `start` has begun when it fails is undone before it throws: no mount, no socket, no locked disk is left.
 *  D2 The order of ending is: no new requests (unmounted), requests in flight answered and handles closed (door ended),
 *     everything sealed, durable and marked clean (volume shut down), answers of the control socket delivered, socket closed.
 *     It runs once, whoever asks for it.
 *  D3 The end is reported as clean only when the volume's shutdown succeeded.
 */
import { Deferred } from "../base/async.ts";
import { utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Negotiated } from "../doors/fuse/door.ts";
import { forgetNativeReads, NativeReads, type NativeReadsStatus, noNativeReads } from "../doors/fuse/native-reads.ts";
import type { ForeignChange, FuseServer, FuseServerModules, FuseServerOptions, FuseSession } from "../doors/fuse/server.ts";
import { openDiskWithDeadlines } from "../platform/deadline.ts";
import type { Disk, FuseChannel, FuseHost, Platform } from "../platform/interface.ts";
import type { NativeVolume, OpenOptions, SessionOptions, VolumeModules } from "../volume/native/interface.ts";
import { ControlServer } from "./control.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exporter } from "./exporter.ts";
import type { Home } from "./home.ts";
import { type Program, type ResumeState, resumeVersion } from "./keeper-link.ts";
import { type Keepers, Keeping } from "./keeping.ts";
import { Monitor } from "./monitor.ts";
import { connectionEndMs, detachedUsersMs, lockPatienceMs, lockRetryMs, maxReadBytes, socketWatchMs } from "./limits.ts";
import {
	checkMountpoint,
	type MountModules,
	type MountOptions,
	mountOptionWords,
	mountSource,
	mountSubtype,
	removeDeadMounts,
	tryUnmount,
} from "./mountpoint.ts";
import { printable } from "./text.ts";
import { Profiler } from "./profiler.ts";
import { answerVerb, type DaemonState } from "./verbs.ts";

export interface DaemonOptions {
	readonly name: string;
	/** Where to look for disks; any one of them finds the others. */
	readonly diskPaths: readonly string[];
	/** Absolute host path without symbolic links. */
	readonly mountpoint: string;
	readonly mountOptions: MountOptions;
	readonly acceptLoss: boolean;
	readonly pid: number;
	/** Whether this process may use ports below 1024, and so knows what it means that somebody does. */
	readonly privileged?: boolean;
	/** Takes over the mount of a daemon that is gone, instead of mounting. */
	readonly resume?: (ResumeState & { readonly descriptor: number }) | undefined;
	/** The keeper that has started this process is replaced by one of this program. */
	readonly renewKeeper?: boolean;
	/** Of this process, where it is a daemon's own. */
	readonly script?: string | undefined;
}

export interface DaemonModules {
	readonly platform: Platform;
	readonly home: Home;
	readonly logger: Logger;
	readonly openVolume: (options: OpenOptions, modules: VolumeModules) => Promise<NativeVolume>;
	readonly serveFuse: (options: FuseServerOptions, modules: FuseServerModules) => FuseServer;
	/** What keeps mounts alive when this process dies. Undefined: nothing does. */
	readonly keepers?: Keepers;
	/** The program is in a state that must not be: end the process at once. Nothing acknowledged is lost by that. */
	readonly crash: (error: unknown) => void;
	/** Paths of disks in which a thread of this process is stuck. */
	readonly stuckDisks?: () => readonly string[];
}

export interface DaemonEnd {
	readonly clean: boolean;
	readonly exitCode: number;
	readonly message: string;
	/** Disks that did not answer to the end: the kernel keeps what is left of the process until they do. */
	readonly hangingDisks: readonly string[];
}

const unkept = "nothing takes this mount over when its daemon dies (--foreground, on_crash=remount or die)";

export class Daemon {
	readonly #options: DaemonOptions;
	readonly #modules: DaemonModules;
	readonly #fuse: FuseHost;
	readonly #control: ControlServer;
	readonly #ended = new Deferred<DaemonEnd>();
	#volume: NativeVolume | undefined;
	#server: FuseServer | undefined;
	#failure: Error | undefined;
	#shutdown: Promise<DaemonEnd> | undefined;
	/** umount(2) of ours, until it has returned. */
	#unmounting: Promise<void> | undefined;
	#stopping = false;
	#keeping: Keeping | undefined;
	#monitor: Monitor | undefined;
	#exporter: Exporter | undefined;
	#nativeReads: NativeReads | undefined;
	readonly #profiler: Profiler;

	private constructor(options: DaemonOptions, modules: DaemonModules, fuse: FuseHost) {
		this.#options = options;
		this.#modules = modules;
		this.#fuse = fuse;
		const { clock, sockets, requests } = modules.platform;
		this.#profiler = new Profiler({ clock, observe: (observer) => this.#server?.observe(observer) });
		this.#control = new ControlServer(
			{ socketPath: modules.home.socketPath(options.name) },
			{
				sockets,
				clock,
				requests,
				logger: modules.logger,
				handler: (verb, given, progress) => answerVerb(verb, given, progress, this.#state()),
			},
		);
	}

	/** Resolves when the volume is mounted and serves. @throws FsError; see checkMountpoint and openVolume. */
	static async start(options: DaemonOptions, modules: DaemonModules): Promise<Daemon> {
		const { fuse } = modules.platform;
		const missing = fuse ? await fuse.unavailable() : "this platform cannot mount";
		if (!fuse || missing !== undefined) throw new FsError("ENODEV", "daemon.no-fuse", `cannot mount: ${missing}`);
		const daemon = new Daemon(options, modules, fuse);
		await daemon.#start();
		return daemon;
	}

	/** How it ended: unmounted by the command, by umount(8), by a signal. */
	get ended(): Promise<DaemonEnd> {
		return this.#ended.promise;
	}

	/** Of the mount, beside those of the volume. */
	get #ownWarnings(): string[] {
		const unkept = this.#keeping?.warning;
		return unkept === undefined ? [] : [unkept];
	}

	/** What `mount` tells its caller. */
	async warnings(): Promise<readonly string[]> {
		const status = await this.#volume?.status();
		const missing = (status?.disks ?? []).filter((disk) => disk.state === "missing" || disk.state === "failed");
		const lost = missing.map(
			(disk) => `disk ${disk.id} (${printable(disk.path)}) is ${disk.state} (${printable(disk.reason)}): mounted degraded`,
		);
		return [...this.#ownWarnings, ...lost, ...(status?.warnings ?? []).map(printable)];
	}

	// ── beginning ──────────────────────────────────────────────────────────────────────────────────────────────

	async #start(): Promise<void> {
		const { name, mountpoint, resume } = this.#options;
		const { logger } = this.#modules;
		const begunMs = this.#modules.platform.clock.monotonicMs();
		await this.#listen();
		try {
			if (resume === undefined) await this.#startAnew();
			else await this.#takeOver(resume);
		} catch (error) {
			await this.#endNativeReads(resume !== undefined);
			await this.#volume
				?.shutdown({ keepSession: resume !== undefined })
				.catch((failure: unknown) => logger.error("shutting down after a failed start", { error: String(failure) }));
			await this.#control.close();
			throw error;
		}
		this.#watchSocket();
		await this.#startMonitor();
		await this.#startExporter();
		const tookMs = Math.round(this.#modules.platform.clock.monotonicMs() - begunMs);
		logger.info(resume === undefined ? "mounted" : "took over the mount", { volume: name, mountpoint, pid: this.#options.pid, tookMs });
	}

	async #startAnew(): Promise<void> {
		const { name, mountpoint } = this.#options;
		await removeDeadMounts(name, this.#mountModules());
		await checkMountpoint(mountpoint, this.#mountModules());
		const session = 1 + this.#modules.platform.random.below(Number.MAX_SAFE_INTEGER - 1);
		this.#volume = await this.#openVolume({ id: session, resume: false });
		// A daemon that was dying while it mounted has its mount in the table by now: it had the disks until its end.
		await removeDeadMounts(name, this.#mountModules());
		await this.#remember();
		await this.#mount(this.#volume, session);
	}

	async #takeOver({ descriptor, session, negotiated }: ResumeState & { readonly descriptor: number }): Promise<void> {
		const volume = await this.#openVolume({ id: session, resume: true });
		this.#volume = volume;
		await this.#remember();
		const channel = await this.#fuse.resume(descriptor, mountSubtype);
		await this.#keep(channel, { version: resumeVersion, session, negotiated });
		await this.#serve(volume, channel, { negotiated: negotiated ?? undefined, left: volume.resumed });
	}

	async #startMonitor(): Promise<void> {
		const { metricsPort } = this.#options.mountOptions;
		if (metricsPort === undefined) return;
		const { platform, home, logger } = this.#modules;
		const status = () => (this.#shutdown ? undefined : this.#volume?.status());
		const options = { port: metricsPort, tokenPath: home.tokenPath(this.#options.name) };
		this.#monitor = new Monitor(options, { platform, logger, status, failure: () => this.#failure });
		await this.#monitor.start();
	}

	async #startExporter(): Promise<void> {
		const { name, mountOptions, privileged = false } = this.#options;
		const { platform, logger } = this.#modules;
		const volume = this.#volume;
		if (volume === undefined || this.#shutdown) return;
		const changed = (change: ForeignChange): Promise<boolean> => this.#server?.changedElsewhere(change) ?? Promise.resolve(true);
		const { readOnly, fastPaths } = mountOptions;
		this.#exporter = new Exporter({ name, privileged, readOnly, answerNow: fastPaths.answerNow }, { volume, platform, logger, changed });
		await this.#exporter
			.start()
			.catch((error: unknown) => logger.error("the exports cannot be served", { error: toFsError(error, "daemon.exports").message }));
	}

	async #stopExporter(): Promise<void> {
		const exporter = this.#exporter;
		this.#exporter = undefined;
		await exporter
			?.stop()
			.catch((error: unknown) =>
				this.#modules.logger.warn("ending the exports", { error: toFsError(error, "daemon.exports-stop").message }),
			);
	}

	async #stopMonitor(): Promise<void> {
		await this.#monitor
			?.stop()
			.catch((error: unknown) => this.#modules.logger.warn("closing the port of monitoring", { error: String(error) }));
	}

	async #listen(): Promise<void> {
		const { name } = this.#options;
		await this.#modules.platform.files.makeFolder(this.#modules.home.folder(name));
		try {
			await this.#control.listen();
		} catch (error) {
			if (toFsError(error, "daemon.listen").code !== "EBUSY") throw error;
			throw new FsError(
				"REFUSED",
				"daemon.already-runs",
				`a daemon already serves volume ${name}: see cairn status ${name}`,
				{ name },
				error,
			);
		}
	}

	/** As soon as a daemon that was killed a moment ago is wholly gone; without those of its disks that hang, and keep a thread of it. */
	async #openUnlocked(session: SessionOptions): Promise<NativeVolume> {
		const { platform, logger, openVolume } = this.#modules;
		const { name, diskPaths, acceptLoss } = this.#options;
		const endMs = platform.clock.monotonicMs() + lockPatienceMs;
		for (;;) {
			const skipLocked = platform.clock.monotonicMs() >= endMs;
			try {
				return await openVolume({ name, diskPaths, acceptLoss, session, skipLocked }, { platform, logger });
			} catch (error) {
				const isLocked = isFsError(error) && (error.code === "EBUSY" || error.site === "log.locked");
				if (!isLocked || skipLocked) throw error;
				await platform.clock.sleep(lockRetryMs);
			}
		}
	}

	async #openVolume(session: SessionOptions): Promise<NativeVolume> {
		const { logger } = this.#modules;
		const volume = await this.#openUnlocked(session);
		volume.disks.onMembers(() => void this.#remember());
		void volume.failed.then((error) => {
			this.#failure = error;
			logger.error("the volume has failed: nothing more is acknowledged", { error: printable(error.message) });
		});
		return volume;
	}

	/** The disks may be elsewhere than last time. */
	async #remember(): Promise<void> {
		const { home, logger } = this.#modules;
		try {
			const status = await this.#volume?.status();
			const diskPaths = new Set((status?.disks ?? []).map((disk) => printable(disk.path)));
			if (status) await home.write({ name: this.#options.name, id: status.id, diskPaths: [...diskPaths] });
			if (status) await this.#keeping?.know({ diskPaths: [...diskPaths] });
		} catch (error) {
			logger.warn("volume.json could not be written", { error: String(error) });
		}
	}

	async #mount(volume: NativeVolume, session: number): Promise<void> {
		const { name, mountpoint, mountOptions } = this.#options;
		const channel = await this.#fuse.mount(utf8ToLatin1(mountpoint), {
			source: mountSource(name),
			subtype: mountSubtype,
			allowOther: mountOptions.allowOther,
			readOnly: mountOptions.readOnly,
			maxReadBytes,
			flags: mountOptions.flags,
		});
		await this.#keep(channel, { version: resumeVersion, session, negotiated: null });
		await this.#serve(volume, channel, undefined);
	}

	async #keep({ descriptor }: FuseChannel, resume: ResumeState): Promise<void> {
		const { keepers, platform, logger } = this.#modules;
		const { mountOptions, diskPaths, renewKeeper } = this.#options;
		if (keepers === undefined || descriptor === undefined || mountOptions.onCrash === "die") return;
		const onStop = (reason: string): void => void this.stop(reason);
		const state = { diskPaths, resume: mountOptions.onCrash === "resume" ? resume : null };
		const modules = { keepers, clock: platform.clock, logger };
		this.#keeping = await Keeping.begin({ descriptor, renew: renewKeeper === true || this.#isFresh, onStop }, modules, state);
	}

	/** A keeper that had the mount made anew has given up the old one; it holds nothing of this one. */
	get #isFresh(): boolean {
		return this.#options.resume === undefined;
	}

	async #serve(volume: NativeVolume, channel: FuseChannel, resumed: FuseSession["resumed"]): Promise<void> {
		const { platform, logger, serveFuse, crash } = this.#modules;
		const { readOnly, localLocks, fuseMinor, fastPaths } = this.#options.mountOptions;
		const locks = localLocks ? "kernel" : "volume";
		const onNegotiated = (negotiated: Negotiated): Promise<void> => this.#negotiated(negotiated);
		const session = { onNegotiated, marks: volume.requestMarks, ...(resumed === undefined ? {} : { resumed }) };
		const nativeReads = await this.#beginNativeReads(volume, channel, resumed);
		this.#server = serveFuse(
			{
				readOnly,
				locks,
				onFatal: crash,
				session,
				nativeReads,
				answerNow: fastPaths.answerNow,
				...(fuseMinor !== undefined && { kernelMinor: fuseMinor }),
			},
			{ volume, channel, platform, logger },
		);
		void this.#server.ended.then(() => this.#finish());
	}

	/** Only where somebody goes on with the mount when this process dies: else programs would read from files of a mount that is dead, beside a new one. */
	async #beginNativeReads(
		volume: NativeVolume,
		{ backings }: FuseChannel,
		resumed: FuseSession["resumed"],
	): Promise<NativeReads | undefined> {
		const { name, mountOptions } = this.#options;
		const { home, platform, logger } = this.#modules;
		const { readOnly, nativeReads, nativeReadsMiB } = mountOptions;
		if (!nativeReads || !this.#keeping?.state.resume) {
			if (nativeReads) logger.warn("files are not read natively", { why: unkept });
			await forgetNativeReads(home.nativeFolder(name), { volume, platform }).catch((error: unknown) =>
				logger.warn("files that were read natively are not all removed", { error: toFsError(error, "daemon.native-left").message }),
			);
			return undefined;
		}
		const spaceBytes = nativeReadsMiB === undefined ? undefined : nativeReadsMiB * 2 ** 20;
		const options = { folder: home.nativeFolder(name), readOnly, spaceBytes, resumed: resumed?.left.handles };
		const openFolder = (path: string): Promise<Disk> => openDiskWithDeadlines(platform, path);
		this.#nativeReads = await NativeReads.begin(options, { volume, platform, openFolder, backings, logger });
		return this.#nativeReads;
	}

	get #nativeReadsStatus(): NativeReadsStatus | undefined {
		const { name, mountOptions } = this.#options;
		if (!mountOptions.nativeReads) return undefined;
		return this.#nativeReads?.status ?? noNativeReads(this.#modules.home.nativeFolder(name), unkept);
	}

	async #endNativeReads(forSuccessor: boolean): Promise<void> {
		const reads = this.#nativeReads;
		this.#nativeReads = undefined;
		await reads
			?.end(forSuccessor)
			.catch((error: unknown) =>
				this.#modules.logger.warn("ending native reads", { error: toFsError(error, "daemon.native-reads").message }),
			);
	}

	async #negotiated(negotiated: Negotiated): Promise<void> {
		const { resume } = this.#keeping?.state ?? {};
		if (!resume) return;
		if (!negotiated.resend) {
			this.#modules.logger.info(
				"this kernel cannot hand a mount over to another process: after a crash of this daemon the volume is mounted anew",
			);
		}
		await this.#keeping?.know({ resume: negotiated.resend ? { ...resume, negotiated } : null });
	}

	#watchSocket(): void {
		const { platform, home, logger } = this.#modules;
		const path = home.socketPath(this.#options.name);
		platform.clock.after(socketWatchMs, () => {
			if (this.#shutdown) return;
			const look = async (): Promise<void> => {
				if ((await platform.files.kind(path)) !== undefined) return;
				logger.warn("the control socket was removed: made anew", { path });
				await this.#control.listenAgain();
			};
			void look()
				.catch((error: unknown) => logger.warn("watching the control socket", { error: String(error) }))
				.then(() => this.#watchSocket());
		});
	}

	#mountModules(): MountModules {
		const { files, clock } = this.#modules.platform;
		return { fuse: this.#fuse, files, clock, logger: this.#modules.logger };
	}

	#state(): DaemonState {
		return {
			name: this.#options.name,
			pid: this.#options.pid,
			mountpoint: this.#server && !this.#shutdown ? this.#options.mountpoint : undefined,
			mountOptions: mountOptionWords(this.#options.mountOptions),
			volume: this.#shutdown ? undefined : this.#volume,
			exporter: this.#shutdown ? undefined : this.#exporter,
			nativeReads: this.#shutdown ? undefined : this.#nativeReadsStatus,
			ending: this.#shutdown !== undefined,
			warnings: this.#ownWarnings,
			failure: this.#failure,
			logger: this.#modules.logger,
			script: this.#options.script,
			umount: () => this.#umount(),
			handOver: (program) => this.#handOver(program),
			profiler: this.#shutdown || !this.#server ? undefined : this.#profiler,
		};
	}

	// ── end ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** @throws FsError REFUSED while programs use it. */
	async #umount(): Promise<DaemonEnd> {
		const { mountpoint } = this.#options;
		if (!this.#shutdown && !(await this.#unmount())) {
			throw new FsError(
				"REFUSED",
				"daemon.busy",
				`${mountpoint} is in use: end the programs that have files or working directories there`,
				{ mountpoint },
			);
		}
		await this.#connectionEnd();
		const end = await this.#finish();
		if (!end.clean) throw new FsError("EIO", "daemon.unclean", `unmounted, but not cleanly: ${end.message}`);
		return end;
	}

	/** False: it is in use. The connection ends at once, the call when the kernel has forgotten every file: a million take seconds. */
	async #unmount(): Promise<boolean> {
		const unmounting = tryUnmount(this.#options.mountpoint, false, this.#fuse);
		this.#unmounting = unmounting.then(
			() => {},
			() => {},
		);
		return unmounting;
	}

	/** @throws FsError REFUSED when another mount namespace keeps the mount: it may be in use there. The daemon ends when that lets go. */
	async #connectionEnd(): Promise<void> {
		const server = this.#server;
		if (server === undefined) return;
		let ended = false;
		const watched = server.ended.then(() => {
			ended = true;
		});
		await Promise.race([watched, this.#modules.platform.clock.sleep(connectionEndMs)]);
		// With a million files in the kernel's memory the end alone takes longer.
		if (server.destroyed) await watched;
		if (ended) return;
		await this.#volume?.syncAll();
		const { mountpoint, pid } = this.#options;
		throw new FsError(
			"REFUSED",
			"daemon.held-elsewhere",
			`${mountpoint} is unmounted here and everything is on the disks, but another mount namespace (a container?) still has the volume: ` +
				`its daemon ends by itself when that lets go, or at once with kill ${pid}`,
			{ mountpoint, pid },
		);
	}

	/** For signals: unmounts, if need be over the heads of programs that use the mount, and ends cleanly. */
	async stop(reason: string): Promise<DaemonEnd> {
		if (this.#stopping) return this.ended;
		this.#stopping = true;
		const { logger, platform } = this.#modules;
		const { mountpoint } = this.#options;
		logger.info("stopping", { reason });
		if (!this.#shutdown && !(await this.#unmount())) {
			logger.warn("programs still use the mount: it is taken out of the tree", { mountpoint, waitMs: detachedUsersMs });
			await tryUnmount(mountpoint, true, this.#fuse);
			await Promise.race([this.#server?.ended, platform.clock.sleep(detachedUsersMs)]);
		}
		await this.#server?.stop();
		return this.#finish();
	}

	/** Another program takes the mount over; this process ends. Programs that use it wait meanwhile. */
	async #handOver(program: Program): Promise<{ readonly pid: number }> {
		const keeping = this.#keeping;
		if (this.#shutdown || !this.#server)
			throw new FsError("EAGAIN", "daemon.hand-over-ending", "the daemon is starting or ending: try again in a moment");
		if (keeping === undefined || keeping.state.resume === null) {
			const why = "it is served in the foreground, was mounted with on_crash=remount or die, or the kernel is older than Linux 6.9";
			throw new FsError("REFUSED", "daemon.hand-over", `nothing can take this mount over (${why}): unmount it and mount it again`);
		}
		if (!keeping.kept)
			throw new FsError("EAGAIN", "daemon.hand-over-unkept", "there is no keeper at the moment: try again in a few seconds");
		// What clients change from now on, this kernel would not be told of any more.
		await this.#stopExporter();
		try {
			await this.#server.detach();
		} catch (error) {
			await this.#startExporter();
			throw error;
		}
		this.#shutdown = this.#endForSuccessor(keeping, program);
		await this.#shutdown;
		return { pid: this.#options.pid };
	}

	/** The successor finds a volume that was shut down, or what a crash would have left. */
	async #endForSuccessor(keeping: Keeping, program: Program): Promise<DaemonEnd> {
		const { logger } = this.#modules;
		await this.#stopMonitor();
		await this.#endNativeReads(true);
		try {
			await this.#volume?.shutdown({ keepSession: true });
		} catch (error) {
			logger.error("the volume did not shut down cleanly: the successor recovers it", {
				error: printable(toFsError(error, "daemon.hand-over").message),
			});
		}
		if (!(await keeping.handOver(program))) logger.error("the keeper has ended in this moment: the mount ends with this daemon");
		logger.info("handing over", { program: program.at(-1) });
		const end: DaemonEnd = { clean: true, exitCode: exitCodes.done, message: "", hangingDisks: this.#hangingDisks };
		void this.#closeControl(end);
		return end;
	}

	#finish(): Promise<DaemonEnd> {
		this.#shutdown ??= this.#shutDown();
		return this.#shutdown;
	}

	get #hangingDisks(): readonly string[] {
		return [...new Set(this.#modules.stuckDisks?.() ?? [])];
	}

	async #shutDown(): Promise<DaemonEnd> {
		const { logger } = this.#modules;
		let end: Omit<DaemonEnd, "hangingDisks"> = { clean: true, exitCode: exitCodes.done, message: "" };
		await this.#stopMonitor();
		await this.#stopExporter();
		await this.#endNativeReads(false);
		try {
			await this.#volume?.shutdown();
			logger.info("unmounted cleanly");
		} catch (error) {
			end = { clean: false, exitCode: exitCodes.failed, message: printable(toFsError(error, "daemon.shutdown").message) };
			logger.error("the volume did not shut down cleanly", { error: end.message });
		}
		await this.#keeping?.end();
		const whole = { ...end, hangingDisks: this.#hangingDisks };
		void this.#closeControl(whole);
		return whole;
	}

	/** Not awaited by `#shutDown`: the answer to `umount` is among those that have to be delivered first. */
	async #closeControl(end: DaemonEnd): Promise<void> {
		await this.#unmounting;
		await this.#control
			.close()
			.catch((error: unknown) => this.#modules.logger.warn("closing the control socket", { error: String(error) }));
		this.#ended.resolve(end);
	}
}
