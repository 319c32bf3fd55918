'use strict';

// For those who operate a server: what the addon is doing, and what went wrong on the way.

const { checkFunction } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative } = require('./errors.js');
const { getHub } = require('./hub.js');

function stats() {
  const native = callNative(() => binding.stats());
  return {
    runs: { running: native.running, completed: native.completed, error: native.failed },
    subscribers: getHub().subscribers,
    events: native.events,
    bufferedBytes: native.bufferedBytes,
    lines: {
      read: native.read,
      unreadable: native.unreadable,
      otherSession: native.otherSession,
      tooLong: native.tooLong,
      lastAt: native.lastLineAt ?? null,
    },
    silentSince: native.silentSince ?? null,
    flushes: {
      written: native.written,
      failed: native.notWritten,
      lastError: native.lastError ? { ...native.lastError } : null,
    },
    droppedStderrBytes: native.droppedStderr,
    childPids: [...native.pids],
    remainingPids: [...native.remaining],
  };
}

function onWarning(callback) {
  return getHub().onWarning(checkFunction('callback', callback));
}

module.exports = { stats, onWarning };
