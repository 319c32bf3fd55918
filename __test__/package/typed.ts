import { startRun, subscribeToRun, type ActiveRun, type SseEvent } from "active-runs";
import { dropOpenParts } from "active-runs/client";

const run: ActiveRun = startRun({ sessionId: "s", message: "m" });
subscribeToRun(run.sessionId, (event: SseEvent | null) => console.log(event?.type));
// @ts-expect-error types are there, so a mistake is one
startRun({ session: "s" });
console.log(typeof dropOpenParts);
