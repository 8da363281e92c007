/** What may be a name. Names are byte strings: one char per byte. */
import { latin1ToUtf8 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import { maximumNameBytes } from "../records/limits.ts";

export function isDots(name: string): boolean {
	return name === "." || name === "..";
}

/** @throws FsError ENOENT (empty), ENAMETOOLONG, EINVAL ("/", NUL, chars that are not bytes). */
export function checkName(name: string): void {
	if (name.length === 0) throw new FsError("ENOENT", "namespace.name-empty", "an empty name names nothing");
	if (name.length > maximumNameBytes) {
		const message = `a name of ${name.length} bytes: at most ${maximumNameBytes} are possible; choose a shorter one`;
		throw new FsError("ENAMETOOLONG", "namespace.name-long", message, { bytes: name.length });
	}
	for (let i = 0; i < name.length; i++) {
		const code = name.charCodeAt(i);
		if (code === 0 || code === 0x2f || code > 0xff) {
			throw new FsError("EINVAL", "namespace.name-byte", `a name cannot contain ${code === 0x2f ? '"/"' : `the character ${code}`}`, {
				at: i,
			});
		}
	}
}

/** For messages. */
export function shown(parent: number, name: string): string {
	return `${JSON.stringify(latin1ToUtf8(name))} in directory ${parent}`;
}
