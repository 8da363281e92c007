import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HealList } from "./heal-list.ts";

const idsOf = (list: HealList): number[] => {
	const ids: number[] = [];
	for (let item = list.take(); item !== undefined; item = list.take()) ids.push(item.id);
	return ids;
};

describe("the healer's list", () => {
	test("most at risk first, what only leaves a disk last, and sums of what is left", () => {
		const list = new HealList(100);
		list.add(1, 10, 1, false);
		list.add(2, 20, 2, true);
		list.add(3, 30, 0, false);
		list.add(4, 40, 1, false);
		list.add(5, 50, 0, true);
		assert.deepEqual([list.count, list.weakBytes, list.leavingBytes], [5, 80, 70]);
		assert.deepEqual(list.take(), { id: 3, bytes: 30, isFull: false });
		assert.deepEqual([list.count, list.weakBytes, list.leavingBytes], [4, 50, 70]);
		assert.deepEqual(idsOf(list), [1, 4, 2, 5]);
		assert.deepEqual([list.count, list.weakBytes, list.leavingBytes, list.overflowed], [0, 0, 0, false]);
	});

	test("what finds no room is what is least at risk, and it is said", () => {
		const list = new HealList(3);
		for (let id = 1; id <= 5; id++) list.add(id, 1, 2, false);
		list.add(6, 1, 0, false);
		list.add(7, 1, 2, true);
		list.add(8, 1, 1, false);
		assert.equal(list.overflowed, true);
		assert.equal(list.weakBytes, 3);
		assert.deepEqual(idsOf(list), [6, 8, 1]);
	});
});
