/**
 * One event of an AI SDK UI message stream, as sent to the browser in an SSE `data:` line. Told apart by `type`.
 *
 * A part's `id` is `<kind>-<ms since 1970>-<number>` with the kind `text`, `reasoning` or `status`; a `status` part is
 * reasoning that says what the agent is busy with, and is not stored. Errors are text parts that begin with `[error] `.
 * Numbers are as JSON prints them: an agent's `-0` is 0, and its `1e400` is `null`. Members are in the order given here.
 *
 * Each subscriber is handed plain objects; treat them as read-only. What takes a {@link LooseSseEvent} takes these.
 */
export type SseEvent =
  | { type: "text-start"; id: string }
  | { type: "text-delta"; id: string; delta: string }
  | { type: "text-end"; id: string }
  | { type: "reasoning-start"; id: string }
  | { type: "reasoning-delta"; id: string; delta: string }
  | { type: "reasoning-end"; id: string }
  | { type: "tool-input-start"; toolCallId: string; toolName: string }
  | { type: "tool-input-available"; toolCallId: string; toolName: string; input: Record<string, unknown> }
  | { type: "tool-output-available"; toolCallId: string; output: Record<string, unknown> }
  /** `errorText` is a string, unless the agent put something else into `result.details.error`. */
  | { type: "tool-output-error"; toolCallId: string; errorText: unknown }
  | UiChunk;

/** An event in the form in which the TypeScript module declares it. */
export type LooseSseEvent = Record<string, unknown> & { type: string };

/** What providers of the AI SDK add to parts. */
export type ProviderMetadata = Record<string, Record<string, unknown>>;

/** What is read of the type of an app's messages, a `UIMessage<Metadata, DataParts>` of `ai`. */
export interface UiMessageType {
  metadata?: unknown;
  parts: readonly { type: string }[];
}

/** The data parts of a type of messages. */
type DataPart<Message extends UiMessageType> = Extract<Message["parts"][number], { type: `data-${string}`; data: unknown }>;

/**
 * A chunk that agents (lines of the stream `ui`) and apps ({@link ActiveRun.emit}) may put into the stream: data, a file, a
 * source, or metadata of the message, which must be an object. URLs are best absolute: of others `ai` 7 makes no model messages.
 * A data part with an `id` takes the place of an earlier one with the same
 * `type` and `id`; with `transient` it is no part of the message. Other members are refused.
 *
 * @typeParam Message The app's `UIMessage`, to have data and metadata checked.
 */
export type UiChunk<Message extends UiMessageType = UiMessageType> =
  | ([DataPart<Message>] extends [never]
      ? { type: `data-${string}`; id?: string | undefined; data: unknown; transient?: boolean | undefined }
      : DataPart<Message> extends infer Part
        ? Part extends { type: `data-${string}`; data: unknown }
          ? { type: Part["type"]; id?: string | undefined; data: Part["data"]; transient?: boolean | undefined }
          : never
        : never)
  | { type: "file"; url: string; mediaType: string; providerMetadata?: ProviderMetadata | undefined }
  | {
      type: "source-url";
      sourceId: string;
      url: string;
      title?: string | undefined;
      providerMetadata?: ProviderMetadata | undefined;
    }
  | {
      type: "message-metadata";
      messageMetadata: unknown extends Message["metadata"] ? Record<string, unknown> : Partial<NonNullable<Message["metadata"]>>;
    };

/**
 * Receives a run's events in order, then `null` once, when the run has ended.
 *
 * By the time of that `null` the final message is on disk and `status` is final; a new run of the session may be
 * started from inside it. What the callback throws is swallowed while events are live, and reaches the caller of
 * {@link subscribeToRun} while they are replayed.
 */
export type RunSubscriber = (event: SseEvent | null) => void;

/**
 * `completed`: exit code 0, or ended by a signal (an aborted run, too). `error`: any other end, one that nobody knows, and
 * that of a run that was stopped because it took too long or printed too much. {@link ActiveRun.end} says more.
 */
