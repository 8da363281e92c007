/** A volume with an NFS door on a simulated machine, and clients beside it. */
import { silentLogger } from "../../src/base/telemetry.ts";
import type { LiveExport } from "../../src/doors/nfs/exports.ts";
import type { Credential } from "../../src/doors/nfs/rpc.ts";
import { type Change, NfsServer } from "../../src/doors/nfs/server.ts";
import type { Platform } from "../../src/platform/interface.ts";
import type { SimNode } from "../../src/platform/sim/node.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { Caller } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { asUser, NfsClient } from "./client.ts";

const memory = { logTailBytes: 2 * 1024 * 1024, dirtyRingBytes: 12 * 1024 * 1024 };
const paths = ["/d1", "/d2", "/d3"];
const secret = Uint8Array.from({ length: 16 }, (_, i) => 17 * i);

/** The volume's owner, past the door. */
export const root: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "beside",
	share: undefined,
	trusted: true,
};

export const wholeVolume: LiveExport = {
	id: 1,
	name: "demo",
	path: "/demo",
	folder: "",
	rootIno: 1,
	clients: [],
	squash: "none",
	anonymousUid: 65_534,
	anonymousGid: 65_534,
	readOnly: false,
	privilegedPorts: false,
};

export class NfsWorld {
	readonly world: SimWorld;
	readonly node: SimNode;
	readonly changes: Change[] = [];
	exports: readonly LiveExport[] = [wholeVolume];
	volume!: NativeVolume;
	server!: NfsServer;
	/** Of the clients. */
	platform!: Platform;
	readonly port = 2049;
	/** From the next opening on. */
	answerNow = true;
	#xid = 1000;

	constructor(seed: number) {
		this.world = new SimWorld({ seed });
		this.node = this.world.node();
		for (const path of paths) this.world.addDisk(path, { capacityBytes: 512 * 1024 * 1024 });
	}

	async create(): Promise<void> {
		const small = { logSegmentBytes: 1024 * 1024, logSegmentCount: 6 };
		const create = {
			name: "demo",
			diskPaths: paths,
			redundancy: "rs:2+1",
			sameDevice: false,
			allowDegraded: false,
			uid: 0,
			gid: 0,
			...small,
		};
		await createVolume(create, { platform: this.node.boot(), logger: silentLogger });
		await this.open();
	}

	async open(): Promise<void> {
		const platform = this.node.boot();
		this.platform = this.node.boot();
		this.volume = await openVolume({ name: "demo", diskPaths: paths, acceptLoss: false, memory }, { platform, logger: silentLogger });
		const changed = async (change: Change): Promise<void> => {
			this.changes.push(change);
		};
		await this.volume.exports.service();
		this.server = new NfsServer(
			{ secret, readOnly: false, answerNow: this.answerNow },
			{ volume: this.volume, clientLocks: this.volume.clientLocks, platform, logger: silentLogger, changed },
		);
		this.server.setExports(this.exports);
		await this.server.listen({ wide: false, port: this.port, portMapper: "none" });
	}

	async close(): Promise<void> {
		await this.server.stop();
		await this.volume.shutdown();
	}

	async connect(credential: Credential = asUser(0)): Promise<NfsClient> {
		this.#xid += 1_000_000;
		return NfsClient.connect(this.platform.network, this.port, credential, this.#xid);
	}

	setExports(exports: readonly LiveExport[]): void {
		this.exports = exports;
		this.server.setExports(exports);
	}
}

/** Runs a test in a world of its own, in virtual time. */
export function inWorld(seed: number, body: (world: NfsWorld) => Promise<void>): Promise<void> {
	const made = new NfsWorld(seed);
	return made.world.run(async () => {
		await made.create();
		await body(made);
		await made.close();
	});
}
