/** A client of NLM and NSM, written from XNFS for tests: its calls, checked to their last word, and the machine that it is: a port mapper, a lock manager that is told of grants, a monitor that is told of restarts. */
import assert from "node:assert/strict";
import { silentLogger } from "../../src/base/telemetry.ts";
import type { XdrReader, XdrWriter } from "../../src/codec/xdr.ts";
import { createPortMapper } from "../../src/doors/nfs/port-mapper.ts";
import { nullProcedure, type Procedure, type Program } from "../../src/doors/nfs/program.ts";
import { RpcServer } from "../../src/doors/nfs/rpc-server.ts";
import type { Platform } from "../../src/platform/interface.ts";
import type { NfsClient } from "./client.ts";

const nlm = 100021;
const nsm = 100024;

export type Version = 1 | 3 | 4;

/** What is asked for; 64 bits as bigint. */
export interface Asked {
	readonly file: Uint8Array;
	readonly exclusive?: boolean;
	readonly offset?: number | bigint;
	/** 0: to the end. */
	readonly length?: number | bigint;
	readonly owner?: number;
	readonly object?: Uint8Array;
	readonly block?: boolean;
	readonly reclaim?: boolean;
}

export interface Holder {
	readonly exclusive: boolean;
	readonly owner: number;
	readonly offset: bigint;
	readonly length: bigint;
}

export const results = {
	granted: 0,
	denied: 1,
	noLocks: 2,
	blocked: 3,
	grace: 4,
	deadlock: 5,
	readOnly: 6,
	stale: 7,
	tooBig: 8,
	failed: 9,
} as const;

/** One call of GRANTED, as the client hears it. */
export interface Grant {
	readonly version: number;
	readonly owner: number;
	readonly offset: bigint;
	readonly length: bigint;
	readonly exclusive: boolean;
	readonly cookie: string;
}

export class LockClient {
	readonly rpc: NfsClient;
	readonly name: string;
	/** Its NSM state. */
	state = 0;
	#cookie = 0;

	constructor(rpc: NfsClient, name: string) {
		this.rpc = rpc;
		this.name = name;
	}

	cookie(): Uint8Array {
		return new TextEncoder().encode(`${this.name}-${this.#cookie++}`);
	}

	write64(w: XdrWriter, version: Version, value: number | bigint): void {
		const big = BigInt(value);
		if (version === 4) w.u32(Number(big >> 32n));
		w.u32(Number(big & 0xffff_ffffn));
	}

	writeLock(w: XdrWriter, version: Version, { file, owner = 1, offset = 0, length = 0, object }: Asked): void {
		w.text(this.name)
			.opaque(file)
			.opaque(object ?? new TextEncoder().encode(`${owner}@${this.name}`))
			.u32(owner);
		this.write64(w, version, offset);
		this.write64(w, version, length);
	}

	async #result(version: Version, procedure: number, write: (w: XdrWriter) => void, cookie: Uint8Array): Promise<number> {
		return this.rpc.call(nlm, version, procedure, write, (r) => {
			assert.deepEqual(r.opaque(1024).slice(), cookie, "the cookie comes back");
			return r.u32();
		});
	}

	lock(asked: Asked, version: Version = 4, procedure = 2): Promise<number> {
		const cookie = this.cookie();
		const write = (w: XdrWriter): void => {
			w.opaque(cookie)
				.bool(asked.block ?? false)
				.bool(asked.exclusive ?? true);
			this.writeLock(w, version, asked);
			w.bool(asked.reclaim ?? false).u32(this.state);
		};
		return this.#result(version, procedure, write, cookie);
	}

	unlock(asked: Asked, version: Version = 4): Promise<number> {
		const cookie = this.cookie();
		const write = (w: XdrWriter): void => this.writeLock(w.opaque(cookie), version, asked);
		return this.#result(version, 4, write, cookie);
	}

	cancel(asked: Asked, version: Version = 4): Promise<number> {
		const cookie = this.cookie();
		const write = (w: XdrWriter): void =>
			this.writeLock(
				w
					.opaque(cookie)
					.bool(true)
					.bool(asked.exclusive ?? true),
				version,
				asked,
			);
		return this.#result(version, 3, write, cookie);
	}

	async test(asked: Asked, version: Version = 4): Promise<{ readonly status: number; readonly holder: Holder | undefined }> {
		const cookie = this.cookie();
		const write = (w: XdrWriter): void => this.writeLock(w.opaque(cookie).bool(asked.exclusive ?? true), version, asked);
		return this.rpc.call(nlm, version, 1, write, (r) => {
			assert.deepEqual(r.opaque(1024).slice(), cookie);
			const status = r.u32();
			return { status, holder: status === results.denied ? readHolder(r, version) : undefined };
		});
	}

	/** SHARE and UNSHARE: deny and access are bits, 1 reading, 2 writing. */
	share(
		file: Uint8Array,
		object: string,
		access: number,
		deny: number,
		how: { readonly un?: boolean; readonly reclaim?: boolean } = {},
	): Promise<number> {
		const cookie = this.cookie();
		const write = (w: XdrWriter): void => {
			w.opaque(cookie).text(this.name).opaque(file).text(object).u32(deny).u32(access);
			w.bool(how.reclaim ?? false);
		};
		return this.rpc.call(nlm, 4, how.un === true ? 21 : 20, write, (r) => {
			assert.deepEqual(r.opaque(1024).slice(), cookie);
			const status = r.u32();
			assert.equal(r.u32(), 0, "a sequence");
			return status;
		});
	}

	freeAll(): Promise<void> {
		return this.rpc.call(
			nlm,
			4,
			23,
			(w) => w.text(this.name).u32(this.state),
			() => {},
		);
	}

	/** SM_NOTIFY: it has begun anew. */
	notify(name: string, state: number): Promise<void> {
		return this.rpc.call(
			nsm,
			1,
			6,
			(w) => w.text(name).u32(state),
			() => {},
		);
	}

	/** An asynchronous call, whose result comes to the client's own lock manager. */
	send(asked: Asked, procedure: 6 | 7 | 8 | 9): Promise<void> {
		const write = (w: XdrWriter): void => {
			w.opaque(this.cookie());
			if (procedure === 7 || procedure === 8) w.bool(asked.block ?? false);
			if (procedure !== 9) w.bool(asked.exclusive ?? true);
			this.writeLock(w, 4, asked);
			if (procedure === 7) w.bool(asked.reclaim ?? false).u32(this.state);
		};
		return this.rpc.call(nlm, 4, procedure, write, () => {});
	}
}

