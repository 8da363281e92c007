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

export function unreachable(value: never, message = "unreachable"): never {
	throw new AssertionError(`${message}: ${String(value)}`);
}
