// Checked by `npm run types`, never run: the module for browsers.
import { expectTypeOf } from "expect-type";
import { type Reconnect, type RunChunk, RunChatTransport, RunStreamError, readRun } from "active-runs/client";

const transport = new RunChatTransport();
new RunChatTransport({
  api: "/api/chats",
  streamApi: (chatId) => `/api/chats/${chatId}/turn`,
  stopApi: async (chatId) => `/api/chats/${chatId}/stop`,
  headers: async () => ({ authorization: "x" }),
  fetch,
  silenceMs: 20_000,
  onReconnect: ({ chatId, attempt }) => expectTypeOf([chatId, attempt]).toEqualTypeOf<(string | number)[]>(),
});
// @ts-expect-error a misspelt option
new RunChatTransport({ silence: 5 });
expectTypeOf(transport.stop("c")).toEqualTypeOf<Promise<void>>();
const reader = readRun("http://x/", { lastEventId: "1-2", onReconnect: (lost: Reconnect) => void lost.cause });
expectTypeOf(reader[Symbol.asyncIterator]().next()).toExtend<Promise<IteratorResult<RunChunk>>>();
expectTypeOf(reader.lastEventId).toEqualTypeOf<string | undefined>();
expectTypeOf<RunStreamError["status"]>().toEqualTypeOf<number | undefined>();
