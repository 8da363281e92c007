/**
 * HTTP for monitoring, on the loopback interface alone: `/metrics` (with the token), `/health`, `/ready`.
 *
 * Invariants
 *  N1 Nothing changes by any request; nothing but GET and HEAD is answered with contents.
 *  N2 A request that names another host than this machine is refused: a web page must not read these through somebody's browser. Figures want the token, which only root can read.
 *  N3 Connections, the length of a request, the time that a client takes, and the work for answers are bounded: figures are made anew at most in a fiftieth of the time.
 */
import { Deferred } from "../base/async.ts";
import { concatBytes, toHex } from "../base/bytes.ts";
import { toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Connection, Platform } from "../platform/interface.ts";
import type { VolumeStatus } from "../volume/native/interface.ts";
import { httpConnections, httpRequestBytes, httpRequestMs, metricsFreshMs, metricsShare, portRetryMs } from "./limits.ts";
import { renderMetrics } from "./metrics.ts";

export interface MonitorOptions {
	readonly port: number;
	/** Where the token is kept between mounts: a file that only its owner reads. */
	readonly tokenPath: string;
}

export interface MonitorModules {
	readonly platform: Platform;
	readonly logger: Logger;
	/** Undefined while the volume starts or ends. */
	readonly status: () => Promise<VolumeStatus> | undefined;
	/** Why the volume can no longer work. */
	readonly failure: () => Error | undefined;
}

interface Answer {
	readonly code: number;
	readonly body: string;
	readonly type?: string;
}

const reasons: Readonly<Record<number, string>> = {
	200: "OK",
	400: "Bad Request",
	401: "Unauthorized",
	403: "Forbidden",
	404: "Not Found",
	405: "Method Not Allowed",
	431: "Request Header Fields Too Large",
	500: "Internal Server Error",
	503: "Service Unavailable",
};

export class Monitor {
	readonly #options: MonitorOptions;
	readonly #modules: MonitorModules;
	#token = "";
	#connections = 0;
	#close: (() => Promise<void>) | undefined;
	#cancelRetry: () => void = () => {};
	#ended = false;
	#made: { readonly status: VolumeStatus; readonly seconds: number; readonly atMs: number; readonly tookMs: number } | undefined;
	#making: Promise<void> | undefined;

	constructor(options: MonitorOptions, modules: MonitorModules) {
		this.#options = options;
		this.#modules = modules;
	}

