/** Assertions stay on in production: a wrong state that goes on is worse than a process that stops. */
export class AssertionError extends Error {
	constructor(message: string) {
		super(`assertion failed: ${message}`);
		this.name = "AssertionError";
	}
}

export function assert(condition: unknown, message: string): asserts condition {
	if (!condition) throw new AssertionError(message);
}

/** For places that are passed a hundred thousand times a second, where to make up a message that nobody reads costs more than the rest: `if (!right) failed(…)`. */
export function failed(message: string): never {
	throw new AssertionError(message);
}

export function unreachable(value: never, message = "unreachable"): never {
	throw new AssertionError(`${message}: ${String(value)}`);
}
