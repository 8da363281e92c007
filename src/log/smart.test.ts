import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { readSmart } from "./smart.ts";

const ata = (passed: boolean, pending: number): string =>
	JSON.stringify({
		smart_status: { passed },
		ata_smart_attributes: {
			table: [
				{ id: 5, raw: { value: 3 } },
				{ id: 197, raw: { value: pending } },
			],
		},
	});
const nvme = (warning: number, used: number): string =>
	JSON.stringify({
		smart_status: { passed: true },
		nvme_smart_health_information_log: { critical_warning: warning, percentage_used: used },
	});

describe("what a device says of itself", () => {
	test("well, failing, unreadable sectors, worn out", () => {
		assert.deepEqual(readSmart(ata(true, 0)), { why: "" });
		assert.deepEqual(readSmart(ata(true, 1)), { why: "" });
		assert.deepEqual(readSmart(ata(false, 40)), { why: "it expects to fail, 40 sectors cannot be read" });
		assert.deepEqual(readSmart(nvme(0, 99)), { why: "" });
		assert.deepEqual(readSmart(nvme(4, 100)), { why: "critical warning 4, 100 % of its life is used" });
	});

	test("what is not understood is no opinion", () => {
		for (const text of ["", "{", "null", "[]", "{}", '{"smart_status":{"passed":"yes"}}', '{"smart_status":null}', "7"])
			assert.equal(readSmart(text), undefined, text);
		fc.assert(
			fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
				const opinion = readSmart(text);
				return opinion === undefined || typeof opinion.why === "string";
			}),
		);
		const odd = {
			smart_status: { passed: true },
			ata_smart_attributes: { table: [null, 5, { id: 197 }, { id: 198, raw: { value: "x" } }] },
		};
		assert.deepEqual(readSmart(JSON.stringify(odd)), { why: "" });
	});
});