	/** Listens now or as soon as the port is free: monitoring that is late must not keep a volume from being mounted. */
	async start(): Promise<void> {
		const { platform, logger } = this.#modules;
		try {
			this.#token = await this.#readToken();
			const listener = await platform.sockets.listenPort(this.#options.port, (connection) => this.#accept(connection));
			if (this.#ended) return await listener.close();
			this.#close = () => listener.close();
			logger.info("monitoring listens", { port: listener.port, tokenPath: this.#options.tokenPath });
		} catch (error) {
			logger.warn("monitoring cannot listen yet; it is tried again", {
				port: this.#options.port,
				error: toFsError(error, "daemon.monitor").message,
			});
			if (!this.#ended) this.#cancelRetry = platform.clock.after(portRetryMs, () => void this.start());
		}
	}

	async #readToken(): Promise<string> {
		const { files, random } = this.#modules.platform;
		const kept = new TextDecoder().decode((await files.read(this.#options.tokenPath)) ?? new Uint8Array(0)).trim();
		if (/^[0-9a-f]{32,}$/.test(kept)) return kept;
		const token = toHex(random.bytes(24));
		await files.write(this.#options.tokenPath, new TextEncoder().encode(`${token}\n`));
		return token;
	}

	async stop(): Promise<void> {
		this.#ended = true;
		this.#cancelRetry();
		await this.#close?.();
	}

	// ── one connection, one request ──────────────────────────────────────────────────────────────────────────────

	#accept(connection: Connection): void {
		if (this.#connections >= httpConnections || this.#ended) {
			connection.close();
			return;
		}
		this.#connections++;
		connection.onClose(() => this.#connections--);
		const head = new Deferred<string | undefined>();
		let parts: Uint8Array[] = [];
		let length = 0;
		connection.onData((bytes) => {
			if (head.settled) return;
			parts.push(bytes.slice());
			length += bytes.length;
			const text = new TextDecoder("latin1").decode(concatBytes(parts));
			const end = text.indexOf("\r\n\r\n");
			if (length > httpRequestBytes) head.resolve(undefined);
			else if (end >= 0) head.resolve(text.slice(0, end));
			if (head.settled) parts = [];
		});
		const cancel = this.#modules.platform.clock.after(httpRequestMs, () => connection.close());
		void head.promise
			.then(async (text) => {
				const answer = text === undefined ? plain(431, "too long a request") : await this.#answer(text);
				await connection.write(encode(answer, text?.startsWith("HEAD ") === true));
			})
			.catch(() => {})
			.finally(() => {
				cancel();
				connection.close();
			});
	}

	async #answer(head: string): Promise<Answer> {
		const [first = "", ...lines] = head.split("\r\n");
		const [, method, target] = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(first) ?? [];
		if (method === undefined || target === undefined) return plain(400, "this is no request of HTTP/1.1");
		if (method !== "GET" && method !== "HEAD") return plain(405, "only GET");
		const headers = new Map(
			lines.map((line) => [line.slice(0, line.indexOf(":")).trim().toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
		);
		if (!isOurs(headers.get("host")) || headers.has("origin")) return plain(403, "ask for localhost, and not from a web page");
		try {
			if (target === "/health") return this.#health();
			if (target === "/ready") return this.#ready();
			if (target === "/metrics") return await this.#metrics(headers.get("authorization"));
			return plain(404, "there are /metrics, /health and /ready");
		} catch (error) {
			this.#modules.logger.warn("monitoring could not answer", { target, error: toFsError(error, "daemon.monitor").message });
			return plain(500, "see the daemon's log");
		}
	}

	/** The process answers and the volume can still work. How safe the data is, only the metrics say. */
	#health(): Answer {
		return this.#modules.failure() === undefined ? plain(200, "alive") : plain(503, "failed: see cairn status");
	}

	/** It serves. */
	#ready(): Answer {
		const isReady = this.#modules.failure() === undefined && this.#modules.status() !== undefined;
		return isReady ? plain(200, "ready") : plain(503, "not ready");
	}

	async #metrics(authorization: string | undefined): Promise<Answer> {
		if (!sameText(authorization ?? "", `Bearer ${this.#token}`))
			return plain(401, `the token is in ${this.#options.tokenPath}: Authorization: Bearer TOKEN`);
		await this.#refresh();
		const { clock } = this.#modules.platform;
		if (this.#made === undefined) return plain(503, "not ready");
		const about = { nowSeconds: clock.realtime().seconds, statusSeconds: this.#made.seconds };
		return { code: 200, body: renderMetrics(this.#made.status, about), type: "text/plain; version=0.0.4; charset=utf-8" };
	}

	/** N3. Who comes meanwhile shares the work. */
	#refresh(): Promise<void> {
		this.#making ??= this.#make().finally(() => {
			this.#making = undefined;
		});
		return this.#making;
	}

	async #make(): Promise<void> {
		const { clock } = this.#modules.platform;
		const startMs = clock.monotonicMs();
		const old = this.#made;
		if (old !== undefined && startMs - old.atMs < Math.max(metricsFreshMs, old.tookMs / metricsShare)) return;
		const status = await this.#modules.status();
		const atMs = clock.monotonicMs();
		this.#made = status === undefined ? undefined : { status, seconds: clock.realtime().seconds, atMs, tookMs: atMs - startMs };
	}
}

const plain = (code: number, text: string): Answer => ({ code, body: `${text}\n` });

function encode({ code, body, type }: Answer, isHead: boolean): Uint8Array {
	const bytes = new TextEncoder().encode(body);
	const head = [
		`HTTP/1.1 ${code} ${reasons[code] ?? ""}`,
		`Content-Type: ${type ?? "text/plain; charset=utf-8"}`,
		`Content-Length: ${bytes.length}`,
		"Cache-Control: no-store",
		"Connection: close",
		...(code === 401 ? ["WWW-Authenticate: Bearer"] : []),
		"",
		"",
	].join("\r\n");
	return concatBytes(isHead ? [new TextEncoder().encode(head)] : [new TextEncoder().encode(head), bytes]);
}

/** N2. */
function isOurs(host: string | undefined): boolean {
	return host !== undefined && /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i.test(host);
}

/** In a time that does not tell where they differ. */
function sameText(a: string, b: string): boolean {
	let difference = a.length ^ b.length;
	for (let i = 0; i < b.length; i++) difference |= (a.charCodeAt(i) || 0) ^ b.charCodeAt(i);
	return difference === 0;
}
