/**
 * One event of an AI SDK UI message stream, as sent to the browser in an SSE `data:` line.
 *
 * | `type` | other members, in this order |
 * |---|---|
 * | `text-start`, `text-end` | `id` |
 * | `text-delta` | `id`, `delta` |
 * | `reasoning-start`, `reasoning-end` | `id` |
 * | `reasoning-delta` | `id`, `delta` |
 * | `tool-input-start` | `toolCallId`, `toolName` |
 * | `tool-input-available` | `toolCallId`, `toolName`, `input` |
 * | `tool-output-available` | `toolCallId`, `output` |
 * | `tool-output-error` | `toolCallId`, `errorText` |
 *
 * A part's `id` is `<kind>-<ms since 1970>-<number>` with the kind `text`, `reasoning` or `status`; a `status` part is
 * reasoning that says what the agent is busy with, and is not stored. Errors are text parts that begin with `[error] `.
 *
 * Each subscriber is handed plain objects; treat them as read-only.
 */
export type SseEvent = Record<string, unknown> & { type: string };

/**
 * Receives a run's events in order, then `null` once, when the run has ended.
 *
 * By the time of that `null` the final message is on disk and `status` is final; a new run of the session may be
 * started from inside it. What the callback throws is swallowed while events are live, and reaches the caller of
 * {@link subscribeToRun} while they are replayed.
 */
export type RunSubscriber = (event: SseEvent | null) => void;

/** `completed`: exit code 0, or ended by a signal (an aborted run, too). `error`: any other end. */
export type RunStatus = "running" | "completed" | "error";

/** A tool call as far as it is known. */
export interface ToolCall {
  toolName: string;
  /** What the tool was called with; `{}` if the agent sent no object. */
  args: Record<string, unknown>;
  /** Its result: absent until there is one, and after an error. */
  output?: Record<string, unknown>;
  /** Why it failed. A string, unless the agent put something else into `result.details.error`. */
  errorText?: string;
}

/** The assistant's message as it has grown so far: what the store is given. */
export interface AccumulatedMessage {
  /** `assistant-<sessionId>-<ms since 1970>`: the id of the stored message. */
  id: string;
  role: "assistant";
  /** The deltas of all text parts, in order. */
  textParts: string[];
  /** The deltas of all reasoning parts, in order, without those of `status` parts. */
  reasoningParts: string[];
  /** By tool call id, in the order of the first call. */
  toolCalls: Map<string, ToolCall>;
}

/** The agent's process, as much of Node's `ChildProcess` as a run needs. */
export interface AgentProcess {
  /**
   * The process id. `undefined` until the process exists, a moment after {@link startRun} has returned, and for ever if
   * it could not be started.
   */
  readonly pid: number | undefined;
  /**
   * Sends a signal to the agent's process group: to the agent and to what it has started. Before the agent exists, the
   * signal waits for it. Unlike {@link abortRun} it does not follow up with SIGKILL.
   *
   * @param signal A signal's name or number. @default "SIGTERM"
   * @returns Whether there is a process to signal, or will be.
   * @throws `INVALID_ARGUMENT` for an unknown signal.
   */
  kill(signal?: `SIG${string}` | number): boolean;
}

/**
 * A run, active or ended a short while ago.
 *
 * The object is live: every read shows the run as it is in this tick of the event loop. Within one tick nothing changes.
 */
export interface ActiveRun {
  readonly sessionId: string;
  readonly childProcess: AgentProcess;
  /**
   * All events so far: one array, made when it is first asked for and kept up to date from then on, at the price of its
   * memory. To be read, not changed.
   */
  readonly eventBuffer: SseEvent[];
  /** The callbacks that are subscribed, in the order in which they came. None once the run has ended. */
  readonly subscribers: ReadonlySet<RunSubscriber>;
  /** The message so far. Its arrays and its map are made anew at each read. */
  readonly accumulated: AccumulatedMessage;
  readonly status: RunStatus;
  /** When the run began, in milliseconds since 1970. */
  readonly startedAt: number;
  /**
   * The agent's exit code. `null` while it runs and when a signal ended it; negative, the system's error number, when
   * it could not be started (-2 for ENOENT), as in Node's `close` event.
   */
  readonly exitCode: number | null;
  /** Aborting it does what {@link abortRun} does. */
  readonly abortController: AbortController;
}

