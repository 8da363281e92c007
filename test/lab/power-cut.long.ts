/**
 * Hard power cuts of a real Linux guest under load (`npm run test:long lab`, `--times 50`, `--seed 7`, `--layout 2`; needs the image that lab/build-image.sh makes). The guest runs Cairn on disks with volatile write caches: at a random
 * moment they lose what was not flushed (all, the newest, single writes, single sectors), and the guest is gone with everything in its memory. After each cut it boots anew, mounts, and everything that was reported as synced
 * must be there; what was checked once must stay; `cairn verify` must find nothing. Sometimes one disk alone loses power first, while the volume is in use.
 */
import assert from "node:assert/strict";
import { existsSync, rmSync, statSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { randomOf } from "../crash/kill-model.ts";
import { sleep, type VerifyJson } from "../support/cairn.ts";
import { cannotStartGuests, Guest, guestRepository } from "./guest.ts";
import type { Looked, LookedAt } from "./power-check.ts";
import { cutModes, type CutResult } from "./volatile-disk.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 52);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
/** One layout alone, 0 and up. */
const only = process.env["CAIRN_LAYOUT"] === undefined ? undefined : Number(process.env["CAIRN_LAYOUT"]);
const writers = 2;
const keptFolders = 8;
const diskBytes = 2 * 1024 ** 3;
const reason = cannotStartGuests();

type DiskKind = "raw" | "ext4" | "xfs";

interface Layout {
	readonly redundancy: string;
	readonly disks: readonly DiskKind[];
	/** Single disks that may lose power beside. */
	readonly tolerated: number;
}

const layouts: readonly Layout[] = [
	{ redundancy: "rs:4+2", disks: ["raw", "raw", "raw", "raw", "raw", "raw"], tolerated: 2 },
	{ redundancy: "rs:4+2", disks: ["ext4", "ext4", "ext4", "raw", "raw", "raw"], tolerated: 2 },
	{ redundancy: "rs:2+1", disks: ["xfs", "xfs", "xfs"], tolerated: 1 },
	{ redundancy: "replicate:3", disks: ["raw", "ext4", "xfs", "raw"], tolerated: 2 },
];

const command = `CAIRN_HOME=/root/cairn node ${guestRepository}/dist/src/cli/main.js`;
const mountpoint = "/srv/photos";

interface Totals {
	operations: number;
	synced: number;
	exactFiles: number;
	lostWrites: number;
	tornWrites: number;
	lostBytes: number;
	singleDisks: number;
}

for (const [number, layout] of layouts.entries()) {
	const cuts = only === undefined ? Math.floor((times + number) / layouts.length) : only === number ? times : 0;
	const name = `${cuts} power cuts of ${layout.disks.join(", ")} with ${layout.redundancy}, seed ${seed}`;
	test(name, { skip: reason ?? (cuts === 0 ? "no cut is left for it" : false) }, (t) => play(t, layout, number, cuts));
}

async function play(t: TestContext, layout: Layout, number: number, cuts: number): Promise<void> {
	const guest = await Guest.prepare({ disks: layout.disks.length, diskBytes, memoryMiB: 1024 });
	const rounds = new Rounds(guest, layout, randomOf(seed * layouts.length + number));
	let round = 0;
	try {
		await guest.start();
		await rounds.create();
		for (; round < cuts; round++) await rounds.play(round);
	} catch (error) {
		throw new Error(`seed ${seed}, round ${round}: ${(error as Error).message}\n${await rounds.logs()}`, { cause: error });
	} finally {
		await guest.close();
	}
	const { operations, synced, exactFiles, lostWrites, tornWrites, lostBytes, singleDisks } = rounds.totals;
	t.diagnostic(
		`${cuts} power cuts and ${singleDisks} of single disks; ${operations} operations, ${synced} syncs, ${exactFiles} files that had to be exact: all there; un-flushed writes lost ${lostWrites}, torn ${tornWrites}, ${Math.round(lostBytes / 1024)} KiB`,
	);
	assert.ok(
		cuts < 10 || (synced > 0 && lostWrites + tornWrites > 0),
		"of many cuts, some came after a sync and lost something that was not",
	);
}

class Rounds {
	readonly #guest: Guest;
	readonly #layout: Layout;
	readonly #random: (bound: number) => number;
	/** Folder → fingerprint, of what was checked in earlier rounds. */
	readonly #kept = new Map<string, string>();
	readonly totals: Totals = { operations: 0, synced: 0, exactFiles: 0, lostWrites: 0, tornWrites: 0, lostBytes: 0, singleDisks: 0 };

	constructor(guest: Guest, layout: Layout, random: (bound: number) => number) {
		this.#guest = guest;
		this.#layout = layout;
		this.#random = random;
	}

	#places(): string[] {
		return this.#layout.disks.map((kind, i) => (kind === "raw" ? `/dev/nbd${i}` : `/disks/${i}`));
	}

	async create(): Promise<void> {
		const filled = this.#layout.disks.map((kind, i) => (kind === "raw" ? ":" : `mkfs.${kind} -q /dev/nbd${i}`));
		const disks = this.#places().map((place) => `--disk ${place}`);
		await this.#guest.must(`${filled.join(" && ")} && ${this.#mounting()}`);
		await this.#guest.must(`${command} create photos ${disks.join(" ")} --redundancy ${this.#layout.redundancy}`);
		await this.#guest.must(`mkdir -p ${mountpoint} && ${command} mount photos ${mountpoint}`);
	}

	/** The disks that are directories. */
	#mounting(): string {
		const all = this.#layout.disks.map((kind, i) =>
			kind === "raw" ? ":" : `mkdir -p /disks/${i} && mount -t ${kind} /dev/nbd${i} /disks/${i}`,
		);
		return all.join(" && ");
	}

	async play(round: number): Promise<void> {
		const random = this.#random;
		const folders = Array.from({ length: writers }, (_, i): Required<LookedAt> => {
			const folder = `round${round}-${i}`;
			return { folder, seed: (seed * 1000 + round) * writers + i, journal: `/host/base/${folder}` };
		});
		const ended = this.#write(folders);
		await this.#begun(folders);
		await sleep(200 + random(random(4) === 0 ? 12_000 : 4000));
		const isSingle = random(4) === 0;
		if (isSingle) await this.#cutOneDisk();
		const mode = cutModes[random(cutModes.length)] as (typeof cutModes)[number];
		// As it comes, or when much is not flushed.
		const cachedBytes = [0, 0, 4096, 65_536, 524_288][random(5)] as number;
		this.#count(await this.#guest.cut({ mode, seed: random(1 << 30), cachedBytes, patienceMs: 6000 }));
		assert.notEqual((await ended).code, 0, "the writers worked until the cut");
		await this.#guest.start();
		const disks = this.#places().map((place) => `--disk ${place}`);
		await this.#guest.must(`${this.#mounting()}; mkdir -p ${mountpoint} && ${command} mount photos ${mountpoint} ${disks.join(" ")}`);
		await this.#check(folders);
		if (isSingle) await this.#guest.must(`${command} heal photos --wait`);
		await this.#verify();
	}

	async #cutOneDisk(): Promise<void> {
		const disk = 1 + this.#random(this.#layout.disks.length);
		this.#count(
			await this.#guest.cutDisks({ cut: [disk], mode: "nothing", seed: this.#random(1 << 30), cachedBytes: 1, patienceMs: 3000 }),
		);
		this.totals.singleDisks++;
		await sleep(1000 + this.#random(3000));
	}

	#count(results: readonly CutResult[]): void {
		for (const { lostWrites, tornWrites, lostBytes } of results) {
			this.totals.lostWrites += lostWrites;
			this.totals.tornWrites += tornWrites;
			this.totals.lostBytes += lostBytes;
		}
	}

	/** Until the power goes. */
	#write(folders: readonly Required<LookedAt>[]): Promise<{ code: number | null }> {
		const program = `${guestRepository}/dist/test/crash/kill-writer.js`;
		const each = folders.map(
			({ folder, seed, journal }) => `mkdir ${mountpoint}/${folder} && node ${program} ${mountpoint}/${folder} ${journal} ${seed} power &`,
		);
		return this.#guest.run(`${each.join("\n")}\nwait -n; echo a writer ended; false`, { timeoutMs: 120_000 });
	}

	/** Every writer has done something. */
	async #begun(folders: readonly Required<LookedAt>[]): Promise<void> {
		const endMs = performance.now() + 120_000;
		for (const { folder } of folders) {
			const journal = `${this.#guest.base}/${folder}`;
			while (!existsSync(journal) || statSync(journal).size < 200) {
				assert.ok(performance.now() < endMs, `the writer of ${folder} does nothing`);
				await sleep(50);
			}
		}
	}

	async #check(folders: readonly Required<LookedAt>[]): Promise<void> {
		const request = JSON.stringify([...folders, ...[...this.#kept.keys()].map((folder) => ({ folder }))]);
		const told = await this.#guest.must(`node ${guestRepository}/dist/test/lab/power-check.js ${mountpoint} '${request}'`);
		for (const looked of JSON.parse(told) as Looked[]) {
			const { folder, faults, fingerprint } = looked;
			assert.deepEqual(faults, [], `${folder}`);
			const before = this.#kept.get(folder);
			assert.ok(before === undefined || before === fingerprint, `${folder} changed after it was checked`);
			this.#kept.set(folder, fingerprint);
			this.totals.operations += looked.operations;
			this.totals.synced += looked.synced;
			this.totals.exactFiles += looked.exactFiles;
		}
		for (const { folder } of folders) rmSync(`${this.#guest.base}/${folder}`, { force: true });
		const oldest = [...this.#kept.keys()].slice(0, Math.max(0, this.#kept.size - keptFolders));
		for (const folder of oldest) this.#kept.delete(folder);
		if (oldest.length > 0) await this.#guest.must(`cd ${mountpoint} && rm -r ${oldest.join(" ")} 2>&1 || true`);
	}

	async #verify(): Promise<void> {
		const { code, stdout } = await this.#guest.run(`${command} verify photos --json 2>/dev/null`);
		const { corrupt, missing, unrecoverable } = JSON.parse(stdout) as VerifyJson;
		assert.deepEqual([code, corrupt, missing, unrecoverable], [0, 0, 0, 0], `verify is clean: ${stdout}`);
	}

	async logs(): Promise<string> {
		const { stdout } = await this.#guest.run("tail -n 40 /root/cairn/photos/daemon.log; dmesg | tail -n 15", { timeoutMs: 20_000 });
		return `${stdout}\n${await this.#guest.console()}`;
	}
}