export type RunStatus = "running" | "completed" | "error";

/** Why a run ended. The first reason stays: a run that was aborted is `aborted`, however its agent ended then. */
export type RunEndReason =
  /** The agent exited with code 0. */
  | "completed"
  /** It exited with another code, or nobody knows how it ended. */
  | "failed"
  /** {@link abortRun}, or {@link ActiveRun.abortController}. */
  | "aborted"
  /** A signal ended the agent that was not sent to stop it: a crash, a lack of memory, {@link AgentProcess.kill}. */
  | "killed"
  /** {@link Settings.maxSilenceMs} or {@link Settings.maxRunMs}. */
  | "timed-out"
  /** The server ended. */
  | "interrupted"
  /** The agent could not be started. */
  | "start-failed"
  /** It printed more than {@link Settings.maxRunBytes}. */
  | "too-large";

/** How a run ended. Frozen. */
export interface RunEnd {
  readonly reason: RunEndReason;
  /** As {@link ActiveRun.exitCode}. */
  readonly exitCode: number | null;
  /** The name of the signal that ended the agent; `null` when none did, or it is not known. */
  readonly signal: `SIG${string}` | null;
  /**
   * The error that the run's stream tells, without `[error] `. Absent when there is none. Of a run that was stopped, only
   * what was told before its agent ended: that it gave no answer is no error then.
   */
  readonly error?: string;
  /** When, in milliseconds since 1970. */
  readonly endedAt: number;
}

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
   * Sends a signal to the agent and its process group. Before the agent exists, the signal waits for it. Unlike
   * {@link abortRun} it reaches no process that has left the group, and no SIGKILL follows.
   *
   * @param signal A signal's name or number; 0 sends none. @default "SIGTERM"
   * @returns Whether there is a process to signal, or will be.
   * @throws `INVALID_ARGUMENT` for an unknown signal.
   */
  kill(signal?: `SIG${string}` | number): boolean;
}

/**
 * A run, active or ended a short while ago.
 *
 * The object is live: every read shows the run as it is in this tick of the event loop. Within one tick nothing changes,
 * but for `childProcess.pid` and `lastLineAt`, which are the engine's view.
 *
 * The events are freed when {@link Settings.cleanupGraceMs} is over, whoever holds the object. `eventBuffer` and
 * `accumulated` are empty from then on, unless one of them was read before.
 *
 * All members but `whenEnded` are own and enumerable, the module's in the module's order, so that a copy (`{ ...run }`) has
 * them as they are at that moment; a `Proxy` of the object works. `JSON.stringify` writes them with the tool calls as an
 * object by id, and `util.inspect` prints them; neither keeps the events. `structuredClone` throws a `DataCloneError` while
 * callbacks are subscribed. Freezing the object, or writing to it, changes nothing of the run.
 */
export interface ActiveRun {
  readonly sessionId: string;
  readonly childProcess: AgentProcess;
  /**
   * All events so far: one array, made when it is first asked for and kept up to date from then on, at the price of its
   * memory. To be read, not changed.
   */
  readonly eventBuffer: SseEvent[];
  /** The callbacks that are subscribed, a `Set` in the order in which they came. Empty once the run has ended. */
  readonly subscribers: ReadonlySet<(event: LooseSseEvent | null) => void>;
  /** The message so far. Its arrays and its map are made anew at each read. */
  readonly accumulated: AccumulatedMessage;
  readonly status: RunStatus;
  /** When the run began, in milliseconds since 1970. */
  readonly startedAt: number;
  /**
   * The agent's exit code. `null` while it runs, when a signal ended it, when it was never started, and when nobody knows
   * how it ended; negative, the system's error number, when it could not be started (-2 for ENOENT), as in Node's `close`
   * event.
   */
  readonly exitCode: number | null;
  /** How the run ended. `null` while it runs; set in the same tick as `status`. */
  readonly end: RunEnd | null;
  /**
   * Fulfilled with {@link ActiveRun.end} when the subscribers have been told of the end. Never rejected. Reading it keeps
   * the process alive until the run has ended.
   */
  readonly whenEnded: Promise<RunEnd>;
  /**
   * When the agent's last line came, in milliseconds since 1970: any line but a blank one, also one that was skipped.
   * `null` before the first.
   */
  readonly lastLineAt: number | null;
  /** Aborting it does what {@link abortRun} does. */
  readonly abortController: AbortController;
  /**
   * Puts a chunk into the stream, between what the agent prints: it is numbered, replayed, delivered to subscribers, and stored with
   * {@link Settings.storeFormat} `"ui"` unless it is `transient`. It counts towards {@link Settings.maxRunBytes} a moment later, so an
   * app that emits much in one tick bounds that itself. Not an own member of the object.
   *
   * @returns Whether it was taken: `false` once the agent has ended.
   * @throws `INVALID_ARGUMENT` for a chunk that readers of `ai` 5, 6 or 7 would refuse.
   */
  emit<Message extends UiMessageType = UiMessageType>(chunk: UiChunk<Message>): boolean;
}

