/** Runs in namespaces of its own (network, mounts), where nothing listens yet: daemons of two volumes beside a true rpcbind. Ends with 0 when all is as it should be. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { execute, must, sleep, TestVolume } from "../support/cairn.ts";

interface NfsStatus {
	readonly doors: { readonly nfs: { readonly port: number; readonly takenByOthers: readonly string[] } };
}

const programs = ["nfs", "mount", "nlm", "nsm"];
const wanted = new Map([
	["100003", ["tcp", "tcp6"]],
	["100005", ["tcp", "tcp6", "udp", "udp6"]],
	["100021", ["tcp", "tcp6", "udp", "udp6"]],
	["100024", ["tcp", "tcp6", "udp", "udp6"]],
]);

async function startMapper(): Promise<ChildProcess> {
	const mapper = spawn("rpcbind", ["-f"], { stdio: "ignore" });
	while (!existsSync("/run/rpcbind.sock")) await sleep(20);
	return mapper;
}

async function killMapper(mapper: ChildProcess): Promise<void> {
	const ended = new Promise((resolve) => mapper.once("exit", resolve));
	mapper.kill("SIGKILL");
	await ended;
	await must("rm", ["-f", "/run/rpcbind.sock"]);
}

/** Of our programs: number → transports, and the only port. */
async function registered(): Promise<{ readonly transports: ReadonlyMap<string, readonly string[]>; readonly ports: readonly number[] }> {
	const lines = (await must("rpcinfo", ["127.0.0.1"])).trim().split("\n").slice(1);
	const transports = new Map<string, Set<string>>();
	const ports = new Set<number>();
	for (const line of lines) {
		const [program = "", , netid = "", address = ""] = line.trim().split(/\s+/);
		if (!wanted.has(program)) continue;
		transports.set(program, (transports.get(program) ?? new Set()).add(netid));
		const [high = 0, low = 0] = address.split(".").slice(-2).map(Number);
		ports.add(high * 256 + low);
	}
	return { transports: new Map([...transports].map(([program, netids]) => [program, [...netids].sort()])), ports: [...ports] };
}

async function status(volume: TestVolume): Promise<NfsStatus["doors"]["nfs"]> {
	return (JSON.parse(await volume.cairn("status", volume.name, "--json")) as NfsStatus).doors.nfs;
}

/** How `export list` says that clients of a volume may lock. */
async function locksOf(volume: TestVolume): Promise<string> {
	const [listed] = JSON.parse(await volume.cairn("export", "list", volume.name, "--json")) as { readonly locksUnfound: string }[];
	assert.ok(listed);
	const table = await volume.cairn("export", "list", volume.name);
	assert.match(table, listed.locksUnfound === "" ? /\bshared\b/ : /\bnolock\b/);
	return listed.locksUnfound;
}

async function eventually(what: string, is: () => Promise<boolean>): Promise<void> {
	for (const endMs = performance.now() + 120_000; !(await is().catch(() => false)); await sleep(200))
		assert.ok(performance.now() < endMs, what);
}

async function servedBy(volume: TestVolume): Promise<void> {
	const { port } = await status(volume);
	const { transports, ports } = await registered();
	assert.deepEqual(ports, [port]);
	assert.deepEqual(new Map([...transports].sort()), wanted);
	for (const [transport, address] of [
		["tcp", "10.99.0.1"],
		["udp", "10.99.0.1"],
		["tcp6", "fd00:99::1"],
		["udp6", "fd00:99::1"],
	] as const)
		assert.match(await must("rpcinfo", ["-T", transport, address, "100021", "4"]), /ready and waiting/);
	for (const address of ["10.99.0.1", "fd00:99::1"])
		assert.match(await must("showmount", ["-e", address]), new RegExp(`^/${volume.name} `, "m"));
}

async function serve(volume: TestVolume): Promise<string> {
	await volume.cairn("export", "add", volume.name, "--clients", "10.99.0.0/24", "fd00:99::/64");
	const { code, stdout, stderr } = await volume.try("export", "serve", volume.name, "--portmapper", "system");
	assert.equal(code, 0, stdout + stderr);
	return stdout + stderr;
}

// Copies of other suites' mounts would keep their daemons from ending.
await execute("umount", ["-l", "-a", "-t", "fuse.cairn,fuseblk.cairn"]);
await must("mount", ["-t", "tmpfs", "tmpfs", "/run"]);
for (const words of ["link set lo up", "addr add 10.99.0.1/24 dev lo", "addr add fd00:99::1/64 dev lo nodad"])
	await must("ip", words.split(" "));
let mapper = await startMapper();
const first = await TestVolume.start({ disks: 2, redundancy: "replicate:2" });
const second = await TestVolume.start({ disks: 2, redundancy: "replicate:2" });
try {
	assert.doesNotMatch(await serve(first), /other programs/);
	await servedBy(first);

	// The second finds all programs taken, and says so; by its ports it can be used.
	assert.match(await serve(second), /other programs of this machine have registered .* with rpcbind/);
	assert.match(await locksOf(second), /lock manager of another program or volume .*nlm/);
	assert.equal(await locksOf(first), "");
	assert.match(await second.cairn("status", second.name), /clients must mount with nolock/);
	const beside = await status(second);
	assert.deepEqual([...beside.takenByOthers].sort(), [...programs].sort());
	await servedBy(first);
	assert.notEqual(beside.port, (await status(first)).port);

	// A successor keeps the port, and what is registered.
	await first.successorOf(first.killDaemon());
	await eventually("the successor serves", async () => (await status(first)).port !== 0);
	await servedBy(first);

	// An rpcbind that begins anew knows nothing, and is told.
	await killMapper(mapper);
	mapper = await startMapper();
	await eventually("a new rpcbind is told", async () => (await registered()).transports.size === wanted.size);
	const { ports } = await registered();
	const [holder, other] = ports[0] === beside.port ? [second, first] : [first, second];
	await servedBy(holder);

	// What one lets go of, the other has.
	await holder.unmount();
	const { port } = await status(other);
	await eventually("the other is registered", async () => (await registered()).ports.join() === String(port));
	assert.equal(await locksOf(other), "");
	await servedBy(other);
	await other.unmount();
	assert.equal((await registered()).transports.size, 0, "nothing is left behind");
	console.log("all as it should be");
} finally {
	await first.close();
	await second.close();
	await killMapper(mapper);
	await execute("umount", ["-l", "/run"]);
}
process.exit(0);
