/** Planted bugs that a few seeds find; the rest are in canaries.long.ts. */
import { canaryTests } from "./canaries.ts";

const steps = 150;
canaryTests([
	{ canary: "acknowledged-before-sync", seeds: 60, steps },
	{ canary: "seal-after-truncate", seeds: 60, steps },
	{ canary: "log-cut-before-run", seeds: 60, steps },
	{ canary: "df-drift", seeds: 60, steps },
]);
