/** Hostile calls through a socket, to a server on a volume that is whole afterwards. */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import { decodeCall } from "../../src/doors/nfs/rpc.ts";
import { SeededRandom } from "../support/map-records.ts";
import type { NfsClient } from "./client.ts";
import { randomCall } from "./fuzz.ts";
import { inWorld } from "./world.ts";

const namesKept = 40;

/** Whether a server has to answer it. */
function isCall(message: Uint8Array): boolean {
	try {
		decodeCall(message);
		return true;
	} catch {
		return false;
	}
}

async function someHandles(client: NfsClient, top: Uint8Array): Promise<Uint8Array[]> {
	const made = [
		await client.create(top, "a", "guarded", { mode: 0o644 }),
		await client.mkdir(top, "b"),
		await client.symlink(top, "l", "a"),
	];
	return [top, ...made.map(({ handle }) => handle as Uint8Array)];
}

/** `calls` calls; each that is one gets an answer. @throws AssertionError with the seed. */
export function fuzzServer(seed: number, calls: number): Promise<void> {
	return inWorld(seed, async (world) => {
		const random = new SeededRandom(seed);
		let client = await world.connect();
		const { handle: top } = await client.mount("/demo");
		let handles = await someHandles(client, top);
		for (let i = 0; i < calls; i++) {
			const message = randomCall(random, handles, 10_000_000 + i);
			if (isCall(message)) {
				const { status, authStatus } = await client.send(message).catch((error: unknown) => {
					throw new Error(`seed ${seed}, call ${i}: ${String(error)}`);
				});
				assert.notEqual(status, 5, `seed ${seed}, call ${i}: a fault of the server (auth ${authStatus})`);
			} else {
				await assert.rejects(
					client.send(message),
					(error) => isFsError(error, "ENOTCONN"),
					`seed ${seed}, call ${i}: no call is not answered`,
				);
				client = await world.connect();
			}
			if (i % 500 === 499) {
				const entries = await client.list(top);
				for (const { name, attributes } of entries.slice(namesKept))
					if (attributes?.type === 2) await client.rmdir(top, name);
					else await client.remove(top, name);
				handles = [top, ...(await client.list(top)).slice(2, namesKept).flatMap(({ handle }) => (handle ? [handle] : []))];
			}
		}
		const { corrupt, missing, unrecoverable, miscounted } = await world.volume.verify(
			{ dryRun: true, lost: false, resume: false },
			() => {},
		);
		assert.deepEqual([corrupt, missing, unrecoverable, miscounted], [0, 0, 0, 0], `seed ${seed}: the volume is whole`);
		client.close();
	});
}
