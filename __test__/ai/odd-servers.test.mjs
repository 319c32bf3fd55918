// Servers, proxies and networks that do what they should not.
import { createServer } from 'node:http';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { until } from '../helpers/index.mjs';
import { counting } from './helpers/cuts.mjs';
import { ai, Chat, client } from './helpers/index.mjs';

afterEach(() => vi.useRealTimers());

/** A server that answers the requests one after the other with these; the last of them has all that come later. */
async function scripted(...answers) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push({ method: request.method, url: request.url, cursor: request.headers['last-event-id'] });
    answers[Math.min(requests.length, answers.length) - 1](response, request);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { api: `http://127.0.0.1:${server.address().port}/api/chat`, requests };
}

const EVENTS = { 'content-type': 'text/event-stream', 'x-run-id': '7' };
const chunks = [
  { type: 'start', messageId: 'answer', messageMetadata: { startedAt: 1 } },
  { type: 'text-start', id: 't' },
  ...['Grüße, ', '世界 ', '🙂', ' and more'].map((delta) => ({ type: 'text-delta', id: 't', delta })),
  { type: 'text-end', id: 't' },
  { type: 'finish', finishReason: 'stop' },
];
const frames = chunks.map((chunk, number) => `id: 7-${number}\ndata: ${JSON.stringify(chunk)}\n\n`);
const WHOLE = 'Grüße, 世界 🙂 and more';
const from = (first, last = frames.length) => frames.slice(first, last).join('');
/** Sends and breaks off. */
const lost = (text) => (response) => response.writeHead(200, EVENTS).write(text, () => response.socket.destroySoon());
/** Sends and ends, as if that were all. */
const ended = (text) => (response) => response.writeHead(200, EVENTS).end(text);
const failing = (status, text = 'an error', headers) => (response) => response.writeHead(status, headers).end(text);
const page = (status) => failing(status, '<!doctype html><title>Log in</title>', { 'content-type': 'text/html; charset=utf-8' });

async function ask(api, options) {
  const chat = new Chat({ id: 'odd', transport: new client.RunChatTransport({ api, ...options }) });
  await chat.ask();
  return chat;
}

const isWhole = (chat) => {
  expect(chat.error).toBeUndefined();
  expect(chat.messages).toHaveLength(2);
  expect(chat.messages[1]).toMatchObject({ id: 'answer', parts: [{ type: 'text', text: WHOLE, state: 'done' }] });
  expect(chat.finished).toMatchObject([{ isAbort: false, isError: false, finishReason: 'stop' }]);
};

it.each([
  ['errors that pass', [failing(500), failing(503), failing(429)]],
  ["a proxy's pages", [page(502), page(504)]],
  ['the page of a network to log in to', [page(200)]],
  ['connections that are closed before a word', [(response) => response.destroy(), (response) => response.socket.end()]],
  ['streams that end without an end', [ended(''), ended(from(3, 4)), ended(': alive\n\n')]],
  ['an answer that is sent elsewhere', [failing(307, '', { location: '/elsewhere' })]],
])('gets over %s', async (_what, answers) => {
  const { api, requests } = await scripted(lost(from(0, 3)), ...answers, (response, request) => {
    ended(from(Number(request.headers['last-event-id'].split('-')[1]) + 1))(response);
  });
  const attempts = [];
  isWhole(await ask(api, { onReconnect: ({ chatId, attempt, cause }) => attempts.push([chatId, attempt, cause]) }));
  expect(requests.map(({ method }) => method)).toEqual(['POST', ...answers.map(() => 'GET'), 'GET']);
  expect(requests[1]).toMatchObject({ url: '/api/chat/odd/stream', cursor: '7-2' });
  for (const [chatId, attempt, cause] of attempts) {
    expect(chatId).toBe('odd');
    expect(attempt).toBeGreaterThan(0);
    expect(cause).toBeInstanceOf(Error);
  }
});

it.each([
  ['a page in the place of the answer', page(200), { status: 200, message: 'The server answered 200 with text/html; charset=utf-8' }],
  ["a proxy's page", page(502), { status: 502, message: 'The server answered 502' }],
  ['an error', failing(500, 'no agent'), { status: 500, message: 'no agent' }],
  ['an error without a word', failing(403, ''), { status: 403, message: 'The server answered 403' }],
])('%s is an error at once', async (_what, answer, error) => {
  const { api, requests } = await scripted(answer);
  const chat = await ask(api);
  expect(chat.error).toBeInstanceOf(client.RunStreamError);
  expect(chat.error).toMatchObject(error);
  expect(chat.messages).toHaveLength(1);
  expect(requests).toHaveLength(1);
});

