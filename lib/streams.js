'use strict';

// A run as a response body. The native part encodes each event once, whoever reads; `lib/readers.js` says
// who gets bytes when; here is where they go: into a stream, or straight into a response of `node:http`.

const { validateHeaderValue } = require('node:http');
const { checkObject, checkOptionalString, checkString, shown } = require('./arguments.js');
const { invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { copyOf } = require('./readers.js');
const { LONGEST_MS } = require('./settings.js');

const DEFAULT_HEARTBEAT_MS = 15_000;
/** Statuses of responses that have no body. */
const BODILESS = [204, 205, 304];
const RESUME_HEADER = 'last-event-id';

function readOptions(options = {}) {
  const { replay = true, lastEventId, protocol = 'module', resume = 'exact' } = checkObject('options', options);
  const { heartbeatMs = DEFAULT_HEARTBEAT_MS } = options;
  if (replay !== true && replay !== false && replay !== 'compact') {
    throw invalidArgument('replay', `must be true, false or "compact", not ${shown(replay)}`);
  }
  if (protocol !== 'module' && protocol !== 'ai-sdk') {
    throw invalidArgument('protocol', `must be "module" or "ai-sdk", not ${shown(protocol)}`);
  }
  if (resume !== 'exact' && resume !== 'rewind') {
    throw invalidArgument('resume', `must be "exact" or "rewind", not ${shown(resume)}`);
  }
  if (!Number.isInteger(heartbeatMs) || heartbeatMs < 0 || heartbeatMs > LONGEST_MS) {
    throw invalidArgument('heartbeatMs', `must be a whole number from 0 to ${LONGEST_MS}`);
  }
  return {
    replay,
    protocol,
    resume,
    heartbeatMs,
    lastEventId: checkOptionalString('lastEventId', lastEventId),
  };
}

/** The options of a response: those of the stream, and the checked status and headers. */
function readResponseOptions(options, defaultRequest) {
  const { request, headers, status = 200, ...rest } = checkObject('options', options);
  if (!Number.isInteger(status) || status < 200 || status > 599 || BODILESS.includes(status)) {
    const reason = `must be a whole number from 200 to 599, of a response that has a body, not ${shown(status)}`;
    throw invalidArgument('status', reason);
  }
  const fromRequest = resumeHeader(request ?? defaultRequest);
  return {
    ...readOptions({ ...rest, lastEventId: rest.lastEventId ?? fromRequest }),
    status,
    headers: readHeaders(headers),
  };
}

function readHeaders(headers) {
  if (headers === undefined || headers === null) return new Headers();
  try {
    const read = new Headers(headers);
    // `node:http` allows less.
    read.forEach((value, name) => validateHeaderValue(name, value));
    return read;
  } catch (error) {
    throw invalidArgument('headers', `cannot be used as headers: ${error.message}`);
  }
}

/** `Last-Event-ID` of a `Request`, or of an `IncomingMessage`, whose headers are an object. */
function resumeHeader(request) {
  if (request === undefined || request === null) return undefined;
  const { headers } = checkObject('request', request);
  checkObject('request.headers', headers);
  const value = typeof headers.get === 'function' ? headers.get(RESUME_HEADER) : headers[RESUME_HEADER];
  return checkOptionalString(`request.headers["${RESUME_HEADER}"]`, value);
}

/** Adds a reader to the view's run. Says whether it goes on after `lastEventId`, if that is given. */
function open(view, { replay, protocol, resume, heartbeatMs, lastEventId }) {
  const { frames, isResumed } = view.openFrames({ replay, lastEventId, protocol, resume });
  const { readers } = getHub();
  const isAiSdk = protocol === 'ai-sdk';
  return { readers, reader: readers.open(view, { frames, isAiSdk, heartbeatMs }), isResumed };
}

function streamOf({ readers, reader }) {
  // Ends a pull that is under way. While one is, the stream does not pull again, and what comes live is enqueued at once:
  // a pull for each chunk would be a third of what a chunk costs.
  let endPull = null;
  const stopPulling = () => {
    endPull?.();
    endPull = null;
  };
  const source = {
    start(controller) {
      reader.sink = {
        write: (bytes, isShared) => {
          controller.enqueue(isShared ? copyOf(bytes) : bytes);
          // Below 0 nobody waited for it: then the stream pulls when it is read. So a reader that stops has one live chunk
          // in its queue at most.
          if (isShared && controller.desiredSize === 0) return true;
          stopPulling();
          return false;
        },
        end: () => {
          controller.close();
          stopPulling();
        },
        fail: (error) => controller.error(error),
      };
    },
    pull() {
      readers.want(reader);
      if (!reader.isWanting) return undefined;
      return new Promise((resolve) => {
        endPull = resolve;
      });
    },
    cancel: () => readers.close(reader),
  };
  // Nothing is pulled before somebody reads: a reader that stops costs its cursor.
  return new ReadableStream(source, { highWaterMark: 0 });
}

function createRunStream(sessionId, options) {
  checkString('sessionId', sessionId);
  const checked = readOptions(options);
  const view = getHub().find(sessionId);
  return view ? streamOf(open(view, checked)) : null;
}

/** The headers of a response with a run; those that the caller has given go before. */
function headersOf(view, { protocol, headers }, isResumed) {
  const all = new Headers({
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    'x-run-active': String(view.isRunning),
  });
  if (protocol === 'ai-sdk') {
    all.set('x-vercel-ai-ui-message-stream', 'v1');
    all.set('x-run-id', String(view.stamp));
    // Headers take no other characters.
    if (view.userMessageId !== undefined) all.set('x-run-user-message', encodeURIComponent(view.userMessageId));
  }
  if (isResumed !== undefined) all.set('x-run-resumed', String(isResumed));
  return withHeaders(all, headers);
}

function withHeaders(all, headers) {
  headers.forEach((value, name) => {
    // There may be several of these, and they are not joined.
    if (name === 'set-cookie') all.append(name, value);
    else all.set(name, value);
  });
  return all;
}

/** What is answered when there is no run. */
function noRun({ protocol, headers }) {
  if (protocol === 'ai-sdk') return { status: 204, headers, body: null };
  const json = new Headers({ 'content-type': 'application/json' });
  return { status: 404, headers: withHeaders(json, headers), body: '{"active":false}' };
}

function createRunResponse(sessionId, options = {}) {
  checkString('sessionId', sessionId);
  const checked = readResponseOptions(options);
  const view = getHub().find(sessionId);
  if (!view) {
    const { status, headers, body } = noRun(checked);
    return new Response(body, { status, headers });
  }
  const opened = open(view, checked);
  const headers = headersOf(view, checked, opened.isResumed);
  return new Response(streamOf(opened), { status: checked.status, headers });
}

function checkResponse(response) {
  checkObject('response', response);
  for (const name of ['writeHead', 'write', 'end', 'on', 'destroy']) {
    if (typeof response[name] !== 'function') {
      const reason = `must be a ServerResponse (Fastify has it as reply.raw), but has no ${name}()`;
      throw invalidArgument('response', reason);
    }
  }
  if (response.headersSent || response.writableEnded) {
    throw invalidArgument('response', 'was begun already: its headers are sent');
  }
  return response;
}

/** Headers as `writeHead` takes them. */
function plainHeaders(headers) {
  const plain = Object.fromEntries(headers);
  const cookies = headers.getSetCookie();
  if (cookies.length > 0) plain['set-cookie'] = cookies;
  return plain;
}

function pipeRun(sessionId, response, options = {}) {
  checkString('sessionId', sessionId);
  checkResponse(response);
  const checked = readResponseOptions(options, response.req);
  // The client has gone already.
  if (response.destroyed) return Promise.resolve(false);
  const view = getHub().find(sessionId);
  if (!view) {
    const { status, headers, body } = noRun(checked);
    response.writeHead(status, plainHeaders(headers));
    response.end(body ?? undefined);
    return Promise.resolve(false);
  }
  const opened = open(view, checked);
  try {
    response.writeHead(checked.status, plainHeaders(headersOf(view, checked, opened.isResumed)));
  } catch (error) {
    opened.readers.close(opened.reader);
    throw error;
  }
  return pipe(opened, response);
}

/** Sockets with responses that wait for their turn (pipelining), and what is to be called when they close. */
const queued = new WeakMap();

/** Calls `stop` when the client of a response goes that has no socket yet: it has no `close` then. */
function whenQueuedCloses(response, stop) {
  const socket = response.req?.socket;
  if (typeof socket?.once !== 'function') return;
  let calls = queued.get(socket);
  if (!calls) {
    calls = new Set();
    queued.set(socket, calls);
    socket.once('close', () => calls.forEach((call) => call()));
  }
  calls.add(stop);
  response.once('socket', () => calls.delete(stop));
  response.once('close', () => calls.delete(stop));
}

/** Resolves at the end of the response with whether all was sent. */
function pipe({ readers, reader }, response) {
  return new Promise((resolve) => {
    const stop = () => {
      readers.close(reader);
      resolve(false);
    };
    /** What is put around a response may throw: that ends this one, and concerns nobody else. */
    const attempt = (call) => {
      try {
        call();
        return true;
      } catch (error) {
        stop();
        try {
          response.destroy(error);
        } catch {
          // There is nothing more to be done for it.
        }
        return false;
      }
    };
    // Of a connection that breaks, it comes before or after `close`; without a listener it would end the process.
    response.on('error', stop);
    response.on('close', stop);
    response.on('finish', () => resolve(true));
    if (!response.socket) whenQueuedCloses(response, stop);
    reader.sink = {
      write: (bytes) => {
        let wantsMore = false;
        // Else somebody else has ended it.
        const isOpen = !response.writableEnded && !response.destroyed;
        if (isOpen && attempt(() => (wantsMore = response.write(bytes)))) return wantsMore;
        stop();
        return false;
      },
      end: () => attempt(() => response.end()),
      fail: () => attempt(() => response.destroy()),
    };
    if (response.req?.method === 'HEAD') {
      readers.close(reader);
      attempt(() => response.end());
      return;
    }
    response.on('drain', () => readers.want(reader));
    // The reader sees that it is connected, also while the run is silent.
    if (attempt(() => response.flushHeaders?.())) readers.want(reader);
  });
}

module.exports = { createRunStream, createRunResponse, pipeRun };
