// Servers that were killed in mid-answer, and sessions that have another run by now: the chat is told so, clearly, and what it
// shows is no answer that looks finished.
import { describe, expect, it } from 'vitest';
import { puppet, temporaryFolder, until } from '../helpers/index.mjs';
import { Chat, client, serverOfTest } from './helpers/index.mjs';

const textOf = (chat) => chat.messages.at(-1)?.parts.map(({ text }) => text ?? '').join('') ?? '';
const shows = (chat, text) => until(() => textOf(chat).includes(text), `a chat showed ${JSON.stringify(text)}`);

/** A chat in mid-answer, whose server is gone. */
async function killedInMidAnswer(id) {
  const settings = { storeDir: temporaryFolder(), persistIntervalMs: 0 };
  const server = await serverOfTest({ settings });
  const talker = await puppet();
  const errors = [];
  let tries = 0;
  let isAway = false;
  const transport = new client.RunChatTransport({
    api: server.api,
    onReconnect: () => (tries += 1),
    fetch: async (url, init) => {
      if (isAway) throw new TypeError('network error');
      return fetch(url, init);
    },
  });
  const chat = new Chat({ id, transport, onError: (error) => errors.push(error) });
  const asked = chat.ask({ body: { agent: talker.agent } });
  await talker.say('The first half');
  await shows(chat, 'The first half');
  await until(async () => JSON.stringify(await server.stored(id)).includes('The first half'), 'the half was stored');
  isAway = true;
  await server.kill();
  // The network is away: that is no reason to give up.
  await until(() => tries >= 2, 'the transport tried again');
  const restart = () => serverOfTest({ port: server.port, settings });
  const comeBack = () => (isAway = false);
  return { chat, asked, errors, restart, comeBack };
}

const failed = (chat, errors) => {
  expect(chat.status).toBe('error');
  expect(errors).toHaveLength(1);
  expect(errors[0]).toBeInstanceOf(client.RunStreamError);
  expect(chat.finished).toMatchObject([{ isAbort: false, isError: true }]);
  // What was shown is there, once, and nobody says that it was finished.
  expect(chat.messages).toHaveLength(2);
  expect(textOf(chat).match(/The first half/g)).toHaveLength(1);
  expect(chat.messages[1].metadata).not.toHaveProperty('end');
};

it('a server that was killed in mid-answer and started again says that the run cannot be resumed', async () => {
  const { chat, asked, errors, restart, comeBack } = await killedInMidAnswer('killed');
  comeBack();
  const server = await restart();
  await asked;
  failed(chat, errors);
  expect(errors[0]).toMatchObject({ status: 204, message: expect.stringContaining('load the messages') });
  // Which is what a reload shows: the half that was stored, with nothing open.
  const messages = await server.messages('killed');
  expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant']);
  const again = new Chat({ id: 'killed', messages, transport: new client.RunChatTransport({ api: server.api }) });
  await again.resumeStream();
  expect(again.status).toBe('ready');
  expect(again.messages).toHaveLength(2);
  expect(textOf(again).match(/The first half/g)).toHaveLength(1);
});

it('another run of the chat that was started meanwhile is not joined to what was shown', async () => {
  const { chat, asked, errors, restart, comeBack } = await killedInMidAnswer('other');
  // It is back, and is asked something else before the chat is connected again.
  const server = await restart();
  const talker = await puppet();
  const message = { id: 'another', role: 'user', parts: [{ type: 'text', text: 'something else' }] };
  const body = JSON.stringify({ id: 'other', messages: [message], agent: talker.agent });
  const [answer] = await Promise.all([fetch(server.api, { method: 'POST', body }), talker.say('Something else')]);
  comeBack();
  await asked;
  failed(chat, errors);
  expect(errors[0].message).toContain('Another run');
  expect(textOf(chat)).not.toContain('Something else');
  await talker.exit();
  await answer.text();
});

describe('a cursor that is unknown', () => {
  it('is an error, and nothing is read twice', async () => {
    const settings = { storeDir: temporaryFolder() };
    const server = await serverOfTest({ settings });
    const talker = await puppet();
    const lost = new AbortController();
    let connections = 0;
    const transport = new client.RunChatTransport({
      api: server.api,
      fetch: (url, init) => {
        connections += 1;
        if (connections === 1) return fetch(url, { ...init, signal: AbortSignal.any([init.signal, lost.signal]) });
        return fetch(url, { ...init, headers: { ...Object.fromEntries(init.headers), 'last-event-id': '17-4' } });
      },
    });
    const chat = new Chat({ id: 'cursor', transport });
    const asked = chat.ask({ body: { agent: talker.agent } });
    await talker.say('One, ', 'two');
    await shows(chat, 'One, two');
    lost.abort();
    await talker.say(', three.');
    await asked;
    expect(textOf(chat).endsWith('One, two')).toBe(true);
    expect(chat.error.name).toBe('RunStreamError');
    await talker.exit();
  });
});
