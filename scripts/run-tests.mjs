/** Runs compiled test files with node:test and says what came out; the last line alone is `N passed, N failed, N skipped`. */
import { relative } from "node:path";
import { run } from "node:test";
import { root } from "./tools.mjs";

/** Output of a test file that is kept to be shown should it fail. */
const keptOutputBytes = 8192;

/** What node:test itself says at the end of a file, as if it were a test's diagnostic. */
const summary = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [0-9.]+$/;

const skippedFor = (value) => (typeof value === "string" && value !== "" ? value : "no reason given");

/** How a failed test is shown: its error, for assertions both sides, and where. */
function describeError(error) {
	const cause = error?.cause ?? error;
	if (!(cause instanceof Error) && typeof cause !== "object") return String(cause);
	const stack = typeof cause.stack === "string" ? cause.stack : "";
	const text = stack.includes(cause.message) && stack ? stack : `${cause.message ?? ""}\n${stack}`;
	return text
		.split("\n")
		.filter((line) => !line.includes("node:internal") && !line.includes("(node:"))
		.slice(0, 40)
		.join("\n");
}

class Results {
	passed = 0;
	failures = [];
	skips = new Map();
	skipped = 0;
	output = new Map();
	#tested = new Map();

	note(file, text) {
		this.output.set(file, ((this.output.get(file) ?? "") + text).slice(-keptOutputBytes));
	}

	/** A suite is no test; a test that failed only because a part of it did is counted by that part. */
	#counts(event) {
		return event.details?.type !== "suite" && event.details?.error?.failureType !== "subtestsFailed";
	}

	pass(event) {
		if (!this.#counts(event)) return;
		// A file that registers no test is reported by node:test as one test with the name of the file.
		if (event.nesting === 0 && event.name === event.file) return this.failures.push({ ...event, why: "the file registers no test" });
		this.#tested.set(event.file, true);
		const reason = event.skip ?? event.todo;
		if (reason === undefined || reason === false) {
			this.passed++;
			return;
		}
		this.skipped++;
		const key = skippedFor(reason);
		this.skips.set(key, (this.skips.get(key) ?? 0) + 1);
	}

	timedOut(file, limitMs) {
		this.failures = this.failures.filter((failure) => failure.file !== file);
		this.failures.push({ name: file, file, why: `not done after ${limitMs / 1000} s: stopped` });
	}

	fail(event) {
		if (!this.#counts(event)) return;
		if (event.todo !== undefined && event.todo !== false) return this.pass(event);
		this.failures.push({ ...event, why: describeError(event.details?.error) });
	}
}

function printFailures(results) {
	const shown = new Set();
	for (const { name, file, line, why } of results.failures) {
		const where = file ? relative(root, file) : "unknown file";
		console.log(`\nFAILED  ${where}${line ? `:${line}` : ""}\n        ${name === file ? "(the file itself)" : name}`);
		console.log(why.replaceAll(/^/gm, "        "));
		const output = results.output.get(file)?.trim();
		if (!output || shown.has(file)) continue;
		shown.add(file);
		console.log(`        output of the file:\n${output.replaceAll(/^/gm, "        | ")}`);
	}
}

function printProgress(started, finished, total, file, ms) {
	const seconds = ((performance.now() - started) / 1000).toFixed(0);
	console.log(
		`[${String(finished).padStart(String(total).length)}/${total}] ${seconds.padStart(4)} s  ${file} (${(ms / 1000).toFixed(1)} s)`,
	);
}

/** `files` are absolute paths. `showDiagnostics`: figures that tests tell (`t.diagnostic`) are printed as they come. Answers the exit code. */
export async function runTests(files, { concurrency, fileTimeoutMs, showDiagnostics = false }) {
	const results = new Results();
	const started = performance.now();
	// A test file must not inherit being a test of this very process.
	delete process.env.NODE_TEST_CONTEXT;
	let finished = 0;
	const queue = [...files];
	const one = async (file) => {
		const at = performance.now();
		// run()'s own `timeout` bounds files in some versions of Node and single tests in others.
		const limit = new AbortController();
		const timer = setTimeout(() => limit.abort(), fileTimeoutMs);
		const stream = run({ files: [file], concurrency: 1, signal: limit.signal });
		stream.on("test:pass", (event) => results.pass({ ...event, file: event.file ?? file }));
		stream.on("test:fail", (event) => results.fail({ ...event, file: event.file ?? file }));
		stream.on("test:stdout", ({ message }) => results.note(file, message));
		stream.on("test:stderr", ({ message }) => results.note(file, message));
		if (showDiagnostics)
			stream.on("test:diagnostic", ({ message }) => {
				if (!summary.test(message)) console.log(`        ${message}`);
			});
		for await (const _ of stream);
		clearTimeout(timer);
		if (limit.signal.aborted) results.timedOut(file, fileTimeoutMs);
		printProgress(started, ++finished, files.length, relative(root, file), performance.now() - at);
	};
	const lane = async () => {
		for (let file = queue.shift(); file !== undefined; file = queue.shift()) await one(file);
	};
	await Promise.all(Array.from({ length: concurrency }, lane));
	printFailures(results);
	if (results.skips.size > 0) console.log("\nskipped:");
	for (const [reason, count] of results.skips) console.log(`  ${count} × ${reason}`);
	const failed = results.failures.length;
	if (results.passed + failed === 0) console.log("\nno test ran");
	console.log(`\n${results.passed} passed, ${failed} failed, ${results.skipped} skipped`);
	return failed === 0 && results.passed > 0 ? 0 : 1;
}
