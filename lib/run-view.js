'use strict';

// A run as this realm sees it: a cursor in the native log that moves only when the bell has rung, so
// nothing that subscribers or callers can see changes within a tick of the event loop.

const { AsyncResource } = require('node:async_hooks');
const { ActiveRun, runEnd } = require('./active-run.js');

// As `Kind` and `RunHandle::pull` in the native part have them.
const TEXT_DELTA = 0;
const TEXT_END = 1;
const REASONING_DELTA = 2;
const REASONING_END = 3;
/** An event that is not delivered to subscribers: the module's stream has no such event. */
const EXTRA = 7;
const COUNT = 0;
const STATE = 1;
const FIRST_CODE = 2;
const MORE = 1;
const OVER = 2;

/** Events in a batch: an event that is kept may keep its batch's text, so batches are small. */
const BATCH = 256;

// Of the delivery under way; there is one at a time in a realm.
const liveCodes = new Uint32Array(FIRST_CODE + BATCH);

/** Turns batches into events. Knows the parts that are open where it stands. */
class EventReader {
  #handle;
  #codes;
  #text = '';
  /** Of the next event in the batch: its place in `#codes`, and where its text begins. */
  #at = FIRST_CODE;
  #start = 0;
  #textId = null;
  #reasoningId = null;

  /** Of a handle at the first event; of any other after `reset`. */
  constructor(handle, codes) {
    this.#handle = handle;
    this.#codes = codes;
  }

  /** The handle was moved: other parts are open. */
  reset() {
    this.#textId = this.#handle.textId;
    this.#reasoningId = this.#handle.reasoningId;
  }

  /** Gets the next events, `limit` at most; then `codes` has their number and what comes after them. */
  pull(limit) {
    this.#text = this.#handle.pull(this.#codes, limit);
    this.#at = FIRST_CODE;
    this.#start = 0;
  }

