/** Many random histories of the native volume, with kills and power cuts: `npm run test:long history -- --seeds 1..200`. */
import { historyTests } from "../conformance/volume/history.ts";
import { nameHistoryTests } from "../conformance/volume/name-history.ts";
import { makeNativeHarness } from "../conformance/volume-native-harness.ts";

const [first = 1, last = 40] = (process.env["CAIRN_SEEDS"] ?? "1..40").split("..").map(Number);
const seeds = Array.from({ length: last - first + 1 }, (_, i) => first + i);
const options = { seeds, historySteps: Number(process.env["CAIRN_STEPS"] ?? 200) };

historyTests("native volume", makeNativeHarness, options);
nameHistoryTests("native volume", makeNativeHarness, options);
