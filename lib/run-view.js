'use strict';

// A run as this realm sees it: a cursor in the native log that moves only when the bell has rung, so
// nothing that subscribers or callers can see changes within a tick of the event loop.

const { AsyncResource } = require('node:async_hooks');
const { ActiveRun } = require('./active-run.js');

// As `Kind` and `RunHandle::pull` in the native part have them.
const TEXT_DELTA = 0;
const TEXT_END = 1;
const REASONING_DELTA = 2;
const REASONING_END = 3;
const COUNT = 0;
const STATE = 1;
const FIRST_CODE = 2;
const MORE = 1;
const OVER = 2;

/** Events in a batch: an event that is kept may keep its batch's text, so batches are small. */
const BATCH = 256;

const liveCodes = new Uint32Array(FIRST_CODE + BATCH);

/** Turns batches into events. Knows the parts that are open where it stands. */
class EventReader {
  constructor(handle) {
    this.handle = handle;
    this.reset();
  }

  /** The handle was moved: other parts are open. */
  reset() {
    this.textId = this.handle.textId;
    this.reasoningId = this.handle.reasoningId;
  }

  /** Hands the next events (`limit` at most) to `onEvent`; returns what comes after them. */
  read(codes, limit, onEvent) {
    const text = this.handle.pull(codes, limit);
    const end = FIRST_CODE + codes[COUNT];
    const state = codes[STATE];
    let start = 0;
    for (let index = FIRST_CODE; index < end; index++) {
      const code = codes[index];
      const stop = start + (code >>> 3);
      onEvent(this.#event(code & 7, text, start, stop));
      start = stop;
    }
    return state;
  }

  #event(kind, text, start, stop) {
    switch (kind) {
      case TEXT_DELTA:
        return { type: 'text-delta', id: this.textId, delta: text.slice(start, stop) };
      case REASONING_DELTA:
        return { type: 'reasoning-delta', id: this.reasoningId, delta: text.slice(start, stop) };
      case TEXT_END:
        return { type: 'text-end', id: this.textId };
      case REASONING_END:
        return { type: 'reasoning-end', id: this.reasoningId };
      default: {
        const event = JSON.parse(text.slice(start, stop));
        if (event.type === 'text-start') this.textId = event.id;
        else if (event.type === 'reasoning-start') this.reasoningId = event.id;
        return event;
      }
    }
  }
}

/** A callback, called in the asynchronous context in which it was subscribed. */
class Subscription extends AsyncResource {
  constructor(callback, from) {
    super('RunSubscriber');
    this.callback = callback;
    /** The first event that it has not been given in replay. */
    this.from = from;
  }
}

/** The subscribers of a run, in the order in which they came; each callback once. */
class Subscribers {
  #byCallback = new Map();
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  get size() {
    return this.#byCallback.size;
  }

  has(callback) {
    return this.#byCallback.has(callback);
  }

  add(callback, from) {
    if (this.#byCallback.has(callback)) return;
    this.#byCallback.set(callback, new Subscription(callback, from));
    this.#changed();
  }

  delete(callback) {
    const isDeleted = this.#byCallback.delete(callback);
    if (isDeleted) this.#changed();
    return isDeleted;
  }

  clear() {
    this.#byCallback.clear();
    this.#changed();
  }

  /** Those that are added meanwhile are given the event too. */
  notify(event, number) {
    for (const subscription of this.#byCallback.values()) {
      if (number < subscription.from) continue;
      try {
        subscription.runInAsyncScope(subscription.callback, undefined, event);
      } catch {
        // A subscriber's error is its own: it must not keep the others from their events.
      }
    }
  }

  forEach(callback, thisArgument) {
    for (const key of this.keys()) callback.call(thisArgument, key, key, this);
  }

  keys() {
    return this.#byCallback.keys();
  }

  values() {
    return this.keys();
  }

  *entries() {
    for (const key of this.keys()) yield [key, key];
  }

  [Symbol.iterator]() {
    return this.keys();
  }
}

class RunView {
  #handle;
  #reader;
  /** How many events this realm has been told of. */
  #seen;
  /** The events, once somebody has asked for them. */
  #buffer = null;
  #isOwn;
  #onHoldChange;
  #isHeld = false;
  /** Streams that were made and neither read to their end nor cancelled. */
  openStreams = 0;
  /** As seen from here; `activeRun.status` tells it to others, who may write to it. */
  isRunning = true;
  /** Called when there is news: by streams that wait for bytes. */
  news = new Set();

