/** Share reservations of NFS clients (NLM SHARE) against programs on a real mount and against reads and writes of other machines, through the death of the daemon. */
import assert from "node:assert/strict";
import { open, stat, truncate, writeFile } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { latin1ToBytes } from "../../src/base/bytes.ts";
import { status } from "../../src/doors/nfs/nfs3.ts";
import { RealTcpConnection } from "../../src/platform/real/connection.ts";
import { cannotMount, TestVolume } from "../support/cairn.ts";
import { asUser, NfsClient } from "./client.ts";
import { LockClient, results } from "./lock-client.ts";

const busy = { code: "EBUSY" };

describe("shares of NFS clients beside a real mount", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	let port: number;
	let folder: string;
	const clients: NfsClient[] = [];
	const path = (name: string): string => join(volume.mountpoint, name);

	/** A machine of its own for the server: it comes from another address of this one. */
	async function from(address: string): Promise<NfsClient> {
		const socket = await new Promise<net.Socket>((resolve, reject) => {
			const connecting = net.connect({ host: "127.0.0.1", port, localAddress: address, noDelay: true });
			connecting.once("error", reject);
			connecting.once("connect", () => resolve(connecting));
		});
		const client = new NfsClient(
			new RealTcpConnection(socket),
			asUser(0),
			Math.floor(performance.now() * 1000) + clients.length * 10_000_000,
		);
		clients.push(client);
		return client;
	}

	/** Again and again, as clients do. */
	async function untilServed(address: string): Promise<NfsClient> {
		for (const endMs = performance.now() + 60_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
			try {
				return await from(address);
			} catch (error) {
				assert.ok(performance.now() < endMs, `nobody listens: ${String(error)}\n${volume.log()}`);
			}
		}
	}

	/** A program's close(2) may return before the last of its open file is gone (RELEASE). */
	async function untilGranted(ask: () => Promise<number>): Promise<void> {
		for (
			const endMs = performance.now() + 30_000;
			(await ask()) !== results.granted;
			await new Promise((resolve) => setTimeout(resolve, 20))
		)
			assert.ok(performance.now() < endMs, "somebody has it open still");
	}

	async function handleOf(client: NfsClient, name: string): Promise<Uint8Array> {
		const { handle: top } = await client.mount(folder);
		const found = await client.lookup(top, name);
		assert.equal(found.status, 0, `lookup of ${name}`);
		return found.handle;
	}

	before(async () => {
		volume = await TestVolume.start({ disks: 2, redundancy: "replicate:2" });
		const words = ["export", "add", volume.name, "--squash", "none", "--any-port", "--json"];
		const exported = JSON.parse(await volume.cairn(...words)) as { readonly path: string; readonly url: string };
		port = Number(new URL(exported.url).searchParams.get("nfsport"));
		folder = exported.path;
	});
	after(async () => {
		for (const client of clients) client.close();
		await volume?.close();
	});

	/** What the share "nobody else writes" of 127.0.0.1 means, from every side. */
	async function writingIsDenied(here: NfsClient, there: NfsClient, file: Uint8Array): Promise<void> {
		await assert.rejects(open(path("f"), "r+"), busy);
		await assert.rejects(open(path("f"), "a"), busy);
		await assert.rejects(writeFile(path("f"), "cut"), busy);
		await assert.rejects(truncate(path("f"), 0), busy);
		const reader = await open(path("f"), "r");
		assert.equal((await reader.stat()).size, 5);
		await reader.close();
		assert.equal((await there.write(file, 0, latin1ToBytes("THERE"), 2)).status, status.JUKEBOX);
		assert.equal((await there.setattr(file, { size: 0 })).status, status.JUKEBOX);
		assert.equal((await there.setattr(file, { mode: 0o666 })).status, status.OK, "attributes are no contents");
		assert.equal((await there.read(file, 0, 5)).status, status.OK);
		assert.equal((await here.write(file, 0, latin1ToBytes("holds"), 2)).status, status.OK, "whose share it is writes");
	}

	test("deny modes keep programs and other machines out, and those keep shares out; also after kill -9", async () => {
		await writeFile(path("f"), "first");
		await writeFile(path("g"), "first");
		let [here, there] = [await from("127.0.0.1"), await from("127.0.0.2")];
		const file = await handleOf(here, "f");
		await handleOf(there, "f");
		let holder = new LockClient(here, "holder");

		const writer = await open(path("g"), "r+");
		const other = await handleOf(here, "g");
		assert.equal(await holder.share(other, "s", 1, 2), results.denied, "a program has it open for writing");
		assert.equal(await holder.share(other, "s", 1, 1), results.denied, "and for reading");
		await writer.close();
		await untilGranted(() => holder.share(other, "s", 1, 2));
		assert.equal(await holder.share(other, "s", 0, 0, { un: true }), results.granted);
		await (await open(path("g"), "r+")).close();

		const kept = await open(path("f"), "r");
		await untilGranted(() => holder.share(file, "s", 3, 2));
		await writingIsDenied(here, there, file);

		const before = volume.killDaemon();
		await volume.successorOf(before);
		await stat(path("f"));
		[here, there] = [await untilServed("127.0.0.1"), await untilServed("127.0.0.2")];
		holder = new LockClient(here, "holder");
		await writingIsDenied(here, there, file);
		assert.equal(await new LockClient(there, "other").share(file, "t", 1, 1), results.denied, "the open of before the kill still reads");
		await kept.close();

		const { shares } = JSON.parse(await volume.cairn("locks", volume.name, "--json")) as { shares: Record<string, unknown>[] };
		const hex = Buffer.from("s").toString("hex");
		assert.deepEqual(
			shares.map(({ access, deny, door, client, owner }) => ({ access, deny, door, client, owner: String(owner).split(":").at(-1) })),
			[{ access: ["read", "write"], deny: ["write"], door: "nfs", client: "holder@127.0.0.1", owner: hex }],
		);
		assert.match(await volume.cairn("locks", path("f")), /read\+write +write +holder@127\.0\.0\.1/);
		assert.match(await volume.cairn("locks", "break", path("f"), "--yes"), /1 lock of .* broken/);
		await (await open(path("f"), "r+")).close();
		await volume.successorOf(volume.killDaemon());
		await stat(path("f"));
		await (await open(path("f"), "r+")).close();
		holder = new LockClient(await untilServed("127.0.0.1"), "holder");
		there = await untilServed("127.0.0.2");
		await untilGranted(() => holder.share(file, "s", 3, 2));
		assert.equal(await holder.share(file, "s", 0, 0, { un: true }), results.granted);
		await writeFile(path("f"), "second");
		assert.equal((await there.write(file, 0, latin1ToBytes("THERE"), 2)).status, status.OK);
	});
});
