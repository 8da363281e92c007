/**
 * PostgreSQL on a mount: pgbench while its server is killed, while our daemon is killed behind the living mount, and while both die and the volume is mounted anew. Each time every transaction
 * that pgbench was told of is there, none that it was not told of beyond those in flight, the four sums of money agree, and page checksums and indexes are whole.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, chownSync, closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, must, type Outcome, sleep, TestVolume } from "../support/cairn.ts";
import { folderWith, install } from "../support/packages.ts";

const clients = 8;
const seconds = Number(process.env["CAIRN_SECONDS"] ?? 12);

/** Debian keeps the server's programs out of PATH, one folder for each major version. */
function findServer(): string | undefined {
	try {
		const versions = readdirSync("/usr/lib/postgresql").sort((a, b) => Number(b) - Number(a));
		return folderWith(
			versions.map((version) => `/usr/lib/postgresql/${version}/bin`),
			"postgres",
			"initdb",
			"pgbench",
			"pg_checksums",
			"pg_amcheck",
		);
	} catch {
		return undefined;
	}
}

async function reasonToSkip(): Promise<string | undefined> {
	const reason = cannotMount();
	if (reason !== undefined) return reason;
	if (findServer() === undefined) await install(["postgresql", "postgresql-contrib"]);
	if (findServer() === undefined) return "PostgreSQL is not installed";
	return (await execute("id", ["postgres"])).code === 0 ? undefined : "there is no user postgres (the server refuses to run as root)";
}

const reason = await reasonToSkip();
const programs = findServer() ?? "";

interface Benched {
	/** Transactions that pgbench was told of as committed. */
	readonly acknowledged: number;
	readonly outcome: Outcome;
}

/** A server whose data lie on the mount, and whose socket and logs do not. */
class Server {
	readonly data: string;
	readonly socket: string;
	readonly #volume: TestVolume;
	readonly #uid: number;
	readonly #gid: number;
	#running: { readonly child: ChildProcess; readonly ended: Promise<void> } | undefined;

	private constructor(volume: TestVolume, uid: number, gid: number) {
		this.#uid = uid;
		this.#gid = gid;
		this.#volume = volume;
		this.data = join(volume.mountpoint, "postgres");
		this.socket = join(volume.base, "socket");
	}

	static async create(volume: TestVolume): Promise<Server> {
		const [uid, gid] = (await must("bash", ["-c", "id -u postgres; id -g postgres"])).split("\n").map(Number) as [number, number];
		const server = new Server(volume, uid, gid);
		chmodSync(volume.base, 0o755);
		for (const folder of [server.data, server.socket]) {
			mkdirSync(folder, { mode: 0o700 });
			chownSync(folder, uid, gid);
		}
		await server.must("initdb", "-D", server.data, "--data-checksums", "-A", "trust", "-E", "UTF8", "--no-instructions");
		await server.start();
		await server.must("createdb", "bench");
		await server.must("pgbench", "-i", "-q", "-s", "4", "bench");
		await server.sql("CREATE EXTENSION amcheck");
		return server;
	}

