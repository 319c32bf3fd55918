'use strict';

// For browsers: nothing native, nothing of Node, and small. How a reader gets a run to its end over as many connections
// as that takes.

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** How often a silence is checked for, by the clock: timers stand still in a laptop that sleeps. */
const LOOK_MS = 5_000;
/** How many errors of the server in a row end the tries. A network that is away is tried for ever. */
const SERVER_ERRORS = 8;
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

/** Throws what the server answers instead of a run. An HTML page is no run, whatever its status. */
async function check(response) {
  const { ok, status, headers } = response;
  const isPage = /html/.test(headers.get('content-type'));
  if (ok && !isPage) return;
  const text = await response.text().catch(noop);
  throw new RunStreamError((!isPage && text) || `The server answered ${status}${isPage ? ' with a page' : ''}`, status);
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
        if (Date.now() - since >= silenceMs) end(reject)(new Error(`nothing came for ${silenceMs} ms`));
      },
      Math.min(silenceMs, LOOK_MS),
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

/** How much of the run has been delivered: of each text its length, of the rest the number of chunks. */
class Told {
  constructor(other) {
    this.texts = new Map(other?.texts);
    this.others = other?.others ?? 0;
  }

  /** Counts the chunk. Returns what of it goes beyond `had`, which it counts as well: the chunk, a part of it, or nothing. */
  beyond(had, chunk) {
    const { id, delta } = chunk;
    if (typeof delta !== 'string') {
      this.others += 1;
      if (this.others <= had.others) return undefined;
      had.others = this.others;
      return chunk;
    }
    const before = this.texts.get(id) ?? 0;
    const known = had.texts.get(id) ?? 0;
    const now = before + delta.length;
    this.texts.set(id, now);
    if (now <= known) return undefined;
    had.texts.set(id, now);
    return before < known ? { ...chunk, delta: delta.slice(known - before) } : chunk;
  }
}

/**
 * The chunks of a run to its end. `connect(lastEventId, signal)` asks for them; `first` is an answer that is there already.
 * `reader.lastEventId` is kept up to date.
 */
