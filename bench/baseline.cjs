// The yardstick: the TypeScript module's way of doing the work, in plain JavaScript.
//
// readline and JSON.parse for the agent's lines, an array as the buffer, a Set of subscribers, a
// timer that rewrites the whole session file synchronously. It must do what the module does, with
// its faults, neither slower nor faster: the benchmark measures the addon against it, and
// `npm run test:baseline` holds it to the module's recorded behaviour.
'use strict';

const { spawn } = require('node:child_process');
const { existsSync, mkdirSync, readFileSync, writeFileSync } = require('node:fs');
const { homedir } = require('node:os');
const { dirname, join } = require('node:path');
const { createInterface } = require('node:readline');

const settings = {
  storeDir: join(homedir(), '.openclaw', 'web-chat'),
  persistIntervalMs: 2_000,
  cleanupGraceMs: 30_000,
};

// On globalThis, so that a second copy of this file (hot reload) finds the runs of the first.
const runs = (globalThis.__activeRunsBaseline ??= new Map());

function configure(changes = {}) {
  for (const name of Object.keys(settings)) {
    if (changes[name] !== undefined) settings[name] = changes[name];
  }
  return { ...settings };
}

const getActiveRun = (sessionId) => runs.get(sessionId);
const hasActiveRun = (sessionId) => runs.get(sessionId)?.status === 'running';

function subscribeToRun(sessionId, callback, options) {
  const run = runs.get(sessionId);
  if (!run) return null;
  if (options?.replay ?? true) {
    for (const event of run.eventBuffer) callback(event);
  }
  if (run.status !== 'running') {
    callback(null);
    return () => {};
  }
  run.subscribers.add(callback);
  return () => {
    run.subscribers.delete(callback);
  };
}

function abortRun(sessionId) {
  const run = runs.get(sessionId);
  if (run?.status !== 'running') return false;
  run.abortController.abort();
  run.childProcess.kill('SIGTERM');
  return true;
}

function startRun({ sessionId, message, agentSessionId, agent }) {
  if (hasActiveRun(sessionId)) throw new Error('Active run already exists for this session');
  if (runs.has(sessionId)) forget(sessionId);
  const child = agent
    ? spawnOwnAgent(agent, { message, sessionId, agentSessionId: agentSessionId ?? '' })
    : spawnContractAgent(message, agentSessionId);
  const run = {
    sessionId,
    childProcess: child,
    eventBuffer: [],
    subscribers: new Set(),
    accumulated: {
      id: `assistant-${sessionId}-${Date.now()}`,
      role: 'assistant',
      textParts: [],
      reasoningParts: [],
      toolCalls: new Map(),
    },
    status: 'running',
    startedAt: Date.now(),
    exitCode: null,
    abortController: new AbortController(),
    _persistTimer: null,
    _lastPersistedAt: 0,
  };
  runs.set(sessionId, run);
  const stop = () => child.kill('SIGTERM');
  run.abortController.signal.addEventListener('abort', stop, { once: true });
  child.on('close', () => run.abortController.signal.removeEventListener('abort', stop));
  follow(run);
  return run;
}

// ── The agent's program ──

