/**
 * A byte ring in shared memory: one producer thread (reads `/dev/fuse`), one consumer (the main thread).
 *
 * Layout: `Int32Array` of control words, then bytes. A record is a u32 length, 4 bytes of nothing, and the bytes, padded to 8; it never
 * wraps: where the rest of the ring is too short for the largest record, a length of `wrapMark` sends the consumer back to 0.
 *
 * The consumer may read the device itself while requests come one after the other: it saves a thread's waking. It asks the producer to
 * stand aside, which the producer does after its next record, and calls it back before it sleeps. A producer that waits for the device to
 * have something to say (`polls`) looks at what it is asked when that has happened, before it reads: nobody waits for it.
 *
 * Invariants
 *  R1 head and tail are multiples of 8 in [0, size); head = tail means empty; the producer alone moves head, the consumer alone moves tail.
 *  R2 The producer writes into free space only: it needs `maxRecordBytes` + 16 in one piece before it reads, as it does not know the
 *     length in advance.
 *  R3 A record is published (head stored) after its bytes are in place, and given back (tail stored) after its consumer has returned.
 *  R4 While the producer stands aside it neither reads nor publishes; only then, or while the producer polls and was asked, may the consumer
 *     read the device, and only once the ring is empty, so that the order of arrival is kept.
 */
import { assert } from "../../base/assert.ts";

const word = { head: 0, tail: 1, consumerWaits: 2, producerWaits: 3, stop: 4, ended: 5, errno: 6, aside: 7, polls: 8 } as const;
const aside = { no: 0, asked: 1, yes: 2 } as const;
const controlBytes = 64;
const wrapMark = 0xffff_ffff;
const recordHeaderBytes = 8;

export function createRing(sizeBytes: number): SharedArrayBuffer {
	assert(sizeBytes % 8 === 0 && sizeBytes > 0, "ring size");
	return new SharedArrayBuffer(controlBytes + sizeBytes);
}

function align8(value: number): number {
	return (value + 7) & ~7;
}

class RingEnds {
	readonly control: Int32Array;
	readonly bytes: Uint8Array;
	readonly lengths: Uint32Array;
	readonly size: number;

	constructor(buffer: SharedArrayBuffer) {
		this.control = new Int32Array(buffer, 0, controlBytes / 4);
		this.bytes = new Uint8Array(buffer, controlBytes);
		this.lengths = new Uint32Array(buffer, controlBytes);
		this.size = this.bytes.length;
	}
}

export class RingProducer {
	readonly #ring: RingEnds;
	readonly #needed: number;
	#head = 0;