/** The name of a format of lines that agents print. */
export type AgentFormat = "openclaw";

/** An agent program of one's own. It is started without a shell; its stdin is closed. */
export interface AgentCommand {
  /** What it prints: see the README, "Agents of your own". @default "openclaw" */
  format?: AgentFormat;
  /** A path, or the name of a program to be found on the `PATH` of the environment that it is given. */
  command: string;
  /**
   * Its arguments. `{message}`, `{sessionId}` and `{agentSessionId}` are replaced, wherever they stand in an argument;
   * an `agentSessionId` that is not given becomes nothing. A message may begin with a dash: where `{message}` is a
   * positional argument, put `"--"` before it, or what the agent has in its place. @default []
   */
  args?: readonly string[];
  /**
   * Its working directory, relative to that of this process. To be absolute where that has been deleted.
   * @default the working directory of this process
   */
  cwd?: string;
  /**
   * Variables to add to `process.env` as it is at the call; `undefined` takes one away. A NUL in a variable of either, which a
   * worker's `process.env` may have, is an `INVALID_ARGUMENT`. `ACTIVE_RUNS_RUN` is set by this package: it marks the
   * processes of a run. @default {}
   */
  env?: Readonly<Record<string, string | undefined>>;
}

/** An agent by its format alone: the command that belongs to the format is started. */
export interface AgentOfFormat {
  /** The format, whose own command is started. */
  format: AgentFormat;
  /** As in {@link AgentCommand}. */
  env?: AgentCommand["env"];
  command?: undefined;
  args?: undefined;
  cwd?: undefined;
}

/** What {@link startRun} takes. */
export interface StartRunParams {
  /**
   * Names the run and its file in the store: 1 to 200 bytes of UTF-8, not `.` or `..`, without `/`, `\` and NUL.
   */
  sessionId: string;
  /**
   * What the agent is asked. It is an argument of its command line, so it has no NUL, and the system bounds its length. One
   * that begins with a dash may be taken for an option by the agent: see {@link AgentCommand.args}.
   */
  message: string;
  /**
   * The agent's own name for the conversation. With it, lines that belong to another of the agent's conversations are
   * skipped; without it none are.
   */
  agentSessionId?: string;
  /** The agent to start. @default the OpenClaw agent: see the README, "Which agent is started" */
  agent?: AgentCommand | AgentOfFormat;
  /** {@link Settings.maxSilenceMs} of this run, in milliseconds. @default the setting */
  maxSilenceMs?: number;
  /** {@link Settings.maxRunMs} of this run, in milliseconds. @default the setting */
  maxRunMs?: number;
  /** {@link Settings.errors} of this run. @default the setting */
  errors?: Settings["errors"];
}

