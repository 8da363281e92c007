import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { RingConsumer, RingProducer, createRing } from "./fuse-ring.ts";

function record(length: number, salt: number): Uint8Array {
	const bytes = new Uint8Array(length);
	for (let i = 0; i < length; i++) bytes[i] = (i * 7 + salt) & 255;
	return bytes;
}

test("records come out as they went in, in order, through many wraps", () => {
	const seed = 42;
	let x = seed;
	const random = (bound: number): number => {
		x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
		return (x >>> 8) % bound;
	};
	const buffer = createRing(4096);
	const producer = new RingProducer(buffer, 1000);
	const consumer = new RingConsumer(buffer);
	let sent = 0;
	let received = 0;
	const lengths: number[] = [];
	for (let round = 0; round < 5000; round++) {
		// Three of the largest always fit; two unread records leave room for another.
		if (lengths.length < 2 && random(3) > 0) {
			const length = 1 + random(1000);
			const room = producer.reserve();
			assert.ok(room !== undefined && room.length >= length, `seed ${seed} round ${round}`);
			room.set(record(length, sent));
			producer.publish(length);
			lengths.push(length);
			sent++;
		} else {
			consumer.drain(1, (bytes) => {
				assert.deepEqual([...bytes], [...record(lengths.shift() ?? 0, received)], `seed ${seed} round ${round}`);
				received++;
			});
		}
	}
	assert.ok(sent > 1000 && received >= sent - 2);
});

test("the end is seen after the last record", () => {
	const buffer = createRing(4096);
	const producer = new RingProducer(buffer, 1000);
	const consumer = new RingConsumer(buffer);
	producer.reserve()?.set([1]);
	producer.publish(1);
	producer.end(19);
	assert.equal(consumer.ended, undefined);
	assert.equal(consumer.announce(), false, "nothing to wait for: a record is there");
	assert.equal(consumer.wait(), undefined, "nothing to wait for: a record is there");
	assert.equal(
		consumer.drain(10, () => {}),
		1,
	);
	assert.equal(consumer.ended, 19);
	assert.equal(consumer.announce(), false, "nothing to wait for: it is over");
	assert.equal(consumer.wait(), undefined, "nothing to wait for: it is over");
});

test("a record is given back when its consumer throws", () => {
	const buffer = createRing(4096);
	const producer = new RingProducer(buffer, 1000);
	const consumer = new RingConsumer(buffer);
	for (const value of [1, 2]) {
		producer.reserve()?.set([value]);
		producer.publish(1);
	}
	assert.throws(
		() =>
			consumer.drain(10, () => {
				throw new Error("no");
			}),
		/no/,
	);
	const seen: number[] = [];
	consumer.drain(10, (bytes) => seen.push(bytes[0] as number));
	assert.deepEqual(seen, [2]);
});

const producerSource = `
import { workerData } from "node:worker_threads";
const { RingProducer } = await import(workerData.module);
const producer = new RingProducer(workerData.buffer, 1000);
for (let i = 0; i < workerData.count; i++) {
	const room = producer.reserve();
	if (room === undefined) break;
	const length = 4 + (i * 37) % 990;
	new DataView(room.buffer, room.byteOffset).setUint32(0, i, true);
	producer.publish(length);
}
producer.end(producer.stopped ? 0 : 19);
`;

function startProducer(buffer: SharedArrayBuffer, count: number): Worker {
	const url = new URL(`data:text/javascript,${encodeURIComponent(producerSource)}`);
	return new Worker(url, { workerData: { buffer, count, module: new URL("./fuse-ring.js", import.meta.url).href } });
}

function gone(worker: Worker): Promise<unknown> {
	return new Promise((resolve, reject) => {
		worker.once("exit", resolve);
		worker.once("error", reject);
	});
}

test("a thread that produces faster than it is read waits for room, and nothing is lost", async () => {
	const buffer = createRing(4096);
	const consumer = new RingConsumer(buffer);
	const exit = gone(startProducer(buffer, 20_000));
	let next = 0;
	while (consumer.ended === undefined) {
		const count = consumer.drain(64, (bytes) => {
			assert.equal(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true), next);
			assert.equal(bytes.length, 4 + ((next * 37) % 990));
			next++;
		});
		if (count === 0 && consumer.announce()) await consumer.wait();
	}
	assert.deepEqual([next, consumer.ended], [20_000, 19]);
	await exit;
});

