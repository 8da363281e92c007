import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { coloured, formatBytes, formatDuration, formatTable, paintState, plain } from "./format.ts";
import { createProgress } from "./progress.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes begin with one
const colourCode = /\u001b\[\d+m/g;

describe("text for people", () => {
	test("sizes", () => {
		const sizes = [0, 1, 1023, 1024, 1536, 102_400, 1 << 20, 5.5 * 2 ** 30, 2 ** 60];
		assert.deepEqual(sizes.map(formatBytes), ["0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 KiB", "1.0 MiB", "5.5 GiB", "1024 PiB"]);
		assert.equal(formatBytes(null), "unknown");
	});

	test("durations", () => {
		assert.deepEqual([0, 59.4, 95, 3600, 7322].map(formatDuration), ["0 s", "59 s", "1 min 35 s", "1 h 0 min", "2 h 2 min"]);
	});

	test("tables align whatever is coloured or wide", () => {
		const rows = [
			["a", paintState("healthy", coloured), "1"],
			["long name", paintState("failed", coloured), "1000"],
		];
		const text = formatTable(["NAME", "STATE", "N"], rows, [2]).replaceAll(colourCode, "");
		assert.equal(text, "NAME       STATE       N\na          healthy     1\nlong name  failed   1000\n");
		assert.equal(paintState("running", plain), "running");
	});

	test("progress without a terminal: a line every tenth, each once", () => {
		let text = "";
		const bar = createProgress({
			title: "healing",
			tty: false,
			write: (line) => {
				text += line;
			},
		});
		for (let i = 0; i <= 1000; i++) bar.update(i * 1024, 1_024_000);
		bar.stop();
		assert.equal(text.split("\n").length - 1, 11);
		assert.match(text, /^healing 0 % \(0 B of 1000 KiB\)\n/);
		assert.match(text, /healing 100 % \(1000 KiB of 1000 KiB\)\n$/);
	});
});
