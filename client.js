'use strict';

// For browsers: nothing native, nothing of Node, and small. How a reader gets a run to its end over as many connections
// as that takes.

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** How often a silence is checked for, by the clock: timers stand still in a laptop that sleeps. */
const CHECK_MS = 5_000;
/** How many errors of the server in a row end the tries. A network that is away is tried for ever. */
const MAX_TRIES = 8;
/** Tries to find the run of a message whose request was lost. */
const SEARCHES = 4;
const DEFAULT_SILENCE_MS = 40_000;

const OPEN = new Set(['streaming', 'input-streaming', 'input-available']);

function dropOpenParts(message) {
  const firstOpen = message.parts.findIndex((part) => OPEN.has(part.state));
  return firstOpen === -1 ? message : { ...message, parts: message.parts.slice(0, firstOpen) };
}

/** An end that no further try can change. */
class RunStreamError extends Error {
  constructor(message, status) {
    super(message);
    this.name = 'RunStreamError';
    this.status = status;
  }
}

const abortError = () => new DOMException('Aborted', 'AbortError');
const noop = () => {};

/** Calls `listener` when the signal is aborted, or is so already. Returns what takes that back. */
function onAbort(signal, listener) {
  signal?.addEventListener('abort', listener);
  if (signal?.aborted) listener();
  return () => signal?.removeEventListener('abort', listener);
}

/** Waits before a try: longer each time, shorter when the network comes back or the signal is aborted. */
function pause(attempt, signal) {
  const longest = Math.min(FIRST_PAUSE_MS * 2 ** (attempt - 1), LONGEST_PAUSE_MS);
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.('online', end);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, (longest * (1 + Math.random())) / 2);
    globalThis.addEventListener?.('online', end);
    onAbort(signal, end);
  });
}

/** Throws what the server answers instead of a run. What is of one of the `others` types is no run, whatever its status. */
async function check(response, silenceMs, signal, others = /html|json/) {
  const { ok, status, headers } = response;
  const type = headers.get('content-type');
  const isOther = ok && others.test(type);
  if (ok && !isOther) return;
  const text = !isOther && !/html/.test(type) && (await within(silenceMs, signal, response.text()).catch(noop));
  throw new RunStreamError(text || `The server answered ${status}${isOther ? ` with ${type}` : ''}`, status);
}

/** What `work` gives, unless that takes too long by the clock, or the signal, if there is one, is aborted. */
function within(silenceMs, signal, work) {
  return new Promise((resolve, reject) => {
    const since = Date.now();
    const end = (settle) => (value) => {
      clearInterval(timer);
      signal?.removeEventListener('abort', abort);
      settle(value);
    };
    const abort = end(() => reject(abortError()));
    const timer = setInterval(
      () => {
        if (Math.abs(Date.now() - since) >= silenceMs) end(reject)(new Error(`nothing came for ${silenceMs} ms`));
      },
      Math.min(silenceMs, CHECK_MS),
    );
    onAbort(signal, abort);
    work.then(end(resolve), end(reject));
  });
}

/** Cuts server-sent events out of text that comes in pieces, and gives each `(id, data)` to `onFrame`. */
function parser(onFrame) {
  let rest = '';
  let id;
  let data;
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (id !== undefined || data !== undefined) onFrame(id, data);
        id = data = undefined;
      } else if (line.startsWith('data:')) {
        const value = line.slice(line[5] === ' ' ? 6 : 5);
        data = data === undefined ? value : `${data}\n${value}`;
      } else if (line.startsWith('id:')) {
        id = line.slice(3).trim();
      }
    }
  };
}

/**
 * The chunks of a run to its end. `connect(lastEventId, signal)` asks for them; `first` is an answer that is there already.
 * `reader.lastEventId` is kept up to date.
 */
