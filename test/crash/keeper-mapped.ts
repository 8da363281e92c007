/**
 * `node keeper-mapped.js FILE`: a mapping changes all of FILE, then a search for a hole makes the kernel write it out while somebody waits for that in the daemon. Says "searching" when the search begins, then where the hole is.
 */
import { openSync, readSync, writeSync } from "node:fs";
import { Mapped, seek } from "../support/syscalls.ts";

const lengthBytes = 96 << 20;

const fd = openSync(process.argv[2] as string, "r+");
const mapped = new Mapped(fd, 0, lengthBytes, "shared");
for (let at = 0; at < lengthBytes; at += 4096) mapped.bytes[at] = 65;
writeSync(1, "searching\n");
const hole = seek(fd, 0, "hole");
const last = Buffer.alloc(1);
readSync(fd, last, 0, 1, lengthBytes - 4096);
writeSync(1, `${hole} ${last}\n`);
