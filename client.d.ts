/**
 * For browsers, and for other readers of a run's routes: plain JavaScript without dependencies.
 */

/**
 * A message of the AI SDK as it must be before a rewound stream (`Last-Event-ID`, `resume: "rewind"`, `protocol: "ai-sdk"`) goes
 * on with it: without its first unfinished part and what follows, which the stream sends again from there.
 *
 * @returns The message itself if all its parts are finished, else a copy.
 */
export function dropOpenParts<Message extends { parts: readonly { state?: string }[] }>(message: Message): Message;

/** Why a stream ends that no further try would bring to its end. */
export class RunStreamError extends Error {
  readonly name: "RunStreamError";
  /** The HTTP status of the response that caused it; absent when none did. */
  readonly status?: number;
}

/** That a connection was lost and the run will be asked for again. */
export interface Reconnect {
  /** Tries since something came, this one included. */
  attempt: number;
  /** Why the connection was given up: the network's error, a silence, or an end before the run's. */
  cause: unknown;
}

type HeaderValues = ConstructorParameters<typeof Headers>[0] | null | undefined;
/** Headers, or what gives them for each request. */
export type RunHeaders = HeaderValues | (() => HeaderValues | Promise<HeaderValues>);

/** How {@link readRun} reads. */
export interface ReadRunOptions {
  /** The last SSE id that was received: what follows it is read. @default the whole run */
  lastEventId?: string | null | undefined;
  headers?: RunHeaders;
  /** @default the global `fetch` */
  fetch?: typeof fetch | undefined;
  /**
   * After this long without a byte, in milliseconds, a connection counts as lost. To be more than the server's `heartbeatMs` (15 s).
   * @default 40000
   */
  silenceMs?: number | undefined;
  /** Ends the reading with an `AbortError`. The run goes on. */
  signal?: AbortSignal | undefined;
  onReconnect?: ((reconnect: Reconnect) => void) | undefined;
}

/** A chunk of the UI message stream, or an event of the module's protocol. */
export type RunChunk = { type: string } & Record<string, any>;

/** The chunks of a run, to be read once: who begins anew goes on where the one before was. */
export interface RunReader extends AsyncIterable<RunChunk> {
  /** The id of the last frame that was read, to go on with later. */
  readonly lastEventId: string | undefined;
}

/**
 * Reads a run to its end, over as many connections as that takes: each chunk once. `url` answers as `createRunResponse` with
 * `protocol: "ai-sdk"`, `request` and `resume: "exact"` does; of `protocol: "module"`, which has no ids, the end of the bytes is the
 * end, and a connection that breaks is an error. Ends at once where there is no run (204) and no `lastEventId` was given.
 *
 * Reading throws a {@link RunStreamError} when the run can no longer be resumed or the session has another one by now, when the route
 * does not resume, and when the server refuses. 5xx, 408, 429 and pages are tried again, up to the eighth in a row. A request that fails without a
 * response, for whatever reason, is tried for ever, with pauses of 0.125 to 10 s.
 *
 * @throws `TypeError` for a `silenceMs` that is no number above 0.
 */
export function readRun(url: string | URL, options?: ReadRunOptions): RunReader;

/** How {@link RunChatTransport} reaches the routes. */
export interface RunChatTransportOptions {
  /** Where messages are POSTed, with the body of the SDK's own transport. @default "/api/chat" */
  api?: string | undefined;
  /** Where a chat's run is read, by GET. @default `${api}/${chatId}/stream`, as the SDK's own transport has it */
  streamApi?: string | ((chatId: string) => string | Promise<string>) | undefined;
  /** Where a chat's run is stopped, by POST. @default `${api}/${chatId}/stop` */
  stopApi?: string | ((chatId: string) => string | Promise<string>) | undefined;
  /** Headers of all requests. */
  headers?: RunHeaders;
  /** @default the global `fetch` */
  fetch?: typeof fetch | undefined;
  /** As in {@link ReadRunOptions}. @default 40000 */
  silenceMs?: number | undefined;
  /** Called before each pause and try. */
  onReconnect?: ((reconnect: Reconnect & { chatId: string }) => void) | undefined;
}

/**
 * The transport of a chat of the AI SDK (`ai` 5, 6 and 7): `useChat({ transport })`, `new Chat({ transport })`. The chat sees one
 * stream without a break, whatever happens to connections; see {@link readRun} for what is tried again. Its `stop()` stops the
 * run, by a POST to `stopApi`.
 *
 * A run that was aborted, in this tab or elsewhere, ends the stream with an `AbortError`, which the chat takes for a stop
 * (`isAbort`). What cannot be resumed ends it with a {@link RunStreamError}: the chat's `error`.
 *
 * A request whose response is lost is not sent twice. Of a new message, the run that answers it is looked for
 * (`x-run-user-message`, so `startRun` must be given the `userMessage`); if there is none, the error is the chat's.
 */
export class RunChatTransport<Message = any> {
  constructor(options?: RunChatTransportOptions);
  /** For the chat: a resumed stream begins at the beginning, and takes the place of what the chat has. */
  readonly resumeStreamIsReplay: true;
  sendMessages(options: {
    chatId: string;
    messages: Message[];
    abortSignal: AbortSignal | undefined;
    trigger: "submit-message" | "regenerate-message";
    messageId: string | undefined;
    headers?: HeaderValues;
    body?: object | undefined;
    metadata?: unknown;
  }): Promise<ReadableStream<any>>;
  reconnectToStream(options: {
    chatId: string;
    abortSignal?: AbortSignal | undefined;
    headers?: HeaderValues;
    body?: object | undefined;
    metadata?: unknown;
  }): Promise<ReadableStream<any> | null>;
  /**
   * Reads the chat's run no further, as when its page is left: a connection that is kept would count among the six that a browser
   * has for an HTTP/1.1 server. Its stream ends with an `AbortError`; the run goes on.
   */
  leave(chatId: string): void;
  /**
   * Stops the chat's run, as the chat's `stop()` does.
   *
   * @throws (rejects) {@link RunStreamError} when the server refuses, or the network's error after eight tries.
   */
  stop(chatId: string, options?: { headers?: HeaderValues }): Promise<void>;
}
