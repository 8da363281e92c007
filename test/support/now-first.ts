/** A volume whose methods ask `now` first, as the FUSE door does: what passes with it shows that both ways mean the same. */
import { FsError } from "../../src/base/errors.ts";
import type { Attributes, HandleId, Volume, VolumeNow } from "../../src/volume/interface.ts";

type Call = (...words: never[]) => unknown;

/** How often each call was answered at once, and not. */
export interface NowCounts {
	answered: number;
	later: number;
}

export function nowFirst<V extends Volume>(volume: V, counts: NowCounts = { answered: 0, later: 0 }): V {
	const { now } = volume;
	if (now === undefined) throw new Error("the volume answers nothing at once");
	const calls = new Map<string, Call>();
	for (const name of Object.keys(now) as (keyof VolumeNow)[]) calls.set(name, callOf(volume, now, name, counts));
	return new Proxy(volume, {
		get: (target, name) => {
			const call = typeof name === "string" ? calls.get(name) : undefined;
			if (call !== undefined) return call;
			const value: unknown = Reflect.get(target, name, target);
			return typeof value === "function" ? value.bind(target) : value;
		},
	});
}

function callOf(volume: Volume, now: VolumeNow, name: keyof VolumeNow, counts: NowCounts): Call {
	if (name === "write") return writer(volume, now, counts);
	return async (...words: never[]) => {
		const found = (now[name] as Call)(...words);
		const isDone = found !== undefined || name === "flush" || name === "close";
		if (isDone) counts.answered++;
		else counts.later++;
		if (found === null) throw new FsError(name === "lookup" ? "ENOENT" : "ENODATA", "test.now-first", "it is not there");
		return isDone ? found : (volume[name] as Call)(...words);
	};
}

function writer(volume: Volume, now: VolumeNow, counts: NowCounts) {
	return async (handle: HandleId, offset: number, bytes: Uint8Array): Promise<{ written: number; attributes: Attributes }> => {
		const written = now.write(handle, offset, bytes);
		if (written === undefined) {
			counts.later++;
			return volume.write(handle, offset, bytes);
		}
		counts.answered++;
		// Of nothing that is written elsewhere: attributes come with the answer there.
		return { written, attributes: (await volume.write(handle, offset, new Uint8Array(0))).attributes };
	};
}
