'use strict';

// What one realm's copies of this package share: the bell that wakes them, and their views of runs.

const { AsyncResource } = require('node:async_hooks');
const { isMainThread } = require('node:worker_threads');
const { setImmediate, setTimeout } = require('node:timers');
const { performance } = require('node:perf_hooks');
const { inspect } = require('node:util');
const binding = require('./binding.js');
const { callNative } = require('./errors.js');
const { Readers } = require('./readers.js');
const { RunView } = require('./run-view.js');

/** How long the delivery of events, to callbacks and streams, may hold the event loop before it lets others run, in ms. */
const BUDGET_MS = 2;

/** How long a run that another thread is making is waited for, in ms. */
const LONGEST_START_MS = 50;

class Hub {
  /** Session id → view, of every run this realm has met and whose grace period is not over. */
  #views = new Map();
  /** Views with news, in the order in which it came. */
  #pending = new Set();
  #byRun = new Map();
  #isScheduled = false;
  // The bell refers to it weakly, so that a realm that is gone does not stay for it.
  #ring = () => this.#onBell();
  #bell = new binding.Bell(this.#ring, isMainThread);
  /** Views for which the process is kept alive. */
  #held = new Set();
  /** Who hears warnings, and in which asynchronous context. */
  #warningListeners = new Map();
  /** Who reads runs as bytes. */
  readers = new Readers(BUDGET_MS, () => this.#pending.size > 0);

  /**
   * Starts a run. Throws when the session's run is running, natively or as seen from here, unless that answers the same
   * user's message: then it is the run. `null` when the message was answered by a run that is gone.
   */
  start(values) {
    const { sessionId, userMessageId } = values;
    if (userMessageId !== undefined) {
      const known = this.find(sessionId);
      if (known?.userMessageId === userMessageId) return known;
    }
    if (this.#views.get(sessionId)?.isRunning) {
      const error = new Error('Active run already exists for this session');
      throw Object.assign(error, { code: 'RUN_ALREADY_ACTIVE' });
    }
    let handle;
    try {
      handle = callNative(() => this.#bell.start(values));
    } catch (error) {
      const other = error.code === 'RUN_ALREADY_ACTIVE' ? this.#waitFor(sessionId, userMessageId) : undefined;
      if (other === undefined) throw error;
      return other;
    }
    return handle === null ? null : this.#show(handle, true);
  }

  /** The run of this user's message, which another thread is just making: it takes that as long as storing the message. */
  #waitFor(sessionId, userMessageId) {
    const until = performance.now() + LONGEST_START_MS;
    while (userMessageId !== undefined && performance.now() < until) {
      const view = this.find(sessionId);
      if (view?.userMessageId === userMessageId) return view;
      if (view?.isRunning) break;
    }
    return undefined;
  }

  /** The view of the session's run, of whichever copy or thread started it. */
  find(sessionId) {
    const view = this.#views.get(sessionId);
    // While it is running as seen from here, no other run can have taken its place.
    if (view?.isRunning) return view;
    // Natively, half a surrogate pair would become a character that another id may have.
    if (!sessionId.isWellFormed()) return undefined;
    const id = this.#bell.findId(sessionId);
    // One that has just been forgotten is there until this realm is told so.
    if (view && (id === null || id === view.id)) return view;
    const handle = id === null ? null : this.#bell.find(sessionId);
    return handle ? this.#show(handle, false) : undefined;
  }

  /** Callbacks that are subscribed, and streams that are open, in this realm. */
  get subscribers() {
    let count = 0;
    for (const view of this.#views.values()) count += view.subscribers.size + view.readers.size;
    return count;
  }

  /** Tells `callback` of warnings in the place of stderr, until the returned function is called. */
  onWarning(callback) {
    if (!this.#warningListeners.has(callback)) {
      this.#warningListeners.set(callback, new AsyncResource('WarningListener'));
    }
    this.#bell.hearWarnings(true);
    return () => {
      this.#warningListeners.delete(callback);
      if (this.#warningListeners.size === 0) this.#bell.hearWarnings(false);
    };
  }

  #show(handle, isOwn) {
    const view = new RunView(handle, isOwn, {
      onHoldChange: (needed) => this.#hold(view, needed),
      onNews: () => this.readers.onNews(view),
    });
    this.#views.set(view.sessionId, view);
    this.#byRun.set(view.id, view);
    view.updateHold();
    return view;
  }

  #hold(view, needed) {
    if (needed) this.#held.add(view);
    else this.#held.delete(view);
    this.#bell.hold(this.#held.size > 0);
  }

  #onBell() {
    // A bell that is not answered does not ring again. Where there are many readers of bytes and nobody else, it costs
    // less to answer for what comes within a few milliseconds.
    const { gatherMs } = this.readers;
    if (gatherMs > 0 && !this.#isWatched) setTimeout(() => this.#answer(), gatherMs);
    else this.#answer();
  }

  /** Whether anybody wants events as objects. */
  get #isWatched() {
    for (const view of this.#views.values()) if (view.isWatched) return true;
    return false;
  }

  #answer() {
    // Taken first, which answers the ring: whatever comes after that rings again.
    const ids = this.#bell.take();
    if (this.#warningListeners.size > 0) this.#deliverWarnings();
    for (const id of ids) {
      const known = this.#byRun.get(id);
      if (known && !known.isOwn && this.#bell.owns(id)) known.takeOver();
      const view = known ?? this.#adopt(id);
      if (view) this.#pending.add(view);
    }
    if (!this.#isScheduled) this.#deliver();
  }

  #deliverWarnings() {
    for (const warning of this.#bell.takeWarnings()) {
      for (const [callback, context] of this.#warningListeners) {
        try {
          // An object of this realm for each listener.
          context.runInAsyncScope(callback, undefined, { ...warning });
        } catch (error) {
          // It must not keep the others from the warning, nor the runs from their news.
          this.#bell.printWarning(`${warning.message}; the callback of onWarning threw ${inspect(error)}`);
        }
      }
    }
  }

  /** A run whose thread has ended: this copy keeps the process alive for it now. */
  #adopt(id) {
    const handle = this.#bell.adopt(id);
    return handle ? this.#show(handle, true) : undefined;
  }

  #deliver() {
    this.#isScheduled = false;
    const until = performance.now() + (this.readers.isBusy ? BUDGET_MS / 2 : BUDGET_MS);
    for (const view of this.#pending) {
      this.#pending.delete(view);
      try {
        // To the end of the line while it has more, so that runs take turns.
        if (view.deliver()) this.#pending.add(view);
        if (view.hasLeft) this.#drop(view);
      } catch (error) {
        // A fault of this package. It must not keep the other runs from their news, nor end the process.
        const { sessionId } = view;
        this.#bell.printWarning(`failed to deliver the events of session ${sessionId}: ${inspect(error)}`);
      }
      if (performance.now() > until) break;
    }
    if (this.#pending.size > 0 && !this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(() => this.#deliver());
    }
  }

  #drop(view) {
    view.release();
    this.#byRun.delete(view.id);
    if (this.#views.get(view.sessionId) === view) this.#views.delete(view.sessionId);
  }
}

// One for each realm, on its global object: a hot reload runs this file again.
const KEY = Symbol.for('active-runs.hub.2');

function getHub() {
  globalThis[KEY] ??= new Hub();
  return globalThis[KEY];
}

module.exports = { getHub };
