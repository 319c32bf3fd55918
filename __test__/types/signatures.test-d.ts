import type { IncomingMessage, ServerResponse } from "node:http";
// Checked by `npm run types`, never run: the public types, and that they can stand in for the module's own.
import { expectTypeOf } from "expect-type";
import type { ChildProcess } from "node:child_process";
import {
  abortRun,
  configure,
  createRunResponse,
  pipeRun,
  createRunStream,
  createSession,
  deleteSession,
  getActiveRun,
  hasActiveRun,
  listSessions,
  onWarning,
  persistUserMessage,
  readMessages,
  startRun,
  stats,
  subscribeToRun,
  upsertMessages,
} from "active-runs";
import { dropOpenParts } from "active-runs/client";
import type {
  AccumulatedMessage,
  ActiveRun,
  ActiveRunsError,
  AgentCommand,
  AgentProcess,
  ErrorCode,
  RunEnd,
  RunEndReason,
  RunStatus,
  RunSubscriber,
  SessionEntry,
  Settings,
  LooseSseEvent,
  SseEvent,
  StartRunParams,
  Stats,
  UiMessage,
  StoredMessage,
  SubscribeOptions,
  ToolCall,
  UserMessage,
  Warning,
  WarningCode,
} from "active-runs";

// What the TypeScript module declares. Of its child process the package keeps `pid` and `kill`, and its set of
// subscribers is to be read.
type ModuleEvent = Record<string, unknown> & { type: string };
type ModuleSubscriber = (event: ModuleEvent | null) => void;
type ModuleRun = {
  sessionId: string;
  childProcess: Pick<ChildProcess, "pid" | "kill">;
  eventBuffer: ModuleEvent[];
  subscribers: ReadonlySet<ModuleSubscriber>;
  accumulated: {
    id: string;
    role: "assistant";
    textParts: string[];
    reasoningParts: string[];
    toolCalls: Map<
      string,
      { toolName: string; args: Record<string, unknown>; output?: Record<string, unknown>; errorText?: string }
    >;
  };
  status: "running" | "completed" | "error";
  startedAt: number;
  exitCode: number | null;
  abortController: AbortController;
};

expectTypeOf(startRun).toExtend<
  (params: { sessionId: string; message: string; agentSessionId?: string }) => ModuleRun
>();
expectTypeOf(subscribeToRun).toExtend<
  (sessionId: string, callback: ModuleSubscriber, options?: { replay?: boolean }) => (() => void) | null
>();
expectTypeOf(abortRun).toExtend<(sessionId: string) => boolean>();
expectTypeOf(hasActiveRun).toExtend<(sessionId: string) => boolean>();
expectTypeOf(getActiveRun).toExtend<(sessionId: string) => ModuleRun | undefined>();
expectTypeOf(persistUserMessage).toExtend<
  (sessionId: string, message: { id: string; content: string; parts?: unknown[] }) => void
>();
expectTypeOf<LooseSseEvent>().toEqualTypeOf<ModuleEvent>();
expectTypeOf<SseEvent>().toExtend<ModuleEvent>();
expectTypeOf<ModuleSubscriber>().toExtend<RunSubscriber>();

// Arguments.
expectTypeOf(startRun).toExtend<(params: StartRunParams) => ActiveRun>();
const userMessage = { id: "u", content: "m", parts: [], html: "<p>" };
expectTypeOf(startRun({ sessionId: "s", message: "m", userMessage })).toEqualTypeOf<ActiveRun | null>();
expectTypeOf(startRun({ sessionId: "s", message: "m" })).toEqualTypeOf<ActiveRun>();
expectTypeOf(startRun({ sessionId: "s", message: "m", userMessage: Math.random() > 1 ? userMessage : undefined })).toEqualTypeOf<
  ActiveRun | null
