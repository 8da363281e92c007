import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { silentLogger } from "../base/telemetry.ts";
import { SimWorld } from "../platform/sim/world.ts";
import { RealSockets } from "../platform/real/sockets.ts";
import { RealClock } from "../platform/real/clock.ts";
import type { VolumeStatus } from "../volume/native/interface.ts";
import { metricNames, renderMetrics } from "./metrics.ts";
import { Monitor } from "./monitor.ts";

const errorKinds = { read: 1, write: 0, sync: 0, corrupt: 2, timeout: 0 };
const pass = { byHand: false, dryRun: false, segments: 1, fragments: 6, bytes: 7, corrupt: 3, missing: 0, repaired: 3, unrecoverable: 0 };
const levels = { provenBytes: 2, recordedBytes: 1, degradedBytes: 1, lostBytes: 0, oldestProofAt: "2026-11-21T00:00:00.000Z" };
const shortages = [{ cause: "no-disk", segments: 1, bytes: 1, disks: ["d1"] }];
const status = {
	volume: 'de"mo',
	redundancy: "rs:4+2",
	state: "degraded",
	capacityBytes: 10,
	usedBytes: 4,
	freeBytes: 6,
	dirtyBytes: 1,
	protection: { fullBytes: 3, ...levels, targets: [{ redundancy: "rs:4+2", bytes: 4, ...levels }], shortages, leavingBytes: 0 },
	metadataCopies: { wanted: 3, present: 2 },
	metadataProvenAt: "2026-11-20T00:00:00.000Z",
	disks: [{ id: "d1", state: "suspect", capacityBytes: 5, usedBytes: 2, errorKinds }],
	healing: { active: true, remainingBytes: 8, etaSeconds: 70, doneBytes: 5, paused: false, tranquility: 0 },
	garbage: { lookedAt: null, bytes: 1, unaccountedBytes: 0, foreign: 0, removedBytes: 2, clearedBytes: 3 },
	balancing: { active: true, startedAt: null, movedBytes: 1, remainingBytes: 9, etaSeconds: null, waitingFor: "" },
	scrub: { active: false, lastPass: { ...pass, startedAt: "2026-11-20T00:00:00.000Z", endedAt: "2026-11-20T01:00:00.000Z" } },
	compaction: { active: false, movedBytes: 11, freedBytes: 12 },
	locks: {
		durable: {
			connected: 2,
			waiting: 1,
			persistent: 1,
			granted: 9,
			reconnected: 3,
			refused: 2,
			timedOut: 4,
			conflicts: 5,
			broken: 1,
			overLimit: 6,
		},
		shares: 3,
		leases: 2,
		held: 3,
		waiting: 1,
		files: 2,
		acquired: { "fcntl-shared": 4 },
		released: { "flock-exclusive": 5 },
		reclaims: { granted: 3, refused: 1 },
		refused: { blocked: 6, deadlocks: 7 },
		waits: { buckets: [{ seconds: 0.001, count: 8 }], sumSeconds: 0.5, count: 9 },
		holds: { buckets: [], sumSeconds: 0, count: 0 },
	},
	warnings: ["a", "b"],
} as unknown as VolumeStatus;
/** 2026-11-21T00:00:00Z */
const midnight = 1_795_219_200;

