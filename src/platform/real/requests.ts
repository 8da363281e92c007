/** Requests followed through everything that they cause, by the runtime's own context of asynchronous work. */
import { AsyncLocalStorage } from "node:async_hooks";
import type { RequestIdentity, RequestScope } from "../interface.ts";

export class RealRequests implements RequestScope {
	readonly #storage = new AsyncLocalStorage<RequestIdentity>();

	run<T>(request: RequestIdentity, work: () => T): T {
		return this.#storage.run(request, work);
	}

	current(): RequestIdentity | undefined {
		return this.#storage.getStore();
	}
}