  /** Hands over all events that were pulled. As `next` does it, but in one go. */
  tellAll(onEvent) {
    const codes = this.#codes;
    const text = this.#text;
    const end = FIRST_CODE + codes[COUNT];
    let id = this.#textId;
    for (let at = FIRST_CODE, start = 0; at < end; at++) {
      const code = codes[at];
      const stop = start + (code >>> 3);
      if ((code & 7) === TEXT_DELTA) {
        onEvent({ type: 'text-delta', id, delta: text.slice(start, stop) });
      } else if ((code & 7) !== EXTRA) {
        onEvent(this.#other(code & 7, start, stop));
        id = this.#textId;
      }
      start = stop;
    }
  }

  /**
   * The next of the events that were pulled; `null` for one that is not delivered to subscribers. Called once for each: it
   * counts nothing.
   */
  next() {
    const code = this.#codes[this.#at++];
    const start = this.#start;
    const stop = start + (code >>> 3);
    this.#start = stop;
    const kind = code & 7;
    // Apart from the others, the first of which in a run would have V8 give up what it compiled.
    return kind === TEXT_DELTA
      ? { type: 'text-delta', id: this.#textId, delta: this.#text.slice(start, stop) }
      : this.#other(kind, start, stop);
  }

  /** An event of any kind but `TEXT_DELTA`. */
  #other(kind, start, stop) {
    switch (kind) {
      case REASONING_DELTA:
        return { type: 'reasoning-delta', id: this.#reasoningId, delta: this.#text.slice(start, stop) };
      case TEXT_END:
        return { type: 'text-end', id: this.#textId };
      case REASONING_END:
        return { type: 'reasoning-end', id: this.#reasoningId };
      case EXTRA:
        return null;
      default: {
        const event = JSON.parse(this.#text.slice(start, stop));
        if (event.type === 'text-start') this.#textId = event.id;
        else if (event.type === 'reasoning-start') this.#reasoningId = event.id;
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
    this.hasLeft = false;
  }
}

/** The subscribers of a run, in the order in which they came; each callback once. */
class Subscribers {
  #byCallback = new Map();
  /**
   * The subscriptions in their order, because an array is read three times as fast as a map. Those
   * that have left stay until they are half of it, so that leaving takes no search.
   */
  #inOrder = [];
  #isNotifying = false;
  #changed;
  /** See `asSet`. */
  #set = null;

  constructor(changed) {
    this.#changed = changed;
  }

  /**
   * The callbacks as others see them, who may add and delete, too; made when first asked for. A `Set` itself,
   * whose methods are its own here: what is derived from `Set` cannot be copied and printed by test runners.
   */
  get asSet() {
    if (this.#set === null) {
      const set = new Set(this.#byCallback.keys());
      const methods = {
        add: (callback) => {
          this.add(callback);
          return set;
        },
        delete: (callback) => this.delete(callback),
        clear: () => this.clear(),
      };
      for (const [name, value] of Object.entries(methods)) {
        Object.defineProperty(set, name, { value, writable: true, configurable: true });
      }
      this.#set = set;
    }
    return this.#set;
  }

  get size() {
    return this.#byCallback.size;
  }

  /** The subscription, if there is just one. */
  get only() {
    return this.#inOrder.length === 1 && !this.#inOrder[0].hasLeft ? this.#inOrder[0] : null;
  }

  /** `from` is the first event that is delivered. */
  add(callback, from = 0) {
    if (this.#byCallback.has(callback)) return;
    if (this.#set !== null) Set.prototype.add.call(this.#set, callback);
    const subscription = new Subscription(callback, from);
    this.#byCallback.set(callback, subscription);
    this.#inOrder.push(subscription);
    this.#changed();
  }

  delete(callback) {
    const subscription = this.#byCallback.get(callback);
    if (!subscription) return false;
    if (this.#set !== null) Set.prototype.delete.call(this.#set, callback);
    this.#byCallback.delete(callback);
    subscription.hasLeft = true;
    this.#tidy();
    this.#changed();
    return true;
  }

  clear() {
    for (const subscription of this.#byCallback.values()) subscription.hasLeft = true;
    if (this.#set !== null) Set.prototype.clear.call(this.#set);
    this.#byCallback.clear();
    this.#tidy();
    this.#changed();
  }

  /** Those that are added meanwhile are given the event too. `told` has had it. */
  notify(event, number, told = null) {
    const inOrder = this.#inOrder;
    this.#isNotifying = true;
    for (let index = 0; index < inOrder.length; index++) {
      const subscription = inOrder[index];
      if (subscription.hasLeft || number < subscription.from || subscription === told) continue;
      try {
        subscription.runInAsyncScope(subscription.callback, undefined, event);
      } catch {
        // A subscriber's error is its own: it must not keep the others from their events.
      }
    }
    this.#isNotifying = false;
    this.#tidy();
  }

  #tidy() {
    if (this.#isNotifying || this.#inOrder.length < 2 * this.#byCallback.size) return;
    if (this.#inOrder.length > this.#byCallback.size) this.#inOrder = [...this.#byCallback.values()];
  }
}

class RunView {
  #handle;
  #reader;
  /** How many events this realm has been told of. */
  #seen;
  /** The events, once somebody has asked for them. */
  #buffer = null;
  /** The promise of the run's end and what fulfils it, once somebody has asked for it. */
  #ended = null;
  #isOwn;
  #onHoldChange;
  #onNews;
  #isHeld = false;
  /** How the run ended, as seen from here. */
  #outcome = { status: 'running', end: null };
  #abortController = null;
  /** While somebody looks at the run once: the events that this has made, if any. */
  #glance = null;
  /** By protocol, the frames that were read last for all who stood at the same place. */
  #live = { module: null, aiSdk: null };
  /** Those who read it as bytes and are neither at their end nor closed. */
  readers = new Set();
  /** How often there was news. */
  newsCount = 0;
  /** As seen from here. */
  isRunning = true;
  /** The callbacks that are subscribed. */
  subscribers = new Subscribers(() => this.updateHold());

  constructor(handle, isOwn, { onHoldChange, onNews }) {
    this.id = handle.id;
    this.#handle = handle;
    this.#reader = new EventReader(handle, liveCodes);
    this.#seen = handle.next;
    if (this.#seen > 0) this.#reader.reset();
    this.#isOwn = isOwn;
    this.#onHoldChange = onHoldChange;
    this.#onNews = onNews;
    this.sessionId = handle.sessionId;
    // What others do to it changes nothing here.
    this.activeRun = new ActiveRun({
      handle,
      outcome: this.#outcome,
      subscribers: this.subscribers,
      events: () => this.#events(),
      glance: (read) => this.#glanceAt(read),
      abortController: () => this.#controller(),
      whenEnded: () => this.whenEnded(),
    });
    // A run of another copy that was over when this one met it.
    if (handle.wasOver) this.#setOutcome();
  }

  /** Whether the run is over and no longer to be found natively. */
  get hasLeft() {
    return !this.isRunning && this.#handle.hasLeft;
  }

  /** Whether the run is over, though this realm may still have to be told of its end. */
  get isOver() {
    return this.#handle.end !== null;
  }

  abort() {
    // First: an agent that is not executed by now never is.
    this.#handle.abort();
    // Which stops the run once more, and that is nothing.
    this.#controller().abort();
  }

  /** Aborting it stops the agent. Made when first asked for: most runs are never aborted. */
  #controller() {
    if (this.#abortController === null) {
      this.#abortController = new AbortController();
      this.#abortController.signal.addEventListener('abort', () => this.#handle.abort(), { once: true });
    }
    return this.#abortController;
  }

  /** Replays what this realm has been told so far, then adds the callback to the subscribers. */
  subscribe(callback, replay) {
    if (replay) this.#replay(callback);
    if (!this.isRunning) {
      callback(null);
      return () => {};
    }
    const { subscribers } = this;
    subscribers.add(callback, replay ? this.#seen : 0);
    return () => {
      subscribers.delete(callback);
    };
  }

  /** The session has forgotten the run, and so does this realm. */
  release() {
    this.#handle.release();
  }

  /** What comes first in the ids of its frames. */
  get stamp() {
    return this.#handle.stamp;
  }

  /** The id of the user's message that it answers; `undefined` where that is not known. */
  get userMessageId() {
    return this.#handle.userMessageId ?? undefined;
  }

  /** The run as server-sent events. Says whether it goes on after `lastEventId`, if that is given. */
  openFrames({ replay, lastEventId, protocol, resume }) {
    const handle = this.#handle;
    const isAiSdk = protocol === 'ai-sdk';
    if (lastEventId !== undefined) {
      const event = handle.resumePoint(lastEventId);
      const from = resume === 'rewind' ? 'rewind' : 'after';
      if (event !== null) return { frames: handle.frames(isAiSdk, from, event), isResumed: true };
    }
    // What cannot be resumed is told from the beginning.
    const isResumed = lastEventId === undefined ? undefined : false;
    const from = replay === 'compact' ? 'compactTo' : replay || isResumed === false ? 'start' : 'event';
    return { frames: handle.frames(isAiSdk, from, this.#seen), isResumed };
  }

  /**
   * The frames from `place` on, to be read only; `null` when there are many. Read once for all who ask between one piece of
   * news and the next: they have then what that news was about, at least.
   */
  liveFrames(isAiSdk, place) {
    const key = isAiSdk ? 'aiSdk' : 'module';
    const live = this.#live[key];
    if (live !== null && live.place === place && live.newsCount === this.newsCount) return live.bytes;
    const bytes = this.#handle.liveFrames(isAiSdk, place);
    this.#live[key] = { place, newsCount: this.newsCount, bytes };
    return bytes;
  }

  /** How many events have been encoded as server-sent events, whoever read them. */
  get framesEncoded() {
    return this.#handle.framesEncoded;
  }

  /** Tells the subscribers of the next batch. Returns whether there is more. */
  deliver() {
    if (!this.isRunning) return false;
    const state = this.isWatched ? this.#deliverBatch() : this.#skip();
    if (state === OVER) this.#end();
    this.newsCount += 1;
    this.#onNews();
    return state === MORE;
  }

  /** Whether anybody here wants the events as objects. */
  get isWatched() {
    return this.#buffer !== null || this.subscribers.size > 0;
  }

  #deliverBatch() {
    const { subscribers } = this;
    this.#reader.pull(BATCH);
    const state = liveCodes[STATE];
    for (let left = liveCodes[COUNT]; left > 0; ) {
      const { only } = subscribers;
      if (only !== null) {
        left = only.runInAsyncScope(this.#tellOnly, this, only, left);
      } else {
        const event = this.#reader.next();
        const number = this.#seen++;
        left--;
        if (event === null) continue;
        this.#buffer?.push(event);
        subscribers.notify(event, number);
      }
    }
    return state;
  }

  /** Tells the only subscriber, in its context, for as long as it is. Returns how many events are left. */
  #tellOnly(only, left) {
    const { subscribers } = this;
    const { callback, from } = only;
    while (left > 0 && subscribers.only === only) {
      const event = this.#reader.next();
      left--;
      const number = this.#seen++;
      if (event === null) continue;
      this.#buffer?.push(event);
      if (number < from) continue;
      try {
        callback(event);
      } catch {
        // As in `notify`.
      }
      // Whoever was added by it joins at this event.
      if (subscribers.only !== only) subscribers.notify(event, number, only);
    }
    return left;
  }

  #skip() {
    const state = this.#handle.skip();
    this.#reader.reset();
    this.#seen = this.#handle.next;
    return state;
  }

  /** Whether the process is kept alive for the run, whoever listens to it. */
  get isOwn() {
    return this.#isOwn;
  }

  /** The thread has ended that had started the run, and this realm was given it. */
  takeOver() {
    this.#isOwn = true;
    this.updateHold();
  }

  /** Keeps the process alive while the run runs and is this realm's, by start, subscription or await. */
  updateHold() {
    const isWanted = this.#isOwn || this.subscribers.size > 0 || this.#ended !== null;
    const isHeld = this.isRunning && isWanted;
    if (isHeld === this.#isHeld) return;
    this.#isHeld = isHeld;
    this.#onHoldChange(isHeld);
  }

  #end() {
    this.#setOutcome();
    const { subscribers } = this;
    // Before the news: a callback may start the session's next run.
    this.updateHold();
    subscribers.notify(null, this.#seen);
    subscribers.clear();
    this.#ended?.resolve(this.#outcome.end);
  }

  #setOutcome() {
    const values = this.#handle.end;
    this.isRunning = false;
    this.#outcome.status = values.isError ? 'error' : 'completed';
    this.#outcome.end = runEnd(values);
  }

  /** The promise of the run's end, which keeps the process alive until then. */
  whenEnded() {
    if (this.#ended === null) {
      this.#ended = {};
      this.#ended.promise = new Promise((resolve) => {
        this.#ended.resolve = resolve;
      });
      if (this.isRunning) this.updateHold();
      else this.#ended.resolve(this.#outcome.end);
    }
    return this.#ended.promise;
  }

  #events() {
    if (this.#buffer !== null) return this.#buffer;
    if (this.#glance !== null) return (this.#glance.events ??= this.#collect());
    this.#buffer = this.#collect();
    return this.#buffer;
  }

  #collect() {
    const events = [];
    this.#replay((event) => events.push(event));
    return events;
  }

  /** Calls `read`, for which the events are not kept. */
  #glanceAt(read) {
    const outer = this.#glance;
    this.#glance ??= { events: null };
    try {
      return read();
    } finally {
      this.#glance = outer;
    }
  }

  #replay(onEvent) {
    if (this.#buffer !== null) {
      // Those of this moment: a callback may have more delivered.
      const { length } = this.#buffer;
      for (let index = 0; index < length; index++) onEvent(this.#buffer[index]);
      return;
    }
    // Of its own, because a callback may begin another replay.
    const codes = new Uint32Array(FIRST_CODE + BATCH);
    const reader = new EventReader(this.#handle.replay(), codes);
    for (let left = this.#seen; left > 0; left -= codes[COUNT]) {
      reader.pull(Math.min(left, BATCH));
      // Once this realm has forgotten the run, its events are gone.
      if (codes[COUNT] === 0) return;
      reader.tellAll(onEvent);
    }
  }
}

module.exports = { RunView };
