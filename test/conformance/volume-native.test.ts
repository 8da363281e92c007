/** The suite on the native volume, which is asked what it can answer at once, as the mount does; without that: volume-later.long.ts. */
import { volumeConformance } from "./volume.ts";
import { makeNativeHarness } from "./volume-native-harness.ts";

volumeConformance("native volume", (seed) => makeNativeHarness(seed, { now: true }));