>();
expectTypeOf(subscribeToRun).parameters.toEqualTypeOf<[string, RunSubscriber, SubscribeOptions?]>();
expectTypeOf(persistUserMessage).parameters.toEqualTypeOf<[string, UserMessage]>();
expectTypeOf(configure).parameters.toEqualTypeOf<[Partial<Settings>?]>();
startRun({ sessionId: "s", message: "m" });
startRun({
  sessionId: "s",
  message: "m",
  agent: { command: "agent", args: ["--message", "{message}"] as const, cwd: "/", env: { A: "1", B: undefined } },
});
startRun({ sessionId: "s", message: "m", agent: { command: "agent", env: process.env } });
startRun({ sessionId: "s", message: "m", maxSilenceMs: 60_000, maxRunMs: 0, errors: "module" });
subscribeToRun("s", () => {});
subscribeToRun("s", (event) => expectTypeOf(event).toEqualTypeOf<SseEvent | null>(), { replay: false });
configure();
configure({ killAfterMs: 100 });
configure({ maxSilenceMs: 600_000, maxRunMs: 3_600_000, errors: "auto" });
// @ts-expect-error the message is required
startRun({ sessionId: "s" });
// @ts-expect-error an agent has a command
startRun({ sessionId: "s", message: "m", agent: { args: [] } });
// @ts-expect-error a misspelt option
subscribeToRun("s", () => {}, { reply: false });
// @ts-expect-error an unknown setting
configure({ killAfter: 100 });
// @ts-expect-error times are numbers
configure({ killAfterMs: "5s" });
// @ts-expect-error times are numbers, in a run, too
startRun({ sessionId: "s", message: "m", maxRunMs: "1h" });
// @ts-expect-error no way of telling errors
configure({ errors: "none" });
// @ts-expect-error nor of a run
startRun({ sessionId: "s", message: "m", errors: true });
// @ts-expect-error a user's message has an id
persistUserMessage("s", { content: "hello" });

// Results.
const run = startRun({ sessionId: "s", message: "m" });
expectTypeOf(run).toEqualTypeOf<ActiveRun>();
expectTypeOf(run.status).toEqualTypeOf<RunStatus>();
expectTypeOf(run.exitCode).toEqualTypeOf<number | null>();
expectTypeOf(run.end).toEqualTypeOf<RunEnd | null>();
expectTypeOf(run.whenEnded).toEqualTypeOf<Promise<RunEnd>>();
expectTypeOf(run.lastLineAt).toEqualTypeOf<number | null>();
expectTypeOf<RunEnd>().toEqualTypeOf<{
  readonly reason: RunEndReason;
  readonly exitCode: number | null;
  readonly signal: `SIG${string}` | null;
  readonly error?: string;
  readonly endedAt: number;
}>();
expectTypeOf<RunEndReason>().toEqualTypeOf<
  "completed" | "failed" | "aborted" | "killed" | "timed-out" | "interrupted" | "start-failed" | "too-large"
>();
expectTypeOf(run.childProcess).toEqualTypeOf<AgentProcess>();
expectTypeOf(run.childProcess.pid).toEqualTypeOf<number | undefined>();
expectTypeOf(run.accumulated).toEqualTypeOf<AccumulatedMessage>();
expectTypeOf(run.accumulated.toolCalls.get("t")).toEqualTypeOf<ToolCall | undefined>();
expectTypeOf(run.subscribers.size).toEqualTypeOf<number>();
expectTypeOf(run.abortController.signal.aborted).toEqualTypeOf<boolean>();
run.childProcess.kill();
run.childProcess.kill("SIGINT");
run.childProcess.kill(9);
// @ts-expect-error a run is read, not written
run.status = "completed";
// @ts-expect-error its end, too
run.end = null;
// @ts-expect-error not the name of a signal
run.childProcess.kill("TERM");
expectTypeOf(subscribeToRun("s", () => {})).toEqualTypeOf<(() => void) | null>();
expectTypeOf(getActiveRun("s")).toEqualTypeOf<ActiveRun | undefined>();
expectTypeOf(configure()).toEqualTypeOf<Settings>();
expectTypeOf(configure().maxSilenceMs).toEqualTypeOf<number>();
expectTypeOf(configure().maxRunMs).toEqualTypeOf<number>();
expectTypeOf(configure().errors).toEqualTypeOf<"auto" | "module" | "full">();
expectTypeOf<StartRunParams["errors"]>().toEqualTypeOf<"auto" | "module" | "full" | undefined>();
expectTypeOf<AgentCommand["args"]>().toEqualTypeOf<readonly string[] | undefined>();
expectTypeOf(stats()).toEqualTypeOf<Stats>();
expectTypeOf(stats().runs).toEqualTypeOf<Record<"running" | "completed" | "error", number>>();
expectTypeOf(stats().lines.lastAt).toEqualTypeOf<number | null>();
expectTypeOf(stats().silentSince).toEqualTypeOf<number | null>();
expectTypeOf(stats().droppedStderrBytes).toEqualTypeOf<number>();
expectTypeOf(stats().remainingPids).toEqualTypeOf<number[]>();
expectTypeOf(onWarning).parameters.toEqualTypeOf<[(warning: Warning) => void]>();
expectTypeOf(onWarning(() => {})).toEqualTypeOf<() => void>();
expectTypeOf<Warning["sessionId"]>().toEqualTypeOf<string | undefined>();
expectTypeOf<Warning["code"]>().toEqualTypeOf<WarningCode>();
expectTypeOf<WarningCode>().toEqualTypeOf<
  | "START_FAILED"
  | "LINE_TOO_LONG"
  | "LINE_UNREADABLE"
  | "CHUNK_REFUSED"
  | "OUTPUT_CUT"
  | "PROCESS_LEFT"
  | "LEFTOVERS_ENDED"
  | "STORE_FAILED"
  | "ANSWER_LOST"
