'use strict';

// A run as a response body: the native part encodes each event once, whoever reads; here is only the
// stream that pulls the bytes.

const { clearTimeout, setTimeout } = require('node:timers');
const { checkObject, checkOptionalString, checkString } = require('./arguments.js');
const { invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { LONGEST_MS } = require('./settings.js');

const HEARTBEAT = Buffer.from(': keepalive\n\n');
const DEFAULT_HEARTBEAT_MS = 15_000;

function readOptions(options = {}) {
  const { replay = true, lastEventId, protocol = 'module' } = checkObject('options', options);
  const { heartbeatMs = DEFAULT_HEARTBEAT_MS } = options;
  if (replay !== true && replay !== false && replay !== 'compact') {
    throw invalidArgument('replay', `must be true, false or "compact", not ${String(replay)}`);
  }
  if (protocol !== 'module' && protocol !== 'ai-sdk') {
    throw invalidArgument('protocol', `must be "module" or "ai-sdk", not ${String(protocol)}`);
  }
  if (!Number.isInteger(heartbeatMs) || heartbeatMs < 0 || heartbeatMs > LONGEST_MS) {
    throw invalidArgument('heartbeatMs', `must be a whole number from 0 to ${LONGEST_MS}`);
  }
  return {
    replay,
    protocol,
    heartbeatMs,
    lastEventId: checkOptionalString('lastEventId', lastEventId),
  };
}

function readerTooSlow(sessionId) {
  const message =
    `The events of the ended run of session ${sessionId} are gone: ` +
    'this reader stood still when they were freed';
  return Object.assign(new Error(message), { code: 'READER_TOO_SLOW' });
}

/** The stream of a view, and whether it goes on after `lastEventId`. */
function open(view, { replay, protocol, heartbeatMs, lastEventId }) {
  const { frames, isResumed } = view.openFrames({ replay, lastEventId, protocol });
  let wake = () => {};
  let heartbeat;
  const stopWaiting = () => {
    view.news.delete(wake);
    clearTimeout(heartbeat);
  };
  const source = {
    pull(controller) {
      // Enqueues or closes, if there is something to enqueue or nothing will follow.
      const advance = () => {
        const bytes = frames.pull();
        if (bytes !== null) {
          controller.enqueue(bytes);
        } else if (frames.isOver) {
          view.openStreams -= 1;
          controller.close();
        } else if (frames.isCut) {
          view.openStreams -= 1;
          controller.error(readerTooSlow(view.sessionId));
        } else {
          return false;
        }
        return true;
      };
      if (advance()) return undefined;
      return new Promise((done) => {
        wake = () => {
          if (!advance()) return;
          stopWaiting();
          done();
        };
        view.news.add(wake);
        if (heartbeatMs > 0) {
          heartbeat = setTimeout(() => {
            stopWaiting();
            controller.enqueue(HEARTBEAT);
            done();
          }, heartbeatMs);
          heartbeat.unref();
        }
      });
    },
    cancel() {
      frames.close();
      view.openStreams -= 1;
      stopWaiting();
    },
  };
  view.openStreams += 1;
  // Nothing is pulled before somebody reads: a reader that stops costs its cursor.
  return { stream: new ReadableStream(source, { highWaterMark: 0 }), isResumed };
}

function createRunStream(sessionId, options) {
  checkString('sessionId', sessionId);
  const checked = readOptions(options);
  const view = getHub().find(sessionId);
  return view ? open(view, checked).stream : null;
}

function createRunResponse(sessionId, options = {}) {
  checkString('sessionId', sessionId);
  const { request, headers, status = 200, ...rest } = checkObject('options', options);
  const fromRequest = request?.headers?.get('last-event-id') ?? undefined;
  const checked = readOptions({ ...rest, lastEventId: rest.lastEventId ?? fromRequest });
  const isAiSdk = checked.protocol === 'ai-sdk';
  const view = getHub().find(sessionId);
  if (!view) {
    return isAiSdk
      ? new Response(null, { status: 204, headers })
      : Response.json({ active: false }, { status: 404, headers });
  }
  const { stream, isResumed } = open(view, checked);
  const all = new Headers({
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    'x-run-active': String(view.isRunning),
  });
  if (isAiSdk) all.set('x-vercel-ai-ui-message-stream', 'v1');
  if (isResumed !== undefined) all.set('x-run-resumed', String(isResumed));
  new Headers(headers).forEach((value, name) => all.set(name, value));
  return new Response(stream, { status, headers: all });
}

module.exports = { createRunStream, createRunResponse };