/** An agent program of one's own. It is started without a shell; its stdin is closed. */
export interface AgentCommand {
  /** A path, or the name of a program to be found on the `PATH` of the environment that it is given. */
  command: string;
  /**
   * Its arguments. `{message}`, `{sessionId}` and `{agentSessionId}` are replaced, wherever they stand in an argument;
   * an `agentSessionId` that is not given becomes nothing. @default []
   */
  args?: readonly string[];
  /** Its working directory, relative to that of this process. @default the working directory of this process */
  cwd?: string;
  /** Variables to add to `process.env` as it is at the call; `undefined` takes one away. @default {} */
  env?: Readonly<Record<string, string | undefined>>;
}

/** What {@link startRun} takes. */
export interface StartRunParams {
  /**
   * Names the run and its file in the store: 1 to 200 bytes of UTF-8, not `.` or `..`, without `/`, `\` and NUL.
   */
  sessionId: string;
  /** What the user said. It is an argument of the agent's command line, so it has no NUL, and the system bounds its length. */
  message: string;
  /**
   * The agent's own name for the conversation. With it, lines that belong to another of the agent's conversations are
   * skipped; without it none are.
   */
  agentSessionId?: string;
  /** The agent to start. @default the OpenClaw agent: see the README, "Which agent is started" */
  agent?: AgentCommand;
}

/** What {@link subscribeToRun} takes. */
export interface SubscribeOptions {
  /** Whether the events so far are delivered first, before the call returns. @default true */
  replay?: boolean;
}

/** What {@link persistUserMessage} takes. */
export interface UserMessage {
  /** A message with an id that the session's file already has is not written again. */
  id: string;
  /** The message as plain text. */
  content: string;
  /** The message's UI parts, stored as `JSON.stringify` gives them. */
  parts?: unknown[];
}

/**
 * Settings of the whole process. A run keeps those that it was started with.
 *
 * Numbers are whole: times from 0 to 2147483647 ms, sizes from 1 byte on.
 */
export interface Settings {
  /** The folder of the session files. Made when it is first needed. @default "~/.openclaw/web-chat" */
  storeDir: string;
  /** The shortest time between two writes of a growing answer, in milliseconds. @default 2000 */
  persistIntervalMs: number;
  /** How long an ended run can still be subscribed to, in milliseconds. @default 30000 */
  cleanupGraceMs: number;
  /** How long an aborted agent may go on before it gets SIGKILL, in milliseconds. @default 5000 */
  killAfterMs: number;
  /**
   * How long the agent's pipes are still read after the agent itself has gone, if a process that it has left behind
   * keeps them open, in milliseconds. @default 2000
   */
  pipeGraceMs: number;
  /** The longest line of the agent's output, in bytes; a longer one is skipped with a warning. @default 67108864 (64 MiB) */
  maxLineBytes: number;
  /** The most that one run may keep for replay, in bytes; beyond it the agent is stopped with an error. @default 536870912 (512 MiB) */
  maxRunBytes: number;
  /** How much of the beginning, and again of the end, of stderr is kept for error messages, in bytes. @default 65536 (64 KiB) */
  maxStderrBytes: number;
}

/** Something that went wrong and stopped nothing, as {@link onWarning} tells it. */
export interface Warning {
  code: WarningCode;
  /** A sentence for the server's log. */
  message: string;
  /** The session that it is about; absent when it is about none. */
  sessionId?: string;
}

/** The `code` of a {@link Warning}. */
export type WarningCode =
  /** The agent could not be started; the run's stream says so, too. */
  | "START_FAILED"
  /** A line of the agent's output was skipped: {@link Settings.maxLineBytes}. */
  | "LINE_TOO_LONG"
  /** An answer or a user's message is not on the disk. Said once, until writing works again. */
  | "STORE_FAILED"
  /** An answer that could not be written for a day, or for want of memory, is given up. */
  | "ANSWER_LOST";

/** What {@link stats} returns: plain numbers, at the moment of the call. */
export interface Stats {
  /** The runs that {@link getActiveRun} would find, by status. */
  runs: Record<RunStatus, number>;
  /** In this thread: callbacks that are subscribed, and streams that are neither read to their end nor cancelled. */
  subscribers: number;
  /** Events that these runs keep for replay. */
  events: number;
  /** The memory that these events take, in bytes. */
  bufferedBytes: number;
  /** What became of the agents' output, in lines since the process began. Blank lines do not count. */
  lines: {
    /** Read, and meant for the run. */
    read: number;
    /** Skipped: not JSON, or `null`. */
    unreadable: number;
    /** Skipped: meant for another session. */
    otherSession: number;
    /** Skipped: longer than {@link Settings.maxLineBytes}. */
    tooLong: number;
  };
  /** Writes of growing and final answers since the process began. */
  flushes: {
    written: number;
    failed: number;
    /** The failure that came last, also when later writes succeeded. `at` is in milliseconds since 1970. */
    lastError: { message: string; sessionId: string; at: number } | null;
  };
  /** The process ids of the agents that have not ended, in ascending order. */
  childPids: number[];
}

