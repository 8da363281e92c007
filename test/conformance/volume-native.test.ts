/** The suite on the native volume. */
import { volumeConformance } from "./volume.ts";
import { makeNativeHarness } from "./volume-native-harness.ts";

volumeConformance("native volume", makeNativeHarness);
