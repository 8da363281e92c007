/**
 * Watches the requests of the mount while somebody asks for it (`cairn profile`), and for a few seconds more: what runs across two looks is counted with all its time.
 *
 * Invariant: the door is watched exactly while `#profile` is set.
 */
import { type ProfileWindow, type RequestObserver, RequestProfile } from "../base/profile.ts";
import type { Clock } from "../platform/interface.ts";
import { profileLingerMs } from "./limits.ts";

export interface ProfilerModules {
	readonly clock: Clock;
	/** Undefined: nobody watches any more. */
	readonly observe: (observer: RequestObserver | undefined) => void;
}

export class Profiler {
	readonly #modules: ProfilerModules;
	#profile: RequestProfile | undefined;
	#looking = 0;
	#cancelEnd: () => void = () => {};

	constructor(modules: ProfilerModules) {
		this.#modules = modules;
	}

	/** What ends within `ms`; since the last look, when that was a moment ago. */
	async look(ms: number): Promise<ProfileWindow> {
		const { clock, observe } = this.#modules;
		this.#cancelEnd();
		let profile = this.#profile;
		if (profile === undefined) {
			profile = new RequestProfile(() => clock.monotonicMs());
			this.#profile = profile;
			observe(profile);
		}
		this.#looking++;
		await clock.sleep(ms);
		this.#looking--;
		if (this.#looking === 0) this.#cancelEnd = clock.after(profileLingerMs, () => this.#end());
		return profile.take();
	}

	#end(): void {
		this.#profile = undefined;
		this.#modules.observe(undefined);
	}
}
