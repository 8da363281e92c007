/** Every ordered pair of doors over a volume: one holds what is typical of it, another comes and does what is typical of it. Doors that do not exist yet are played by callers of theirs. In virtual time. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import { leaseBits } from "../../src/locks/matrix.ts";
import { admissionLimits, lockLimits } from "../../src/locks/limits.ts";
import type { Caller, HandleId, NodeRef, OpenIntent } from "../../src/volume/interface.ts";
import { NfsWorld } from "../nfs/world.ts";

const R = leaseBits.read;
const RW = leaseBits.read | leaseBits.write;
const RWH = RW | leaseBits.handle;
const RH = leaseBits.read | leaseBits.handle;

type Door = "fuse" | "nfs" | "smb" | "s3" | "node";
const doors: readonly Door[] = ["fuse", "nfs", "smb", "s3", "node"];

function caller(door: Door, client: string, leaseKey?: string): Caller {
	return {
		uid: 0,
		gid: 0,
		groups: [],
		principal: undefined,
		door,
		clientInstance: client,
		share: undefined,
		trusted: true,
		...(leaseKey === undefined ? {} : { leaseKey }),
	};
}

/** What a holder hears. */
interface Heard {
	readonly broken: number[];
	readonly revoked: number[];
}

class Scene {
	readonly world: NfsWorld;
	readonly folder: NodeRef;
	readonly file: NodeRef;

	constructor(world: NfsWorld, folder: NodeRef, file: NodeRef) {
		this.world = world;
		this.folder = folder;
		this.file = file;
	}

	get volume(): NfsWorld["volume"] {
		return this.world.volume;
	}

	async open(who: Caller, intent: Partial<OpenIntent> = {}): Promise<HandleId> {
		const all = { disposition: "open", access: { read: true, write: true }, ...intent } as const;
		return (await this.volume.open(who, { node: this.file }, all)).handle;
	}

	/** `answers`: gives back what it is asked for, after so many ms; undefined: never. */
	lease(door: Door, key: string, state: number, answers?: number): { readonly state: number; readonly heard: Heard } {
		const heard: Heard = { broken: [], revoked: [] };
		const { locks } = this.volume;
		const { ino } = this.file;
		const family = door === "smb" ? "smb" : door === "nfs" ? "delegation" : "node";
		const listener = {
			broken: (to: number): void => {
				heard.broken.push(to);
				if (answers !== undefined) void this.world.world.sleep(answers).then(() => locks.answerLease(ino, key, to));
			},
			revoked: (to: number): void => void heard.revoked.push(to),
		};
		const had = locks.lease({ ino, key, door, client: key, family, state }, listener);
		return { state: had.state, heard };
	}

	/** How it ended and after how many ms. */
	async outcome(work: () => Promise<unknown>): Promise<readonly [string, number]> {
		const { world } = this.world;
		const from = world.nowMs;
		const how = await work().then(
			() => "done",
			(error: unknown) => (isFsError(error) ? error.code : String(error)),
		);
		return [how, Math.round(world.nowMs - from)];
	}
}

/** In a folder and with a file of its own. */
async function stage(world: NfsWorld, name: string): Promise<Scene> {
	const { volume } = world;
	const root = caller("fuse", "beside");
	const folder = volume.node((await volume.makeDirectory(root, volume.root, name, 0o755)).attributes.ino);
	const opened = await volume.open(root, { parent: folder, name: "f" }, { disposition: "create", access: { read: true, write: true } });
	await volume.write(opened.handle, 0, new Uint8Array(100).fill(1));
	await volume.close(opened.handle);
	return new Scene(world, folder, volume.node(opened.attributes.ino));
}

/** One volume for many scenes: making it takes longer than they do. */
type Pair = readonly [string, (scene: Scene) => Promise<void>];

