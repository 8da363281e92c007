/** A volume as the FUSE door uses it: what it can do at once it is asked to do so, and only otherwise in its own time. */
import { FsError } from "../../src/base/errors.ts";
import type { VolumeNow } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";

type Verb = Exclude<keyof VolumeNow, "flush">;

/** What the verb's method answers, from what it answered at once; undefined: it could not. */
const answers: { readonly [V in Verb]: (answer: ReturnType<VolumeNow[V]>) => unknown } = {
	lookup: (answer) => answer ?? absent(answer, "ENOENT"),
	makeDirectory: (answer) => answer,
	unlink: (answer) => answer,
	removeDirectory: (answer) => answer,
	rename: (answer) => answer,
	readDirectory: (answer) => answer,
	getAttributes: (answer) => answer,
	setAttributes: (answer) => answer,
	getXattr: (answer) => answer ?? absent(answer, "ENODATA"),
	open: (answer) => answer,
	write: (answer) => (answer === undefined ? undefined : { written: answer }),
	close: () => true,
};
const verbs: ReadonlySet<string> = new Set(Object.keys(answers));
/** These have their handle beside what can be asked at once. */
const handleAt: Readonly<Record<string, number>> = { getAttributes: 2, setAttributes: 3 };

function absent(answer: null | undefined, code: "ENOENT" | "ENODATA"): undefined {
	if (answer === undefined) return undefined;
	throw new FsError(code, "sim.absent", "there is none, said at once");
}

/** `happened` is told of each call, and whether it was answered at once. */
export function atOnce(volume: NativeVolume, happened: (verb: string, done: boolean) => void): NativeVolume {
	return new Proxy(volume, {
		get(target, name: string) {
			const value = Reflect.get(target, name, target) as unknown;
			if (typeof value !== "function") return value;
			const usual = value as (...words: unknown[]) => unknown;
			if (!verbs.has(name)) return usual.bind(target);
			return async (...words: unknown[]): Promise<unknown> => {
				const verb = name as Verb;
				const mayAsk = words[handleAt[verb] ?? Number.POSITIVE_INFINITY] === undefined;
				const now = target.now?.[verb] as ((...words: unknown[]) => never) | undefined;
				const answer = mayAsk && now !== undefined ? answers[verb](now(...words)) : undefined;
				happened(verb, answer !== undefined);
				if (verb === "close" && answer !== undefined) return undefined;
				return answer ?? (await usual.apply(target, words));
			};
		},
	});
}