  constructor(handle, isOwn, onHoldChange) {
    this.id = handle.id;
    this.#handle = handle;
    this.#reader = new EventReader(handle);
    this.#seen = handle.next;
    this.#isOwn = isOwn;
    this.#onHoldChange = onHoldChange;
    this.activeRun = new ActiveRun({
      handle,
      subscribers: new Subscribers(() => this.updateHold()),
      abort: () => handle.abort(),
      events: () => this.#events(),
    });
    // A run of another copy that was over when this one met it.
    if (handle.wasOver) this.#setOutcome();
  }

  get sessionId() {
    return this.activeRun.sessionId;
  }

  /** Whether the run is over and no longer to be found natively. */
  get hasLeft() {
    return !this.isRunning && this.#handle.hasLeft;
  }

  abort() {
    this.activeRun.abortController.abort();
    // The controller tells of the first abort only; another SIGTERM may still help.
    this.#handle.abort();
  }

  /** Replays what this realm has been told so far, then adds the callback to the subscribers. */
  subscribe(callback, replay) {
    if (replay) this.#replay(callback);
    if (!this.isRunning) {
      callback(null);
      return () => {};
    }
    const { subscribers } = this.activeRun;
    subscribers.add(callback, replay ? this.#seen : 0);
    return () => {
      subscribers.delete(callback);
    };
  }

  /** The run as server-sent events. Says whether it goes on after `lastEventId`, if that is given. */
  openFrames({ replay, lastEventId, protocol }) {
    const handle = this.#handle;
    const isAiSdk = protocol === 'ai-sdk';
    if (lastEventId !== undefined) {
      const event = handle.resumePoint(lastEventId);
      if (event !== null) return { frames: handle.frames(isAiSdk, 'resume', event), isResumed: true };
    }
    // What cannot be resumed is told from the beginning.
    const isResumed = lastEventId === undefined ? undefined : false;
    const from = replay === 'compact' ? 'compactTo' : replay || isResumed === false ? 'start' : 'event';
    return { frames: handle.frames(isAiSdk, from, this.#seen), isResumed };
  }

  /** How many events have been encoded as server-sent events, whoever read them. */
  get framesEncoded() {
    return this.#handle.framesEncoded;
  }

  /** Tells the subscribers of the next batch. Returns whether there is more. */
  deliver() {
    if (!this.isRunning) return false;
    const state = this.#isWatched ? this.#deliverBatch() : this.#skip();
    if (state === OVER) this.#end();
    for (const wake of this.news) wake();
    return state === MORE;
  }

  /** Whether anybody here wants the events as objects. */
  get #isWatched() {
    return this.#buffer !== null || this.activeRun.subscribers.size > 0;
  }

  #deliverBatch() {
    const { subscribers } = this.activeRun;
    return this.#reader.read(liveCodes, BATCH, (event) => {
      const number = this.#seen++;
      this.#buffer?.push(event);
      subscribers.notify(event, number);
    });
  }

  #skip() {
    const state = this.#handle.skip();
    this.#reader.reset();
    this.#seen = this.#handle.next;
    return state;
  }

  /** Keeps the process alive while the run runs and is this realm's, by start or by subscription. */
  updateHold() {
    const isHeld = this.isRunning && (this.#isOwn || this.activeRun.subscribers.size > 0);
    if (isHeld === this.#isHeld) return;
    this.#isHeld = isHeld;
    this.#onHoldChange(isHeld);
  }

  #end() {
    this.#setOutcome();
    const { subscribers } = this.activeRun;
    // Before the news: a callback may start the session's next run.
    this.updateHold();
    subscribers.notify(null, this.#seen);
    subscribers.clear();
  }

  #setOutcome() {
    this.isRunning = false;
    this.activeRun.status = this.#handle.isError ? 'error' : 'completed';
    this.activeRun.exitCode = this.#handle.exitCode;
  }

  #events() {
    if (this.#buffer === null) {
      const buffer = [];
      this.#replay((event) => buffer.push(event));
      this.#buffer = buffer;
    }
    return this.#buffer;
  }

  #replay(onEvent) {
    if (this.#buffer !== null) {
      for (let index = 0; index < this.#seen; index++) onEvent(this.#buffer[index]);
      return;
    }
    const reader = new EventReader(this.#handle.replay());
    // Of its own, because a callback may begin another replay.
    const codes = new Uint32Array(FIRST_CODE + BATCH);
    for (let left = this.#seen; left > 0; left -= codes[COUNT]) {
      reader.read(codes, Math.min(left, BATCH), onEvent);
    }
  }
}

module.exports = { RunView };