/** What {@link startRun} takes for a run that answers a user's message. */
export interface AnswerParams extends StartRunParams {
  /**
   * The user's message, to be stored before the agent is started, as {@link persistUserMessage} does it: if the session's run is
   * running, nothing is stored. With the id of a message that is being answered, or was answered within
   * {@link Settings.cleanupGraceMs}, the call starts nothing and returns that run, however it has ended; with that of one answered before, it returns
   * `null`: load the messages. A message is answered when an assistant's message comes after it, also one that a dead server has left
   * unfinished. So the call can be made again when its answer was lost. Of a long history that this process has not read, the last
   * 16 MiB are searched for the message.
   */
  userMessage: UserMessage | null | undefined;
}

/** What {@link subscribeToRun} takes. */
export interface SubscribeOptions {
  /** Whether the events so far are delivered first, before the call returns. @default true */
  replay?: boolean;
}

/**
 * What {@link persistUserMessage} takes. Other members (an app's `metadata`, `html` …) are stored, too, but for `role`,
 * `timestamp` and `_streaming`, which this package writes.
 */
export interface UserMessage {
  /** A message with an id that the session's file already has is not written again. */
  id: string;
  /** The message as plain text. */
  content: string;
  /** The message's UI parts, files among them, stored as `JSON.stringify` gives them. */
  parts?: unknown[];
  [member: string]: unknown;
}

/**
 * Settings of the whole process, all its threads and all copies of the package in it. A run keeps those that it was started
 * with.
 *
 * Numbers are whole: times from 0 to 2147483647 ms, sizes from 1 byte on.
 */
export interface Settings {
  /** The folder of the session files. Made when it is first needed. @default "~/.openclaw/web-chat" */
  storeDir: string;
  /** The shortest time between two writes of a growing answer, in milliseconds. @default 2000 */
  persistIntervalMs: number;
  /**
   * How long an ended run can still be subscribed to, in milliseconds. Its events are freed then, as soon as those who
   * are reading them have them: see `READER_TOO_SLOW` of {@link ErrorCode}. @default 30000
   */
  cleanupGraceMs: number;
  /** How long an agent that was told to stop may go on before it gets SIGKILL, in milliseconds. @default 5000 */
  killAfterMs: number;
  /**
   * How long the agent's pipes are still read after the agent itself has gone, if a process that it has left behind
   * keeps them open, in milliseconds. @default 2000
   */
  pipeGraceMs: number;
  /** The longest line of the agent's output, in bytes; a longer one is skipped with a warning. @default 67108864 (64 MiB) */
  maxLineBytes: number;
  /**
   * The most that one run may keep for replay, in bytes; when its events alone are more, the agent is stopped with an error.
   * What is kept of them as server-sent events, for many readers, takes what the events leave of it; the rest is made anew
   * for readers who need it. @default 536870912 (512 MiB)
   */
  maxRunBytes: number;
  /** How much of the beginning, and again of the end, of stderr is kept for error messages, in bytes. @default 65536 (64 KiB) */
  maxStderrBytes: number;
  /**
   * The longest time without a line of the agent, in milliseconds; then it is stopped with an error. Not counted while a
   * tool call is open, that is from its start to its result. 0: no limit. @default 0
   */
  maxSilenceMs: number;
  /** The longest time that a run may take, in milliseconds; then its agent is stopped with an error. 0: no limit. @default 0 */
  maxRunMs: number;
  /**
   * What becomes of the errors that an agent does not report itself.
   *
   * `"module"`: as the TypeScript module has it. A line on stderr that reads like an error is one, also when the agent
   * answered and exited with 0.
   *
   * `"full"`: stderr explains failures only: another exit code than 0, a signal, or no answer. What a stopped run writes
   * there is no error. An agent that exits with 0 without an answer is explained by the texts of its `result` line, if it
   * printed one with texts.
   *
   * `"auto"`: `"full"` for a run with an `agent`, `"module"` for one without.
   *
   * @default "auto"
   */
  errors: "auto" | "module" | "full";
  /**
   * In which form answers are stored. `"module"`: as the TypeScript module has it, all reasoning first, then all tool calls, then
   * all text. `"ui"`: a `UIMessage` of the AI SDK, its `parts` in the order in which they came and with `metadata`
   * ({@link RunMetadata}), beside the `content`, `timestamp` and `id` of the other form; half surrogate pairs become U+FFFD. Both
   * forms may be in one file. @default "module"
   */
  storeFormat: "module" | "ui";
}

