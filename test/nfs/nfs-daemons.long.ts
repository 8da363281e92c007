/** Daemons of two volumes on one machine with a true rpcbind, over IPv4 and IPv6: who is registered, what becomes of it when a daemon is killed, when rpcbind is, and when one volume goes. `npm run test:long nfs-daemons` (a minute or two). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, execute, missingPrograms } from "../support/cairn.ts";

const program = fileURLToPath(new URL("daemons-program.js", import.meta.url));
const reason = cannotMount() ?? missingPrograms("rpcbind", "rpcinfo", "showmount", "unshare", "ip");

test("two volumes beside rpcbind", { skip: reason ?? false }, async () => {
	const { code, stdout, stderr } = await execute("unshare", ["--mount", "--net", process.execPath, program], { timeoutMs: 600_000 });
	assert.equal(code, 0, stdout + stderr);
	assert.match(stdout, /^all as it should be$/m);
});
