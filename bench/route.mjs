// What the module's routes do for each reader: stringify and encode every event.

const encoder = new TextEncoder();

/** A session's events as server-sent events; null when there is no run. */
export function routeStream({ subscribeToRun }, sessionId, { replay = true } = {}) {
  let unsubscribe = null;
  let isClosed = false;
  return new ReadableStream({
    start(controller) {
      unsubscribe = subscribeToRun(
        sessionId,
        (event) => {
          if (isClosed) return;
          if (event === null) {
            isClosed = true;
            controller.close();
          } else {
            controller.enqueue(encoder.encode(`data: ${JSON.stringify(event)}\n\n`));
          }
        },
        { replay },
      );
    },
    cancel() {
      isClosed = true;
      unsubscribe?.();
    },
  });
}