>();
expectTypeOf(createRunStream("s")).toEqualTypeOf<ReadableStream<Uint8Array> | null>();
expectTypeOf(createRunResponse("s")).toEqualTypeOf<Response>();
createRunStream("s", { replay: "compact", lastEventId: null, heartbeatMs: 0, protocol: "ai-sdk" });
declare const incoming: IncomingMessage;
declare const outgoing: ServerResponse;
expectTypeOf(pipeRun("s", outgoing, { request: incoming, protocol: "ai-sdk" })).toEqualTypeOf<Promise<boolean>>();
createRunResponse("s", { request: incoming });
createRunResponse("s", { request: new Request("http://x/"), headers: { "x-own": "1" }, status: 201, replay: false });
// @ts-expect-error not a protocol
createRunStream("s", { protocol: "sse" });
expectTypeOf(readMessages("s")).toEqualTypeOf<Promise<StoredMessage[]>>();
expectTypeOf(readMessages("s", { format: "ui" })).toEqualTypeOf<Promise<UiMessage[]>>();
type ChatMessage = { id: string; metadata?: { model: string }; parts: ({ type: "text" } | { type: "data-weather"; data: { degrees: number } })[] };
expectTypeOf(readMessages<ChatMessage>("s", { format: "ui" })).toEqualTypeOf<Promise<ChatMessage[]>>();
// @ts-expect-error no form of messages
readMessages("s", { format: "module" });
expectTypeOf(upsertMessages("s", [{ id: "m", content: "x" }], { title: "t" })).toEqualTypeOf<Promise<void>>();
// @ts-expect-error a message has an id
upsertMessages("s", [{ content: "x" }]);
expectTypeOf(listSessions()).toEqualTypeOf<Promise<SessionEntry[]>>();
expectTypeOf(createSession({ title: "t", filePath: "/f" })).toEqualTypeOf<Promise<SessionEntry>>();
expectTypeOf(deleteSession("s")).toEqualTypeOf<Promise<boolean>>();
const message = { id: "m", parts: [{ type: "text", state: "streaming" }] };
expectTypeOf(dropOpenParts(message)).toEqualTypeOf(message);

// Events are told apart by their type.
subscribeToRun("s", (event) => {
  if (event?.type === "text-delta") expectTypeOf(event.delta).toEqualTypeOf<string>();
  if (event?.type === "tool-input-available") expectTypeOf(event.toolName).toEqualTypeOf<string>();
  if (event?.type === "data-weather") expectTypeOf(event.data).toEqualTypeOf<unknown>();
  const loose: LooseSseEvent | null = event;
  return void loose;
});
expectTypeOf(run.emit({ type: "data-weather", data: 5 })).toEqualTypeOf<boolean>();
run.emit({ type: "file", url: "data:,", mediaType: "text/plain" });
run.emit({ type: "message-metadata", messageMetadata: { any: 1 } });
run.emit<ChatMessage>({ type: "data-weather", id: "w", data: { degrees: 5 }, transient: true });
run.emit<ChatMessage>({ type: "message-metadata", messageMetadata: { model: "m" } });
// @ts-expect-error what an agent says is the agent's to say
run.emit({ type: "text-delta", id: "t", delta: "x" });
// @ts-expect-error the app's data have another type
run.emit<ChatMessage>({ type: "data-weather", data: { degrees: "5" } });
// @ts-expect-error the app has no such data
run.emit<ChatMessage>({ type: "data-wind", data: 5 });

// Errors.
try {
  startRun({ sessionId: "s", message: "m" });
} catch (error) {
  const { code, message } = error as ActiveRunsError;
  expectTypeOf(code).toEqualTypeOf<ErrorCode>();
  expectTypeOf(message).toEqualTypeOf<string>();
}
expectTypeOf<ErrorCode>().toEqualTypeOf<
  | "INVALID_ARGUMENT"
  | "INVALID_SESSION_ID"
  | "RUN_ALREADY_ACTIVE"
  | "CLOSING"
  | "STORE_FAILED"
  | "NO_THREADS"
  | "TOO_LARGE"
  | "READER_TOO_SLOW"
  | "INTERNAL"
>();
