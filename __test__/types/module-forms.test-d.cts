// Checked by `npm run types`, never run: a CommonJS module gets the same by `require`.
import { expectTypeOf } from "expect-type";
import activeRuns = require("active-runs");

expectTypeOf<ReturnType<typeof activeRuns.startRun>>().toEqualTypeOf<activeRuns.ActiveRun>();
expectTypeOf<activeRuns.ActiveRun["whenEnded"]>().toEqualTypeOf<Promise<activeRuns.RunEnd>>();
expectTypeOf(activeRuns.configure).returns.toEqualTypeOf<activeRuns.Settings>();
