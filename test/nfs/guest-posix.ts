/** Runs in a guest: `node guest-posix.js FOLDER`, the POSIX suite on a folder that is mounted there over NFS. What NFS version 3 has no words for, or its client does not pass on, is left out, by title. */
import { after } from "node:test";
import { attributeTests } from "../posix/attributes.ts";
import { type Case, Suite } from "../posix/harness.ts";
import { nameTests } from "../posix/names.ts";

const [folder = "."] = process.argv.slice(2);

/** Beginnings of titles, and why. */
const absent: readonly (readonly [string, string])[] = [
	["rename", "RENAME_NOREPLACE is not in NFS"],
	["a removed file lives", "the client renames what is removed while it is open: it still has a name"],
	["exchange", "RENAME_EXCHANGE is not in NFS"],
	["whiteout", "RENAME_WHITEOUT is not in NFS"],
	["O_TMPFILE", "files without names are not in NFS"],
	["truncate by another takes set-id bits", "the client leaves out a size that is the same already"],
	["O_TRUNC by another takes set-id bits", "the client leaves out a size that is the same already"],
	["capabilities of a program", "no extended attributes in NFS version 3"],
	["times: before 1970", "seconds are 32 bits without a sign"],
	["birth", "no time of birth in NFS version 3"],
	["what changes which times", "the client leaves out a size that is the same already"],
	["flags are shown", "no flags of inodes in NFS"],
	["immutable", "no flags of inodes in NFS"],
	["append-only", "no flags of inodes in NFS"],
];

class NfsSuite extends Suite {
	override check(title: string, body: (c: Case) => Promise<void>): void {
		const [, reason] = absent.find(([beginning]) => title === beginning || (beginning !== "rename" && title.startsWith(beginning))) ?? [];
		if (reason === undefined) super.check(title, body);
		else console.log(`# left out: ${title} (${reason})`);
	}
}

const suite = new NfsSuite(() => folder);
after(() => suite.end());
nameTests(suite);
attributeTests(suite);
