/** Progress of long verbs on standard error: a bar on a terminal, a line every tenth elsewhere. */
import cliProgress from "cli-progress";
import { formatBytes } from "./format.ts";

export interface ProgressBar {
	update(doneBytes: number, totalBytes: number): void;
	stop(): void;
}

export interface ProgressOptions {
	readonly title: string;
	readonly tty: boolean;
	write(text: string): void;
}

export function createProgress(options: ProgressOptions): ProgressBar {
	return options.tty ? new Bar(options.title) : new Lines(options);
}

class Bar implements ProgressBar {
	readonly #bar: cliProgress.SingleBar;
	#started = false;

	constructor(title: string) {
		const format = `${title} {bar} {percentage} % | {done} of {all}`;
		this.#bar = new cliProgress.SingleBar({ format, hideCursor: true, clearOnComplete: false }, cliProgress.Presets.shades_classic);
	}

	update(doneBytes: number, totalBytes: number): void {
		const payload = { done: formatBytes(doneBytes), all: formatBytes(totalBytes) };
		if (!this.#started) this.#bar.start(totalBytes, doneBytes, payload);
		this.#started = true;
		this.#bar.setTotal(totalBytes);
		this.#bar.update(doneBytes, payload);
	}

	stop(): void {
		if (this.#started) this.#bar.stop();
	}
}

class Lines implements ProgressBar {
	readonly #options: ProgressOptions;
	#shown = -1;

	constructor(options: ProgressOptions) {
		this.#options = options;
	}

	update(doneBytes: number, totalBytes: number): void {
		const tenth = totalBytes > 0 ? Math.floor((10 * doneBytes) / totalBytes) : 10;
		if (tenth <= this.#shown) return;
		this.#shown = tenth;
		this.#options.write(`${this.#options.title} ${tenth * 10} % (${formatBytes(doneBytes)} of ${formatBytes(totalBytes)})\n`);
	}

	stop(): void {}
}
