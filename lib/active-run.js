'use strict';

// The object that `startRun` and `getActiveRun` return: the run as this copy of the JavaScript has
// been told of it. Its fields change between ticks of the event loop, never within one.

const { constants } = require('node:os');
const { inspect } = require('node:util');
const { shown: shownValue, toJson } = require('./arguments.js');
const { callNative, invalidArgument } = require('./errors.js');

const SIGNALS = constants.signals;
const SIGNAL_NUMBERS = new Set(Object.values(SIGNALS));

function signalNumber(signal) {
  // 0 only asks whether there is anybody to signal.
  const isName = typeof signal === 'string' && Object.hasOwn(SIGNALS, signal);
  const isKnown = signal === 0 || SIGNAL_NUMBERS.has(signal) || isName;
  if (!isKnown) throw invalidArgument('signal', `${shownValue(signal)} is unknown`);
  return isName ? SIGNALS[signal] : signal;
}

function signalName(number) {
  const name = Object.keys(SIGNALS).find((key) => SIGNALS[key] === number);
  return name ?? `SIG${number}`;
}

/** Names what is behind an object that is shown. Not private fields: those cannot be read through a `Proxy`. */
const STATE = Symbol('state');

/**
 * Properties that are the object's own and enumerable, as those of a plain object are, and are read
 * when somebody asks for them. `readers` are given the object's state. Like a plain object's they can
 * be written to, which changes that object alone.
 */
function liveProperties(readers) {
  const descriptors = {};
  for (const [name, read] of Object.entries(readers)) {
    descriptors[name] = {
      get() {
        return read(this[STATE]);
      },
      set(value) {
        Object.defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
      },
      enumerable: true,
      configurable: true,
    };
  }
  return descriptors;
}

/** The values at this moment, for which the events are not kept: most who print a run never read it again. */
function valuesNow(object) {
  return object[STATE].glance(() => ({ ...object }));
}

/** For `util.inspect`, which shows no getter's value: an object of the same class with these values. */
function shown(object, values) {
  const copy = Object.create(Object.getPrototypeOf(object));
  // Else it would be asked again how it is to be shown.
  Object.defineProperty(copy, inspect.custom, { value: undefined });
  return Object.assign(copy, values);
}

const AGENT_PROCESS = liveProperties({ pid: ({ handle }) => handle.pid ?? undefined });

/** The agent's process. */
class AgentProcess {
  constructor(handle) {
    Object.defineProperty(this, STATE, { value: { handle } });
    Object.defineProperties(this, AGENT_PROCESS);
  }

  kill(signal = 'SIGTERM') {
    return this[STATE].handle.kill(signalNumber(signal));
  }

  [inspect.custom]() {
    return shown(this, { ...this });
  }
}

const isText = ({ type }) => type === 'text-delta';
/** Without the status lines ("Preparing response..."), whose parts have other ids. */
const isReasoning = ({ type, id }) => type === 'reasoning-delta' && id.startsWith('reasoning-');

function deltasOf(events, isMeant) {
  return events.filter(isMeant).map(({ delta }) => delta);
}

function toolCallsOf(events) {
  const calls = new Map();
  for (const event of events) {
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

const ACCUMULATED_MESSAGE = liveProperties({
  textParts: ({ events }) => deltasOf(events(), isText),
  reasoningParts: ({ events }) => deltasOf(events(), isReasoning),
  toolCalls: ({ events }) => toolCallsOf(events()),
});

/** The message so far, derived from the events when it is asked for. */
class AccumulatedMessage {
  constructor(state) {
    Object.defineProperty(this, STATE, { value: state });
    this.id = state.handle.messageId;
    this.role = 'assistant';
    Object.defineProperties(this, ACCUMULATED_MESSAGE);
  }

  /** The tool calls as an object: a map has no JSON. */
  toJSON() {
    const values = valuesNow(this);
    const { toolCalls } = values;
    return toolCalls instanceof Map ? { ...values, toolCalls: Object.fromEntries(toolCalls) } : values;
  }

  [inspect.custom]() {
    return shown(this, valuesNow(this));
  }
}

const BEFORE_STARTED_AT = liveProperties({
  childProcess: (state) => (state.childProcess ??= new AgentProcess(state.handle)),
  /** All events so far. Made when first asked for, kept up to date from then on. */
  eventBuffer: ({ events }) => events(),
  subscribers: ({ subscribers }) => subscribers.asSet,
  accumulated: (state) => (state.accumulated ??= new AccumulatedMessage(state)),
  status: ({ outcome }) => outcome.status,
});
const AFTER_STARTED_AT = liveProperties({
  exitCode: ({ outcome }) => outcome.end?.exitCode ?? null,
  abortController: ({ abortController }) => abortController(),
  // What the module does not have.
  end: ({ outcome }) => outcome.end,
  lastLineAt: ({ handle }) => handle.lastLineAt ?? null,
});

class ActiveRun {
  /**
   * `outcome` has `status` and `end`, which change when the run ends; `events` gives all events so far
   * and keeps them, but for what is called by `glance`; `abortController` and `whenEnded` give theirs.
   */
  constructor(state) {
    Object.defineProperty(this, STATE, { value: { ...state, childProcess: null, accumulated: null } });
    // In the module's order.
    this.sessionId = state.handle.sessionId;
    Object.defineProperties(this, BEFORE_STARTED_AT);
    this.startedAt = state.handle.startedAt;
    Object.defineProperties(this, AFTER_STARTED_AT);
  }

  /**
   * Fulfilled with `end` once the subscribers have been told. Never rejected. Not enumerable, because
   * reading it keeps the process alive: not everybody who copies a run waits for its end.
   */
  get whenEnded() {
    return this[STATE].whenEnded();
  }

  /** Puts a chunk into the stream. On the prototype: an own member that the module lacks would show in a copy of the run. */
  emit(chunk) {
    return callNative(() => this[STATE].handle.emit(toJson('chunk', chunk)));
  }

  toJSON() {
    const values = valuesNow(this);
    // Of itself it shows nothing as JSON, and a copy of it, as a test runner makes one, cannot be printed.
    values.abortController = { signal: { aborted: values.abortController?.signal?.aborted } };
    return values;
  }

  [inspect.custom]() {
    return shown(this, valuesNow(this));
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
