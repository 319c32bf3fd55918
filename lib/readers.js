'use strict';

// Those who read runs as bytes in this realm, and when each of them gets some. All share a time budget
// and take turns; where bytes go is the business of their sinks (`lib/streams.js`).
//
// A sink has `write(bytes, isShared)`, which says whether the reader wants more at once; `end()`; and
// `fail(error)`. Bytes that are shared are to be read only. None of these may throw.

const { clearTimeout, setImmediate, setTimeout } = require('node:timers');
const { performance } = require('node:perf_hooks');

/** Above this many readers of a realm, news is gathered before it is sent. */
const MANY_READERS = 16;
/** Then a round begins so long after the one before at the soonest, in ms. */
const LEAST_GATHER_MS = 3;
/** And no later than this, however long a round takes. */
const MOST_GATHER_MS = 50;
/** Rounds begin at least this many times a round's duration apart, which leaves four fifths of the time to others. */
const GATHER_FACTOR = 5;
/** Weight of the last round in the moving average: one slow round may be an exception. */
const GATHER_STEP = 1 / 8;
/**
 * Readers that are served before the budget is looked at again. What they write in consequence, in microtasks and ticks,
 * is done by then, and counts.
 */
const SLICE = 16;
/** Slices scheduled at once. */
const MOST_SLICES = 32;
/** A heartbeat is late by at most this fraction of its interval: the timer never waits less. */
const HEARTBEAT_PARTS = 64;

const HEARTBEAT = Buffer.from(': keepalive\n\n');