/**
 * The `code` of an error thrown by this package's functions. Loading the package throws an error with the code
 * `UNSUPPORTED_PLATFORM` where there is no binary for the platform.
 */
export type ErrorCode =
  /** An argument or setting has the wrong type or a value that is not allowed; the message begins with its name. */
  | "INVALID_ARGUMENT"
  /** The session id cannot be a file name in the store. */
  | "INVALID_SESSION_ID"
  /** The session already has a run that is running. */
  | "RUN_ALREADY_ACTIVE"
  /** The store could not be read or written; the message has the path and the system's reason. */
  | "STORE_FAILED"
  /** The system refused the threads in which runs live. */
  | "NO_THREADS";

/** What the functions of this package throw: an `Error` that carries an {@link ErrorCode}. */
export interface ActiveRunsError extends Error {
  readonly code: ErrorCode;
}

/**
 * Starts an agent for a session. Nothing is delivered before the call has returned, and whoever subscribes in the same
 * tick gets every event.
 *
 * A program that cannot be started is no error of this call: the stream says
 * `[error] Failed to start agent: spawn <command> <code>`, and the run ends with the status `error`.
 *
 * @throws `RUN_ALREADY_ACTIVE` if the session's run is still running.
 * @throws `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function startRun(params: StartRunParams): ActiveRun;

/**
 * Subscribes to the run of a session.
 *
 * With `replay`, the events so far are delivered before the call returns; the live ones follow without a gap and
 * without a duplicate. If the run has ended, `null` is delivered, too, and the function returned does nothing.
 * A function that is already subscribed is not called twice.
 *
 * @returns A function that unsubscribes at once, or `null` if there is no such run.
 * @throws `INVALID_ARGUMENT`, or what the callback throws in the replay.
 */
export function subscribeToRun(
  sessionId: string,
  callback: RunSubscriber,
  options?: SubscribeOptions,
): (() => void) | null;

/**
 * Stops a running agent and all that it has started: SIGTERM to its process group, and SIGKILL after
 * {@link Settings.killAfterMs}. The run ends when they are gone, with what was said until then.
 *
 * @returns Whether there was a running run.
 * @throws `INVALID_ARGUMENT`
 */
export function abortRun(sessionId: string): boolean;

/**
 * Whether the session has a run that is running; one that has ended does not count.
 *
 * @throws `INVALID_ARGUMENT`
 */
export function hasActiveRun(sessionId: string): boolean;

/**
 * The session's run, also when it has ended, for {@link Settings.cleanupGraceMs}.
 *
 * @throws `INVALID_ARGUMENT`
 */
export function getActiveRun(sessionId: string): ActiveRun | undefined;

/**
 * Appends a user's message to the session's file, unless one with its id is there. When the call returns, every reader
 * of the file sees the message; it is synced to the disk in the background.
 *
 * @throws `STORE_FAILED`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function persistUserMessage(sessionId: string, msg: UserMessage): void;

/**
 * Changes settings for the runs and messages to come.
 *
 * @param settings Those to change; the others stay as they are.
 * @returns All settings, as they are now in force.
 * @throws `INVALID_ARGUMENT` for an unknown setting or a value that is not allowed; then nothing is changed.
 */
export function configure(settings?: Partial<Settings>): Settings;

/** How a run is read as server-sent events. */
export interface RunStreamOptions {
  /**
   * What comes first: `true`, every event so far; `"compact"`, the same with neighbouring deltas of a part merged, which
   * builds the same message from a fraction of the frames; `false`, nothing. With `protocol: "ai-sdk"`, `false` begins
   * with the starts of the parts and the inputs of the tool calls that are open, without which its reader would fail.
   * @default true
   */
  replay?: boolean | "compact";
  /**
   * The last SSE `id:` that the reader had, `<ms since 1970>-<number>`. The stream goes back to where the first part or
   * tool call began that was open then: a reader that continues a message drops its unfinished parts first, one that
   * joins bytes skips the frames up to this id. An id that is no such, or of another run, gives the whole replay.
   */
  lastEventId?: string | null;
  /**
   * After this long without an event, in milliseconds, a comment line keeps proxies from closing the connection; 0: none.
   * @default 15000
   */
  heartbeatMs?: number;
  /**
   * `"module"`: a `data:` line with the event's JSON, as the module's routes send. `"ai-sdk"`: the AI SDK's UI message
   * stream (version 1, `ai` 6): `start` and `finish` around the events, an `id:` line to resume from, `data: [DONE]` at
   * the end. A tool's result without its call is left out there, and an error that is no string is sent as its JSON.
   * @default "module"
   */
  protocol?: "module" | "ai-sdk";
}

