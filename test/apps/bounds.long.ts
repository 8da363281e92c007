/**
 * What there may be many of: files that are open at once, extents of one file, attributes of files. Each with its contents right, through a kill of the daemon or a remount, and with the
 * daemon's memory below its bound. `--files N`, `--extents N`, `--attributed N` say other numbers.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cannotMount, execute, must, TestVolume } from "../support/cairn.ts";
import { MemoryWatch } from "../support/memory.ts";
import { programsFrom } from "../support/packages.ts";

const openFiles = Number(process.env["CAIRN_FILES"] ?? 100_000);
const extents = Number(process.env["CAIRN_EXTENTS"] ?? 1_000_000);
const attributed = Number(process.env["CAIRN_ATTRIBUTED"] ?? 10_000);
const minutes = 60_000;
const reason = cannotMount() ?? (await programsFrom(["python3-minimal"], "python3"));

/** Of one process: fewer than what most machines allow. */
const filesOfHolder = 4000;

/** Opens all, says so, and does what it is told on its standard input; each file holds what only it can hold. */
const holder = `
import os, resource, sys
folder, count = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def first(number): return (b"file %d " % number) * 12
def second(number): return b"again %d" % (number * 7)
path = lambda number: "%s/%d/f%d" % (folder, number % 100, number)
for i in range(100): os.mkdir("%s/%d" % (folder, i))
fds = []
for i in range(count):
    fd = os.open(path(i), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, first(i))
    fds.append(fd)
for i in range(0, count, 3): os.unlink(path(i))
print("opened", flush=True)
for line in sys.stdin:
    if line == "look\\n":
        for i, fd in enumerate(fds):
            assert os.pread(fd, 4096, 0) == first(i), "file %d" % i
            assert os.fstat(fd).st_nlink == (0 if i % 3 == 0 else 1), "links of file %d" % i
    elif line == "write\\n":
        for i, fd in enumerate(fds): assert os.pwrite(fd, second(i), len(first(i)) + 3000) == len(second(i))
    elif line == "look again\\n":
        for i, fd in enumerate(fds):
            assert os.pread(fd, 8192, 0) == first(i) + bytes(3000) + second(i), "file %d" % i
    elif line == "close\\n":
        for fd in fds: os.close(fd)
    print("done", flush=True)
for i in range(count):
    if i % 3 == 0: assert not os.path.exists(path(i))
    else:
        with open(path(i), "rb") as file: assert file.read() == first(i) + bytes(3000) + second(i), "file %d by its name" % i
`;

/** Every piece is an extent of its own: a hole of most of 8 KiB is before and behind it. */
const scatter = `
import os, random, sys
path, count, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def piece(number, round): return (b"%d/%d " % (number, round)) * 6
stride = 8192
choose = random.Random(count)
again = set(choose.randrange(count) for _ in range(count // 100))
order = range(count)
fd = os.open(path, os.O_RDWR | os.O_CREAT)
if what == "write":
    for i in order: os.pwrite(fd, piece(i, 0), i * stride + i % 4000)
    os.fsync(fd)
elif what == "again":
    for i in sorted(again, key=lambda i: i * 2654435761 % 4294967296): os.pwrite(fd, piece(i, 1), i * stride + i % 4000)
    os.fsync(fd)
elif what == "look":
    assert os.fstat(fd).st_size == (count - 1) * stride + (count - 1) % 4000 + len(piece(count - 1, 1 if count - 1 in again else 0))
    for i in order:
        data = os.pread(fd, stride, i * stride)
        wanted = (bytes(i % 4000) + piece(i, 1 if i in again else 0)).ljust(stride, b"\\0")
        assert data == wanted[:len(data)] and len(data) > 4000 * (i < count - 1), "piece %d" % i
elif what == "cut":
    os.ftruncate(fd, count // 2 * stride)
    assert os.pread(fd, 100, (count // 2 - 1) * stride + (count // 2 - 1) % 4000).startswith(b"%d/" % (count // 2 - 1))
    os.unlink(path)
os.close(fd)
`;

const attributes = `
import os, sys
folder, count, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sizes = [0, 1, 20, 200, 1000, 4000]
def value(number, which): return (b"%d.%d " % (number, which) * 20000)[:60000 if which == 0 and number % 100 == 0 else sizes[which]]
def path(number): return "%s/f%d" % (folder, number)
for i in range(count):
    if what == "set":
        with open(path(i), "wb") as file: file.write(b"%d" % i)
        for which in range(6): os.setxattr(path(i), "user.attribute%d" % which, value(i, which))
        os.setxattr(path(i), "trusted.gone", b"soon")
        os.removexattr(path(i), "trusted.gone")
        if i % 2 == 0: os.setxattr(path(i), "user.attribute1", b"replaced", os.XATTR_REPLACE)
    else:
        assert sorted(os.listxattr(path(i))) == ["user.attribute%d" % which for which in range(6)], path(i)
        for which in range(6):
            wanted = b"replaced" if which == 1 and i % 2 == 0 else value(i, which)
            assert os.getxattr(path(i), "user.attribute%d" % which) == wanted, "%s %d" % (path(i), which)
`;

