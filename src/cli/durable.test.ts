/** Opens that are kept by record, as operators see and end them. A door that makes them is played. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Caller } from "../volume/interface.ts";
import type { LockList } from "../volume/native/interface.ts";
import { expectCode, mounted, writeFile } from "./demo.test-support.ts";
import type { Machine } from "./machine.test-support.ts";

const client = "c".repeat(32);
const door: Caller = {
	uid: 7,
	gid: 7,
	groups: [],
	principal: "anna",
	door: "smb",
	clientInstance: "session 1",
	share: undefined,
	trusted: true,
};

function openDurably(machine: Machine, name: string, number: number, persistent: boolean): Promise<number> {
	const volume = machine.volumeAt("/mnt/demo");
	const createGuid = number.toString(16).padStart(32, "0");
	return machine.world.run(async () => {
		const { handle, durable } = await volume.open(
			door,
			{ parent: volume.root, name },
			{
				disposition: "open",
				access: { read: true, write: true },
				deny: { read: false, write: true, delete: true },
				durable: { clientGuid: client, createGuid, persistent, timeoutMs: 300_000, lease: { key: createGuid, state: 5 } },
			},
		);
		assert.equal(durable?.persistent, persistent);
		return handle;
	});
}

async function listed(machine: Machine): Promise<LockList> {
	const { code, out } = await machine.cairn("locks", "demo", "--json");
	assert.equal(code, 0, out);
	return JSON.parse(out) as LockList;
}

test("cairn locks shows durable opens, over an unmount too, and break ends one", async () => {
	const machine = await mounted(20_261_122);
	await writeFile(machine, "a", 100);
	await writeFile(machine, "b", 100);
	const volume = machine.volumeAt("/mnt/demo");
	const a = await openDurably(machine, "a", 1, true);
	const b = await openDurably(machine, "b", 2, false);
	await machine.world.run(() => volume.durableOpens.lock(a, { exclusive: true, range: { start: 0, end: 9 } }, false));
	const before = (await listed(machine)).durable;
	assert.deepEqual(
		before.map(({ kind, state, deny, ranges, leftSeconds, door: by, client: of }) => [kind, state, deny, ranges, leftSeconds, by, of]),
		[
			["persistent", "connected", ["write", "delete"], 1, null, "smb", client],
			["durable", "connected", ["write", "delete"], 0, null, "smb", client],
		],
	);
	expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	const after = await listed(machine);
	assert.deepEqual(
		after.durable.map(({ owner, state, ranges }) => [owner, state, ranges]),
		[
			[`smb:${a}`, "waiting", 1],
			[`smb:${b}`, "waiting", 0],
		],
	);
	assert.equal(after.held.length, 1, "its range is held again");
	for (const { leftSeconds } of after.durable)
		assert.ok(leftSeconds !== null && leftSeconds > 200 && leftSeconds <= 300, `${leftSeconds} s`);
	expectCode(await machine.cairn("locks", "/mnt/demo/a"), 0, /persistent.*read\+write.*write\+delete.*waits for its client, [45] min/);
	expectCode(await machine.cairn("locks", "break", "/mnt/demo/a", "--owner", `smb:${a}`, "--yes"), 0, /1 lock of .* broken/);
	expectCode(await machine.cairn("locks", "break", "/mnt/demo/a", "--yes"), 3, /no such lock/);
	const left = await listed(machine);
	assert.deepEqual([left.durable.map(({ owner }) => owner), left.held], [[`smb:${b}`], []]);
	// What was broken does not come back.
	expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	assert.deepEqual(
		(await listed(machine)).durable.map(({ owner }) => owner),
		[`smb:${b}`],
	);
	expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
});
