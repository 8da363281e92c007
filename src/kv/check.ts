/** The limits of a commit, asserted by every engine alike. */
import { FsError } from "../base/errors.ts";
import type { Commit, EngineManifest } from "./interface.ts";

/** Bytes of all keys and values of a commit. @throws FsError E2BIG. */
export function checkCommit(commit: Commit, manifest: EngineManifest): number {
	const changes = commit.puts.length + commit.deletes.length;
	if (changes > manifest.maximumChanges) throw tooBig("changes", changes, manifest.maximumChanges);
	let bytes = 0;
	for (const [key, value] of commit.puts) bytes += checkKey(key, manifest) + value.length;
	for (const key of commit.deletes) bytes += checkKey(key, manifest);
	if (bytes > manifest.maximumCommitBytes) throw tooBig("bytes", bytes, manifest.maximumCommitBytes);
	return bytes;
}

function checkKey(key: string, manifest: EngineManifest): number {
	if (key.length > manifest.maximumKeyBytes) throw tooBig("key bytes", key.length, manifest.maximumKeyBytes);
	return key.length;
}

function tooBig(what: string, found: number, limit: number): FsError {
	return new FsError(
		"E2BIG",
		"kv.commit-limits",
		`a commit of ${found} ${what} is over the limit of ${limit}: split the operation into several transactions`,
		{
			what,
			found,
			limit,
		},
	);
}