/**
 * The metadata of an answer: in the chunks `start` and `finish` of `protocol: "ai-sdk"`, and stored with
 * {@link Settings.storeFormat} `"ui"`. Chunks `message-metadata` add to it.
 */
export interface RunMetadata {
  /** When the run began, in milliseconds since 1970. */
  startedAt: number;
  /** When it ended, in milliseconds since 1970. */
  endedAt?: number;
  /** How long it took, in milliseconds. */
  durationMs?: number;
  /** Why it ended. */
  end?: RunEndReason;
  /** What the agent reported of itself at its end: OpenClaw's `model`, `provider`, `usage` and its `sessionId`. */
  agent?: Record<string, unknown>;
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
  /** The agent could not be started. The run's stream says so, too. */
  | "START_FAILED"
  /** A line of the agent's output was skipped: {@link Settings.maxLineBytes}. */
  | "LINE_TOO_LONG"
  /** A line of the agent's output is not JSON and was skipped. Said once a run, with the beginning of the first one. */
  | "LINE_UNREADABLE"
  /** A chunk of the agent's (a line of the stream `ui`) was left out, because readers would refuse it. Once a run. */
  | "CHUNK_REFUSED"
  /** The agent's output ended inside a line, which cannot be read. The message has its beginning. */
  | "OUTPUT_CUT"
  /** SIGKILL has not ended a process of a stopped agent within 2 s. The message has its process id. */
  | "PROCESS_LEFT"
  /** What runs of a server that was killed had left was ended. The message has the process ids. */
  | "LEFTOVERS_ENDED"
  /** An answer or a user's message is not on the disk. Said once, until writing works again. */
  | "STORE_FAILED"
  /** An answer that could not be written for a day, until the server ended, or for want of memory, is given up. */
  | "ANSWER_LOST";

/** What {@link stats} returns: plain numbers, at the moment of the call. */
export interface Stats {
  /** The runs that {@link getActiveRun} would find, by status. */
  runs: Record<RunStatus, number>;
  /** In this thread: callbacks that are subscribed, and streams that are neither read to their end nor cancelled. */
  subscribers: number;
  /** Events that these runs keep for replay. */
  events: number;
  /** The memory that these events take, in bytes, with what is kept of them as server-sent events. */
  bufferedBytes: number;
  /** What became of the agents' output, in lines since the process began. Blank lines do not count. */
  lines: {
    /** Read, and meant for the run. */
    read: number;
    /** Skipped: not JSON, or `null`. */
    unreadable: number;
    /** Skipped: meant for another session, or of a turn with which the agent goes on though its run was stopped. */
    otherSession: number;
    /** Skipped: longer than {@link Settings.maxLineBytes}. */
    tooLong: number;
    /** When the last line of any run came, in milliseconds since 1970; `null` before the first. */
    lastAt: number | null;
  };
  /**
   * Of the running run that has been silent for longest: when its last line came, or, before its first, when it began, in
   * milliseconds since 1970. `null` when no run is running. A run whose tool is at work is silent, too.
   */
  silentSince: number | null;
  /** Writes of growing and final answers since the process began. */
  flushes: {
    written: number;
    failed: number;
    /** The failure that came last, also when later writes succeeded. `at` is in milliseconds since 1970. */
    lastError: { message: string; sessionId: string; at: number } | null;
  };
  /**
   * Bytes of the agents' stderr that were dropped because nobody read the server's own: an agent is held up by that for at
   * most a second.
   */
  droppedStderrBytes: number;
  /** The process ids of the agents that have not ended, in ascending order. */
  childPids: number[];
  /**
   * The process ids of what is left of agents that were stopped, in ascending order: of the agents themselves and of what
   * they had started. Ten minutes after SIGKILL a process that is still there is no longer listed.
   */
  remainingPids: number[];
}

/**
 * The `code` of an error thrown by this package's functions, or with which a stream of theirs ends. Loading the package
 * throws an error with the code `UNSUPPORTED_PLATFORM` where there is no binary for the platform, and `INCOMPATIBLE_COPY`
 * where the process has loaded a copy of another version before.
 */
export type ErrorCode =
  /** An argument or setting has the wrong type or a value that is not allowed. The message begins with its name. */
  | "INVALID_ARGUMENT"
  /** The session id cannot be a file name in the store. */
  | "INVALID_SESSION_ID"
  /** The session already has a run that is running. */
  | "RUN_ALREADY_ACTIVE"
  /** The process is ending: no run is started any more. */
  | "CLOSING"
  /** The store could not be read or written. The message has the path and the system's reason. */
  | "STORE_FAILED"
  /** The system refused the threads that the call needs. Nothing was started or written; the next call tries again. */
  | "NO_THREADS"
  /** What was asked for is longer than JavaScript's strings may be, 2²⁹ − 24 units. */
  | "TOO_LARGE"
  /**
   * Of a stream, not thrown: it ends with this error when {@link Settings.cleanupGraceMs} is over, there is more to read,
   * and no reader of the run's bytes has read for 4 s.
   */
  | "READER_TOO_SLOW"
  /** Node.js refused a call, or there is a fault in this package, which ended the call and nothing else. */
  | "INTERNAL";

/** What the functions of this package throw, and streams end with: an `Error` that carries an {@link ErrorCode}. */
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
 * With a {@link AnswerParams.userMessage} the call checks for a run, stores the message and starts, in this order.
 *
 * @returns The run; with a `userMessage`, `null` if that was answered before and its run is gone.
 * @throws `RUN_ALREADY_ACTIVE` if the session's run is still running.
 * @throws `CLOSING` if the process is ending.
 * @throws `INVALID_ARGUMENT`, `INVALID_SESSION_ID`, `NO_THREADS`; `STORE_FAILED` if the user's message cannot be stored
 */
export function startRun(params: AnswerParams): ActiveRun | null;
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
 * Stops a running agent and all that it has started: one SIGTERM, and SIGKILL to what is left after
 * {@link Settings.killAfterMs}, also when the run is over by then. Processes that have left the agent's group are found by
 * their parents and by the variable `ACTIVE_RUNS_RUN` in their environment. The run ends when the agent has ended, with
 * what it printed until then. An agent that has not been executed yet never is. Stopping twice is stopping once.
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
 * Appends a user's message to the session's file, unless one with its id is there. When the call returns, readers of the
 * file see the message, unless another program is in the middle of writing it: nobody is waited for, and the message is
 * added as soon as that one is done, before anything else that is asked of the session, by the next process of the store if
 * this one is killed. What goes wrong then is told as the warning `STORE_FAILED`. It is synced to the disk, and counted in the index, in the background.
 *
 * @throws `STORE_FAILED`, `NO_THREADS`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
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
   * The last SSE `id:` that the reader had, `<x-run-id>-<number>`: the stream goes on behind it, as `resume` says. An id that
   * is no such, or of another run, gives the whole replay, which begins with `start`.
   */
  lastEventId?: string | null;
  /**
   * How a stream goes on after `lastEventId`. `"exact"`: with the frames behind that one, no `start`, and nothing sent again,
   * for readers that know which parts are open, as the AI SDK's chat and `RunChatTransport` do. `"rewind"`: with `start`, and
   * from where the first part or tool call began that was open at the cursor, for readers that continue a stored message and
   * drop its unfinished parts first (`dropOpenParts`). @default "exact"
   */
  resume?: "exact" | "rewind";
  /**
   * After this long without an event, in milliseconds, a comment line keeps proxies from closing the connection; 0: none.
   * @default 15000
   */
  heartbeatMs?: number;
  /**
   * `"module"`: a `data:` line with the event's JSON, as the module's routes send. `"ai-sdk"`: the AI SDK's UI message
   * stream (version 1; `ai` 5, 6 and 7): `start` and `finish` around the events, an `id:` line to resume from,
   * `data: [DONE]` at the end. Only there:
   *
   * - `start` and `finish` have {@link RunMetadata}; `finish` has a `finishReason`: `stop`, `length` (the model's limit),
   *   `error`, or `other` for a run that was aborted, which has an `abort` chunk before. When the agent failed, or its stream
   *   has an error, `message-metadata` and an `error` chunk come before `finish`.
   * - What a tool has before it comes back (`phase: "update"`) is a `tool-output-available` with `preliminary: true`, and the
   *   pictures in its result are `file` chunks. Updates that come to more than 1 MiB in a run are passed on less often.
   * - A tool's result without its call is left out, and an error that is no string is sent as its JSON. A tool call without a
   *   result when the run ends becomes a `tool-output-error` with the text `interrupted`.
   *
   * @default "module"
   */
  protocol?: "module" | "ai-sdk";
}