it.each([
  ['a session that may no longer be read', [failing(403, 'not yours')], { status: 403, message: 'not yours' }],
  ['the run of another message', [ended(from(0).replaceAll('"answer"', '"other"'))], { message: expect.stringContaining('Another run') }],
  ['another run', [(response) => response.writeHead(200, { ...EVENTS, 'x-run-id': '8' }).end(from(3))], { message: expect.stringContaining('Another run') }],
  ['no run', [failing(204, '')], { status: 204, message: expect.stringContaining('load the messages') }],
])('%s in the place of the rest is an error at once', async (_what, answers, error) => {
  const { api, requests } = await scripted(lost(from(0, 4)), ...answers);
  const chat = await ask(api);
  expect(chat.error).toBeInstanceOf(client.RunStreamError);
  expect(chat.error).toMatchObject(error);
  expect(chat.finished).toMatchObject([{ isAbort: false, isError: true }]);
  expect(chat.messages[1].parts).toMatchObject([{ text: 'Grüße, 世界 ' }]);
  expect(requests).toHaveLength(2);
});

it('what is no event of ours is an error, and no endless loop', async () => {
  const { api, requests } = await scripted(ended('data: {"type":\n\n'));
  const chat = await ask(api);
  expect(chat.error).toBeInstanceOf(SyntaxError);
  expect(requests).toHaveLength(1);
});

it.each([
  ['lines that end as on Windows', (text) => text.replaceAll('\n', '\r\n')],
  ['comments, other fields and no spaces', (text) => text.replaceAll('data: ', ': alive\nretry: 5\nevent: message\ndata:')],
  ['a byte order mark', (text) => `\ufeff${text}`],
  ['data in several lines', (text) => text.replaceAll('"type":', '\ndata: "type":')],
])('reads %s', async (_what, change) => {
  const { api } = await scripted(lost(change(from(0, 4))), ended(change(from(4))));
  isWhole(await ask(api));
});

it.each([1, 2, 3, 7])('reads a stream that comes %i bytes at a time', async (size) => {
  const bytes = new TextEncoder().encode(from(0).replaceAll('\n', '\r\n'));
  const body = () => {
    let at = 0;
    return new ReadableStream({
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, (at += size)));
      },
    });
  };
  isWhole(await ask('/api/chat', { fetch: async () => new Response(body(), { headers: EVENTS }) }));
});

it('a route that does not resume is an error, not a doubled answer', async () => {
  for (let cut = 1; cut < frames.length; cut++) {
    const { api } = await scripted(lost(from(0, cut)), ended(from(0)));
    const chat = await ask(api);
    expect(chat.error).toBeInstanceOf(client.RunStreamError);
    expect(chat.error.message).toContain('a route that does not resume');
    const text = chat.messages[1].parts.map((part) => part.text).join('');
    expect(WHOLE.startsWith(text), text).toBe(true);
  }
});

it('a run that is told in JSON is none', async () => {
  const { api, requests } = await scripted(failing(200, '{"active":false}', { 'content-type': 'application/json' }));
  const chat = await ask(api);
  expect(chat.error).toMatchObject({ name: 'RunStreamError', status: 200, message: 'The server answered 200 with application/json' });
  expect(requests).toHaveLength(1);
});

it.each([
  ['a question that is asked again', (chat) => chat.regenerate()],
  ['a question that is changed', (chat) => chat.sendMessage({ text: 'another question', messageId: chat.messages[0].id })],
])('the answer before is not taken for that of %s, whose request is lost', async (_what, again) => {
  const { api, requests } = await scripted(ended(from(0)), (response) => response.destroy(), (response) => {
    response.writeHead(200, { ...EVENTS, 'x-run-user-message': 'any' }).end(from(0));
  });
  const chat = await ask(api);
  await again(chat);
  expect(chat.error).toBeDefined();
  expect(requests.map(({ method }) => method)).toEqual(['POST', 'POST']);
});

it('a stop whose request goes nowhere is sent again, and holds up no other message for longer than a silence', async () => {
  let stops = 0;
  let posts = 0;
  const fetchOf = async (url, init) => {
    if (String(url).endsWith('/stop')) {
      stops += 1;
      return stops === 1 ? new Promise(() => {}) : new Response(null, { status: 204 });
    }
    posts += 1;
    return new Response(posts === 1 ? new ReadableStream({}) : from(0), { headers: { 'content-type': 'text/event-stream' } });
  };
  const chat = new Chat({ id: 'odd', transport: new client.RunChatTransport({ api: 'http://x/api', fetch: fetchOf, silenceMs: 200 }) });
  const first = chat.sendMessage({ text: 'one' });
  await until(() => posts === 1, 'it was sent');
  await chat.stop();
  await first;
  await chat.sendMessage({ text: 'two' });
  expect(posts).toBe(2);
  await until(() => stops === 2, 'the stop was sent again');
});

