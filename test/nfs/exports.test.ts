/** Exports of a real mount, over real sockets: what is changed through one door is seen through the other at once, and clients go on after the daemon was killed. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bytesToLatin1, latin1ToBytes } from "../../src/base/bytes.ts";
import { RealNetwork } from "../../src/platform/real/network.ts";
import { cannotMount, execute, missingPrograms, must, sleep, TestVolume } from "../support/cairn.ts";
import { asUser, NfsClient } from "./client.ts";

interface Exported {
	readonly name: string;
	readonly path: string;
	readonly url: string;
	readonly locksUnfound: string;
}

const network = new RealNetwork();
const portOf = ({ url }: Exported): number => Number(new URL(url).searchParams.get("nfsport"));

describe("exports of a real mount", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	let exported: Exported;
	let client: NfsClient;
	let top: Uint8Array;
	const path = (name: string): string => join(volume.mountpoint, name);
	const handleOf = async (name: string): Promise<Uint8Array> => {
		const found = await client.lookup(top, name);
		assert.equal(found.status, 0, `lookup of ${name}`);
		return found.handle;
	};

	/** As a client does: again and again until somebody answers. */
	async function connected(): Promise<NfsClient> {
		for (const endMs = performance.now() + 60_000; ; await sleep(50)) {
			try {
				return await NfsClient.connect(network, portOf(exported), asUser(0), Math.floor(performance.now() * 1000));
			} catch (error) {
				assert.ok(performance.now() < endMs, `nobody listens: ${String(error)}\n${volume.log()}`);
			}
		}
	}

	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		const words = ["export", "add", volume.name, "--squash", "none", "--any-port", "--json"];
		exported = JSON.parse(await volume.cairn(...words)) as Exported;
		assert.match(exported.locksUnfound, /no port mapper/);
		client = await connected();
		top = (await client.mount(exported.path)).handle;
	});
	after(async () => {
		client?.close();
		await volume?.close();
	});

	test("what a client changes, the mount shows at once: names, contents, attributes", async () => {
		await writeFile(path("f"), "through the kernel");
		assert.deepEqual(await readdir(volume.mountpoint), ["f"]);
		await assert.rejects(stat(path("new")), /ENOENT/, "the kernel remembers that there is no such name");
		const made = await client.create(top, "new", "guarded", { mode: 0o600 });
		assert.equal(made.status, 0);
		assert.deepEqual((await readdir(volume.mountpoint)).sort(), ["f", "new"]);
		assert.equal((await stat(path("new"))).mode & 0o7777, 0o600);
		const file = await handleOf("f");
		assert.equal(await readFile(path("f"), "utf8"), "through the kernel");
		await client.write(file, 0, latin1ToBytes("THROUGH the door, and longer"), 0);
		assert.equal(await readFile(path("f"), "utf8"), "THROUGH the door, and longer");
		await client.setattr(file, { size: 7, mode: 0o604 });
		assert.equal(await readFile(path("f"), "utf8"), "THROUGH");
		assert.equal((await stat(path("f"))).mode & 0o7777, 0o604);
		await client.rename(top, "new", top, "f");
		assert.deepEqual(await readdir(volume.mountpoint), ["f"]);
		assert.equal((await stat(path("f"))).size, 0);
		await client.remove(top, "f");
		assert.deepEqual(await readdir(volume.mountpoint), []);
		await assert.rejects(stat(path("f")), /ENOENT/);
	});

	test("what the mount changes, clients see at once", async () => {
		await writeFile(path("g"), "one");
		const file = await handleOf("g");
		assert.equal(bytesToLatin1(await client.readAll(file)), "one");
		await writeFile(path("g"), "two, longer");
		assert.equal(bytesToLatin1(await client.readAll(file)), "two, longer");
		await rename(path("g"), path("h"));
		assert.equal((await client.lookup(top, "g")).status, 2);
		assert.deepEqual(await handleOf("h"), file);
		await rm(path("h"));
		assert.equal((await client.getattr(file)).status, 70, "stale");
	});

	test("kill -9 of the daemon: clients connect again, handles and contents are good, the verifier tells", async () => {
		const made = await client.create(top, "kept", "guarded", { mode: 0o644 });
		const file = made.handle as Uint8Array;
		const before = await client.write(file, 0, latin1ToBytes("acknowledged"), 0);
		const pid = volume.killDaemon();
		client.close();
		await volume.successorOf(pid);
		client = await connected();
		assert.equal(bytesToLatin1(await client.readAll(file)), "acknowledged");
		const committed = await client.commit(file);
		assert.equal(committed.status, 0);
		assert.notEqual(committed.verifier, before.verifier, "clients have to send again what they have not committed");
		assert.equal(await readFile(path("kept"), "utf8"), "acknowledged");
		await client.write(file, 0, latin1ToBytes("ACK"), 2);
		assert.equal(await readFile(path("kept"), "utf8"), "ACKnowledged", "the successor tells the kernel too");
	});

	test("status, upgrade, an end that clients feel", async () => {
		const status = JSON.parse(await volume.cairn("status", volume.name, "--json")) as {
			doors: { nfs: { connections: { address: string }[]; exports: number } };
		};
		assert.deepEqual([status.doors.nfs.exports, status.doors.nfs.connections[0]?.address], [1, "127.0.0.1"]);
		await volume.cairn("upgrade", volume.name);
		const kept = await connected();
		assert.equal(bytesToLatin1(await kept.readAll((await kept.lookup(top, "kept")).handle)), "ACKnowledged");
		kept.close();
		await volume.cairn("export", "remove", volume.name);
		await assert.rejects(network.connectTcp({ address: "127.0.0.1", port: portOf(exported) }), /nobody listens/);
		exported = JSON.parse(await volume.cairn("export", "add", volume.name, "--json")) as Exported;
		client = await connected();
		assert.equal((await client.mount(exported.path)).status, 13, "a port that anybody may use");
		assert.equal((await client.getattr(top)).status, 13, "the handle is good still, the port is not");
		await volume.cairn("export", "remove", volume.name);
		await mkdir(path("sub"));
		await volume.cairn("export", "add", `${volume.name}:/sub`, "--any-port");
		client = await connected();
		assert.equal((await client.getattr(top)).status, 70, "what is not exported any more");
		await volume.cairn("export", "add", volume.name, "--any-port");
		assert.equal((await client.getattr(top)).status, 0, "the same directory again: who has it mounted goes on");
		await volume.cairn("export", "remove", `${volume.name}:/sub`);
		await volume.unmount();
		await assert.rejects(network.connectTcp({ address: "127.0.0.1", port: portOf(exported) }), /nobody listens/);
		await volume.mount();
	});

	test("libnfs: nfs-ls, nfs-cat, nfs-cp", { skip: missingPrograms("nfs-ls", "nfs-cat", "nfs-cp") ?? false }, async () => {
		await volume.try("export", "remove", volume.name);
		const words = ["export", "add", volume.name, "--squash", "none", "--any-port", "--json"];
		exported = JSON.parse(await volume.cairn(...words)) as Exported;
		const url = (name: string): string => exported.url.replace("?", `${name}?`);
		const source = join(volume.base, "source");
		await writeFile(
			source,
			Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7 + (i >> 10)) & 255),
		);
		await must("nfs-cp", [source, url("/copy")], { timeoutMs: 60_000 });
		assert.equal(Buffer.compare(await readFile(path("copy")), await readFile(source)), 0);
		await must("nfs-cp", [url("/copy"), join(volume.base, "back")], { timeoutMs: 60_000 });
		assert.equal(Buffer.compare(await readFile(join(volume.base, "back")), await readFile(source)), 0);
		await writeFile(path("text"), "for everybody\n");
		assert.equal(await must("nfs-cat", [url("/text")], { timeoutMs: 60_000 }), "for everybody\n");
		assert.match(await must("nfs-ls", [exported.url], { timeoutMs: 60_000 }), /3000000 copy/);
		assert.notEqual((await execute("nfs-cat", [url("/absent")], { timeoutMs: 60_000 })).code, 0);
	});
});