function spawnOwnAgent({ command, args = [], cwd, env }, values) {
  const filled = args.map((arg) =>
    arg.replace(/\{(message|sessionId|agentSessionId)\}/g, (_, name) => values[name]),
  );
  return spawn(command, filled, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function spawnContractAgent(message, agentSessionId) {
  const root = packageRoot();
  const dev = join(root, 'scripts', 'run-node.mjs');
  const script = existsSync(dev) ? dev : join(root, 'openclaw.mjs');
  const args = [script, 'agent', '--agent', 'main', '--message', message, '--stream-json'];
  if (agentSessionId) {
    args.push('--session-key', `agent:main:subagent:${agentSessionId}`, '--lane', 'subagent');
  }
  return spawn('node', args, { cwd: root, env: { ...process.env }, stdio: ['ignore', 'pipe', 'pipe'] });
}

function packageRoot() {
  const named = process.env.OPENCLAW_ROOT;
  if (named && existsSync(named)) return named;
  const start = process.cwd();
  let folder = start;
  for (let level = 0; level < 20; level += 1) {
    if (existsSync(join(folder, 'openclaw.mjs')) || existsSync(join(folder, 'scripts', 'run-node.mjs'))) {
      return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) break;
    folder = parent;
  }
  return start.endsWith(join('apps', 'web')) ? join(start, '..', '..') : start;
}

// ── From the agent's lines to events ──

function follow(run) {
  const { childProcess: child, accumulated } = run;
  let ids = 0;
  const nextId = (prefix) => `${prefix}-${Date.now()}-${++ids}`;
  let textId = '';
  let reasoningId = '';
  let textOpen = false;
  let reasoningOpen = false;
  let reasoningIsStatus = false;
  let saidText = false;
  let errorShown = false;
  const stderr = [];

  const emit = (event) => {
    run.eventBuffer.push(event);
    for (const subscriber of run.subscribers) {
      try {
        subscriber(event);
      } catch {
        // A subscriber's fault is its own.
      }
    }
    schedulePersist(run);
  };

  const closeReasoning = () => {
    if (!reasoningOpen) return;
    emit({ type: 'reasoning-end', id: reasoningId });
    reasoningOpen = false;
    reasoningIsStatus = false;
  };
  const closeText = () => {
    if (!textOpen) return;
    emit({ type: 'text-end', id: textId });
    textOpen = false;
  };
  const openReasoning = (prefix) => {
    reasoningId = nextId(prefix);
    emit({ type: 'reasoning-start', id: reasoningId });
    reasoningOpen = true;
  };
  const showStatus = (label) => {
    closeReasoning();
    closeText();
    openReasoning('status');
    emit({ type: 'reasoning-delta', id: reasoningId, delta: label });
    reasoningIsStatus = true;
  };
  const say = (delta) => {
    closeReasoning();
    if (!textOpen) {
      textId = nextId('text');
      emit({ type: 'text-start', id: textId });
      textOpen = true;
    }
    saidText = true;
    emit({ type: 'text-delta', id: textId, delta });
    accumulated.textParts.push(delta);
  };
  const sayApart = (delta) => {
    const id = nextId('text');
    emit({ type: 'text-start', id });
    emit({ type: 'text-delta', id, delta });
    emit({ type: 'text-end', id });
    accumulated.textParts.push(delta);
    saidText = true;
  };
  const showError = (message) => {
    closeReasoning();
    closeText();
    sayApart(`[error] ${message}`);
  };
  const showErrorOnce = (message) => {
    if (!message || errorShown) return;
    errorShown = true;
    showError(message);
  };
  const endSubscriptions = () => {
    for (const subscriber of run.subscribers) {
      try {
        subscriber(null);
      } catch {
        // As in emit.
      }
    }
    run.subscribers.clear();
    setTimeout(() => forget(run.sessionId), settings.cleanupGraceMs);
  };

  const onTool = (data) => {
    const toolCallId = stringOr(data?.toolCallId, '');
    const toolName = stringOr(data?.name, '');
    if (data?.phase === 'start') {
      closeReasoning();
      closeText();
      const args = data.args && typeof data.args === 'object' ? data.args : {};
      emit({ type: 'tool-input-start', toolCallId, toolName });
      emit({ type: 'tool-input-available', toolCallId, toolName, input: args });
      accumulated.toolCalls.set(toolCallId, { toolName, args });
    } else if (data?.phase === 'result') {
      const result = extractToolResult(data.result);
      const call = accumulated.toolCalls.get(toolCallId);
      if (data.isError === true) {
        const errorText = result?.text || result?.details?.error || 'Tool execution failed';
        emit({ type: 'tool-output-error', toolCallId, errorText });
        if (call) call.errorText = errorText;
      } else {
        const output = buildToolOutput(result);
        emit({ type: 'tool-output-available', toolCallId, output });
        if (call) call.output = output;
      }
    }
  };

  const onAssistant = (data) => {
    const delta = stringOr(data?.delta, '');
    if (delta) say(delta);
    if (Array.isArray(data?.mediaUrls)) {
      for (const url of data.mediaUrls) {
        if (typeof url === 'string' && url.trim()) say(`\n![media](${url.trim()})\n`);
      }
    }
    if (data?.stopReason === 'error' && typeof data.errorMessage === 'string' && !errorShown) {
      errorShown = true;
      showError(readErrorBody(data.errorMessage));
    }
  };

  const onAgentEvent = ({ stream, data }) => {
    switch (stream) {
      case 'thinking': {
        const delta = stringOr(data?.delta, '');
        if (!delta) break;
        if (reasoningIsStatus) closeReasoning();
        if (!reasoningOpen) openReasoning('reasoning');
        emit({ type: 'reasoning-delta', id: reasoningId, delta });
        accumulated.reasoningParts.push(delta);
        break;
      }
      case 'assistant':
        onAssistant(data);
        break;
      case 'tool':
        onTool(data);
        break;
      case 'compaction':
        if (data?.phase === 'start') {
          showStatus('Optimizing session context...');
        } else if (data?.phase === 'end' && reasoningIsStatus) {
          if (data.willRetry === true) {
            emit({ type: 'reasoning-delta', id: reasoningId, delta: '\nRetrying with compacted context...' });
          } else {
            closeReasoning();
          }
        }
        break;
      case 'lifecycle':
        if (data?.phase === 'start') {
          showStatus('Preparing response...');
        } else if (data?.phase === 'end') {
          closeReasoning();
          closeText();
        } else if (data?.phase === 'error') {
          showErrorOnce(readError(data));
        }
        break;
    }
  };

  const lines = createInterface({ input: child.stdout });
  // A program that could not be started destroys its pipe; 'error' and 'close' below tell of it.
  lines.on('error', () => {});
  lines.on('line', (line) => {
    if (!line.trim()) return;
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      return;
    }
    if (value.event === 'agent') onAgentEvent(value);
    else if (value.event === 'error') showErrorOnce(readError(value.data ?? value));
  });

  child.stderr.on('data', (chunk) => {
    const text = chunk.toString();
    stderr.push(text);
    console.error('[active-runs stderr]', text);
  });

  child.on('error', (error) => {
    console.error('[active-runs] Child process error:', error);
    showError(`Failed to start agent: ${error.message}`);
    run.status = 'error';
    persist(run);
    endSubscriptions();
  });

  child.on('close', (code) => {
    if (!errorShown && stderr.length > 0) showErrorOnce(readStderr(stderr.join('').trim()));
    closeReasoning();
    if (saidText) {
      closeText();
    } else {
      sayApart(
        code === null || code === 0
          ? '[error] No response from agent.'
          : `[error] Agent exited with code ${code}. Check server logs for details.`,
      );
    }
    run.status = code === null || code === 0 ? 'completed' : 'error';
    run.exitCode = code;
    persist(run);
    endSubscriptions();
  });
}

const stringOr = (value, otherwise) => (typeof value === 'string' ? value : otherwise);

// ── Tool results and error texts ──

const SHOWN_DETAILS =
  'exitCode status durationMs cwd error reason url finalUrl targetUrl query results citations'.split(' ');

function extractToolResult(raw) {
  if (!raw) return undefined;
  if (typeof raw === 'string') return { text: raw };
  if (typeof raw !== 'object') return undefined;
  const blocks = Array.isArray(raw.content) ? raw.content : undefined;
  const texts = (blocks ?? [])
    .filter((block) => block?.type === 'text' && typeof block.text === 'string')
    .map((block) => block.text);
  const text = texts.length > 0 ? texts.join('\n') : undefined;
  let details = raw.details && typeof raw.details === 'object' ? raw.details : undefined;
  if (!text && !details && !blocks) details = raw;
  return { text, details };
}

function buildToolOutput(result) {
  const output = {};
  if (result?.text) output.text = result.text;
  if (!result?.details) return output;
  for (const name of SHOWN_DETAILS) {
    if (result.details[name] !== undefined) output[name] = result.details[name];
  }
  if (!output.text) {
    const json = JSON.stringify(result.details);
    if (json.length <= 12_000) output.text = json;
  }
  return output;
}

function readError(data) {
  if (!data || typeof data !== 'object') return undefined;
  const body = [data.error, data.message, data.errorMessage].find((value) => typeof value === 'string');
  return body === undefined ? undefined : readErrorBody(body);
}

function readErrorBody(body) {
  const brace = body.indexOf('{');
  if (brace < 0) return body;
  try {
    const json = JSON.parse(body.slice(brace));
    const message = json.error?.message ?? json.message ?? json.error;
    return stringOr(message, body);
  } catch {
    return body;
  }
}

function readStderr(trimmed) {
  const text = trimmed.replace(/\x1b\[[0-9;]*[A-Za-z]/g, '');
  const json = /\{"error":\{[^}]*"message":"([^"]+)"[^}]*\}/.exec(text);
  if (json) return json[1];
  const lines = text.split('\n');
  for (const line of lines) {
    if (!/\b(?:error|failed|fatal)\b/i.test(line)) continue;
    const bare = line
      .trim()
      .replace(/^\[[^\]]*\]\s*/, '')
      .replace(/^Error:\s*/, '');
    if (bare.length > 5) return bare;
  }
  const last = lines.map((line) => line.trim()).findLast(Boolean);
  return last && last.length <= 300 ? last : undefined;
}

