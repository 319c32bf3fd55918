// A user's message that is sent twice, refused, or whose answer is lost before it has begun: one run, one message, one answer.
import { expect, it } from 'vitest';
import { puppet, temporaryFolder, until } from '../helpers/index.mjs';
import { Chat, client, serverOfTest } from './helpers/index.mjs';

const textOf = (chat) => chat.messages.at(-1)?.parts.map(({ text }) => text ?? '').join('') ?? '';
const question = (id) => ({ id, role: 'user', parts: [{ type: 'text', text: 'a question' }] });

async function scene() {
  const server = await serverOfTest({ settings: { storeDir: temporaryFolder(), persistIntervalMs: 0 } });
  const talker = await puppet();
  const send = (id, messageId) =>
    fetch(server.api, { method: 'POST', body: JSON.stringify({ id, messages: [question(messageId)], agent: talker.agent }) });
  return { server, talker, send };
}

it('a request that is sent again gets the answer of the first', async () => {
  const { server, talker, send } = await scene();
  const first = await send('twice', 'q1');
  await talker.say('Hello');
  const second = await send('twice', 'q1');
  await talker.say(' again');
  await talker.exit();
  const bodies = [await first.text(), await second.text(), await (await send('twice', 'q1')).text()];
  expect(bodies[0]).toContain('" again"');
  expect(bodies[1]).toBe(bodies[0]);
  expect(bodies[2]).toBe(bodies[0]);
  const stored = await until(async () => {
    const messages = await server.stored('twice');
    return messages.every(({ _streaming }) => !_streaming) && messages;
  }, 'the answer was stored');
  expect(stored.map(({ role }) => role)).toEqual(['user', 'assistant']);
  expect(await server.run('twice')).toMatchObject({ started: 1 });
});

it('a message that was answered by a run that is gone is not answered again', async () => {
  const { server, talker, send } = await scene();
  await server.configure({ cleanupGraceMs: 0 });
  const answer = await send('gone', 'q1');
  await talker.exit();
  await answer.text();
  await until(async () => (await server.run('gone')).status === null, 'the run was forgotten');
  const chat = new Chat({ id: 'gone', transport: new client.RunChatTransport({ api: server.api }) });
  await chat.sendMessage(question('q1'));
  expect(chat.error).toBeInstanceOf(client.RunStreamError);
  expect(chat.error).toMatchObject({ status: 204, message: expect.stringContaining('answered before') });
  expect((await server.stored('gone')).map(({ role }) => role)).toEqual(['user', 'assistant']);
});

it('an answer that was lost before it began is found again', async () => {
  const { server, talker } = await scene();
  const requests = [];
  const transport = new client.RunChatTransport({
    api: server.api,
    fetch: async (url, init) => {
      requests.push(init.method ?? 'GET');
      const response = await fetch(url, init);
      if (requests.length > 1) return response;
      await response.body.cancel();
      throw new TypeError('network error');
    },
  });
  const chat = new Chat({ id: 'lost', transport });
  const asked = chat.ask({ body: { agent: talker.agent } });
  await talker.say('Hello');
  await until(() => textOf(chat).includes('Hello'), 'the answer was shown');
  await talker.exit();
  await asked;
  expect(requests).toEqual(['POST', 'GET']);
  expect(chat.finished).toMatchObject([{ isAbort: false, isError: false, finishReason: 'stop' }]);
  expect(chat.messages).toHaveLength(2);
  expect(await server.run('lost')).toMatchObject({ started: 1 });
});

it('an answer that a silent connection swallowed is found again', async () => {
  const { server, talker } = await scene();
  const transport = new client.RunChatTransport({
    api: server.api,
    silenceMs: 3_000,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      return init.method === 'POST' ? new Promise(() => {}) : response;
    },
  });
  const chat = new Chat({ id: 'ümläut id?', transport });
  const asked = chat.ask({ body: { agent: talker.agent } });
  await talker.say('Hello');
  await until(() => textOf(chat).includes('Hello'), 'the answer was shown');
  await talker.exit();
  await asked;
  expect(chat.finished).toMatchObject([{ isAbort: false, isError: false, finishReason: 'stop' }]);
  expect(await server.run('ümläut id?')).toMatchObject({ started: 1 });
});

it('a stop reaches a run whose answer never began to arrive', async () => {
  const { server, talker } = await scene();
  let isSent = false;
  const transport = new client.RunChatTransport({
    api: server.api,
    silenceMs: 1_000,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      if (url !== server.api) return response;
      isSent = true;
      return new Promise(() => {});
    },
  });
  const chat = new Chat({ id: 'swallowed', transport });
  const asked = chat.ask({ body: { agent: talker.agent } });
  await until(() => isSent, 'the message had arrived');
  await chat.stop();
  await asked;
  await server.hasEnded('swallowed');
  expect(await server.run('swallowed')).toMatchObject({ end: { reason: 'aborted' } });
});

it('the run of another message is not taken for the answer', async () => {
  const { server, talker, send } = await scene();
  const other = await send('busy', 'another');
  const transport = new client.RunChatTransport({
    api: server.api,
    fetch: async (url, init) => {
      if (init.method === 'POST') throw new TypeError('network error');
      return fetch(url, init);
    },
  });
  const chat = new Chat({ id: 'busy', transport });
  await chat.ask();
  expect(chat.error?.message).toBe('network error');
  expect(chat.messages).toHaveLength(1);
  await talker.exit();
  await other.text();
});

it('a message that is refused is an error at once, and is not stored', async () => {
  const { server, talker, send } = await scene();
  const other = await send('refused', 'another');
  let requests = 0;
  const transport = new client.RunChatTransport({
    api: server.api,
    fetch: (url, init) => {
      requests += 1;
      return fetch(url, init);
    },
  });
  const chat = new Chat({ id: 'refused', transport });
  await chat.ask({ body: { agent: talker.agent } });
  expect(requests).toBe(1);
  expect(chat.error).toBeInstanceOf(client.RunStreamError);
  expect(chat.error).toMatchObject({ status: 409, message: '{"code":"RUN_ALREADY_ACTIVE"}' });
  expect((await server.stored('refused')).filter(({ role }) => role === 'user')).toHaveLength(1);
  await talker.exit();
  await other.text();
});