/** A child that answers each line with a line. */
class Conversation {
	readonly #child: ChildProcess;
	#said = "";
	#wrong = "";
	#ended = false;
	readonly ended: Promise<number | null>;

	constructor(program: string, words: readonly string[]) {
		this.#child = spawn(program, words, { stdio: ["pipe", "pipe", "pipe"] });
		this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
			this.#said += text;
		});
		this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
			this.#wrong = (this.#wrong + text).slice(-4000);
		});
		this.#child.stdin?.on("error", () => {});
		this.ended = new Promise((resolve) => {
			this.#child.on("close", (code) => {
				this.#ended = true;
				resolve(code);
			});
		});
	}

	get wrong(): string {
		return this.#wrong;
	}

	async answer(limitMs: number): Promise<string> {
		const endMs = performance.now() + limitMs;
		for (;;) {
			const end = this.#said.indexOf("\n");
			if (end >= 0) {
				const line = this.#said.slice(0, end);
				this.#said = this.#said.slice(end + 1);
				return line;
			}
			assert.ok(!this.#ended, `the holder of open files ended\n${this.#wrong}`);
			assert.ok(performance.now() < endMs, `no answer within ${limitMs} ms`);
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
	}

	ask(line: string): Promise<string> {
		this.#child.stdin?.write(`${line}\n`);
		return this.answer(30 * minutes);
	}

	end(): Promise<number | null> {
		this.#child.stdin?.end();
		return this.ended;
	}

	kill(): void {
		if (!this.#ended) this.#child.kill("SIGKILL");
	}
}

describe("bounds", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let watch: MemoryWatch;
	let holders: readonly Conversation[] = [];
	after(async () => {
		for (const holder of holders) holder.kill();
		for (const holder of holders) await holder.ended;
		watch?.stop();
		await volume?.close();
	});
	const intact = async (): Promise<void> => {
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
	};

	test(`${openFiles} open files, a third of them without a name, and a daemon that is killed`, async (t) => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		watch = new MemoryWatch(volume);
		const folder = join(volume.mountpoint, "open");
		mkdirSync(folder);
		holders = Array.from({ length: Math.ceil(openFiles / filesOfHolder) }, (_, i) => {
			mkdirSync(join(folder, `holder${i}`));
			return new Conversation("python3", [
				"-c",
				holder,
				join(folder, `holder${i}`),
				String(Math.min(filesOfHolder, openFiles - i * filesOfHolder)),
			]);
		});
		const all = async (line?: string): Promise<void> => {
			const start = performance.now();
			await Promise.all(holders.map((one) => (line === undefined ? one.answer(30 * minutes) : one.ask(line))));
			t.diagnostic(`${line ?? "open"}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
		};
		await all();
		await all("look");
		await volume.successorOf(volume.killDaemon());
		await all("look");
		await all("write");
		await volume.successorOf(volume.killDaemon());
		await all("look again");
		await all("close");
		for (const one of holders) assert.equal(await one.end(), 0, one.wrong);
		t.diagnostic(`memory ${watch.peak("open files")}`);
		await volume.remount();
		await must("rm", ["-rf", folder], { timeoutMs: 30 * minutes });
	});

	test(`a file of ${extents} extents`, async (t) => {
		const path = join(volume.mountpoint, "scattered");
		const step = async (what: string): Promise<void> => {
			const start = performance.now();
			await must("python3", ["-c", scatter, path, String(extents), what], { timeoutMs: 60 * minutes });
			t.diagnostic(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s, memory ${watch.peak(`extents: ${what}`)}`);
		};
		await step("write");
		await step("again");
		await volume.remount();
		await step("look");
		const before = volume.daemons();
		assert.equal((await execute("stat", [path])).code, 0);
		await volume.successorOf(volume.killDaemon());
		assert.notDeepEqual(volume.daemons(), before);
		await step("look");
		await intact();
		t.diagnostic(`verify: memory ${watch.peak("verify of extents")}`);
		await step("cut");
	});

	test(`${attributed} files with attributes`, async (t) => {
		const folder = join(volume.mountpoint, "attributed");
		mkdirSync(folder);
		for (const what of ["set", "look"]) {
			const start = performance.now();
			await must("python3", ["-c", attributes, folder, String(attributed), what], { timeoutMs: 30 * minutes });
			t.diagnostic(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s, memory ${watch.peak(`attributes: ${what}`)}`);
			await volume.remount();
		}
		await intact();
	});
});