function scenes(all: readonly Pair[]): Promise<void> {
	const made = new NfsWorld(20_261_121);
	return made.world.run(async () => {
		await made.create();
		for (const [at, [about, body]] of all.entries()) {
			try {
				await body(await stage(made, String(at)));
			} catch (error) {
				throw new Error(about, { cause: error });
			}
		}
		await made.close();
	});
}

const scene = (body: (scene: Scene) => Promise<void>): Promise<void> => scenes([["", body]]);

/** A write as each door writes: through an open, by a server's own handle, or by putting a new file in its place. */
const write: Readonly<Record<Door, (scene: Scene, leaseKey?: string) => Promise<void>>> = {
	fuse: (s) => openAndWrite(s, caller("fuse", "mount2")),
	nfs: async (s) => {
		const server = await s.open({ ...caller("nfs", "server"), trusted: false }, { checked: true, appending: true });
		try {
			await s.volume.write(server, 0, Uint8Array.of(2), caller("nfs", "10.0.0.2"));
		} finally {
			await s.volume.close(server);
		}
	},
	smb: (s, key) => openAndWrite(s, caller("smb", "session2", key)),
	s3: async (s) => {
		const who = caller("s3", "put");
		const { volume } = s;
		const put = await volume.open(
			who,
			{ parent: s.folder, name: "upload" },
			{ disposition: "create", access: { read: false, write: true } },
		);
		await volume.write(put.handle, 0, Uint8Array.of(2));
		await volume.close(put.handle);
		await volume.rename(who, s.folder, "upload", s.folder, "f", 0).catch(async (error: unknown) => {
			await volume.unlink(who, s.folder, "upload");
			throw error;
		});
	},
	node: (s, key) => openAndWrite(s, caller("node", "node2", key)),
};

async function openAndWrite(s: Scene, who: Caller): Promise<void> {
	const handle = await s.open(who);
	try {
		await s.volume.write(handle, 0, Uint8Array.of(2));
	} finally {
		await s.volume.close(handle);
	}
}

const denyWrite = { read: false, write: true, delete: false };

/** Somebody has it open and lets nobody write: how each door says so (NFS by SHARE). The others cannot, and have it open for reading and writing. */
const deny: Readonly<Record<Door, (scene: Scene) => Promise<void>>> = {
	fuse: async (s) => void (await s.open(caller("fuse", "mount1"))),
	nfs: async (s) => {
		const { clientLocks } = s.volume;
		const client = await clientLocks.enroll({ name: "a", address: "10.0.0.1", serverAddress: "", state: 0 });
		await clientLocks.share({ ino: s.file.ino, client: client.id, owner: "o", access: 1, deny: 2 }, false);
	},
	smb: async (s) => void (await s.open(caller("smb", "session1"), { access: { read: true, write: false }, deny: denyWrite })),
	s3: async (s) => void (await s.open(caller("s3", "get"), { access: { read: true, write: false } })),
	node: async (s) => void (await s.open(caller("node", "node1"), { access: { read: true, write: false }, deny: denyWrite })),
};

describe("every ordered pair of doors: denied writing", () => {
	const pairs: Pair[] = [];
	for (const holder of doors)
		for (const comer of doors)
			pairs.push([
				`${holder} has it open, ${comer} writes`,
				async (s) => {
					await deny[holder](s);
					const denies = holder === "nfs" || holder === "smb" || holder === "node";
					assert.equal((await s.outcome(() => write[comer](s)))[0], denies ? "EBUSY" : "done");
				},
			]);

	for (const asker of ["nfs", "smb", "node"] as const)
		for (const holder of ["fuse", "smb", "s3", "node"] as const)
			pairs.push([
				`${holder} has it open for writing, ${asker} wants to deny that`,
				async (s) => {
					const handle = await s.open(caller(holder, "first"));
					assert.equal((await s.outcome(() => deny[asker](s)))[0], "EBUSY");
					await s.volume.close(handle);
					assert.deepEqual((await s.outcome(() => deny[asker](s)))[0], "done");
				},
			]);
	test("all of them", () => scenes(pairs));
});

