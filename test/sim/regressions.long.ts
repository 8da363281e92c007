/** Long simulations that found bugs (`npm run test:long regressions`). */
import { regressionTests, slow } from "./regressions.ts";

regressionTests(slow);