describe("metrics", () => {
	test("every line is a comment or a sample of a metric that was announced, each sample once", () => {
		const text = renderMetrics(status, { nowSeconds: midnight + 60, statusSeconds: midnight + 57 });
		const samples = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
		const names = new Set<string>();
		for (const line of samples) {
			const [, sample, labels] = /^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\}) -?\d+(?:\.\d+)?$/.exec(line) ?? [];
			// Samples of a histogram have endings of their own.
			const base = sample?.replace(/_(bucket|sum|count)$/, "");
			const name = text.includes(`# TYPE ${base} histogram`) ? base : sample;
			assert.ok(name !== undefined && text.includes(`# TYPE ${name} `), line);
			assert.match(labels ?? "", /volume="de\\"mo"/);
			names.add(name);
		}
		assert.equal(new Set(samples.map((line) => line.split("} ")[0])).size, samples.length);
		assert.deepEqual([...names].sort(), [...metricNames].sort(), "all of them have a sample in this status");
		for (const line of [
			'cairn_protection_bytes{volume="de\\"mo",state="recorded"} 1',
			'cairn_ledger_bytes{volume="de\\"mo",redundancy="rs:4+2",state="wanted"} 4',
			'cairn_ledger_bytes{volume="de\\"mo",redundancy="rs:4+2",state="proven"} 2',
			'cairn_shortage_bytes{volume="de\\"mo",cause="no-disk"} 1',
			'cairn_shortage_bytes{volume="de\\"mo",cause="waiting"} 0',
			'cairn_healing_eta_seconds{volume="de\\"mo"} 70',
			'cairn_oldest_proof_age_seconds{volume="de\\"mo"} 60',
			'cairn_status_age_seconds{volume="de\\"mo"} 3',
			'cairn_disk_state{volume="de\\"mo",disk="d1",state="suspect"} 1',
			'cairn_disk_errors_total{volume="de\\"mo",disk="d1",kind="corrupt"} 2',
			'cairn_locks_refused_total{volume="de\\"mo",outcome="deadlocks"} 7',
			'cairn_lock_reclaims_total{volume="de\\"mo",outcome="refused"} 1',
			'cairn_durable_opens{volume="de\\"mo",state="waiting"} 1',
			'cairn_durable_opens_ended_total{volume="de\\"mo",why="conflict"} 5',
			'cairn_lock_wait_seconds_bucket{volume="de\\"mo",le="0.001"} 8',
			'cairn_lock_wait_seconds_bucket{volume="de\\"mo",le="+Inf"} 9',
			'cairn_scrub_last_end_age_seconds{volume="de\\"mo"} 82860',
		])
			assert.ok(samples.includes(line), line);
	});

	test("what is not known is absent", () => {
		const healing = { ...status.healing, etaSeconds: null };
		const fresh = {
			...status,
			healing,
			protection: { ...status.protection, oldestProofAt: null },
			scrub: { ...status.scrub, lastPass: null },
		};
		const text = renderMetrics(fresh, { nowSeconds: midnight, statusSeconds: midnight });
		assert.doesNotMatch(text, /^cairn_(oldest_proof_age_seconds|scrub_last|healing_eta)/m);
	});

	test("dashboard and alerts ask for metrics that exist, with labels that they have", () => {
		const rendered = renderMetrics(status, { nowSeconds: midnight, statusSeconds: midnight });
		let root = dirname(fileURLToPath(import.meta.url));
		while (!existsSync(join(root, "package.json"))) root = dirname(root);
		for (const name of ["dashboard.json", "alerts.yml"]) {
			const text = readFileSync(join(root, "docs/monitoring", name), "utf8");
			const asked = new Set(text.match(/\bcairn_[a-z_]+/g));
			assert.ok(asked.size > 5, name);
			for (const metric of asked) assert.ok(metricNames.includes(metric), `${name}: ${metric}`);
			const selectors = text.replaceAll('\\\\"', '"').matchAll(/\b(cairn_[a-z_]+)\{([a-z]+)=~?"([a-z|-]+)"/g);
			for (const [, metric, label, values] of selectors) {
				for (const value of (values as string).split("|"))
					assert.match(
						rendered,
						new RegExp(`^${metric}\\{[^}]*\\b${label}="${value}"`, "m"),
						`${name}: ${metric} has no ${label} "${value}"`,
					);
			}
		}
		JSON.parse(readFileSync(join(root, "docs/monitoring/dashboard.json"), "utf8"));
	});
});