/** Who writes breaks what others cache, and waits for it: those that send again what is not answered are told to come later. */
describe("every ordered pair of doors: leases", () => {
	const pairs: Pair[] = [];
	const cachers = ["nfs", "smb", "node"] as const;
	for (const holder of cachers)
		for (const comer of doors) {
			pairs.push([
				`${holder} caches and gives it back, ${comer} writes`,
				async (s) => {
					const { state, heard } = s.lease(holder, "first", RWH, 300);
					assert.equal(state, RWH);
					const [how, ms] = await s.outcome(() => write[comer](s));
					assert.equal(how, "done");
					assert.ok(ms >= 300, `it waited ${ms} ms`);
					assert.equal(heard.broken.at(-1), 0);
					assert.deepEqual(heard.revoked, []);
					assert.equal(s.lease(holder, "first", R).state, 0, "not so soon again");
				},
			]);
			pairs.push([
				`${holder} caches and does not answer, ${comer} writes`,
				async (s) => {
					const { heard } = s.lease(holder, "first", RWH);
					const family = holder === "nfs" ? "delegation" : holder;
					const [how, ms] = await s.outcome(() => write[comer](s));
					assert.deepEqual(how, comer === "nfs" ? "EAGAIN" : "done");
					const limit = comer === "nfs" ? admissionLimits.resendingMs : lockLimits.breakMs[family];
					assert.ok(ms >= limit && ms <= 2 * limit + 100, `it waited ${ms} ms`);
					if (comer !== "nfs") assert.ok(heard.revoked.length > 0);
					// Opening and writing may each break something: a client that comes again gets there.
					let again = "EAGAIN";
					for (let tries = 0; tries < 3 && again === "EAGAIN"; tries++) {
						await s.world.world.sleep(lockLimits.breakMs[family]);
						[again] = await s.outcome(() => write[comer](s));
					}
					assert.equal(again, "done");
					assert.equal(heard.revoked.at(-1), 0);
				},
			]);
		}

	for (const holder of ["smb", "node"] as const)
		pairs.push([
			`${holder}: who caches is not in its own way, nor when others wait for what it brings back`,
			async (s) => {
				const own = await s.open(caller(holder, "first", "key"));
				const { state, heard } = s.lease(holder, "key", RW);
				assert.equal(state, RW, "its own open is no reason");
				await s.volume.close(own);
				assert.deepEqual((await s.outcome(() => write[holder](s, "key")))[0], "done");
				assert.deepEqual(heard.broken, []);
				const other = s.outcome(() => write.fuse(s));
				await s.world.world.sleep(100);
				assert.ok(heard.broken.length > 0);
				assert.deepEqual((await s.outcome(() => write[holder](s, "key")))[0], "done", "it brings back what it has cached");
				s.volume.locks.answerLease(s.file.ino, "key", 0);
				assert.equal((await other)[0], "done");
			},
		]);

	for (const [holder, comer] of cachers.flatMap((a) => cachers.map((b) => [a, b] as const)))
		pairs.push([
			`${holder} caches, ${comer} wants to`,
			async (s) => {
				assert.equal(s.lease(holder, "first", RW).state, RW);
				assert.equal(s.lease(comer, "second", RW).state, 0, "beside a cache of writes nobody caches");
				s.volume.locks.answerLease(s.file.ino, "first", R);
				assert.equal(s.lease(comer, "second", R).state, R);
				s.volume.locks.dropClient(holder, "first");
				s.volume.locks.dropClient(comer, "second");
				assert.equal(
					s.lease(comer, "third", comer === "nfs" ? RW : RWH).state,
					comer === "nfs" ? RW : RWH,
					"a client that is gone caches nothing",
				);
			},
		]);
	test("all of them", () => scenes(pairs));
});

