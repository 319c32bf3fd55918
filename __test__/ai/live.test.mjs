// Runs that are still going on: cut off, behind a proxy that holds back, reloaded, read by two at once.
import { createServer } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
import { puppet, temporaryFolder, until } from '../helpers/index.mjs';
import { ai, browserFetch, Chat, client, isSame, serverOfTest, shown } from './helpers/index.mjs';
import { linesOfALongRun } from './helpers/played.mjs';

/** A server that has every step of an answer on the disk as soon as it is said, and an agent that is told what to say. */
async function scene(settings) {
  const server = await serverOfTest({ settings: { storeDir: temporaryFolder(), persistIntervalMs: 0, ...settings } });
  const talker = await puppet();
  const withAgent = { body: { agent: talker.agent } };
  return { server, talker, withAgent };
}

const transportTo = (server, options) => new client.RunChatTransport({ api: server.api, ...options });
const sdkTransportTo = (server) => new ai.DefaultChatTransport({ api: server.api, fetch: browserFetch });
const textOf = (chat) => chat.messages.at(-1)?.parts.map(({ text }) => text ?? '').join('') ?? '';
const shows = (chat, text) => until(() => textOf(chat).includes(text), `a chat showed ${JSON.stringify(text)}`);

/** What a chat shows that reads the run, which has ended, from the start. */
async function whole(server, id) {
  const chat = new Chat({ id, transport: sdkTransportTo(server) });
  await chat.ask();
  return shown(chat);
}

it('a connection that is lost again and again loses no word of a run that goes on', async () => {
  const { server, talker, withAgent } = await scene();
  let connections = 0;
  const open = new Set();
  const fetch = async (url, init) => {
    connections += 1;
    const lost = new AbortController();
    open.add(lost);
    return globalThis.fetch(url, { ...init, signal: AbortSignal.any([init.signal, lost.signal]) });
  };
  const chat = new Chat({ id: 'lost', transport: transportTo(server, { fetch }) });
  const asked = chat.ask(withAgent);
  for (let word = 0; word < 12; word++) {
    await talker.say(`word ${word} `, 'and ');
    await shows(chat, `word ${word} and `);
    // Words are said while nobody is connected, too.
    for (const lost of open) lost.abort();
    open.clear();
    await talker.say('away ');
    await shows(chat, `word ${word} and away `);
  }
  await talker.exit();
  await asked;
  expect(connections).toBe(13);
  expect(shown(chat)).toEqual(await whole(server, 'lost'));
  expect(await server.run('lost')).toMatchObject({ started: 1, stops: 0 });
});

it('what a proxy holds back until the answer is over is shown whole', async () => {
  const { server, talker, withAgent } = await scene();
  let held = 0;
  const proxy = createServer(async (request, response) => {
    const body = [];
    for await (const chunk of request) body.push(chunk);
    const { method, url, headers } = request;
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    try {
      const init = { method, headers, signal: gone.signal, ...(method === 'POST' && { body: Buffer.concat(body) }) };
      const answer = await globalThis.fetch(new URL(url, server.api), init);
      response.writeHead(answer.status, Object.fromEntries(answer.headers)).flushHeaders();
      held += 1;
      response.end(Buffer.from(await answer.arrayBuffer()));
    } catch {
      response.destroy();
    }
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  const attempts = [];
  const api = `http://127.0.0.1:${proxy.address().port}/api/chat`;
  const onReconnect = ({ attempt }) => attempts.push(attempt);
  const chat = new Chat({ id: 'held', transport: new client.RunChatTransport({ api, silenceMs: 2_000, onReconnect }) });
  const asked = chat.ask(withAgent);
  await talker.say('All ', 'of ', 'it');
  await until(() => attempts.length >= 2 && held >= 2, 'the transport connected again, and again');
  await talker.exit();
  await asked;
  expect(shown(chat)).toEqual(await whole(server, 'held'));
});

describe.each(['module', 'ui'])('a reload in mid-answer, stored in the form %s', (storeFormat) => {
  it('shows the whole answer in the end, wherever it was and whoever resumes', async () => {
    const { server, talker, withAgent } = await scene({ storeFormat });
    const id = `reload-${storeFormat}`;
    const first = new Chat({ id, transport: transportTo(server) });
    const asked = first.ask(withAgent);
    const reloaded = [];
    const reload = async () => {
      const messages = await server.messages(id);
      for (const transport of [transportTo(server), sdkTransportTo(server)]) {
        const chat = new Chat({ id, messages, transport });
        reloaded.push({ chat, resumed: chat.resumeStream() });
      }
    };
    const lines = linesOfALongRun();
    let stored = '';
    for (let at = 0; at < lines.length; at += 9) {
      await talker.out(lines.slice(at, at + 9).join(''));
      // Some of these lines say nothing that is stored.
      const isNews = () => server.stored(id).then((all) => !isSame(all, stored) && all);
      if (/"assistant"|"thinking"/.test(lines.slice(at, at + 9).join(''))) {
        stored = await until(isNews, 'more of the answer was stored');
      }
      await reload();
    }
    await talker.exit();
    await Promise.all([asked, ...reloaded.map(({ resumed }) => resumed)]);
    const expected = await whole(server, id);
    expect(expected.messages[1].parts.length).toBeGreaterThan(20);
    expect(shown(first)).toEqual(expected);
    for (const { chat } of reloaded) expect(shown(chat)).toEqual(expected);
    expect(reloaded.length).toBeGreaterThan(40);
  });
});

it('two chats read one run, and what an app emits comes to both', async () => {
  const { server, talker, withAgent } = await scene();
  const data = [];
  const first = new Chat({ id: 'both', transport: transportTo(server), onData: (part) => data.push(part) });
  const asked = first.ask(withAgent);
  await talker.say('Hello');
  await shows(first, 'Hello');
  const second = new Chat({ id: 'both', messages: await server.messages('both'), transport: transportTo(server) });
  const resumed = second.resumeStream();
  await shows(second, 'Hello');
  await server.emit('both', { type: 'data-state', id: 's', data: { step: 1 } });
  await server.emit('both', { type: 'data-state', id: 's', data: { step: 2 } });
  await server.emit('both', { type: 'data-passing', data: 3, transient: true });
  await server.emit('both', { type: 'message-metadata', messageMetadata: { cost: 7 } });
  await talker.say(' again.');
  await shows(second, 'again.');
  await talker.exit();
  await Promise.all([asked, resumed]);
  const expected = await whole(server, 'both');
  expect(shown(first)).toEqual(expected);
  expect(shown(second)).toEqual(expected);
  expect(expected.messages[1]).toMatchObject({ metadata: { cost: 7, end: 'completed' } });
  expect(expected.messages[1].parts).toContainEqual({ type: 'data-state', id: 's', data: { step: 2 } });
  expect(data.map(({ type }) => type)).toContain('data-passing');
});
