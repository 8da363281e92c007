/** What tests of the command begin with: a machine with six disks and a mounted volume, files in it, and codes that are looked at. */
import assert from "node:assert/strict";
import type { Caller } from "../volume/interface.ts";
import { type CommandResult, Machine } from "./machine.test-support.ts";

export const six = ["--disk", "/d1", "/d2", "/d3", "/d4", "/d5", "/d6"];
const caller: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "test",
	share: undefined,
	trusted: true,
};

export function expectCode(result: CommandResult, code: number, text?: RegExp): void {
	assert.equal(result.code, code, `code ${result.code}\n${result.out}\n${result.err}`);
	if (text) assert.match(result.out + result.err, text);
}

export async function mounted(seed: number): Promise<Machine> {
	const machine = new Machine(seed);
	machine.host.makeFolder("/mnt/demo");
	expectCode(await machine.cairn("create", "demo", ...six, "--same-device"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	return machine;
}

export async function writeFile(machine: Machine, name: string, sizeBytes: number): Promise<Uint8Array> {
	const volume = machine.volumeAt("/mnt/demo");
	const bytes = new Uint8Array(sizeBytes).map((_, i) => (i * 31) ^ (i >> 8));
	await machine.world.run(async () => {
		const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
		const { handle } = await volume.open(caller, { parent: volume.root, name }, intent);
		for (let at = 0; at < sizeBytes; at += 131_072) await volume.write(handle, at, bytes.subarray(at, at + 131_072));
		await volume.fsync(handle, false);
		await volume.close(handle);
		await volume.syncAll();
	});
	return bytes;
}

export async function readFile(machine: Machine, name: string): Promise<Uint8Array> {
	const volume = machine.volumeAt("/mnt/demo");
	return machine.world.run(async () => {
		const intent = { disposition: "open", access: { read: true, write: false } } as const;
		const { handle, attributes } = await volume.open(caller, { parent: volume.root, name }, intent);
		const bytes = new Uint8Array(attributes.size);
		for (let at = 0; at < bytes.length; at += 131_072) bytes.set(await volume.read(handle, at, Math.min(131_072, bytes.length - at)), at);
		await volume.close(handle);
		return bytes;
	});
}