/** What is read of a request: a `Request`, or an `IncomingMessage` of `node:http`. */
export interface RequestHeaders {
  readonly headers:
    | { get(name: string): string | null }
    | { readonly [name: string]: string | readonly string[] | undefined };
}

/** How a run is sent as a response. */
export interface RunResponseOptions extends RunStreamOptions {
  /**
   * Its `Last-Event-ID` header is read where `lastEventId` is not given.
   * @default for {@link pipeRun}, the request that the response answers
   */
  request?: RequestHeaders | null;
  /** Headers to add to, or to put in the place of, those that the response has. */
  headers?: ConstructorParameters<typeof Headers>[0] | null;
  /**
   * The status when there is a run: from 200 to 599, and not 204, 205 or 304, which have no body.
   * @default 200
   */
  status?: number;
}

/** What {@link pipeRun} writes to: a `ServerResponse` of `node:http`, or what behaves as one. */
export interface WritableResponse {
  readonly headersSent: boolean;
  readonly writableEnded: boolean;
  readonly destroyed: boolean;
  writeHead(status: number, headers: Record<string, string | string[]>): unknown;
  write(chunk: Uint8Array): boolean;
  end(chunk?: string): unknown;
  destroy(error?: Error): unknown;
  on(event: string, listener: (...args: never[]) => void): unknown;
}

