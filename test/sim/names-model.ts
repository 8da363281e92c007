/**
 * The names of a volume as its clients may see them. The position that each change is answered with gives their one order; so the tree is known exactly, and a power cut
 * must leave the state after some change of that order, not before the last that was made durable.
 *
 * Invariants
 *  N1 `tree` = `#base` with all of `#log` applied in order of position. Changes are taken over when an event of the world is over: those of one event may be answered in
 *     another order than they were made.
 *  N2 An outcome without a position (a failure, a look) is right when it was right at some moment while the call was under way.
 */
import { Deferred } from "../../src/base/async.ts";
import { maybe, type NameOperation, type Tree, treeDifference } from "./tree.ts";

export interface PendingName {
	readonly operation: NameOperation;
	/** Errors that it might have met so far; "" = none. */
	readonly outcomes: Set<string>;
}

export interface Look {
	readonly expect: (tree: Tree) => string;
	readonly answers: Set<string>;
}

interface Answer {
	readonly pending: PendingName;
	readonly position: number;
	readonly made: number;
	readonly complain: (what: string) => void;
}

interface Logged {
	readonly position: number;
	readonly operation: NameOperation;
	readonly made: number;
}

/** More than that many changes under way at a death are not tried in every order. */
const ordersTried = 5;

export class NamesModel {
	tree: Tree;
	/** Everything up to here survives a power cut. */
	durablePosition = 0;
	#base: Tree;
	#log: Logged[] = [];
	#answers: Answer[] = [];
	readonly #pending = new Set<PendingName>();
	readonly #looks = new Set<Look>();
	#unknown = -1;
	#alone: Deferred<void> | undefined;

	constructor(tree: Tree) {
		this.tree = tree;
		this.#base = tree.clone();
	}

	/** Somebody changes names and must be the only one: settles when that is over. */
	get alone(): Promise<void> | undefined {
		return this.#alone?.promise;
	}

	async onlyThis<T>(change: () => Promise<T>): Promise<T> {
		const changing = change();
		this.#alone = new Deferred();
		const over = this.#alone;
		const result = await changing;
		this.#alone = undefined;
		over.resolve();
		return result;
	}

	get lastPosition(): number {
		return this.#log.at(-1)?.position ?? this.durablePosition;
	}

	get underWay(): number {
		return this.#pending.size;
	}

	begin(operation: NameOperation): PendingName {
		this.settle();
		const pending = { operation, outcomes: new Set<string>() };
		this.#pending.add(pending);
		this.#note(pending);
		return pending;
	}

	/** It succeeded; `made` is the inode of a creation. `complain` is told when it could not have. */
	done(pending: PendingName, position: number, made: number, complain: (what: string) => void): void {
		this.#answers.push({ pending, position, made, complain });
	}

	/** It changed nothing and said `code`, "" for success. Call after the event is over. @returns what is wrong with that. */
	ended(pending: PendingName, code: string): string | undefined {
		this.settle();
		this.#pending.delete(pending);
		const { outcomes } = pending;
		const plain = code === "ESTALE" ? "ENOENT" : code;
		const gone = outcomes.has(maybe) && (plain === "ENOENT" || plain === "");
		return outcomes.has(plain) || gone
			? undefined
			: `answered ${code || "success"}, possible: ${[...outcomes].map((one) => one || "success").join(", ")}`;
	}

	/** The call failed for reasons of its surroundings and changed nothing. */
	dropped(pending: PendingName): void {
		this.settle();
		this.#pending.delete(pending);
	}

	look(expect: (tree: Tree) => string): Look {
		this.settle();
		const look = { expect, answers: new Set([expect(this.tree)]) };
		this.#looks.add(look);
		return look;
	}

	/** Call after the event is over. @returns what is wrong with that answer. */
	looked(look: Look, answer: string): string | undefined {
		this.settle();
		this.#looks.delete(look);
		if (look.answers.has(answer) || look.answers.has(maybe)) return undefined;
		return `answered ${answer}; possible: ${[...look.answers].join(" | ")}`;
	}

	/** Takes over what was answered. */
	settle(): void {
		if (this.#answers.length === 0) return;
		const answers = this.#answers.sort((a, b) => a.position - b.position);
		this.#answers = [];
		for (const { pending, position, made, complain } of answers) {
			const { operation } = pending;
			this.#pending.delete(pending);
			const errors = this.tree.errors(operation).filter((error) => error !== maybe);
			if (errors.length > 0) {
				complain(`succeeded at position ${position}, it had to answer ${errors.join(" or ")}`);
				continue;
			}
			this.tree.apply(operation, made);
			this.#log.push({ position, operation, made });
			for (const other of this.#pending) this.#note(other);
			for (const look of this.#looks) look.answers.add(look.expect(this.tree));
		}
	}

	#note(pending: PendingName): void {
		const errors = this.tree.errors(pending.operation);
		if (errors.length === 0) pending.outcomes.add("");
		for (const error of errors) pending.outcomes.add(error);
	}

	/** What was answered before `position` is durable. */
	durable(position: number): void {
		this.durablePosition = Math.max(this.durablePosition, position);
	}

	/**
	 * Compares with what a death left. `cut`: a power cut, after which changes that were not durable may be missing, the newest first; otherwise none may. Changes that
	 * were under way were made or not.
	 * @returns the newest position that is there, or what is wrong.
	 */
	recovered(found: Tree, cut: boolean): { readonly position: number } | { readonly wrong: string } {
		this.settle();
		const open = [...this.#pending].map((pending) => pending.operation);
		this.#pending.clear();
		this.#looks.clear();
		const tree = this.#base.clone();
		let wrong: string | undefined = "";
		const log = this.#log;
		for (let at = 0; at <= log.length; at++) {
			const next = log[at];
			if (at === log.length || (cut && (next as Logged).position > this.durablePosition)) {
				wrong = treeDifference(tree, found);
				if (wrong === undefined) return this.#settled(found, log[at - 1]?.position ?? 0);
			}
			if (next !== undefined) tree.apply(next.operation, next.made);
		}
		const extended = this.#anyOrder(tree, open, found, 0);
		if (extended) return this.#settled(found, Number.POSITIVE_INFINITY);
		const last = log.at(-1)?.position ?? 0;
		return { wrong: `${wrong} (${cut ? `durable to ${this.durablePosition}, ` : ""}answered to ${last}, ${open.length} under way)` };
	}

	#anyOrder(tree: Tree, open: readonly NameOperation[], found: Tree, depth: number): boolean {
		if (depth >= ordersTried) return false;
		for (const [at, operation] of open.entries()) {
			if (tree.errors(operation).some((error) => error !== maybe)) continue;
			const next = tree.clone();
			next.apply(operation, this.#unknown--);
			if (treeDifference(next, found) === undefined) return true;
			if (
				this.#anyOrder(
					next,
					open.filter((_, i) => i !== at),
					found,
					depth + 1,
				)
			)
				return true;
		}
		return false;
	}

	/** The tree that was found is the truth from now on, and durable: a mount makes it so. */
	#settled(found: Tree, position: number): { readonly position: number } {
		this.#alone = undefined;
		this.tree = found;
		this.#base = found.clone();
		this.#log = [];
		this.#answers = [];
		return { position };
	}

	/** Positions begin anew with a mount. */
	mounted(position: number): void {
		this.durablePosition = position;
	}
}