// ── The session's file ──

function schedulePersist(run) {
  if (run._persistTimer) return;
  const elapsed = Date.now() - run._lastPersistedAt;
  run._persistTimer = setTimeout(
    () => {
      run._persistTimer = null;
      persist(run);
    },
    Math.max(0, settings.persistIntervalMs - elapsed),
  );
}

function persist(run) {
  if (run._persistTimer) {
    clearTimeout(run._persistTimer);
    run._persistTimer = null;
  }
  run._lastPersistedAt = Date.now();
  const { id, textParts, reasoningParts, toolCalls } = run.accumulated;
  const text = textParts.join('');
  if (!text && toolCalls.size === 0 && reasoningParts.length === 0) return;
  const parts = [];
  if (reasoningParts.length > 0) parts.push({ type: 'reasoning', text: reasoningParts.join('') });
  for (const [toolCallId, call] of toolCalls) {
    parts.push({
      type: 'tool-invocation',
      toolCallId,
      toolName: call.toolName,
      args: call.args,
      ...(call.output ? { result: call.output } : {}),
      ...(call.errorText ? { errorText: call.errorText } : {}),
    });
  }
  if (text) parts.push({ type: 'text', text });
  const message = { id, role: 'assistant', content: text, parts, timestamp: new Date().toISOString() };
  if (run.status === 'running') message._streaming = true;
  try {
    upsertMessage(run.sessionId, message);
  } catch (error) {
    console.error('[active-runs] Persistence error:', error);
  }
}