/**
 * A run as server-sent events, ready to be sent. Each event is encoded once, whoever reads; a chunk has at most 64 KiB.
 * Nothing is read ahead: a reader that stops costs its place and slows nobody, and one that is cancelled is forgotten.
 * The stream closes when the run has ended and all is read. Once {@link Settings.cleanupGraceMs} is over, the events are
 * kept for it only as long as it reads on; else it ends with the error `READER_TOO_SLOW`.
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
 * `protocol: "ai-sdk"` also `x-vercel-ai-ui-message-stream: v1`, `x-run-id` (the first number of its frames' ids) and, of a run
 * with a {@link AnswerParams.userMessage}, `x-run-user-message` (its id as `encodeURIComponent` gives it). If there was a
 * cursor to resume from, `x-run-resumed: true`, or `false` where the whole run is sent instead.
 *
 * @returns The response. For no run: 404 and `{"active":false}`, or, with `protocol: "ai-sdk"`, 204: nothing to resume.
 * @throws `INVALID_ARGUMENT`
 */
export function createRunResponse(sessionId: string, options?: RunResponseOptions): Response;

/**
 * Writes the response of {@link createRunResponse} to a `ServerResponse`, for servers that are not web-standard: `node:http`,
 * Express, Fastify (`reply.hijack()`, then `reply.raw`), the pages router of Next.js. It costs less than a stream. The run is
 * read as fast as the client takes it, and no longer than the client is there. Headers that are set on the response are sent,
 * too. The run goes on when the client goes away.
 *
 * @returns A promise that is fulfilled when the response is over: with `true` when the run was sent to its end; with `false`
 * when there is no run, when the client went away, and when it stood still for too long (`READER_TOO_SLOW`: its connection is
 * closed). Never rejected.
 * @throws `INVALID_ARGUMENT`, also when the response's headers are sent already
 */
