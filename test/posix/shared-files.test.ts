/** One file and many processes on a real mount: appenders, writers of overlapping ranges, mappings, truncations beside reads. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, execute, must, TestVolume } from "../support/cairn.ts";

const worker = fileURLToPath(new URL("./shared-worker.js", import.meta.url));
const skip = cannotMount() ?? false;

let volume: TestVolume | undefined;
/** Checks that the last test makes once more, on a fresh mount. */
const again: (() => Promise<void>)[] = [];
before(async () => {
	if (skip === false) volume = await TestVolume.start({ disks: 4, redundancy: "rs:2+1" });
});
after(() => volume?.close());

function mounted(): TestVolume {
	assert.ok(volume, "mounted");
	return volume;
}

function at(name: string): string {
	return join(mounted().mountpoint, name);
}

function work(verb: string, name: string, ...words: readonly (string | number)[]): Promise<string> {
	const env = { UV_THREADPOOL_SIZE: "64" };
	return must(process.execPath, [worker, verb, at(name), ...words.map(String)], { timeoutMs: 120_000, env });
}

test("64 processes append to one file: every record is whole, none is lost", { skip }, async () => {
	// One printf of bash is one write(2).
	const script = `for i in $(seq 30); do printf '%-127s\\n' "writer $0 record $i"; done >> "$1"`;
	await Promise.all(Array.from({ length: 64 }, (_, i) => must("bash", ["-c", script, String(i), at("log")])));
	const check = async (): Promise<void> => {
		const lines = (await readFile(at("log"), "latin1")).split("\n");
		assert.equal(lines.pop(), "");
		assert.ok(
			lines.every((line) => line.length === 127),
			"a torn record",
		);
		const records = new Set(lines.map((line) => line.trimEnd()));
		assert.equal(lines.length, 64 * 30);
		assert.equal(records.size, 64 * 30, "records are lost");
	};
	await check();
	again.push(check);
});

test("large appended records, of more than one request each, do not mix", { skip }, async () => {
	const bytes = 2_500_000;
	const script = `head -c ${bytes} /dev/zero | tr '\\0' "$0" | dd of="$1" bs=${bytes} count=1 iflag=fullblock oflag=append conv=notrunc status=none`;
	const letters = [..."abcdefgh"];
	await Promise.all(letters.map((letter) => must("bash", ["-c", script, letter, at("large")])));
	const all = await readFile(at("large"));
	assert.equal(all.length, letters.length * bytes);
	const seen = new Set<string>();
	for (let record = 0; record < letters.length; record++) {
		const part = all.subarray(record * bytes, (record + 1) * bytes);
		assert.ok(
			part.every((byte) => byte === part[0]),
			`record ${record} is mixed`,
		);
		seen.add(String.fromCharCode(part[0] as number));
	}
	assert.equal(seen.size, letters.length);
});

test("64 writers of one file, with ranges that all of them write, and fsyncs: nothing is lost, memory stays bounded", {
	skip,
}, async () => {
	await must("touch", [at("together")]);
	await work("writeTogether", "together", 64, 30);
	const [pid] = mounted().daemons();
	const status = readFileSync(`/proc/${pid}/status`, "latin1");
	const kibibytes = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
	assert.ok(kibibytes("RssAnon") + kibibytes("RssShmem") < 512 * 1024, status);
	const check = async (): Promise<void> => void (await work("checkTogether", "together", 64, 30));
	await check();
	again.push(check);
});

test("truncations, holes, writes and reads of one file by several processes", { skip }, async () => {
	await must("touch", [at("disturbed")]);
	await Promise.all([1, 2, 3, 4].map((seed) => work("disturb", "disturbed", seed, 2000)));
	assert.ok((await stat(at("disturbed"))).size <= 450_000);
});

test("mappings of two processes, read(2) and write(2) show the same bytes", { skip }, async () => {
	const first = spawn(process.execPath, [worker, "mapping", at("mapped")], { stdio: ["pipe", "pipe", "inherit"] });
	await once(first.stdout, "data");
	await work("mappingBeside", "mapped");
	first.stdin.end("go on\n");
	const [code] = (await once(first, "exit")) as [number];
	assert.equal(code, 0);
	await mounted().remount();
	const bytes = await readFile(at("mapped"));
	assert.deepEqual(
		[...bytes.subarray(5000, 5003), ...bytes.subarray(9000, 9003), ...bytes.subarray(9100, 9103)],
		[1, 2, 3, 7, 8, 9, 4, 5, 6],
	);
});

test("O_DIRECT at odd offsets, far offsets, limits of sizes, what is refused", { skip }, async () => {
	await work("calls", "calls");
	const script = `trap '' XFSZ; ulimit -f 64; exec "$0" "$@"`;
	const { code, stderr } = await execute("bash", ["-c", script, process.execPath, worker, "limited", at("limited"), String(64 * 1024)]);
	assert.equal(code, 0, stderr);
});

test("cp shares the bytes of what it copies; the copy outlives its source", { skip }, async () => {
	const inside = { cwd: mounted().mountpoint };
	await must("bash", ["-c", "head -c 12M /dev/urandom > source; sync"], inside);
	// What the volume uses: what is free belongs to the machine, and others use it too.
	const before = (await mounted().status()).usedBytes;
	await must("bash", ["-c", "cp source copy && cmp source copy && sync"], inside);
	const copied = (await mounted().status()).usedBytes - before;
	assert.ok(copied < 3 * 1024 * 1024, `a copy of 12 MiB took ${copied} bytes`);
	const script = `
		set -euo pipefail
		sum=$(sha256sum < source); rm source; head -c 12M /dev/urandom > other; sync; test "$sum" = "$(sha256sum < copy)"; echo "$sum" > sum
		truncate -s 200M sparse; printf data | dd of=sparse bs=1M seek=100 conv=notrunc status=none; cp --sparse=auto sparse sparse2; cmp sparse sparse2
		test "$(stat -c %b sparse2)" -lt 2000`;
	await must("bash", ["-c", script], { cwd: mounted().mountpoint });
	again.push(async () => {
		const look = 'cmp sparse sparse2 && test "$(sha256sum < copy)" = "$(cat sum)"';
		await must("bash", ["-c", look], { cwd: mounted().mountpoint });
	});
});

test("all of it is the same after a remount", { skip }, async () => {
	await mounted().remount();
	for (const check of again) await check();
});
