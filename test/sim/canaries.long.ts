/** All planted bugs (`npm run test:long canaries`). */
import { canaryTests } from "./canaries.ts";
import { canaries } from "./hooks.ts";

canaryTests(canaries.map((canary) => ({ canary, seeds: 2000, steps: 200 })));
