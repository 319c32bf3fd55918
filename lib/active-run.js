'use strict';

// The object that `startRun` and `getActiveRun` return: the run as this copy of the JavaScript has
// been told of it. Its fields change between ticks of the event loop, never within one.

const { constants } = require('node:os');
const { invalidArgument } = require('./errors.js');

const SIGNALS = constants.signals;
const SIGNAL_NUMBERS = new Set(Object.values(SIGNALS));

function signalNumber(signal) {
  // 0 only asks whether there is anybody to signal.
  const isName = typeof signal === 'string' && Object.hasOwn(SIGNALS, signal);
  const isKnown = signal === 0 || SIGNAL_NUMBERS.has(signal) || isName;
  if (!isKnown) throw invalidArgument('signal', `${String(signal)} is unknown`);
  return isName ? SIGNALS[signal] : signal;
}

function signalName(number) {
  const name = Object.keys(SIGNALS).find((key) => SIGNALS[key] === number);
  return name ?? `SIG${number}`;
}

/** The agent's process. */
class AgentProcess {
  #handle;

  constructor(handle) {
    this.#handle = handle;
  }

  get pid() {
    return this.#handle.pid ?? undefined;
  }

  kill(signal = 'SIGTERM') {
    return this.#handle.kill(signalNumber(signal));
  }
}

/** The message so far, derived from the events when it is asked for. */
class AccumulatedMessage {
  #handle;
  #events;

  constructor(handle, events) {
    this.#handle = handle;
    this.role = 'assistant';
    this.#events = events;
  }

  get id() {
    return this.#handle.messageId;
  }

  get textParts() {
    return this.#deltas('text-delta', '');
  }

  /** Without the status lines ("Preparing response..."), whose parts have other ids. */
  get reasoningParts() {
    return this.#deltas('reasoning-delta', 'reasoning-');
  }

  get toolCalls() {
    const calls = new Map();
    for (const event of this.#events()) {
      const { type, toolCallId } = event;
      if (type === 'tool-input-available') {
        calls.set(toolCallId, { toolName: event.toolName, args: event.input });
      } else if (type === 'tool-output-available' && calls.has(toolCallId)) {
        calls.get(toolCallId).output = event.output;
      } else if (type === 'tool-output-error' && calls.has(toolCallId)) {
        calls.get(toolCallId).errorText = event.errorText;
      }
    }
    return calls;
  }

  #deltas(type, idPrefix) {
    const deltas = [];
    for (const event of this.#events()) {
      if (event.type === type && event.id.startsWith(idPrefix)) deltas.push(event.delta);
    }
    return deltas;
  }
}

class ActiveRun {
  #handle;
  #events;
  #abortController = null;
  #whenEnded;

  constructor({ handle, subscribers, events, whenEnded }) {
    this.#handle = handle;
    this.#events = events;
    this.#whenEnded = whenEnded;
    this.sessionId = handle.sessionId;
    this.childProcess = new AgentProcess(handle);
    this.subscribers = subscribers;
    this.accumulated = new AccumulatedMessage(handle, events);
    this.status = 'running';
    this.startedAt = handle.startedAt;
    this.exitCode = null;
    this.end = null;
  }

  /** Fulfilled with `end` once the subscribers have been told. Never rejected. */
  get whenEnded() {
    return this.#whenEnded();
  }

  get lastLineAt() {
    return this.#handle.lastLineAt ?? null;
  }

  /** Aborting it stops the agent. Made when first asked for: most runs are never aborted. */
  get abortController() {
    if (this.#abortController === null) {
      this.#abortController = new AbortController();
      this.#abortController.signal.addEventListener('abort', () => this.#handle.abort(), { once: true });
    }
    return this.#abortController;
  }

  /** All events so far. Made when first asked for, kept up to date from then on. */
  get eventBuffer() {
    return this.#events();
  }
}

/** How a run ended, as it is shown. `values` are those of the native part. */
function runEnd({ reason, exitCode, signal, error, endedAt }) {
  const end = {
    reason,
    exitCode: exitCode ?? null,
    signal: signal === undefined || signal === null ? null : signalName(signal),
  };
  if (error !== undefined && error !== null) end.error = error;
  end.endedAt = endedAt;
  return Object.freeze(end);
}

module.exports = { ActiveRun, runEnd };
