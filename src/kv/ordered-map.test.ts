import assert from "node:assert/strict";
import { test } from "node:test";
import { choices } from "../../test/conformance/kv.ts";
import { OrderedMap } from "./ordered-map.ts";

function contents(map: OrderedMap<number>, start: string): [string, number][] {
	const found: [string, number][] = [];
	for (const cursor = map.cursor(start); cursor.key !== undefined; cursor.next()) found.push([cursor.key, cursor.value]);
	return found;
}

for (const seed of [1, 2, 3]) {
	test(`ordered map against a plain map, seed ${seed}`, () => {
		const choose = choices(seed);
		const map = new OrderedMap<number>();
		const model = new Map<string, number>();
		for (let step = 0; step < 20_000; step++) {
			const key = String.fromCharCode(choose(256), choose(8), choose(4));
			if (choose(3) === 0) {
				assert.equal(map.delete(key), model.delete(key), `seed ${seed}, step ${step}`);
			} else {
				assert.equal(map.set(key, step), model.get(key), `seed ${seed}, step ${step}`);
				model.set(key, step);
			}
			assert.equal(map.size, model.size);
		}
		const sorted = [...model].sort((a, b) => (a[0] < b[0] ? -1 : 1));
		assert.deepEqual(contents(map, ""), sorted, `seed ${seed}`);
		for (let i = 0; i < 200; i++) {
			const start = String.fromCharCode(choose(256), choose(8));
			assert.equal(map.get(start), model.get(start));
			assert.deepEqual(
				contents(map, start),
				sorted.filter(([key]) => key >= start),
				`seed ${seed}, from ${JSON.stringify(start)}`,
			);
		}
		for (const key of model.keys()) assert.ok(map.delete(key));
		assert.deepEqual(contents(map, ""), []);
	});
}

test("ascending and descending insertion", () => {
	for (const direction of [1, -1]) {
		const map = new OrderedMap<number>();
		for (let i = 0; i < 1_000; i++) map.set(String(5_000 + direction * i), i);
		assert.deepEqual(
			contents(map, "").map(([key]) => key),
			Array.from({ length: 1_000 }, (_, i) => String(5_000 + direction * i)).sort(),
		);
	}
});

test("a cursor does not survive a change", () => {
	const map = new OrderedMap<number>();
	map.set("a", 1);
	const cursor = map.cursor("");
	map.set("b", 2);
	assert.throws(() => cursor.key, /M3/);
});