async function* follow(reader, connect, { silenceMs, signal, onReconnect }, first) {
  let response = first;
  let hasBegun = false;
  let runId = reader.lastEventId?.split('-')[0];
  let attempt = 0;
  let serverErrors = 0;
  for (;;) {
    const connection = new AbortController();
    const unlink = onAbort(signal, () => connection.abort());
    let bytes;
    let cause;
    try {
      response ??= await within(silenceMs, signal, connect(reader.lastEventId, connection.signal));
      if (response.status === 204) {
        if (runId === undefined) return;
        throw new RunStreamError('The run can no longer be resumed: load the messages', 204);
      }
      await check(response, silenceMs, signal);
      const id = response.headers.get('x-run-id') ?? runId;
      if (runId !== undefined && id !== runId) throw anotherRun();
      runId = id;
      bytes = response.body.getReader();
      let frames = [];
      const parse = parser((...frame) => frames.push(frame));
      const decoder = new TextDecoder();
      for (;;) {
        const { value, done } = await within(silenceMs, signal, bytes.read());
        if (done) break;
        const text = decoder.decode(value, { stream: true });
        // Heartbeats, too: a run may be quiet for longer than any connection lasts.
        if (/^(:|id|data)/m.test(text)) attempt = serverErrors = 0;
        parse(text);
        const ready = frames;
        frames = [];
        for (const [eventId, data] of ready) {
          const isEnd = data === '[DONE]';
          const chunk = data && !isEnd ? JSON.parse(data) : undefined;
          // Another run's, or of a route that cannot resume: nothing is to be read twice.
          if (hasBegun && chunk?.type === 'start') throw anotherRun();
          hasBegun ||= chunk !== undefined;
          reader.lastEventId = eventId ?? reader.lastEventId;
          runId ??= eventId?.split('-')[0];
          if (chunk) yield chunk;
          if (isEnd || chunk?.type === 'finish') return;
        }
      }
      // Of a stream without ids the end of the bytes is the end.
      if (hasBegun && reader.lastEventId === undefined) return;
      cause = new Error('the connection ended');
    } catch (error) {
      if (signal.aborted) throw abortError();
      cause = error;
      const isPassing = isServerError(error) && (serverErrors += 1) < MAX_TRIES;
      const cannotResume = hasBegun && reader.lastEventId === undefined;
      if (!isPassing && (cannotResume || error instanceof RunStreamError || error instanceof SyntaxError)) throw error;
    } finally {
      unlink();
      bytes?.cancel().catch(noop);
      connection.abort();
    }
    response = undefined;
    attempt += 1;
    onReconnect?.({ attempt, cause });
    await pause(attempt, signal);
  }
}

/** Whether the server may recover from it. An error with status 200 is a page, such as a captive portal's. */
const isServerError = ({ status }) => status >= 500 || status === 408 || status === 429 || status === 200;
const anotherRun = () => new RunStreamError('Another run, or a route that does not resume: load the messages');

const resolved = async (value, argument) => (typeof value === 'function' ? value(argument) : value);

async function headersOf(...sources) {
  const all = new Headers();
  for (const source of sources) {
    const headers = await resolved(source);
    if (headers) new Headers(headers).forEach((value, name) => all.set(name, value));
  }
  return all;
}

const cursorHeader = (lastEventId) => lastEventId !== undefined && { 'last-event-id': lastEventId };

function checkSilence(silenceMs = DEFAULT_SILENCE_MS) {
  if (!(silenceMs > 0)) throw new TypeError('silenceMs: must be above 0 ms');
  return silenceMs;
}

function readRun(url, { lastEventId, headers, fetch, silenceMs, signal, onReconnect } = {}) {
  const options = { silenceMs: checkSilence(silenceMs), signal: signal ?? new AbortController().signal, onReconnect };
  const reader = { lastEventId: lastEventId ?? undefined };
  const connect = async (id, connected) =>
    (fetch ?? globalThis.fetch)(url, {
      headers: await headersOf(headers, cursorHeader(id)),
      signal: connected,
    });
  const chunks = follow(reader, connect, options);
  reader[Symbol.asyncIterator] = () => chunks;
  return reader;
}

class RunChatTransport {
  /** What the chat of the SDK asks: whether a resumed stream begins at the beginning. */
  resumeStreamIsReplay = true;
  #options;
  /** By chat, who reads its run: a later reader is no reason to stop it. */
  #readers = new Map();
  /** By chat, the stop that may be under way. */
  #stopping = new Map();

  constructor(options = {}) {
    this.#options = { ...options, api: options.api ?? '/api/chat', silenceMs: checkSilence(options.silenceMs) };
  }

  async sendMessages({ chatId, messages, abortSignal, trigger, messageId, headers, body }) {
    const { api, silenceMs } = this.#options;
    // The stop is for the run before this one, and else would have this message refused.
    await within(silenceMs, abortSignal, Promise.resolve(this.#stopping.get(chatId))).catch(noop);
    if (abortSignal?.aborted) throw abortError();
    const post = new AbortController();
    const request = { ...body, id: chatId, messages, trigger, messageId };
    const sent = this.#post(api, headers, request, { signal: post.signal });
    return this.#read(chatId, headers, abortSignal, sent, async (signal) => {
      const response = await within(silenceMs, signal, sent).catch((error) => {
        // Unless it was stopped: what is on its way is to arrive before the stop does.
        if (!signal.aborted) post.abort();
        // A run that is there answers the message as it was before.
        if (messageId || trigger === 'regenerate-message') throw error;
        return this.#search(chatId, messages.at(-1)?.id, headers, signal, error);
      });
      await check(response, silenceMs, signal);
      if (response.status !== 204) return response;
      throw new RunStreamError('The message was answered before: load the messages', 204);
    });
  }

