/** Registration with a true rpcbind, in namespaces of its own: what others serve stays theirs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { execute, missingPrograms } from "../support/cairn.ts";

const program = fileURLToPath(new URL("rpcbind-program.js", import.meta.url));
const reason = process.getuid?.() === 0 ? missingPrograms("rpcbind", "rpcinfo", "unshare", "ip") : "namespaces need root";

/** `A` registers on 2049 and serves; `B` comes with another port while it does, and after it was killed. */
const script = `
set -e
# Copies of other suites' mounts would keep their daemons from ending.
umount -l -a -t fuse.cairn,fuseblk.cairn || true
ip link set lo up
mount -t tmpfs tmpfs /run
rpcbind -f & rpc=$!
trap 'kill $rpc $first 2>/dev/null || true' EXIT
while [ ! -S /run/rpcbind.sock ]; do sleep 0.05; done
register() { "$NODE" "$PROGRAM" "$@"; }
mkfifo /run/a /run/told
"$NODE" "$PROGRAM" 2049 register serve </run/a >/run/told & first=$!
exec 9>/run/a
head -1 /run/told
rpcinfo -T tcp 127.0.0.1 100021 4
rpcinfo -T tcp6 ::1 100021 4
echo "beside: $(register 4045 register)"
rpcinfo -p 127.0.0.1 | grep -c " 2049 "
kill -9 $first
wait $first 2>/dev/null || true
echo "after: $(register 4045 register)"
register 4046 unregister
rpcinfo -p 127.0.0.1 | grep -c " 4045 "
register 4045 unregister
rpcinfo -p 127.0.0.1 | grep -c " 4045 " || true
`;

test("rpcbind: registered, left to others who answer, taken over from the dead, taken away", { skip: reason ?? false }, async () => {
	const { code, stdout, stderr } = await execute("unshare", ["--mount", "--net", "sh", "-c", script], {
		env: { NODE: process.execPath, PROGRAM: program },
		timeoutMs: 120_000,
	});
	assert.equal(code, 0, stdout + stderr);
	assert.deepEqual(stdout.trim().split("\n"), [
		"16 registered, 0 taken",
		"program 100021 version 4 ready and waiting",
		"program 100021 version 4 ready and waiting",
		"beside: 0 registered, 16 taken",
		"8",
		"after: 16 registered, 0 taken",
		"8",
		"0",
	]);
});
