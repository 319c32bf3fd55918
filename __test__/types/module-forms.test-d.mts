// Checked by `npm run types`, never run: an ES module gets the names, the default export and the types.
import { expectTypeOf } from "expect-type";
import activeRuns, { startRun, type ActiveRun } from "active-runs";
import * as namespace from "active-runs";

expectTypeOf(activeRuns.startRun).toEqualTypeOf(startRun);
expectTypeOf(namespace.startRun).toEqualTypeOf(startRun);
expectTypeOf<ReturnType<typeof startRun>>().toEqualTypeOf<ActiveRun>();