test("stop ends a producer that waits for room", async () => {
	const buffer = createRing(4096);
	const consumer = new RingConsumer(buffer);
	const exit = gone(startProducer(buffer, 20_000));
	while (!consumer.ready) if (consumer.announce()) await consumer.wait();
	consumer.stop();
	await exit;
	while (consumer.drain(64, () => {}) > 0);
	assert.equal(consumer.ended, 0);
});

test("nobody waits for a producer that polls: it looks at what it is asked before it reads", () => {
	const buffer = createRing(4096);
	const producer = new RingProducer(buffer, 1000);
	const consumer = new RingConsumer(buffer);
	assert.equal(consumer.alone(), false, "it may be reading");
	consumer.callBack();
	producer.reserve();
	producer.publish(8);
	producer.polling(true);
	assert.equal(consumer.alone(), false, "what it has published comes first");
	consumer.drain(10, () => {});
	assert.equal(consumer.alone(), true);
	assert.equal(consumer.alone(), true);
	consumer.callBack();
	producer.polling(false);
	assert.equal(consumer.alone(), false, "called back, it reads");
});

/** Both ends take numbers from one device, a shared counter. */
const takingSource = `
import { workerData } from "node:worker_threads";
const { RingProducer } = await import(workerData.module);
const producer = new RingProducer(workerData.buffer, 1000);
const device = new Int32Array(workerData.device);
for (let round = 0; ; round++) {
	producer.standAside();
	const room = producer.reserve();
	if (room === undefined) break;
	// Nothing there, for once: the consumer may have read everything by the time the poll ends.
	if (round % 3 === 0) {
		producer.polling(true);
		for (let i = 0; i < 200; i++) Atomics.load(device, 0);
		producer.polling(false);
		continue;
	}
	const number = Atomics.add(device, 0, 1);
	if (number >= workerData.count) break;
	new DataView(room.buffer, room.byteOffset).setUint32(0, number, true);
	producer.publish(4);
}
producer.end(producer.stopped ? 0 : 19);
`;

function startTaking(buffer: SharedArrayBuffer, device: SharedArrayBuffer, count: number): Worker {
	const url = new URL(`data:text/javascript,${encodeURIComponent(takingSource)}`);
	return new Worker(url, { workerData: { buffer, device, count, module: new URL("./fuse-ring.js", import.meta.url).href } });
}

/** How many the consumer took from the device itself. */
async function takeTurns(total: number): Promise<number> {
	const buffer = createRing(4096);
	const device = new SharedArrayBuffer(4);
	const numbers = new Int32Array(device);
	const consumer = new RingConsumer(buffer);
	const exit = gone(startTaking(buffer, device, total));
	let next = 0;
	let direct = 0;
	const take = (number: number): void => assert.equal(number, next++);
	while (consumer.ended === undefined) {
		const count = consumer.drain(64, (bytes) => take(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)));
		for (let i = 0; i < 50 && consumer.alone(); i++) {
			const number = Atomics.add(numbers, 0, 1);
			if (number >= total) break;
			take(number);
			direct++;
		}
		// Sometimes straight after asking, when the producer may or may not have noticed.
		if (count === 0 || next % 3 === 0) consumer.callBack();
		if (count === 0 && consumer.announce()) await consumer.wait();
	}
	assert.deepEqual([next, consumer.ended], [total, 19]);

	await exit;
	return direct;
}

test("while the producer stands aside the consumer reads the device, and the order is kept", async () => {
	// On a machine without a free core the two may never meet in one round.
	let direct = 0;
	for (let round = 0; round < 20 && direct === 0; round++) direct = await takeTurns(100_000);
	assert.ok(direct > 0, "the consumer never read for itself");
});

test("stop ends a producer that stands aside", async () => {
	const buffer = createRing(4096);
	const consumer = new RingConsumer(buffer);
	const exit = gone(startTaking(buffer, new SharedArrayBuffer(4), 1_000_000_000));
	while (!consumer.alone()) {
		consumer.drain(64, () => {});
		await new Promise((resolve) => setImmediate(resolve));
	}
	consumer.stop();
	await exit;
	assert.equal(consumer.ended, 0);
});