async function* follow(reader, connect, { silenceMs, signal, onReconnect }, first) {
  const had = new Told();
  let response = first;
  let messageId;
  let runId;
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
        if (attempt === 0 && reader.lastEventId === undefined) return;
        throw new RunStreamError('The run can no longer be resumed: load the messages', 204);
      }
      await check(response);
      const id = response.headers.get('x-run-id') ?? runId;
      if (runId !== undefined && id !== runId) throw anotherRun();
      runId = id;
      bytes = response.body.getReader();
      let chunks = [];
      const parse = parser((eventId, data) => chunks.push([eventId, data]));
      const decoder = new TextDecoder();
      let told;
      let isOver = false;
      while (!isOver) {
        const { value, done } = await within(silenceMs, signal, bytes.read());
        if (done) break;
        // Heartbeats, too: a run may be quiet for longer than any connection lasts.
        attempt = serverErrors = 0;
        parse(decoder.decode(value, { stream: true }));
        const ready = chunks;
        chunks = [];
        for (const [eventId, data] of ready) {
          let chunk;
          if (data === '[DONE]') isOver = true;
          else if (data !== undefined) {
            chunk = JSON.parse(data);
            if (chunk.type === 'start') {
              if (messageId !== undefined && chunk.messageId !== messageId) throw anotherRun();
              // Replayed from the beginning: what was delivered is left out.
              told = new Told();
              messageId = chunk.messageId;
            }
            told ??= new Told(had);
            chunk = told.beyond(had, chunk);
            isOver = chunk?.type === 'finish';
          }
          if (eventId !== undefined) reader.lastEventId = eventId;
          if (chunk !== undefined) yield chunk;
          if (isOver) return;
        }
      }
      // Of a stream without ids the end of the bytes is the end.
      if (isOver || (reader.lastEventId === undefined && told !== undefined && messageId === undefined)) return;
      cause = new Error('the connection ended early');
    } catch (error) {
      if (signal.aborted) throw abortError();
      const isPassing = attempt > 0 && isServers(error) && (serverErrors += 1) < SERVER_ERRORS;
      if (!isPassing && (error instanceof RunStreamError || error instanceof SyntaxError)) throw error;
      cause = error;
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
const isServers = ({ status }) => status >= 500 || status === 408 || status === 429 || status === 200;
const anotherRun = () => new RunStreamError('The chat has another run: load the messages');

const resolved = async (value, argument) => (typeof value === 'function' ? value(argument) : value);

async function headersOf(...sources) {
  const all = new Headers();
  for (const source of sources) {
    const headers = await resolved(source);
    if (headers) new Headers(headers).forEach((value, name) => all.set(name, value));
  }
  return all;
}

const cursor = (lastEventId) => lastEventId !== undefined && { 'last-event-id': lastEventId };

function checkSilence(silenceMs = DEFAULT_SILENCE_MS) {
  if (!(silenceMs > 0)) throw new TypeError('silenceMs: must be above 0 ms');
  return silenceMs;
}

function readRun(url, { lastEventId, headers, fetch, silenceMs, signal, onReconnect } = {}) {
  const options = { silenceMs: checkSilence(silenceMs), signal: signal ?? new AbortController().signal, onReconnect };
  const reader = { lastEventId: lastEventId ?? undefined };
  const connect = async (id, connected) =>
    (fetch ?? globalThis.fetch)(url, {
      headers: await headersOf(headers, cursor(id)),
      signal: connected,
    });
  reader[Symbol.asyncIterator] = () => follow(reader, connect, options);
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
    // Which is to stop the run before this one, and else would have this message refused.
    await this.#stopping.get(chatId);
    if (abortSignal?.aborted) throw abortError();
    const post = new AbortController();
    const said = { ...body, id: chatId, messages, trigger, messageId };
    const sent = this.#post(this.#options.api, headers, said, { signal: post.signal });
    return this.#read(chatId, headers, abortSignal, sent, async (signal) => {
      const { silenceMs } = this.#options;
      const response = await within(silenceMs, signal, sent).catch((error) => {
        // Unless it was stopped: what is on its way is to arrive before the stop does.
        if (!signal.aborted) post.abort();
        return this.#search(chatId, messages.at(-1)?.id, headers, signal, error);
      });
      await check(response);
      if (response.status !== 204) return response;
      throw new RunStreamError('The message was answered before: load the messages', 204);
    });
  }

  async reconnectToStream({ chatId, abortSignal, headers }) {
    return this.#read(chatId, headers, abortSignal, undefined, async (signal) => {
      const response = await within(this.#options.silenceMs, signal, this.#connect(chatId, headers, undefined, signal));
      await check(response);
      return response.status === 204 ? null : response;
    });
  }

  /** Reads the chat's run no further, as when its page is left. The run goes on. */
  leave(chatId) {
    this.#readers.get(chatId)?.abort();
  }

  async stop(chatId, { headers } = {}) {
    const url = await this.#url('stop', chatId);
    for (let attempt = 1; ; attempt++) {
      try {
        return await check(await this.#post(url, headers, { id: chatId }, { keepalive: true }));
      } catch (error) {
        if (attempt >= SERVER_ERRORS || (error instanceof RunStreamError && !isServers(error))) throw error;
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
    return this.#fetch(await this.#url('stream', chatId), headers, cursor(lastEventId), { signal });
  }

  /**
   * The stream that `open` gets the first response of; `null` where that is none. The chat aborts its signal to stop the
   * run, and when another reader takes its place, which is no reason to stop the run.
   */
  async #read(chatId, headers, chatSignal, sent, open) {
    const before = this.#readers.get(chatId);
    const stopped = new AbortController();
    this.#readers.set(chatId, stopped);
    const isLast = () => this.#readers.get(chatId) === stopped;
    const stopUnlessReplaced = async () => {
      await new Promise((resolve) => setTimeout(resolve));
      if (!isLast()) return;
      // A run that is about to begin is stopped when it has begun.
      if (sent) await within(this.#options.silenceMs, undefined, sent).catch(noop);
      await this.stop(chatId, { headers }).catch(console.error);
    };
    const unlisten = onAbort(chatSignal, () => {
      stopped.abort();
      if (isLast()) this.#stopping.set(chatId, stopUnlessReplaced());
    });
    const unlink = () => {
      unlisten();
      // The one before may still be reading.
      if (isLast() && !stopped.signal.aborted) this.#readers.set(chatId, before);
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
            controller.error(error);
          }
          unlink();
        },
        cancel() {
          unlink();
          stopped.abort();
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
