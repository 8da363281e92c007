import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Deferred } from "../base/async.ts";
import { FsError, isFsError } from "../base/errors.ts";
import { silentLogger } from "../base/telemetry.ts";
import type { Platform } from "../platform/interface.ts";
import { SimWorld } from "../platform/sim/world.ts";
import { ControlServer, connectControl, LineSplitter, type VerbHandler } from "./control.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { callsPerConnection, controlConnections, requestLineBytes } from "./limits.ts";

const socketPath = "/run/demo/control.sock";

interface Setup {
	readonly world: SimWorld;
	readonly platform: Platform;
	readonly server: ControlServer;
	/** Everything a raw client got, by lines. */
	raw(text: string | Uint8Array): Promise<{ readonly lines: string[]; readonly closed: boolean }>;
}

async function serve(handler: VerbHandler): Promise<Setup> {
	const world = new SimWorld({ seed: 1 });
	const node = world.node();
	node.host.makeFolder("/run/demo");
	const platform = node.boot();
	const { sockets, clock } = platform;
	const server = new ControlServer({ socketPath }, { sockets, clock, logger: silentLogger, handler });
	await world.run(server.listen());
	const raw = (text: string | Uint8Array) =>
		world.run(async () => {
			const connection = await sockets.connect(socketPath);
			const splitter = new LineSplitter(1 << 24);
			const lines: string[] = [];
			let closed = false;
			connection.onData((bytes) => lines.push(...splitter.push(bytes)));
			connection.onClose(() => {
				closed = true;
			});
			await connection.write(typeof text === "string" ? new TextEncoder().encode(text) : text).catch(() => {});
			await clock.sleep(1000);
			connection.close();
			return { lines, closed };
		});
	return { world, platform, server, raw };
}

async function client({ world, platform }: Setup) {
	const made = await world.run(connectControl(socketPath, platform.sockets));
	assert.ok(made);
	return made;
}

/** The error of a call that must fail. */
const failureOf = (call: Promise<unknown>): Promise<unknown> =>
	call.then(
		() => assert.fail("the call did not fail"),
		(error: unknown) => error,
	);

const echo: VerbHandler = async (verb, given) => ({ verb, given });

describe("lines", () => {
	test("pieces of any size give the same lines", () => {
		const bytes = new TextEncoder().encode('{"a":"é"}\n\n{"b":2}\nrest');
		for (let size = 1; size <= bytes.length; size++) {
			const splitter = new LineSplitter(100);
			const lines: string[] = [];
			for (let at = 0; at < bytes.length; at += size) lines.push(...splitter.push(bytes.slice(at, at + size)));
			assert.deepEqual(lines, ['{"a":"é"}', "", '{"b":2}'], `pieces of ${size}`);
		}
	});

	test("a line beyond the limit is refused, however it comes", () => {
		assert.throws(
			() => new LineSplitter(10).push(new Uint8Array(11).fill(65)),
			(error) => isFsError(error, "E2BIG"),
		);
		const slowly = new LineSplitter(10);
		slowly.push(new Uint8Array(10).fill(65));
		assert.throws(
			() => slowly.push(Uint8Array.of(65)),
			(error) => isFsError(error, "E2BIG"),
		);
		assert.deepEqual(new LineSplitter(3).push(new TextEncoder().encode("abc\nabc\n")), ["abc", "abc"]);
	});
});