it('a message that is refused stops nothing when it is given up', async () => {
  const asked = [];
  let answer;
  const fetchOf = (url) => {
    asked.push(String(url));
    return new Promise((resolve) => (answer = resolve));
  };
  const chat = new Chat({ id: 'odd', transport: new client.RunChatTransport({ api: 'http://x/api', fetch: fetchOf }) });
  const sent = chat.sendMessage({ text: 'one' });
  await until(() => asked.length === 1, 'it was sent');
  const stopped = chat.stop();
  answer(new Response('being answered in another tab', { status: 409 }));
  await Promise.all([sent, stopped]);
  // After what a stop waits for.
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(asked).toEqual(['http://x/api']);
});

it('a fetch that throws, and headers that do, are a network that is away', async () => {
  const { api, requests } = await scripted(lost(from(0, 3)), ended(from(3)));
  let calls = 0;
  const chat = await ask(api, {
    fetch: (url, init) => {
      calls += 1;
      if (calls === 2) throw new TypeError('synchronously');
      return fetch(url, init);
    },
    headers: async () => {
      if (calls === 2) {
        calls += 1;
        throw new Error('no token');
      }
      return new Headers({ authorization: 'token' });
    },
  });
  isWhole(chat);
  expect(requests).toHaveLength(2);
});

it('asks where and how the app says', async () => {
  const seen = [];
  const transport = new client.RunChatTransport({
    api: '/send',
    streamApi: (id) => `/read?id=${id}`,
    stopApi: async () => '/stop',
    headers: { a: '1', b: '1' },
    fetch: async (url, init) => {
      seen.push([url, init.method ?? 'GET', init.headers.get('a'), init.headers.get('b'), init.body]);
      return url === '/stop' ? Response.json({}) : new Response(from(0), { headers: EVENTS });
    },
  });
  const chat = new Chat({ id: 'c', transport });
  await chat.ask({ headers: { b: '2' }, body: { more: true } });
  await chat.resumeStream({ headers: { b: '3' } });
  await transport.stop('c');
  const sent = { id: 'c', more: true, trigger: 'submit-message', messages: [{ id: 'question', role: 'user' }] };
  expect(JSON.parse(seen[0].pop())).toMatchObject(sent);
  expect(seen).toEqual([
    ['/send', 'POST', '1', '2'],
    ['/read?id=c', 'GET', '1', '3', undefined],
    ['/stop', 'POST', '1', '1', '{"id":"c"}'],
  ]);
});

it('a silence is counted from the last byte, heartbeats included', async () => {
  let talk;
  const { api, requests } = await scripted(
    (response) => {
      talk = response.writeHead(200, EVENTS);
      talk.write(from(0, 3));
    },
    ended(from(3)),
  );
  vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] });
  let reads = 0;
  const asked = ask(api, { fetch: counting(fetch, (bytes) => bytes > 0 && (reads += 1)) });
  await until(() => reads === 1, 'the first bytes were read');
  for (let beat = 2; beat < 12; beat++) {
    vi.advanceTimersByTime(30_000);
    talk.write(': alive\n\n');
    await until(() => reads === beat, 'a heartbeat was read');
    // By the transport, too.
    await new Promise((resolve) => setTimeout(resolve));
  }
  expect(requests).toHaveLength(1);
  vi.advanceTimersByTime(50_000);
  isWhole(await asked);
  expect(requests).toHaveLength(2);
});

it('of a chat that is stopped while it waits to connect again, nothing is left', async () => {
  const { api, requests } = await scripted(lost(from(0, 3)), (response, { url }) => {
    if (url.endsWith('/stop')) return response.end('{}');
    return response.destroy();
  });
  let tries = 0;
  const chat = new Chat({ id: 'odd', transport: new client.RunChatTransport({ api, onReconnect: () => (tries += 1) }) });
  const asked = chat.ask();
  await until(() => tries >= 2, 'it tried to connect');
  await chat.stop();
  await asked;
  await until(() => requests.some(({ url }) => url.endsWith('/stop')), 'the run was stopped');
  expect(chat.finished).toMatchObject([{ isAbort: true }]);
  expect(requests.filter(({ url }) => url.endsWith('/stop'))).toHaveLength(1);
});

it('is what the chat of this version takes for a transport', () => {
  const transport = new client.RunChatTransport();
  for (const name of ['sendMessages', 'reconnectToStream']) {
    expect(transport[name]).toBeTypeOf('function');
    expect(ai.DefaultChatTransport.prototype[name]).toBeTypeOf('function');
  }
});
