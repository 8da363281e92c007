/** The suite on the native volume, with a promise for each call; `npm test` asks what it can answer at once, as the mount does. */
import { volumeConformance } from "./volume.ts";
import { makeNativeHarness } from "./volume-native-harness.ts";

volumeConformance("native volume, later", (seed) => makeNativeHarness(seed));