export function pipeRun(sessionId: string, response: WritableResponse, options?: RunResponseOptions): Promise<boolean>;

/** A line of a session's file. */
export type StoredMessage = Record<string, unknown> & { id: string };

/** A message in the form of the AI SDK's `UIMessage`, as far as this package makes it. */
export interface UiMessage {
  id: string;
  role: "system" | "user" | "assistant";
  metadata?: unknown;
  // Any: the SDK's own types are a union of the kinds of parts.
  parts: any[];
}

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
 * The messages of a session, in order; `[]` if there are none. Lines that are no JSON objects are left out. A program that
 * is in the midst of rewriting the file is waited for, and messages of {@link persistUserMessage} that wait come first; after
 * 10 s it is `STORE_FAILED`. With no such message, who only holds the file's lock is not waited for.
 *
 * @throws (rejects) `STORE_FAILED`, `NO_THREADS`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 * @throws (rejects) `TOO_LARGE` if they are together longer than JavaScript's strings may be, 2²⁹ − 24 units.
 */
export function readMessages(sessionId: string, options?: { format?: "stored" }): Promise<StoredMessage[]>;
/**
 * The messages as `UIMessage`s of `ai` 5, 6 and 7, of whichever form they are stored in, and those of apps: what
 * `validateUIMessages` takes. Each has `id`, `role`, `parts` (one at least) and, if it is stored, `metadata`; no half surrogate pairs.
 * Left out are parts that these versions do not know, members of parts that they do not have, and messages of another role than
 * `system`, `user` and `assistant`. Tool calls that nobody is at work on any more have failed (`interrupted`).
 *
 * @typeParam Message The app's `UIMessage`. It is not checked.
 */
export function readMessages<Message extends UiMessageType = UiMessage>(
  sessionId: string,
  options: { format: "ui" },
): Promise<Message[]>;

/**
 * Replaces the messages whose ids are there, where they stand, and appends the others, all at once. Each is written as
 * `JSON.stringify` gives it; its id is the one in that.
 *
 * @param options `title`: the session's new title.
 * @throws (rejects) `STORE_FAILED`, `NO_THREADS`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
 */
export function upsertMessages(
  sessionId: string,
  messages: readonly StoredMessage[],
  options?: { title?: string },
): Promise<void>;

/**
 * The sessions of the index, the one updated last first, with the changes that are waiting to be written.
 *
 * @throws (rejects) `STORE_FAILED`, `NO_THREADS`
 */
export function listSessions(): Promise<SessionEntry[]>;

/**
 * Adds a session to the index, with a random UUID as its id, and its empty file.
 *
 * @param options `title`: "New Chat" by default. `filePath`: kept in the entry, for the app.
 * @throws (rejects) `STORE_FAILED`, `NO_THREADS`, `INVALID_ARGUMENT`
 */
export function createSession(options?: { title?: string; filePath?: string }): Promise<SessionEntry>;

/**
 * Removes a session from the index, and its file. A run of it in this process is stopped first, as by {@link abortRun}:
 * when the promise is fulfilled, the run and the processes that it had started have ended (what the system does not end is
 * not waited for: see `remainingPids` of {@link stats}), its subscribers have had their
 * `null`, and nothing of it will be written any more. Until {@link Settings.cleanupGraceMs} the run can still be replayed. A run
 * that another server writes into the same store is not stopped, and makes the file anew.
 *
 * @returns Whether there was anything to remove.
 * @throws (rejects) `STORE_FAILED`, `NO_THREADS`, `INVALID_ARGUMENT`, `INVALID_SESSION_ID`
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
