/** Runs in a guest: `node guest-posix.js FOLDER`, the POSIX suite on a folder that is mounted there over NFS. What NFS version 3 has no words for (extended attributes, access lists, flags) is left out. */
import { after } from "node:test";
import { attributeTests } from "../posix/attributes.ts";
import { Suite } from "../posix/harness.ts";
import { nameTests } from "../posix/names.ts";

const [folder = "."] = process.argv.slice(2);
const suite = new Suite(() => folder);
after(() => suite.end());
nameTests(suite);
attributeTests(suite);