/** A reader's own copy, with memory of its own behind it. */
function copyOf(bytes) {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

function readerTooSlow(sessionId) {
  const message =
    `The events of the ended run of session ${sessionId} are gone: ` +
    'this reader stood still when they were freed';
  return Object.assign(new Error(message), { code: 'READER_TOO_SLOW' });
}

/** A place in a run's frames, and the sink for what follows. */
class Reader {
  constructor(view, frames, isAiSdk, heartbeatMs) {
    this.view = view;
    this.frames = frames;
    this.isAiSdk = isAiSdk;
    this.heartbeatMs = heartbeatMs;
    this.sink = null;
    /** Among the frames that the run's readers share; -1 while it reads what is only for itself. */
    this.place = -1;
    /** The count of the run's news when it last read all that there was; -1 when there may be more. */
    this.readUpTo = -1;
    this.isOpen = true;
    /** It has room for a chunk. */
    this.isWanting = false;
    this.isQueued = false;
    /** It has read all that there was, and wants more. */
    this.isWaiting = false;
    /** Since when, in ms. */
    this.waitsSince = 0;
    this.isHeartbeatDue = false;
  }
}

/** The readers with the same time between heartbeats, and the one timer for all of them. */
class Heartbeats {
  readers = new Set();
  #ms;
  #onDue;
  #timer = null;

  constructor(ms, onDue) {
    this.#ms = ms;
    this.#onDue = onDue;
  }

  add(reader) {
    this.readers.add(reader);
    if (this.#timer === null) this.#wait(this.#ms);
  }

  delete(reader) {
    this.readers.delete(reader);
    if (this.readers.size > 0) return;
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #wait(ms) {
    this.#timer = setTimeout(() => this.#look(), Math.ceil(Math.max(ms, this.#ms / HEARTBEAT_PARTS)));
    this.#timer.unref();
  }

  #look() {
    const now = performance.now();
    let next = now + this.#ms;
    for (const reader of this.readers) {
      if (!reader.isWaiting) continue;
      const dueAt = reader.waitsSince + this.#ms;
      if (dueAt <= now) this.#onDue(reader);
      else if (dueAt < next) next = dueAt;
    }
    this.#wait(next - now);
  }
}

class Readers {
  #budgetMs;
  /** Whether others want their share of the budget. */
  #mustShare;
  #size = 0;
  /** Those to be served, from `#head` on. */
  #queue = [];
  #head = 0;
  /** Slices of the turn that is scheduled or under way. */
  #slicesLeft = 0;
  #isTurnOpen = false;
  #turnEndsAt = 0;
  #isServing = false;
  /** Views with news for those who wait. */
  #fresh = new Set();
  #roundAt = 0;
  #gatherMs = LEAST_GATHER_MS;
  #isRoundOver = true;
  #gathering = null;
  #heartbeats = new Map();

  constructor(budgetMs, mustShare) {
    this.#budgetMs = budgetMs;
    this.#mustShare = mustShare;
  }

  /** Whether anybody is to be served. */
  get isBusy() {
    return this.#head < this.#queue.length;
  }

  /** A reader of the view's run, which gets nothing before it wants something. */
  open(view, { frames, isAiSdk, heartbeatMs }) {
    const reader = new Reader(view, frames, isAiSdk, heartbeatMs);
    this.#size += 1;
    view.readers.add(reader);
    if (heartbeatMs > 0) {
      let heartbeats = this.#heartbeats.get(heartbeatMs);
      if (!heartbeats) {
        heartbeats = new Heartbeats(heartbeatMs, (due) => {
          due.isHeartbeatDue = true;
          this.#enqueue(due);
        });
        this.#heartbeats.set(heartbeatMs, heartbeats);
      }
      heartbeats.add(reader);
    }
    return reader;
  }

  /** The reader reads no further. Closing twice is closing once. */
  close(reader) {
    if (!reader.isOpen) return;
    reader.isOpen = false;
    reader.isWanting = false;
    reader.isWaiting = false;
    reader.frames.close();
    reader.view.readers.delete(reader);
    this.#size -= 1;
    const heartbeats = this.#heartbeats.get(reader.heartbeatMs);
    if (!heartbeats) return;
    heartbeats.delete(reader);
    if (heartbeats.readers.size === 0) this.#heartbeats.delete(reader.heartbeatMs);
  }

  /** The reader has room for a chunk: it gets one now, in its turn, or when there is one. */
  want(reader) {
    if (!reader.isOpen || reader.isWanting) return;
    reader.isWanting = true;
    const { view } = reader;
    if (reader.readUpTo === view.newsCount && view.isRunning) this.#wait(reader);
    else if (this.#isServing || this.isBusy || this.#isSpent()) this.#enqueue(reader);
    else this.#serve(reader);
  }

  /** How long news should be gathered from now on, in whole ms as timers count, before it is sent. */
  get gatherMs() {
    return this.#size > MANY_READERS ? Math.trunc(this.#roundAt + this.#gatherMs - performance.now()) : 0;
  }

  /** The view's run has news. */
  onNews(view) {
    if (view.readers.size === 0) return;
    this.#fresh.add(view);
    if (this.#gathering !== null) return;
    const { gatherMs } = this;
    if (gatherMs <= 0) this.#beginRound();
    else this.#gathering = setTimeout(() => this.#beginRound(), gatherMs);
  }

  #beginRound() {
    this.#gathering = null;
    this.#roundAt = performance.now();
    this.#isRoundOver = false;
    for (const view of this.#fresh) {
      for (const reader of view.readers) if (reader.isWaiting) this.#enqueue(reader);
    }
    this.#fresh.clear();
  }

  #wait(reader) {
    reader.isWaiting = true;
    reader.waitsSince = performance.now();
  }

  #enqueue(reader) {
    reader.isWaiting = false;
    if (reader.isQueued) return;
    reader.isQueued = true;
    this.#queue.push(reader);
    if (this.#slicesLeft === 0) this.#schedule();
  }

  #schedule() {
    const slices = Math.min(Math.ceil((this.#queue.length - this.#head) / SLICE), MOST_SLICES);
    this.#slicesLeft = slices;
    // Between two immediates Node does all that the first one has led to.
    for (let slice = 0; slice < slices; slice++) setImmediate(() => this.#serveSlice());
  }

  #serveSlice() {
    if (!this.#isSpent()) {
      // A long event takes a reader a turn's time.
      for (let served = 0; served < SLICE && this.isBusy && !(served > 0 && this.#isSpent()); served++) {
        const reader = this.#queue[this.#head++];
        reader.isQueued = false;
        if (reader.isWanting) this.#serve(reader);
      }
    }
    this.#slicesLeft -= 1;
    if (!this.isBusy) {
      this.#queue.length = 0;
      this.#head = 0;
      this.#endRound();
    } else if (this.#slicesLeft === 0) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
      this.#schedule();
    }
  }

  #endRound() {
    if (this.#isRoundOver) return;
    this.#isRoundOver = true;
    const took = performance.now() - this.#roundAt;
    const wanted = Math.min(Math.max(GATHER_FACTOR * took, LEAST_GATHER_MS), MOST_GATHER_MS);
    this.#gatherMs += (wanted - this.#gatherMs) * GATHER_STEP;
  }

  /** Whether this turn's budget is spent. Begins a turn when none is under way. */
  #isSpent() {
    const now = performance.now();
    if (!this.#isTurnOpen) {
      this.#isTurnOpen = true;
      this.#turnEndsAt = now + (this.#mustShare() ? this.#budgetMs / 2 : this.#budgetMs);
      setImmediate(() => {
        this.#isTurnOpen = false;
      });
    }
    return now > this.#turnEndsAt;
  }

  /** Gives the reader, who wants it, a chunk or its end, or has it wait. */
  #serve(reader) {
    this.#isServing = true;
    try {
      if (!this.#serveShared(reader)) this.#serveOwn(reader);
    } catch (error) {
      // It ends this reader, and concerns nobody else.
      this.close(reader);
      reader.sink.fail(error);
    } finally {
      this.#isServing = false;
    }
  }

  /** What all get who stand where this reader stands. False when there is more than is worth a copy, or an end. */
  #serveShared(reader) {
    const { view } = reader;
    if (reader.place < 0 || !view.isRunning) return false;
    const { newsCount } = view;
    const bytes = view.liveFrames(reader.isAiSdk, reader.place);
    if (bytes === null) return false;
    reader.readUpTo = newsCount;
    reader.place += bytes.length;
    if (bytes.length > 0) this.#write(reader, bytes, true);
    else this.#serveNothing(reader);
    return true;
  }

  #serveOwn(reader) {
    const { view, frames } = reader;
    const { newsCount } = view;
    const bytes = frames.pull(reader.place);
    reader.place = frames.place;
    reader.readUpTo = -1;
    if (bytes !== null) {
      this.#write(reader, bytes, false);
    } else if (frames.isOver) {
      this.close(reader);
      reader.sink.end();
    } else if (frames.isCut) {
      this.close(reader);
      reader.sink.fail(readerTooSlow(view.sessionId));
    } else {
      reader.readUpTo = newsCount;
      this.#serveNothing(reader);
    }
  }

  #serveNothing(reader) {
    if (reader.isHeartbeatDue) this.#write(reader, HEARTBEAT, true);
    else this.#wait(reader);
  }

  #write(reader, bytes, isShared) {
    reader.isWanting = false;
    reader.isHeartbeatDue = false;
    if (reader.sink.write(bytes, isShared)) this.want(reader);
  }
}

module.exports = { Readers, copyOf };