describe("leases of names and looks", () => {
	test("remove and rename take what others keep of the file, replacing too; a directory's, when its names change", () =>
		scene(async (s) => {
			const { volume } = s;
			const root = caller("fuse", "mount");
			const { heard } = s.lease("smb", "a", RH, 50);
			await volume.rename(root, s.folder, "f", s.folder, "g", 0);
			assert.deepEqual(heard.broken, [0]);
			const names: number[] = [];
			const listing = { ino: s.folder.ino, key: "dir", door: "smb", client: "dir", family: "smb", state: R } as const;
			const had = volume.locks.lease(listing, {
				broken: (to) => {
					names.push(to);
					volume.locks.answerLease(s.folder.ino, "dir", to);
				},
				revoked: () => {},
			});
			assert.equal(had.state, R);
			assert.equal((await volume.lookup(root, s.folder, "g")).ino, s.file.ino);
			assert.deepEqual(names, [], "looking is no change");
			await volume.makeDirectory(root, s.folder, "d", 0o755);
			assert.deepEqual(names, [0]);
			await volume.unlink(root, s.folder, "g");
		}));

	test("a node that caches attributes is asked before others look, a delegation goes when they are changed", () =>
		scene(async (s) => {
			const { volume, file } = s;
			const root = caller("fuse", "mount");
			const node = s.lease("node", "n", RW, 20);
			assert.equal(volume.now?.getAttributes(root, file), undefined, "nothing is answered at once");
			await volume.getAttributes(root, file);
			assert.deepEqual(node.heard.broken, [R]);
			await volume.setAttributes(root, file, { mode: 0o600 });
			assert.deepEqual(node.heard.broken, [R, 0]);
			assert.notEqual(volume.now?.getAttributes(root, file), undefined, "PLAIN again");
		}));

	test("so many wait and no more, so that a mount goes on", () =>
		scene(async (s) => {
			const { volume } = s;
			const root = caller("fuse", "mount");
			const nodes: NodeRef[] = [];
			for (let i = 0; i < 4; i++) {
				const { handle, attributes } = await volume.open(
					root,
					{ parent: s.folder, name: `n${i}` },
					{ disposition: "create", access: { read: false, write: true } },
				);
				await volume.close(handle);
				nodes.push(volume.node(attributes.ino));
				volume.locks.lease(
					{ ino: attributes.ino, key: "k", door: "node", client: "k", family: "node", state: RW },
					{ broken: () => {}, revoked: () => {} },
				);
			}
			const all = Array.from({ length: 320 }, (_, i) => s.outcome(() => volume.getAttributes(root, nodes[i % 4] as NodeRef)));
			const ended = await Promise.all(all);
			const refused = ended.filter(([how]) => how === "EAGAIN" || how === "ENOLCK").length;
			assert.equal(ended.filter(([how]) => how === "done").length, admissionLimits.waiting);
			assert.equal(refused, 320 - admissionLimits.waiting);
		}));
});

