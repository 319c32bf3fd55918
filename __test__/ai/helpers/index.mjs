// What the tests with the AI SDK share: the SDK of the major under test, chats without React, a chat server.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';
import { onTestFinished } from 'vitest';
import { until } from '../../helpers/index.mjs';

/** The major of `ai` that is under test. */
export const major = Number(process.env.AI_UNDER_TEST || 6);
export const ai = await import(major === 6 ? 'ai' : `ai-${major}`);
export const client = createRequire(import.meta.url)('../../../client.js');

// ── Chats ──

/** The state of a chat, which React has in the SDK's own hook. */
class State {
  status = 'ready';
  error = undefined;
  snapshot = structuredClone;

  constructor(messages) {
    this.messages = messages;
  }

  pushMessage(message) {
    this.messages = [...this.messages, message];
  }

  popMessage() {
    this.messages = this.messages.slice(0, -1);
  }

  replaceMessage(index, message) {
    this.messages = this.messages.with(index, message);
  }
}

export class Chat extends ai.AbstractChat {
  /** What `onFinish` was told, one for each time. */
  finished;

  constructor({ messages = [], ...options }) {
    const finished = [];
    super({
      ...options,
      state: new State(structuredClone(messages)),
      onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
        finished.push({ isAbort, isDisconnect, isError, finishReason }),
    });
    this.finished = finished;
  }

  /** Sends the user's message that a run of the server's answers. */
  ask(options) {
    return this.sendMessage({ id: 'question', role: 'user', parts: [{ type: 'text', text: 'a question' }] }, options);
  }
}

/** What a user sees of a chat in the end. */
export const shown = (chat) => ({
  messages: chat.messages.map(({ id, role, parts, metadata }) => ({ id, role, parts, metadata })),
  status: chat.status,
  error: chat.error?.message,
  finished: chat.finished.at(-1),
});

/** Whether two values are the same JSON: so that thousands can be compared. */
export const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** Calls `work` for each job, so many at a time. */
export async function inParallel(jobs, atOnce, work) {
  const left = jobs.values();
  const worker = async () => {
    for (const job of left) await work(job);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/**
 * `fetch` as browsers have it: of a body that breaks off they say that the network failed, by which the SDK knows that it
 * can go on. Node says that the body was "terminated".
 */
export async function browserFetch(url, init) {
  const response = await fetch(url, init);
  if (response.body === null) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        controller.error(error.name === 'AbortError' ? error : new TypeError('network error'));
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const { status, headers } = response;
  return new Response(body, { status, headers });
}

// ── The server ──

/** A chat server in a process of its own, which ends with `stop`. */
export async function startServer({ port = 0, settings }) {
  const child = fork(fileURLToPath(new URL('chat-server.mjs', import.meta.url)), [JSON.stringify({ port, settings })], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors = (errors + text).slice(-4_000);
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  const at = await new Promise((resolve, reject) => {
    child.once('message', ({ port: listening }) => resolve(listening));
    ended.then(() => reject(new Error(`the chat server ended: ${errors}`)));
  });
  const api = `http://127.0.0.1:${at}/api/chat`;
  const path = (id, what) => `${api}/${encodeURIComponent(id)}/${what}`;
  const get = async (id, what) => (await fetch(path(id, what))).json();
  const post = async (id, what, body) => (await fetch(path(id, what), { method: 'POST', body: JSON.stringify(body) })).json();
  return {
    api,
    port: at,
    path,
    messages: (id) => get(id, 'messages'),
    stored: (id) => get(id, 'stored'),
    run: (id) => get(id, 'run'),
    emit: (id, chunk) => post(id, 'emit', chunk),
    configure: (values) => post('all', 'settings', values),
    hasEnded: (id) =>
      until(async () => {
        const { status, end } = await get(id, 'run');
        return status !== 'running' && end;
      }, `the run of ${id} ended`),
    kill: () => {
      child.kill('SIGKILL');
      return ended;
    },
    stop: async () => {
      child.disconnect();
      await ended;
    },
  };
}

/** A chat server that ends with the test. */
export async function serverOfTest(options) {
  const server = await startServer(options);
  onTestFinished(() => server.kill());
  return server;
}
