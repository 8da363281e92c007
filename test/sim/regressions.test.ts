/** Seeds that found bugs; the slow ones are in regressions.long.ts. */
import { quick, regressionTests } from "./regressions.ts";

regressionTests(quick);
