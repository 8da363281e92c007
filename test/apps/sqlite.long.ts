/**
 * SQLite on a mount (Python's own module): four processes move money between a thousand accounts, with a rollback journal and with a
 * write-ahead log (which is shared memory mapped from a file). Whatever happens, the sum stays, and the integrity check finds nothing.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const workers = 4;
const transactions = 120;

const setUp = `
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
assert connection.execute("PRAGMA journal_mode=" + sys.argv[2]).fetchone()[0] == sys.argv[2]
connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")
connection.execute("CREATE TABLE transfer (worker INTEGER, number INTEGER, amount INTEGER, note BLOB)")
connection.execute("CREATE INDEX by_amount ON transfer (amount, worker)")
connection.executemany("INSERT INTO account VALUES (?, 1000)", [(i,) for i in range(1000)])
connection.commit()
`;

/** Some transactions are taken back: nothing of them may show. */
const work = `
import random, sqlite3, sys
worker, transactions = int(sys.argv[2]), int(sys.argv[3])
random.seed(worker)
connection = sqlite3.connect(sys.argv[1], timeout=240, isolation_level=None)
for i in range(transactions):
    source, target = random.sample(range(1000), 2)
    amount = random.randrange(100)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source))
    connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
    connection.execute("INSERT INTO transfer VALUES (?, ?, ?, randomblob(?))", (worker, i, amount, random.randrange(6000)))
    connection.execute("ROLLBACK" if i % 7 == 6 else "COMMIT")
connection.close()
`;

const look = `
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60)
print(connection.execute("PRAGMA integrity_check").fetchall())
print(connection.execute("SELECT sum(balance), count(*) FROM account").fetchone())
print(connection.execute("SELECT count(*) FROM transfer").fetchone())
if len(sys.argv) > 2:
    connection.execute("DELETE FROM transfer WHERE number % 2 = 0")
    connection.commit()
    connection.execute("VACUUM")
    print(connection.execute("PRAGMA integrity_check").fetchall())
`;

async function reasonToSkip(): Promise<string | undefined> {
	const missing = cannotMount() ?? missingPrograms("python3");
	if (missing !== undefined) return missing;
	return (await execute("python3", ["-c", "import sqlite3"])).code === 0 ? undefined : "python3 has no sqlite3 module";
}

const reason = await reasonToSkip();
const committed = workers * Array.from({ length: transactions }, (_, i) => i).filter((i) => i % 7 !== 6).length;
const expected = `[('ok',)]\n(1000000, 1000)\n(${committed},)\n`;

let volume: TestVolume | undefined;
after(() => volume?.close());

for (const mode of ["delete", "wal"]) {
	test(`${workers} processes, journal_mode=${mode}`, { skip: reason ?? false }, async () => {
		volume ??= await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		const database = join(volume.mountpoint, `${mode}.db`);
		await must("python3", ["-c", setUp, database, mode]);
		await Promise.all(Array.from({ length: workers }, (_, i) => must("python3", ["-c", work, database, String(i), String(transactions)])));
		assert.equal(await must("python3", ["-c", look, database]), expected);
		await volume.remount();
		assert.equal(await must("python3", ["-c", look, database, "vacuum"]), `${expected}[('ok',)]\n`);
	});
}