describe("the control protocol", () => {
	test("results, errors with exit codes, progress before the result", async () => {
		const setup = await serve(async (verb, given, progress) => {
			if (verb === "fail") throw new FsError("REFUSED", "test.refused", "no \u00c3\u00a9");
			if (verb === "bug") throw new TypeError("oops");
			for (let i = 1; i <= 3; i++) progress({ step: i });
			return { verb, given };
		});
		const control = await client(setup);
		const seen: unknown[] = [];
		const result = await setup.world.run(control.call("do", { a: 1 }, (value) => seen.push(value)));
		assert.deepEqual(result, { verb: "do", given: { a: 1 } });
		assert.ok(seen.length >= 1);
		const refused = await setup.world.run(failureOf(control.call("fail")));
		assert.ok(isFsError(refused, "REFUSED"));
		assert.deepEqual([refused.site, refused.message, exitCodeOf(refused)], ["test.refused", "no é", 4]);
		const bug = await setup.world.run(failureOf(control.call("bug")));
		assert.ok(isFsError(bug, "EIO") && exitCodeOf(bug) === 1);
	});

	test("on the wire it is one JSON object per line", async () => {
		const { raw } = await serve(echo);
		const { lines } = await raw('{"id":7,"verb":"x","arguments":{"b":2}}\n{"id":8,"verb":"y"}\n');
		assert.deepEqual(
			lines.map((line) => JSON.parse(line) as unknown),
			[
				{ id: 7, result: { verb: "x", given: { b: 2 } } },
				{ id: 8, result: { verb: "y", given: {} } },
			],
		);
	});

	test("who does not speak it is cut off, others are not", async () => {
		const setup = await serve(echo);
		const good = await client(setup);
		for (const text of [
			"GET / HTTP/1.1\n",
			"{}\n",
			'{"id":"1","verb":"x"}\n',
			'{"id":1}\n',
			"null\n",
			new Uint8Array(requestLineBytes + 1).fill(65),
		]) {
			const { lines, closed } = await setup.raw(text);
			assert.deepEqual([lines, closed], [[], true], String(text).slice(0, 40));
		}
		assert.deepEqual(await setup.world.run(good.call("still")), { verb: "still", given: {} });
	});

	test("connections and calls are bounded", async () => {
		const gate = new Deferred<void>();
		const setup = await serve(async (verb) => {
			if (verb === "wait") await gate.promise;
			return verb;
		});
		const control = await client(setup);
		const waiting = Array.from({ length: callsPerConnection }, () => control.call("wait"));
		const tooMany = await setup.world.run(failureOf(control.call("wait")));
		assert.ok(isFsError(tooMany, "EAGAIN"));
		gate.resolve();
		assert.equal((await setup.world.run(Promise.all(waiting))).length, callsPerConnection);
		assert.equal(await setup.world.run(control.call("again")), "again");
		const others = [];
		for (let i = 1; i < controlConnections; i++) others.push(await client(setup));
		const { lines, closed } = await setup.raw('{"id":1,"verb":"x"}\n');
		assert.deepEqual([lines, closed], [[], true]);
		others[0]?.close();
		await setup.world.advance(100);
		assert.equal(await setup.world.run((await client(setup)).call("x")), "x");
	});

	test("of progress nobody reads only the newest is kept", async () => {
		const setup = await serve(async (_verb, _given, progress) => {
			for (let i = 1; i <= 100_000; i++) progress(i);
			await setup.platform.clock.sleep(1000);
			return "done";
		});
		const control = await client(setup);
		const seen: unknown[] = [];
		assert.equal(await setup.world.run(control.call("x", {}, (value) => seen.push(value))), "done");
		assert.deepEqual([seen.length <= 2, seen.at(-1)], [true, 100_000]);
	});

	test("close delivers answers that are under way; calls that are lost say so with code 6", async () => {
		const never = new Promise<void>(() => {});
		const setup = await serve(async (verb) => {
			if (verb === "never") await never;
			await setup.platform.clock.sleep(50);
			return verb;
		});
		const control = await client(setup);
		const [soon, lost] = [control.call("soon"), failureOf(control.call("never"))];
		await setup.world.advance(10);
		await setup.world.run(setup.server.close());
		assert.equal(await setup.world.run(soon), "soon");
		assert.equal(exitCodeOf(await setup.world.run(lost)), 6);
		assert.equal(await setup.world.run(connectControl(socketPath, setup.platform.sockets)), undefined);
		await setup.world.run(assert.rejects(control.call("late"), (error) => exitCodeOf(error) === 6));
	});
});