/** Bytes that are locked bind SMB, and nobody else. */
describe("every ordered pair of doors: ranges and reads and writes", () => {
	const pairs: Pair[] = [];
	const bytes = { start: 0, end: 9 };
	const lock: Readonly<Record<"fuse" | "nfs" | "smb", (s: Scene) => Promise<void>>> = {
		fuse: async (s) => {
			const handle = await s.open(caller("fuse", "mount1"));
			const owner = { id: "00000000000000aa", pid: 7 };
			const how = { wait: false, victim: true, request: { low: 0, high: 0 } };
			await s.volume.locks.lock({ ino: s.file.ino, handle, family: "fcntl", owner, exclusive: true, range: bytes }, how);
		},
		nfs: async (s) => {
			const client = await s.volume.clientLocks.enroll({ name: "a", address: "10.0.0.1", serverAddress: "", state: 0 });
			const asked = { ino: s.file.ino, client: client.id, owner: 1, exclusive: true, range: bytes };
			assert.equal((await s.volume.clientLocks.lock(asked, { wait: false, reclaim: false })).kind, "granted");
		},
		smb: async (s) => {
			const handle = await s.open(caller("smb", "session1"));
			await s.volume.locks.lockSmb({ ino: s.file.ino, handle, client: "session1", exclusive: true, range: bytes }, false);
		},
	};
	for (const holder of ["fuse", "nfs", "smb"] as const) {
		for (const comer of doors)
			pairs.push([
				`${holder} has locked bytes, ${comer} writes them`,
				async (s) => {
					await lock[holder](s);
					assert.equal((await s.outcome(() => write[comer](s)))[0], comer === "smb" ? "EAGAIN" : "done");
				},
			]);
		for (const comer of ["fuse", "nfs", "smb"] as const)
			pairs.push([
				`${holder} has locked bytes, ${comer} wants to lock them`,
				async (s) => {
					await lock[holder](s);
					const second = async (): Promise<void> => {
						if (comer === "smb") {
							const handle = await s.open(caller("smb", "session2"));
							await s.volume.locks.lockSmb(
								{ ino: s.file.ino, handle, client: "session2", exclusive: false, range: { start: 9, end: 9 } },
								false,
							);
						} else if (comer === "nfs") {
							const client = await s.volume.clientLocks.enroll({ name: "b", address: "10.0.0.2", serverAddress: "", state: 0 });
							const asked = { ino: s.file.ino, client: client.id, owner: 1, exclusive: false, range: { start: 9, end: 9 } };
							await s.volume.clientLocks.lock(asked, { wait: false, reclaim: false });
						} else {
							const handle = await s.open(caller("fuse", "mount2"));
							const owner = { id: "00000000000000bb", pid: 8 };
							const how = { wait: false, victim: true, request: { low: 0, high: 0 } };
							const range = { start: 9, end: 9 };
							await s.volume.locks.lock({ ino: s.file.ino, handle, family: "fcntl", owner, exclusive: false, range }, how);
						}
					};
					assert.equal((await s.outcome(second))[0], "EAGAIN");
				},
			]);
	}

	for (const asker of ["fuse", "nfs", "smb"] as const)
		pairs.push([
			`a node caches, ${asker} locks bytes: it waits until writes are brought back`,
			async (s) => {
				const { heard } = s.lease("node", "n", RW, 200);
				const [how, ms] = await s.outcome(() => lock[asker](s));
				assert.deepEqual([how, heard.broken], ["done", [R]]);
				assert.ok(ms >= 200);
			},
		]);
	test("all of them", () => scenes(pairs));
});

test("a share that is given up while it waits does not come later", () =>
	scene(async (s) => {
		const { volume } = s;
		const { ino } = s.file;
		const underWay = await volume.locks.admit([{ ino, access: "write" }], caller("nfs", "10.0.0.9"));
		const client = await volume.clientLocks.enroll({ name: "a", address: "10.0.0.1", serverAddress: "", state: 0 });
		const share = { ino, client: client.id, owner: "o" };
		const asked = s.outcome(() => volume.clientLocks.share({ ...share, access: 1, deny: 2 }, false));
		await s.world.world.sleep(10);
		await volume.clientLocks.unshare(share);
		assert.equal((await asked)[0], "ECANCELED");
		for (const one of underWay) one.release();
		assert.equal((await s.outcome(() => write.fuse(s)))[0], "done");
	}));

test("a share waits for a write of another machine that is under way, and later writes stand behind it", () =>
	scene(async (s) => {
		const { volume } = s;
		const { ino } = s.file;
		const asker = caller("nfs", "10.0.0.9");
		const [underWay] = await volume.locks.admit([{ ino, access: "write" }], asker);
		let had = false;
		const sharing = deny.nfs(s).then(() => {
			had = true;
		});
		await s.world.world.sleep(100);
		assert.equal(had, false);
		const later = s.outcome(() => volume.locks.admit([{ ino, access: "write" }], asker));
		const reading = await volume.locks.admit([{ ino, access: "read" }], asker);
		for (const one of reading) one.release();
		underWay?.release();
		await sharing;
		assert.equal((await later)[0], "EBUSY");
	}));
