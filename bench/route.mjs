// What the module's routes do for each reader: stringify and encode every event.
//
// In their favour, the stream that the bytes are enqueued into is left out: Node's own takes seconds
// to give back 100,000 chunks that were enqueued in one go.

const encoder = new TextEncoder();

/** Makes the session's events server-sent events, to the end; returns how many bytes they have. */
export function routeBytes({ subscribeToRun }, sessionId) {
  return new Promise((resolve) => {
    let bytes = 0;
    subscribeToRun(sessionId, (event) => {
      if (event === null) resolve(bytes);
      else bytes += encoder.encode(`data: ${JSON.stringify(event)}\n\n`).length;
    });
  });
}

/** The same as a stream, as the routes make one: every event is enqueued when it comes. */
export function routeStream({ subscribeToRun }, sessionId) {
  let unsubscribe;
  return new ReadableStream({
    start(controller) {
      unsubscribe = subscribeToRun(sessionId, (event) => {
        if (event === null) controller.close();
        else controller.enqueue(encoder.encode(`data: ${JSON.stringify(event)}\n\n`));
      });
    },
    cancel: () => unsubscribe?.(),
  });
}