describe("monitoring over HTTP", () => {
	const world = new SimWorld({ seed: 1 });
	const { files, random } = world.node().boot();
	const running: Monitor[] = [];
	after(() => Promise.all(running.map((monitor) => monitor.stop())));

	/** A real port, files of a simulated machine. */
	async function listen(modules: { status?: () => Promise<VolumeStatus> | undefined; failure?: () => Error | undefined } = {}) {
		let port = 0;
		let asked = 0;
		const sockets = new RealSockets();
		const counted = (): Promise<VolumeStatus> => {
			asked++;
			return Promise.resolve(status);
		};
		const platform = {
			files: {
				...files,
				read: (path: string) => world.run(files.read(path)),
				write: (path: string, bytes: Uint8Array) => world.run(files.write(path, bytes)),
			},
			random,
			clock: new RealClock(),
			sockets: {
				listen: sockets.listen.bind(sockets),
				connect: sockets.connect.bind(sockets),
				listenPort: async (...given: Parameters<RealSockets["listenPort"]>) => {
					const listener = await sockets.listenPort(...given);
					port = listener.port;
					return listener;
				},
			},
		};
		const monitor = new Monitor(
			{ port: 0, tokenPath: "/home/metrics.token" },
			{
				platform: platform as unknown as ConstructorParameters<typeof Monitor>[1]["platform"],
				logger: silentLogger,
				status: modules.status ?? counted,
				failure: modules.failure ?? (() => undefined),
			},
		);
		running.push(monitor);
		await monitor.start();
		const token = new TextDecoder().decode((await world.run(files.read("/home/metrics.token"))) ?? new Uint8Array(0)).trim();
		const get = async (path: string, headers: Record<string, string> = {}, method = "GET") => {
			const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers, method });
			return { code: answer.status, body: await answer.text() };
		};
		return { get, token, port, asked: () => asked, monitor };
	}

	test("figures for the token, states for everybody on this machine, nothing else", async () => {
		const { get, token, asked } = await listen();
		assert.match(token, /^[0-9a-f]{48}$/);
		assert.deepEqual(await get("/health"), { code: 200, body: "alive\n" });
		assert.deepEqual(await get("/ready"), { code: 200, body: "ready\n" });
		assert.equal((await get("/metrics")).code, 401);
		assert.equal((await get("/metrics", { authorization: `Bearer ${token.replace(/.$/, "x")}` })).code, 401);
		const good = { authorization: `Bearer ${token}` };
		const found = await get("/metrics", good);
		assert.equal(found.code, 200);
		assert.match(found.body, /^cairn_capacity_bytes\{volume="de\\"mo"\} 10$/m);
		const before = asked();
		for (let i = 0; i < 5; i++) await get("/metrics", good);
		assert.equal(asked(), before, "not made anew each time");
		assert.equal((await get("/metrics", { ...good, origin: "http://evil.example" })).code, 403);
		assert.equal((await get("/", good)).code, 404);
		assert.equal((await get("/metrics", good, "POST")).code, 405);
		assert.deepEqual(await get("/health", {}, "HEAD"), { code: 200, body: "" });
		assert.equal((await get("/health", { "x-long": "a".repeat(10_000) })).code, 431);
	});

	test("a volume that has failed or ends says so", async () => {
		const failed = await listen({ failure: () => new Error("no disk") });
		assert.deepEqual([(await failed.get("/health")).code, (await failed.get("/ready")).code], [503, 503]);
		const ending = await listen({ status: () => undefined });
		assert.deepEqual([(await ending.get("/health")).code, (await ending.get("/ready")).code], [200, 503]);
		assert.equal((await ending.get("/metrics", { authorization: `Bearer ${ending.token}` })).code, 503);
		assert.equal(failed.token, ending.token, "kept between mounts");
	});

	test("a host name of somebody else's is refused", async () => {
		const { port } = await listen();
		const answer = await new Promise<string>((resolve, reject) => {
			import("node:net").then(({ connect }) => {
				const socket = connect(port, "127.0.0.1", () => socket.write("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
				let text = "";
				socket.on("data", (bytes) => {
					text += bytes.toString();
				});
				socket.on("close", () => resolve(text));
				socket.on("error", reject);
			}, reject);
		});
		assert.match(answer, /^HTTP\/1\.1 403 /);
	});
});