	#words(program: string, words: readonly string[]): readonly string[] {
		return ["-u", "postgres", "--", "env", `PGHOST=${this.socket}`, join(programs, program), ...words];
	}

	try(program: string, ...words: readonly string[]): Promise<Outcome> {
		return execute("runuser", this.#words(program, words), { cwd: this.socket, timeoutMs: 300_000 });
	}

	async must(program: string, ...words: readonly string[]): Promise<string> {
		const { code, signal, stdout, stderr } = await this.try(program, ...words);
		assert.equal(
			code,
			0,
			`${program} ${words.join(" ")} ended with ${code ?? signal}:\n${stdout}${stderr}\n${this.log()}\n${this.#volume.log()}`,
		);
		return stdout;
	}

	async sql(statement: string): Promise<string> {
		return (await this.must("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, "bench")).trim();
	}

	/**
	 * Frequent checkpoints, so that a kill also finds the server amidst one. The server is our child, so that somebody waits for it when it was killed: one that is dead and not waited for
	 * is a running one to its successor.
	 */
	async start(): Promise<void> {
		const settings = [
			"listen_addresses=",
			`unix_socket_directories=${this.socket}`,
			"fsync=on",
			"max_wal_size=64MB",
			"checkpoint_timeout=30s",
		];
		const log = openSync(join(this.socket, "log"), "a");
		const words = ["-D", this.data, ...settings.flatMap((setting) => ["-c", setting])];
		const child = spawn(join(programs, "postgres"), words, { uid: this.#uid, gid: this.#gid, stdio: ["ignore", log, log] });
		closeSync(log);
		const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
		this.#running = { child, ended };
		const endMs = performance.now() + 240_000;
		while ((await this.try("psql", "-XAtqc", "SELECT 1", "postgres")).code !== 0) {
			assert.equal(child.exitCode ?? child.signalCode, null, `the server ended\n${this.log()}\n${this.#volume.log()}`);
			assert.ok(performance.now() < endMs, `the server is not ready\n${this.log()}\n${this.#volume.log()}`);
			await sleep(200);
		}
	}

	/** A fast shutdown. */
	async stop(): Promise<void> {
		const running = this.#running;
		assert.ok(running !== undefined, "the server runs");
		running.child.kill("SIGINT");
		await running.ended;
		assert.equal(running.child.exitCode, 0, this.log());
		this.#running = undefined;
	}

	/** kill -9 of the postmaster and of every process of this server. */
	async kill(): Promise<void> {
		const running = this.#running;
		if (running === undefined) return;
		const children = readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && parentOf(name) === running.child.pid);
		running.child.kill("SIGKILL");
		for (const pid of children) signalKill(Number(pid));
		await running.ended;
		for (const pid of children) while (parentOf(pid) !== undefined) await sleep(20);
		this.#running = undefined;
	}

	log(): string {
		try {
			return readFileSync(join(this.socket, "log"), "utf8").slice(-3000);
		} catch {
			return "no server log";
		}
	}

	async bench(number: number): Promise<Benched> {
		const prefix = `told-${number}`;
		const outcome = await this.try(
			"pgbench",
			"-n",
			"-c",
			String(clients),
			"-j",
			"2",
			"-T",
			String(seconds),
			"-l",
			`--log-prefix=${prefix}`,
			"bench",
		);
		const logs = readdirSync(this.socket).filter((name) => name.startsWith(`${prefix}.`));
		let acknowledged = 0;
		for (const name of logs) {
			acknowledged += readFileSync(join(this.socket, name), "utf8").split("\n").length - 1;
			rmSync(join(this.socket, name));
		}
		return { acknowledged, outcome };
	}

	/** Committed transactions; money and indexes must be right. */
	async count(): Promise<number> {
		const sums = await this.sql(
			"SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
		);
		assert.equal(new Set(sums.split("|")).size, 1, `accounts, branches, tellers and history agree: ${sums}`);
		assert.equal(await this.sql("SELECT count(*) FROM pgbench_accounts"), "400000");
		await this.must("pg_amcheck", "--heapallindexed", "-d", "bench");
		return Number(await this.sql("SELECT count(*) FROM pgbench_history"));
	}
}

function parentOf(pid: string): number | undefined {
	try {
		const text = readFileSync(`/proc/${pid}/stat`, "utf8");
		const [state, parent] = text.slice(text.lastIndexOf(")") + 2).split(" ");
		return state === "Z" ? undefined : Number(parent);
	} catch {
		return undefined;
	}
}

function signalKill(pid: number): void {
	try {
		process.kill(pid, "SIGKILL");
	} catch {
		// It ended by itself in between.
	}
}

let volume: TestVolume | undefined;
let server: Server | undefined;
after(async () => {
	await server?.kill().catch(() => {});
	await volume?.close();
});

test("pgbench while the server, our daemon, and both are killed", { skip: reason ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	server = await Server.create(volume);
	let committed = 0;
	/** What is there now against what was told; `inFlight` transactions may have been committed without word of it. */
	const settle = async (what: string, acknowledged: number, inFlight: number): Promise<void> => {
		const there = (await (server as Server).count()) - committed;
		t.diagnostic(`${what}: ${acknowledged} transactions told of, ${there} there`);
		assert.ok(acknowledged > 0, `${what}: pgbench did something`);
		assert.ok(there >= acknowledged, `${what}: ${acknowledged - there} transactions that were told of are lost`);
		assert.ok(there <= acknowledged + inFlight, `${what}: ${there - acknowledged} transactions more than were told of`);
		committed += there;
	};

	const quiet = await server.bench(0);
	assert.equal(quiet.outcome.code, 0, quiet.outcome.stderr);
	await settle("nothing killed", quiet.acknowledged, 0);

	for (const round of [1, 2]) {
		const running: Promise<Benched> = server.bench(round);
		await sleep((seconds * 1000 * round) / 3);
		await server.kill();
		const { acknowledged, outcome } = await running;
		assert.notEqual(outcome.code, 0, "pgbench saw its server die");
		await server.start();
		await settle(`server killed, round ${round}`, acknowledged, clients);
	}

	for (const round of [3, 4]) {
		const running: Promise<Benched> = server.bench(round);
		await sleep((seconds * 1000) / 3);
		const successor: number = await volume.successorOf(volume.killDaemon());
		const { acknowledged, outcome } = await running;
		assert.equal(outcome.code, 0, `nobody noticed that daemon ${successor} took over\n${outcome.stderr}\n${server.log()}\n${volume.log()}`);
		await settle(`daemon killed, round ${round - 2}`, acknowledged, 0);
	}

	const running: Promise<Benched> = server.bench(5);
	await sleep((seconds * 1000) / 2);
	await volume.kill();
	await server.kill();
	const { acknowledged } = await running;
	await execute("umount", ["-l", volume.mountpoint]);
	await volume.mount();
	await server.start();
	await settle("both dead, mounted anew", acknowledged, clients);

	await server.sql("VACUUM FULL");
	await server.sql("REINDEX DATABASE bench");
	assert.equal(await server.count(), committed);
	await server.stop();
	await server.must("pg_checksums", "--check", "-D", server.data);
	await volume.remount();
	await server.must("pg_checksums", "--check", "-D", server.data);
	await server.start();
	assert.equal(await server.count(), committed);
	await server.stop();
	server = undefined;
	const { corrupt, missing, unrecoverable } = await volume.verify();
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
});
