/**
 * A thousand clients at once, and sixty-four on one file (`npm run test:long clients`): every one of them gets right answers, and the daemon's memory keeps its bound. `--clients N`, `--rounds N` say other numbers.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, missingPrograms, must, TestVolume } from "../support/cairn.ts";
import { MemoryWatch } from "../support/memory.ts";

const clients = Number(process.env["CAIRN_CLIENTS"] ?? 1000);
const rounds = Number(process.env["CAIRN_ROUNDS"] ?? 6);
const threads = 50;
const writers = 64;
const minutes = 60_000;
const reason = cannotMount() ?? missingPrograms("python3");

/** Threads of one process: each makes, writes, syncs, reads, looks at, renames and removes files of its own, and keeps one to the end. */
const client = `
import os, random, sys, threading
folder, first, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
failures, barrier = [], threading.Barrier(count)
def work(number):
    choose = random.Random(number)
    path = "%s/%d/c%d" % (folder, number % 37, number)
    barrier.wait()
    for step in range(rounds):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        wanted = bytearray(os.fstat(fd).st_size)
        if len(wanted) > 0:
            wanted[:] = os.pread(fd, len(wanted), 0)
        for piece in range(8):
            offset, data = choose.randrange(40000), choose.randbytes(choose.randrange(1, 5000))
            assert os.pwrite(fd, data, offset) == len(data)
            wanted.extend(bytes(max(0, offset + len(data) - len(wanted))))
            wanted[offset:offset + len(data)] = data
        if step % 2 == 0:
            os.fsync(fd)
        assert os.pread(fd, 100000, 0) == bytes(wanted), "%s does not read as it was written" % path
        os.close(fd)
        assert os.stat(path).st_size == len(wanted)
        os.rename(path, path + ".moved")
        other = os.open(path + ".other", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(other, b"short")
        os.close(other)
        with open(path + ".moved", "rb") as file:
            assert file.read() == bytes(wanted), "%s does not read after it was renamed" % path
        os.rename(path + ".moved", path)
        assert os.stat(path + ".other").st_size == 5
        os.unlink(path + ".other")
def guarded(number):
    try:
        work(number)
    except BaseException as error:
        failures.append("client %d: %r" % (number, error))
        barrier.abort()
threading.stack_size(262144)
all = [threading.Thread(target=guarded, args=(first + i,)) for i in range(count)]
for thread in all: thread.start()
for thread in all: thread.join()
sys.exit("\\n".join(failures[:5]) if failures else 0)
`;

/** Writes every writers-th block of 4 KiB of one file, over and over, and reads it back; the last round stays. */
const writer = `
import os, sys
path, number, writers, blocks, rounds = sys.argv[1], *map(int, sys.argv[2:6])
fd = os.open(path, os.O_RDWR)
for step in range(rounds):
    for block in range(number, blocks, writers):
        os.pwrite(fd, ((b"%08d %04d %03d|" % (block, number, step)) * 228)[:4096], block * 4096)
        if block % 512 == number:
            os.fsync(fd)
    for block in range(number, blocks, writers):
        data = os.pread(fd, 4096, block * 4096)
        assert data == ((b"%08d %04d %03d|" % (block, number, step)) * 228)[:4096], "block %d in round %d" % (block, step)
os.fsync(fd)
`;

const lookAtBlocks = `
import os, sys
path, writers, blocks, rounds = sys.argv[1], *map(int, sys.argv[2:5])
fd = os.open(path, os.O_RDONLY)
assert os.fstat(fd).st_size == blocks * 4096
for block in range(blocks):
    assert os.pread(fd, 4096, block * 4096) == ((b"%08d %04d %03d|" % (block, block % writers, rounds - 1)) * 228)[:4096], "block %d" % block
`;

let volume: TestVolume | undefined;
let watch: MemoryWatch | undefined;
after(async () => {
	watch?.stop();
	await volume?.close();
});

test(`${clients} clients at once`, { skip: reason ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	watch = new MemoryWatch(volume);
	const folder = join(volume.mountpoint, "clients");
	for (let i = 0; i < 37; i++) mkdirSync(join(folder, String(i)), { recursive: true });
	const start = performance.now();
	const processes = Array.from({ length: Math.ceil(clients / threads) }, (_, i) => i * threads);
	await Promise.all(
		processes.map((first) =>
			must("python3", ["-c", client, folder, String(first), String(Math.min(threads, clients - first)), String(rounds)], {
				timeoutMs: 60 * minutes,
			}),
		),
	);
	const seconds = (performance.now() - start) / 1000;
	// open, 8 writes, read, close, stat, two renames, create, write, close, open, read, close, stat, unlink, and every other time fsync
	t.diagnostic(
		`${clients} clients, ${rounds} rounds in ${seconds.toFixed(1)} s: ${((clients * rounds * 22) / seconds).toFixed(0)} calls/s, memory ${watch.peak("clients")}`,
	);
	assert.equal(await must("bash", ["-c", "find . -type f | wc -l"], { cwd: folder }), `${clients}\n`);
	await volume.remount();
	assert.equal(
		await must("bash", ["-c", "cat */c* | wc -c; find . -type f -printf '%s\\n' | awk '{ all += $1 } END { print all }'"], {
			cwd: folder,
		}).then((text) => new Set(text.trim().split("\n")).size),
		1,
		"every file has as many bytes as its size says",
	);
});

test(`${writers} writers of one file`, { skip: reason ?? false }, async (t) => {
	assert.ok(volume !== undefined && watch !== undefined, "mounted");
	const path = join(volume.mountpoint, "one");
	const blocks = 8192;
	await must("truncate", ["-s", String(blocks * 4096), path]);
	const start = performance.now();
	await Promise.all(
		Array.from({ length: writers }, (_, i) =>
			must("python3", ["-c", writer, path, ...[i, writers, blocks, rounds].map(String)], { timeoutMs: 60 * minutes }),
		),
	);
	const seconds = (performance.now() - start) / 1000;
	t.diagnostic(
		`${writers} writers, ${rounds} × ${blocks} blocks in ${seconds.toFixed(1)} s: ${((rounds * blocks) / seconds).toFixed(0)} writes/s, memory ${watch.peak("writers of one file")}`,
	);
	const look = () => must("python3", ["-c", lookAtBlocks, path, ...[writers, blocks, rounds].map(String)], { timeoutMs: 10 * minutes });
	await look();
	await volume.remount();
	await look();
	const { corrupt, missing, unrecoverable } = await volume.verify();
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
	t.diagnostic(`remount, read and verify: memory ${watch.peak("verify")}`);
});