	constructor(buffer: SharedArrayBuffer, maxRecordBytes: number) {
		this.#ring = new RingEnds(buffer);
		this.#needed = align8(recordHeaderBytes + maxRecordBytes) + 8;
		assert(this.#ring.size >= 3 * this.#needed, "ring too small for its records");
	}

	get stopped(): boolean {
		return Atomics.load(this.#ring.control, word.stop) !== 0;
	}

	/** To be called between two reads: stands aside for as long as the consumer reads the device itself. */
	standAside(): void {
		const { control } = this.#ring;
		if (Atomics.compareExchange(control, word.aside, aside.asked, aside.yes) !== aside.asked) return;
		while (Atomics.load(control, word.aside) === aside.yes && !this.stopped) Atomics.wait(control, word.aside, aside.yes);
	}

	/** Around a wait for the device. */
	polling(now: boolean): void {
		Atomics.store(this.#ring.control, word.polls, now ? 1 : 0);
	}

	/** Room for one record of the largest size, or undefined when stopped. Blocks while the ring is full. */
	reserve(): Uint8Array | undefined {
		for (;;) {
			if (this.stopped) return undefined;
			const tail = Atomics.load(this.#ring.control, word.tail);
			const room = this.#room(tail);
			if (room !== undefined) return room;
			Atomics.store(this.#ring.control, word.producerWaits, 1);
			// The consumer may have moved between the look and the flag; the wait compares once more.
			if (Atomics.load(this.#ring.control, word.tail) === tail && !this.stopped) Atomics.wait(this.#ring.control, word.tail, tail);
			Atomics.store(this.#ring.control, word.producerWaits, 0);
		}
	}

	#room(tail: number): Uint8Array | undefined {
		const { size, bytes, lengths } = this.#ring;
		if (tail > this.#head) {
			if (tail - this.#head <= this.#needed) return undefined;
		} else if (size - this.#head < this.#needed) {
			if (tail <= this.#needed) return undefined;
			lengths[this.#head >> 2] = wrapMark;
			this.#head = 0;
		}
		const at = this.#head + recordHeaderBytes;
		return bytes.subarray(at, this.#head + this.#needed - 8);
	}

	/** Publishes the record that was written into the room reserved last. */
	publish(lengthBytes: number): void {
		const { control, lengths, size } = this.#ring;
		assert(lengthBytes > 0 && align8(recordHeaderBytes + lengthBytes) < this.#needed, "record longer than reserved");
		lengths[this.#head >> 2] = lengthBytes;
		this.#head += align8(recordHeaderBytes + lengthBytes);
		assert(this.#head < size, "record beyond the ring");
		Atomics.store(control, word.head, this.#head);
		this.#wake();
	}

	/** Nothing more will come. errno 0 = stopped. */
	end(errno: number): void {
		const { control } = this.#ring;
		Atomics.store(control, word.errno, errno);
		Atomics.store(control, word.ended, 1);
		// -1 tells a consumer that waits on head from one that sees an empty ring; nothing is published after it.
		Atomics.store(control, word.head, -1 - this.#head);
		this.#wake();
	}

	#wake(): void {
		const { control } = this.#ring;
		if (Atomics.exchange(control, word.consumerWaits, 0) !== 0) Atomics.notify(control, word.head);
	}
}

export class RingConsumer {
	readonly #ring: RingEnds;
	#tail = 0;

	constructor(buffer: SharedArrayBuffer) {
		this.#ring = new RingEnds(buffer);
	}

	/**
	 * Hands over up to `most` records; each view is valid until `take` returns. Returns how many there were. A throw gives the record back
	 * all the same.
	 */
	drain(most: number, take: (record: Uint8Array) => void): number {
		const { control, bytes, lengths } = this.#ring;
		let count = 0;
		while (count < most && this.ready) {
			const length = lengths[this.#tail >> 2] as number;
			if (length === wrapMark) {
				this.#tail = 0;
				continue;
			}
			const at = this.#tail + recordHeaderBytes;
			try {
				count++;
				take(bytes.subarray(at, at + length));
			} finally {
				this.#tail += align8(recordHeaderBytes + length);
				Atomics.store(control, word.tail, this.#tail);
				if (Atomics.load(control, word.producerWaits) !== 0) Atomics.notify(control, word.tail);
			}
		}
		return count;
	}

	#head(): number {
		const head = Atomics.load(this.#ring.control, word.head);
		return head < 0 ? -1 - head : head;
	}

	get ready(): boolean {
		return this.#head() !== this.#tail;
	}

	/** errno of the end once everything was drained; undefined before. */
	get ended(): number | undefined {
		const { control } = this.#ring;
		return Atomics.load(control, word.ended) !== 0 && !this.ready ? Atomics.load(control, word.errno) : undefined;
	}

	/** Says that it is going to wait. False when there is something to drain, or the end: then there is nothing to wait for. */
	announce(): boolean {
		const { control } = this.#ring;
		Atomics.store(control, word.consumerWaits, 1);
		return Atomics.load(control, word.head) === this.#tail;
	}

	/** After `announce`. Settles when there is something to drain, or the end; undefined: there is already. */
	wait(): Promise<unknown> | undefined {
		const waiting = Atomics.waitAsync(this.#ring.control, word.head, this.#tail);
		return waiting.async ? waiting.value : undefined;
	}

	/** Asks the producer to stand aside, and whether it does, or will before it reads again, and nothing of its is left. */
	alone(): boolean {
		const { control } = this.#ring;
		const now = Atomics.compareExchange(control, word.aside, aside.no, aside.asked);
		// The order matters: whoever polls now looks at what is asked afterwards, and reads nothing before.
		return (now === aside.yes || Atomics.load(control, word.polls) === 1) && !this.ready;
	}

	/** The producer goes on. */
	callBack(): void {
		const { control } = this.#ring;
		if (Atomics.exchange(control, word.aside, aside.no) === aside.yes) Atomics.notify(control, word.aside);
	}

	/** Ends the producer, also one that waits for room. Its system call is somebody else's to end. */
	stop(): void {
		const { control } = this.#ring;
		Atomics.store(control, word.stop, 1);
		Atomics.notify(control, word.tail);
		this.callBack();
	}
}