/** How a run is sent as a response. */
export interface RunResponseOptions extends RunStreamOptions {
  /** Its `Last-Event-ID` header is read where `lastEventId` is not given. */
  request?: Request;
  /** Headers to add to, or to put in the place of, those that the response has. */
  headers?: ConstructorParameters<typeof Headers>[0];
  /**
   * The status when there is a run.
   * @default 200
   */
  status?: number;
}

/**
 * A run as server-sent events, ready to be sent. Each event is encoded once, whoever reads; a chunk has at most 64 KiB.
 * Nothing is read ahead: a reader that stops costs its place and slows nobody, and one that is cancelled is forgotten.
 * The stream closes when the run has ended and all is read.
 *
 * @returns The stream, or `null` if there is no such run.
 * @throws `INVALID_ARGUMENT`
 */
export function createRunStream(
  sessionId: string,
  options?: RunStreamOptions,
): ReadableStream<Uint8Array> | null;

/**
 * A run as a response: the stream of {@link createRunStream} with `content-type: text/event-stream`,
 * `cache-control: no-cache, no-transform`, `x-accel-buffering: no`, `x-run-active: true` or `false`, with
 * `protocol: "ai-sdk"` also `x-vercel-ai-ui-message-stream: v1`, and, if there was a cursor to resume from,
 * `x-run-resumed: true`, or `false` where the whole run is told instead.
 *
 * @returns The response. For no run: 404 and `{"active":false}`, or, with `protocol: "ai-sdk"`, 204: nothing to resume.
 * @throws `INVALID_ARGUMENT`
 */
export function createRunResponse(sessionId: string, options?: RunResponseOptions): Response;

/** A line of a session's file. */
export type StoredMessage = Record<string, unknown> & { id: string };

/** An entry of the index. Other members that an app has put there stay. */
export interface SessionEntry {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  createdAt: number;
  /** Milliseconds since 1970. */
  updatedAt: number;
  messageCount: number;
  filePath?: string;
}

/**
 * The messages of a session, in order; `[]` if there are none. Lines that are no JSON objects are left out.
 *
 * @throws (rejects) `STORE_FAILED`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function readMessages(sessionId: string): Promise<StoredMessage[]>;

/**
 * Replaces the messages whose ids are there, where they stand, and appends the others, all at once.
 *
 * @param options `title`: the session's new title.
 * @throws (rejects) `STORE_FAILED`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function upsertMessages(
  sessionId: string,
  messages: readonly StoredMessage[],
  options?: { title?: string },
): Promise<void>;

/**
 * The sessions of the index, the one updated last first.
 *
 * @throws (rejects) `STORE_FAILED`
 */
export function listSessions(): Promise<SessionEntry[]>;

/**
 * Adds a session to the index, with a random UUID as its id, and its empty file.
 *
 * @param options `title`: "New Chat" by default. `filePath`: kept in the entry, for the app.
 * @throws (rejects) `STORE_FAILED`, `INVALID_ARGUMENT`
 */
export function createSession(options?: { title?: string; filePath?: string }): Promise<SessionEntry>;

/**
 * Removes a session from the index, and its file.
 *
 * @returns Whether there was anything to remove.
 * @throws (rejects) `STORE_FAILED`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function deleteSession(sessionId: string): Promise<boolean>;

/**
 * What this package is doing, for health checks and metrics. Of the whole process, except where a number says otherwise,
 * and as the engine sees it: a run that has just ended may be counted as ended before its subscribers hear of it.
 */
export function stats(): Stats;

/**
 * Tells `callback` of warnings, between ticks of the event loop. Without a callback in any thread they are written to
 * stderr, each with the prefix `[active-runs] `. What agents write to stderr goes there in any case.
 *
 * A callback that is given twice is called once, and what it throws is printed. It does not keep the process alive: what
 * was not delivered when the thread ends is written to stderr.
 *
 * @returns A function that takes the callback back.
 * @throws `INVALID_ARGUMENT`
 */
export function onWarning(callback: (warning: Warning) => void): () => void;