  async reconnectToStream({ chatId, abortSignal, headers }) {
    const { silenceMs } = this.#options;
    return this.#read(chatId, headers, abortSignal, undefined, async (signal) => {
      const response = await within(silenceMs, signal, this.#connect(chatId, headers, undefined, signal));
      await check(response, silenceMs, signal);
      return response.status === 204 ? null : response;
    });
  }

  /** Reads the chat's run no further, as when its page is left. The run goes on. */
  leave(chatId) {
    this.#readers.get(chatId)?.abort();
  }

  async stop(chatId, { headers } = {}) {
    const { silenceMs } = this.#options;
    const url = await this.#url('stop', chatId);
    for (let attempt = 1; ; attempt++) {
      try {
        const post = this.#post(url, headers, { id: chatId }, { keepalive: true });
        return await check(await within(silenceMs, undefined, post), silenceMs, undefined, /html/);
      } catch (error) {
        if (attempt >= MAX_TRIES || (error instanceof RunStreamError && !isServerError(error))) throw error;
      }
      await pause(attempt);
    }
  }

  #url(what, chatId) {
    const { api, [`${what}Api`]: given } = this.#options;
    return resolved(given ?? `${api}/${encodeURIComponent(chatId)}/${what}`, chatId);
  }

  /** Asks with the headers of all that the app has given. */
  async #fetch(url, headers, more, init) {
    const { headers: ofAll, fetch = globalThis.fetch } = this.#options;
    return fetch(url, { ...init, headers: await headersOf(ofAll, headers, more) });
  }

  #post(url, headers, body, init) {
    const json = { 'content-type': 'application/json' };
    return this.#fetch(url, headers, json, { ...init, method: 'POST', body: JSON.stringify(body) });
  }

  async #connect(chatId, headers, lastEventId, signal) {
    return this.#fetch(await this.#url('stream', chatId), headers, cursorHeader(lastEventId), { signal });
  }

  /**
   * The stream that `open` gets the first response of; `null` where that is none. The chat aborts its signal to stop the
   * run, and when another reader takes its place, which is no reason to stop the run.
   */
  async #read(chatId, headers, chatSignal, sent, open) {
    const before = this.#readers.get(chatId);
    const stopped = new AbortController();
    this.#readers.set(chatId, stopped);
    const stopUnlessReplaced = async (last) => {
      await new Promise((resolve) => setTimeout(resolve));
      if (this.#readers.get(chatId) !== last) return;
      // A run that is about to begin is stopped when it has begun; where the message was refused, it is another's.
      const response = sent && (await within(this.#options.silenceMs, undefined, sent).catch(noop));
      if (response?.ok !== false) await this.stop(chatId, { headers }).catch(console.error);
    };
    const unlisten = onAbort(chatSignal, () => {
      stopped.abort();
      this.#stopping.set(chatId, stopUnlessReplaced(this.#readers.get(chatId)));
    });
    const unlink = () => {
      unlisten();
      // The one before may still be reading.
      const isLast = this.#readers.get(chatId) === stopped;
      if (isLast && !stopped.signal.aborted) this.#readers.set(chatId, before);
    };
    let stream = null;
    try {
      const first = await open(stopped.signal);
      if (first) stream = this.#stream(chatId, first, headers, stopped, unlink);
      return stream;
    } finally {
      if (!stream) unlink();
    }
  }

  /** The response of the run of this message, whose request was lost. */
  async #search(chatId, userMessageId, headers, signal, error) {
    for (let search = 1; search <= SEARCHES && !signal.aborted; search++) {
      const connection = new AbortController();
      const response = await within(
        this.#options.silenceMs,
        signal,
        this.#connect(chatId, headers, undefined, connection.signal),
      ).catch(noop);
      if (response?.ok && response.headers.get('x-run-user-message') === encodeURIComponent(userMessageId)) {
        return response;
      }
      connection.abort();
      if (search < SEARCHES) await pause(search + 1, signal);
    }
    throw signal.aborted ? abortError() : error;
  }

  #stream(chatId, first, headers, stopped, unlink) {
    const options = {
      ...this.#options,
      signal: stopped.signal,
      onReconnect: (event) => this.#options.onReconnect?.({ chatId, ...event }),
    };
    const chunks = follow({}, (id, signal) => this.#connect(chatId, headers, id, signal), options, first);
    let isAborted = false;
    return new ReadableStream(
      {
        async pull(controller) {
          try {
            const { value, done } = await chunks.next();
            if (!done) {
              isAborted ||= value.type === 'abort';
              controller.enqueue(value);
              return;
            }
            // The chat takes this for a stop. It ignores the chunk itself.
            if (isAborted) throw abortError();
            controller.close();
          } catch (error) {
            controller.error(isAborted ? abortError() : error);
          }
          unlink();
        },
        cancel() {
          unlink();
          stopped.abort();
          chunks.return().catch(noop);
          first.body.cancel().catch(noop);
        },
      },
      { highWaterMark: 0 },
    );
  }
}

exports.RunChatTransport = RunChatTransport;
exports.RunStreamError = RunStreamError;
exports.dropOpenParts = dropOpenParts;
exports.readRun = readRun;