function readSession(sessionId) {
  if (!existsSync(settings.storeDir)) mkdirSync(settings.storeDir, { recursive: true });
  const path = join(settings.storeDir, `${sessionId}.jsonl`);
  if (!existsSync(path)) writeFileSync(path, '');
  const lines = readFileSync(path, 'utf-8')
    .split('\n')
    .filter((line) => line.trim());
  return { path, lines };
}

function idOf(line) {
  try {
    return JSON.parse(line).id;
  } catch {
    return undefined;
  }
}

function upsertMessage(sessionId, message) {
  const { path, lines } = readSession(sessionId);
  const json = JSON.stringify(message);
  let found = false;
  const updated = lines.map((line) => {
    if (idOf(line) !== message.id) return line;
    found = true;
    return json;
  });
  if (!found) updated.push(json);
  updateIndex(sessionId, found ? 0 : 1);
  writeFileSync(path, `${updated.join('\n')}\n`);
}

function persistUserMessage(sessionId, { id, content, parts }) {
  const { path, lines } = readSession(sessionId);
  if (lines.some((line) => idOf(line) === id)) return;
  const message = {
    id,
    role: 'user',
    content,
    ...(parts ? { parts } : {}),
    timestamp: new Date().toISOString(),
  };
  writeFileSync(path, `${[...lines, JSON.stringify(message)].join('\n')}\n`);
  updateIndex(sessionId, 1);
}

function updateIndex(sessionId, added) {
  const path = join(settings.storeDir, 'index.json');
  try {
    if (!existsSync(path)) return;
    const index = JSON.parse(readFileSync(path, 'utf-8'));
    const session = index.find((entry) => entry.id === sessionId);
    if (!session) return;
    session.updatedAt = Date.now();
    if (added) session.messageCount = (session.messageCount || 0) + added;
    writeFileSync(path, JSON.stringify(index, null, 2));
  } catch {
    // The index is a convenience: a broken one is left as it is.
  }
}

function forget(sessionId) {
  const run = runs.get(sessionId);
  if (!run) return;
  if (run._persistTimer) clearTimeout(run._persistTimer);
  runs.delete(sessionId);
}

exports.startRun = startRun;
exports.subscribeToRun = subscribeToRun;
exports.abortRun = abortRun;
exports.hasActiveRun = hasActiveRun;
exports.getActiveRun = getActiveRun;
exports.persistUserMessage = persistUserMessage;
exports.configure = configure;
