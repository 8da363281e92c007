/** `cairn set` on a real mount. */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, execute, missingPrograms, TestVolume } from "../../test/support/cairn.ts";

interface Explained {
	readonly redundancy: { readonly value: string; readonly from: string };
	readonly segments: readonly { readonly redundancy: string }[];
}

describe("protection by path on a real mount", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	const contents = "kept in three copies\n".repeat(20_000);
	const path = (name: string) => join(volume.mountpoint, name);
	const explain = async (name: string) => JSON.parse(await volume.cairn("explain", path(name), "--json")) as Explained;
	const kinds = async (name: string) => [...new Set((await explain(name)).segments.map((segment) => segment.redundancy))];

	before(async () => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		await mkdir(path("photos"));
		await writeFile(path("photos/old"), contents);
		await writeFile(path("film"), contents);
	});
	after(() => volume?.close());

	test("a directory: what is in it is rewritten, what is made in it is protected like that, and nothing else", async () => {
		const set = JSON.parse(await volume.cairn("set", path("photos"), "--redundancy", "replicate:3", "--now", "--json")) as Explained;
		assert.deepEqual(set.redundancy, { value: "replicate:3", from: path("photos") });
		await writeFile(path("photos/new"), contents);
		assert.equal((await execute("sync", ["-f", volume.mountpoint])).code, 0);
		for (const name of ["photos/old", "photos/new"]) {
			assert.deepEqual((await explain(name)).redundancy, { value: "replicate:3", from: path("photos") });
			assert.deepEqual(await kinds(name), ["replicate:3"], name);
			assert.equal(await readFile(path(name), "utf8"), contents);
		}
		assert.deepEqual((await explain("film")).redundancy, { value: "rs:4+2", from: "volume" });
		assert.deepEqual(await kinds("film"), ["rs:4+2"]);
	});

	test("the volume's default, by mount point and by name", async () => {
		await volume.cairn("set", volume.mountpoint, "--redundancy", "rs:3+2", "--now");
		assert.deepEqual(await kinds("film"), ["rs:3+2"]);
		assert.match(await volume.cairn("set", volume.name, "--redundancy", "rs:4+2", "--now"), /rs:4\+2 \(volume\)/);
		assert.deepEqual(await kinds("film"), ["rs:4+2"]);
		assert.deepEqual(await kinds("photos/old"), ["replicate:3"]);
		await volume.cairn("umount", volume.mountpoint);
		await volume.mount();
		assert.deepEqual(await kinds("photos/old"), ["replicate:3"]);
		assert.equal((await volume.status()).state, "running");
	});

	test("by the attribute", { skip: missingPrograms("getfattr", "setfattr") ?? false }, async () => {
		const get = async (name: string) => (await execute("getfattr", ["--only-values", "-n", "cairn.redundancy", path(name)])).stdout;
		assert.equal(await get("photos/old"), "replicate:3");
		assert.equal((await execute("setfattr", ["-n", "cairn.redundancy", "-v", "rs:2+1", path("photos")])).code, 0);
		assert.equal(await get("photos"), "rs:2+1");
		assert.notEqual((await execute("setfattr", ["-n", "cairn.redundancy", "-v", "raid5", path("photos")])).code, 0);
		assert.equal((await execute("setfattr", ["-x", "cairn.redundancy", path("photos")])).code, 0);
		assert.equal(await get("photos"), "rs:4+2");
		assert.doesNotMatch((await execute("getfattr", ["-d", "-m", "-", path("photos")])).stdout, /cairn/);
	});

	test("wrong arguments, and what cannot be kept", async () => {
		const code = async (...words: string[]) => (await volume.try("set", ...words)).code;
		assert.equal(await code(path("film")), 2);
		assert.equal(await code(path("film"), "--redundancy", "raid5"), 2);
		assert.equal(await code(path("absent"), "--redundancy", "rs:4+2"), 3);
		assert.equal(await code("/", "--redundancy", "rs:4+2"), 3);
		assert.equal(await code(volume.mountpoint, "--redundancy", "inherit"), 2);
		assert.equal(await code(path("film"), "--redundancy", "rs:6+2"), 4);
		assert.equal(await code(path("film"), "--redundancy", "replicate:6"), 4);
		assert.equal(await code(path("film"), "--redundancy", "rs:6+2", "--allow-degraded"), 0);
		assert.match((await volume.try("set", "--help")).stdout, /Examples/i);
	});
});
