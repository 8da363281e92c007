import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { RealDeviceReports } from "./smart.ts";

describe("smartctl", () => {
	let folder = "";
	const path = process.env["PATH"];
	/** The program in PATH is this script. */
	const program = (script: string): void => {
		writeFileSync(join(folder, "smartctl"), `#!/bin/sh\n${script}\n`);
		chmodSync(join(folder, "smartctl"), 0o755);
	};

	before(() => {
		folder = mkdtempSync(join(tmpdir(), "cairn-smart-"));
		process.env["PATH"] = `${folder}:/bin:/usr/bin`;
	});
	after(() => {
		process.env["PATH"] = path;
		rmSync(folder, { recursive: true });
	});

	test("is asked for the device, and its warnings are no failure", async () => {
		program('echo "{\\"asked\\":\\"$*\\"}"; exit 8');
		assert.equal(await new RealDeviceReports().ask("/dev/x"), '{"asked":"-j -H -A -n standby /dev/x"}\n');
	});

	test("could not ask, hangs, prints without end, is not there: no answer", async () => {
		program("echo '{}'; exit 2");
		assert.equal(await new RealDeviceReports().ask("/dev/x"), undefined);
		program("exec sleep 600");
		assert.equal(await new RealDeviceReports(200).ask("/dev/x"), undefined);
		program("exec yes");
		assert.equal(await new RealDeviceReports(20_000).ask("/dev/x"), undefined);
		rmSync(join(folder, "smartctl"));
		process.env["PATH"] = folder;
		assert.equal(await new RealDeviceReports().ask("/dev/x"), undefined);
		assert.equal(await new RealDeviceReports().smart("no device"), undefined);
	});
});