function read64(r: XdrReader, version: Version): bigint {
	return version === 4 ? (BigInt(r.u32()) << 32n) | BigInt(r.u32()) : BigInt(r.u32());
}

function readHolder(r: XdrReader, version: Version): Holder {
	const exclusive = r.bool();
	const owner = r.u32();
	r.opaque(1024);
	return { exclusive, owner, offset: read64(r, version), length: read64(r, version) };
}

/** The machine of a client. What GRANTED is answered is the test's to say; undefined: nothing, as if the answer were lost. */
export class LockHost {
	readonly grants: Grant[] = [];
	readonly results: { readonly procedure: number; readonly status: number }[] = [];
	readonly notices: { readonly name: string; readonly state: number }[] = [];
	answer: (grant: Grant) => number | undefined = () => results.granted;
	readonly #server: RpcServer;
	readonly #platform: Platform;
	readonly #port: number;

	constructor(platform: Platform, port = 4045) {
		this.#platform = platform;
		this.#port = port;
		const registrations = (["tcp", "udp"] as const).flatMap((transport) =>
			[
				[nlm, 1],
				[nlm, 3],
				[nlm, 4],
				[nsm, 1],
			].map(([program = 0, version = 0]) => ({ program, version, transport, port })),
		);
		const mapper = createPortMapper(() => registrations);
		const versions = new Map(([1, 3, 4] as const).map((version) => [version as number, this.#lockManager(version)]));
		const both = ["tcp", "udp"] as const;
		const programs: Program[] = [
			mapper,
			{ number: nlm, transports: both, versions },
			{ number: nsm, transports: both, versions: new Map([[1, this.#monitor()]]) },
		];
		this.#server = new RpcServer(programs, { platform, logger: silentLogger });
	}

	async listen(): Promise<void> {
		for (const port of [111, this.#port]) {
			await this.#server.listenTcp("127.0.0.1", port);
			await this.#server.listenUdp("127.0.0.1", port);
		}
	}

	stop(): Promise<void> {
		return this.#server.stop();
	}

	#lockManager(version: Version): (Procedure | undefined)[] {
		const procedures: (Procedure | undefined)[] = [nullProcedure];
		procedures[5] = { name: "GRANTED", run: (reader, writer) => this.#granted(reader, writer, version) };
		for (const procedure of [11, 12, 13, 14])
			procedures[procedure] = {
				name: "RES",
				run: async (reader) => {
					reader.opaque(1024);
					this.results.push({ procedure, status: reader.u32() });
					return undefined;
				},
			};
		return procedures;
	}

	async #granted(reader: XdrReader, writer: XdrWriter, version: Version): Promise<undefined> {
		const cookie = reader.opaque(1024).slice();
		const exclusive = reader.bool();
		reader.text(1024);
		reader.opaque(1024);
		reader.opaque(1024);
		const owner = reader.u32();
		const grant = {
			version,
			owner,
			exclusive,
			offset: read64(reader, version),
			length: read64(reader, version),
			cookie: String.fromCharCode(...cookie),
		};
		reader.end();
		this.grants.push(grant);
		const status = this.answer(grant);
		if (status === undefined) await this.#platform.clock.sleep(60_000);
		writer.opaque(cookie).u32(status ?? 0);
		return undefined;
	}

	#monitor(): (Procedure | undefined)[] {
		const procedures: (Procedure | undefined)[] = [nullProcedure];
		procedures[6] = {
			name: "NOTIFY",
			run: async (reader) => {
				this.notices.push({ name: reader.text(1024), state: reader.u32() });
				reader.end();
				return undefined;
			},
		};
		return procedures;
	}
}
