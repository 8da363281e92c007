/**
 * Cairn on Linux 6.1, which cannot hand a mount over to another process (`npm run test:long older-kernel`, `--times 5`, `--seed 7`; needs the image that lab/build-image.sh makes): the daemon is killed under writers. Nothing hangs,
 * programs get errors, the volume is mounted anew by itself, and what was reported as synced is there.
 */
import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import { test } from "node:test";
import { randomOf } from "../crash/kill-model.ts";
import { sleep, type VerifyJson } from "../support/cairn.ts";
import { cannotStartGuests, Guest, guestRepository } from "./guest.ts";
import type { Looked, LookedAt } from "./power-check.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 5);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const disks = ["/dev/nbd0", "/dev/nbd1", "/dev/nbd2"];
const command = `CAIRN_HOME=/root/cairn node ${guestRepository}/dist/src/cli/main.js`;
const mountpoint = "/srv/photos";
/** Of everything that waits for a dead daemon, on a machine that does other things, too. */
const boundSeconds = 120;

class Rounds {
	readonly #guest: Guest;
	readonly #random = randomOf(seed);
	readonly #folders: Required<LookedAt>[] = [];
	synced = 0;

	constructor(guest: Guest) {
		this.#guest = guest;
	}

	async create(): Promise<void> {
		await this.#guest.must(`${command} create photos ${disks.map((disk) => `--disk ${disk}`).join(" ")} --redundancy rs:2+1`);
		await this.#guest.must(`mkdir -p ${mountpoint} && ${command} mount photos ${mountpoint}`);
	}

	/** Writers that work until their daemon is killed, and end then. */
	async play(round: number): Promise<void> {
		const folders = [0, 1].map((i): Required<LookedAt> => {
			const folder = `round${round}-${i}`;
			return { folder, seed: (seed * 1000 + round) * 2 + i, journal: `/host/base/${folder}` };
		});
		this.#folders.push(...folders);
		const writers = folders.map(
			({ folder, seed: own, journal }) =>
				`mkdir ${mountpoint}/${folder} && node ${guestRepository}/dist/test/crash/kill-writer.js ${mountpoint}/${folder} ${journal} ${own} power &`,
		);
		const ended = this.#guest.run(`${writers.join("\n")}\nwait; echo all ended`, { timeoutMs: 300_000 });
		for (const { folder } of folders) {
			const journal = `${this.#guest.base}/${folder}`;
			for (let waited = 0; !existsSync(journal) || statSync(journal).size < 200; waited++) {
				assert.ok(waited < 2400, `the writer of ${folder} does nothing`);
				await sleep(50);
			}
		}
		await sleep(this.#random(4000));
		await this.#guest.must(`kill -9 $(pgrep -f daemon/main.js)`);
		assert.match((await ended).stdout, /all ended/, "no writer hangs");
		await this.#guest.must(
			`timeout ${boundSeconds} sh -c 'until ls ${mountpoint}/${folders[0]?.folder} >/dev/null 2>&1; do sleep 0.2; done'`,
		);
		await this.#check();
	}

	async #check(): Promise<void> {
		const request = JSON.stringify(this.#folders);
		const told = await this.#guest.must(`node ${guestRepository}/dist/test/lab/power-check.js ${mountpoint} '${request}'`);
		this.synced = 0;
		for (const { folder, faults, synced } of JSON.parse(told) as Looked[]) {
			assert.deepEqual(faults, [], folder);
			this.synced += synced;
		}
	}

	async verify(): Promise<void> {
		const { code, stdout } = await this.#guest.run(`${command} verify photos --json 2>/dev/null`);
		const { corrupt, missing, unrecoverable } = JSON.parse(stdout) as VerifyJson;
		assert.deepEqual([code, corrupt, missing, unrecoverable], [0, 0, 0, 0], `verify is clean: ${stdout}`);
		await this.#guest.must(
			`timeout ${boundSeconds} ${command.replace("CAIRN_HOME=/root/cairn ", "env CAIRN_HOME=/root/cairn ")} umount ${mountpoint}`,
		);
	}
}

test(`the daemon is killed ${times} times on an older kernel, seed ${seed}`, { skip: cannotStartGuests() ?? false }, async (t) => {
	const guest = await Guest.prepare({ disks: disks.length, diskBytes: 2 * 1024 ** 3, memoryMiB: 1024 });
	const rounds = new Rounds(guest);
	try {
		await guest.start();
		const release = (await guest.must("uname -r")).trim();
		const [major, minor] = release.split(".").map(Number) as [number, number];
		assert.ok(major < 6 || (major === 6 && minor < 9), `${release} is an older kernel`);
		await rounds.create();
		for (let round = 0; round < times; round++) await rounds.play(round);
		await rounds.verify();
		t.diagnostic(`Linux ${release}: ${times} daemons killed, ${rounds.synced} syncs, all there`);
	} catch (error) {
		const { stdout } = await guest.run("tail -n 60 /root/cairn/photos/daemon.log; dmesg | tail -n 15", { timeoutMs: 20_000 });
		throw new Error(`seed ${seed}: ${(error as Error).message}\n${stdout}`, { cause: error });
	} finally {
		await guest.close();
	}
});
