// How a run ended, as the SDK's chat tells it; and who ends a run: a stop of the chat, and nothing else.
import { describe, expect, it } from 'vitest';
import { puppet, sh, temporaryFolder, until } from '../helpers/index.mjs';
import { ai, browserFetch, Chat, client, serverOfTest } from './helpers/index.mjs';

const textOf = (chat) => chat.messages.at(-1)?.parts.map(({ text }) => text ?? '').join('') ?? '';
const shows = (chat, text) => until(() => textOf(chat).includes(text), `a chat showed ${JSON.stringify(text)}`);
const lines = (...all) => all.map(([stream, data]) => `${JSON.stringify({ event: 'agent', stream, data })}\n`).join('');

async function scene() {
  const server = await serverOfTest({ settings: { storeDir: temporaryFolder(), persistIntervalMs: 0, killAfterMs: 500 } });
  const transports = {
    RunChatTransport: () => new client.RunChatTransport({ api: server.api }),
    DefaultChatTransport: () => new ai.DefaultChatTransport({ api: server.api, fetch: browserFetch }),
  };
  const chatOf = (id, more) => new Chat({ id, transport: transports.RunChatTransport(), ...more });
  return { server, transports, chatOf };
}

const atEnd = (end, more) => ({
  startedAt: expect.any(Number),
  endedAt: expect.any(Number),
  durationMs: expect.any(Number),
  end,
  ...more,
});

describe.each(['RunChatTransport', 'DefaultChatTransport'])('with %s', (name) => {
  const saying = (text, exit) => sh(`printf '%s' "$1"; exit ${exit}`, text);
  const result = { payloads: [{ text: 'Hello' }], meta: { agentMeta: { model: 'm', usage: { input: 1, output: 2 } } } };
  const answer = lines(['assistant', { delta: 'Hello' }], ['lifecycle', { phase: 'end' }]);
  it.each([
    ['an answer', saying(answer, 0), { finishReason: 'stop' }, 'completed'],
    ['an answer at its limit', saying(lines(['assistant', { delta: 'Hello', stopReason: 'length' }]), 0), { finishReason: 'length' }, 'completed'],
    ['an exit code', saying(answer, 3), { isError: true }, 'failed', 'The agent exited with code 3'],
    ['an error of the agent', saying(lines(['assistant', { delta: 'He' }], ['lifecycle', { phase: 'error', error: 'no key' }]), 0), { isError: true }, 'completed', 'no key'],
    ['an agent that is not there', { command: '/does/not/exist' }, { isError: true }, 'start-failed', expect.stringContaining('/does/not/exist')],
    ['what an agent says of itself', saying(`${answer}${JSON.stringify({ event: 'result', status: 'ok', result })}\n`, 0), { finishReason: 'stop' }, 'completed', undefined, { agent: { model: 'm', usage: { input: 1, output: 2 } } }],
  ])('the chat is told of %s', async (_what, agent, finish, end, error, metadata) => {
    const { transports } = await scene();
    const chat = new Chat({ id: 'end', transport: transports[name]() });
    await chat.ask({ body: { agent } });
    expect(chat.finished).toEqual([{ isAbort: false, isDisconnect: false, isError: false, finishReason: undefined, ...finish }]);
    expect(chat.status).toBe(finish.isError ? 'error' : 'ready');
    expect(chat.error?.message).toEqual(error);
    expect(chat.messages).toHaveLength(2);
    expect(chat.messages[1].metadata).toEqual(atEnd(end, metadata));
    const { startedAt, endedAt, durationMs } = chat.messages[1].metadata;
    expect(endedAt - startedAt).toBe(durationMs);
  });
});

it('a chat whose run was stopped in another tab is told that it was', async () => {
  const { server, chatOf } = await scene();
  const talker = await puppet();
  const first = chatOf('tabs');
  const asked = first.ask({ body: { agent: talker.agent } });
  await talker.say('Hello');
  await shows(first, 'Hello');
  const second = chatOf('tabs', { messages: await server.messages('tabs') });
  const resumed = second.resumeStream();
  await shows(second, 'Hello');
  await first.stop();
  await Promise.all([asked, resumed]);
  for (const chat of [first, second]) {
    expect(chat.finished).toMatchObject([{ isAbort: true, isError: false }]);
    expect(chat.status).toBe('ready');
    expect(textOf(chat).match(/Hello/g)).toHaveLength(1);
  }
  expect(second.messages[1].metadata).toEqual(atEnd('aborted'));
  await server.hasEnded('tabs');
  expect(await server.run('tabs')).toMatchObject({ end: { reason: 'aborted' }, stops: 1 });
});

it('what was open when the run was stopped is not shown as being at work', async () => {
  const { server, chatOf } = await scene();
  const talker = await puppet();
  const first = chatOf('open');
  const asked = first.ask({ body: { agent: talker.agent } });
  await talker.out(lines(['tool', { phase: 'start', toolCallId: 't', name: 'sleep', args: {} }]));
  await until(() => first.messages.at(-1).parts.some(({ type }) => type === 'tool-sleep'), 'the call was shown');
  await fetch(server.path('open', 'stop'), { method: 'POST' });
  await asked;
  const part = first.messages[1].parts.find(({ type }) => type === 'tool-sleep');
  expect(part).toMatchObject({ state: 'output-error', errorText: 'interrupted' });
  expect(first.finished).toMatchObject([{ isAbort: true, isError: false }]);
});

describe('stop() of the chat ends the run on the server', () => {
  it('of a stream that was sent', async () => {
    const { server, chatOf } = await scene();
    const talker = await puppet();
    const chat = chatOf('sent');
    const asked = chat.ask({ body: { agent: talker.agent } });
    await talker.say('Hello');
    await shows(chat, 'Hello');
    await chat.stop();
    await asked;
    await server.hasEnded('sent');
    expect(await server.run('sent')).toMatchObject({ end: { reason: 'aborted' }, stops: 1 });
    expect(chat.finished).toMatchObject([{ isAbort: true, isError: false }]);
    // And the chat goes on.
    const next = sh('printf "%s" "$1"', lines(['assistant', { delta: 'Once more' }]));
    await chat.sendMessage({ text: 'again' }, { body: { agent: next } });
    expect(textOf(chat)).toContain('Once more');
    expect(chat.finished.at(-1)).toMatchObject({ isAbort: false, finishReason: 'stop' });
  });

  it('and the next message, sent at once, is answered', async () => {
    const { server, chatOf } = await scene();
    const talker = await puppet();
    const chat = chatOf('next');
    const asked = chat.ask({ body: { agent: talker.agent } });
    await talker.say('Hello');
    await shows(chat, 'Hello');
    const next = sh('printf "%s" "$1"', lines(['assistant', { delta: 'Once more' }]));
    await chat.stop();
    await chat.sendMessage({ text: 'rather this' }, { body: { agent: next } });
    await asked;
    expect(chat.error).toBeUndefined();
    expect(textOf(chat)).toContain('Once more');
    expect(chat.finished).toMatchObject([{ isAbort: true }, { isAbort: false, finishReason: 'stop' }]);
    expect(await server.run('next')).toMatchObject({ end: { reason: 'completed' }, started: 2, stops: 1 });
  });

  it('of a stream that was resumed', async () => {
    const { server, chatOf } = await scene();
    const talker = await puppet();
    const sent = chatOf('resumed').ask({ body: { agent: talker.agent } });
    await talker.say('Hello');
    const chat = chatOf('resumed', { messages: await server.messages('resumed') });
    const resumed = chat.resumeStream();
    await shows(chat, 'Hello');
    await chat.stop();
    await Promise.all([sent, resumed]);
    await server.hasEnded('resumed');
    expect(await server.run('resumed')).toMatchObject({ end: { reason: 'aborted' }, stops: 1 });
  });

  it('before the first byte of it has come', async () => {
    const { server } = await scene();
    const talker = await puppet();
    let isSent = false;
    const transport = new client.RunChatTransport({
      api: server.api,
      fetch: (url, init) => {
        isSent = true;
        return fetch(url, init);
      },
    });
    const chat = new Chat({ id: 'early', transport });
    const asked = chat.ask({ body: { agent: talker.agent } });
    await until(() => isSent, 'the message was sent');
    await chat.stop();
    await asked;
    await server.hasEnded('early');
    expect(await server.run('early')).toMatchObject({ end: { reason: 'aborted' }, started: 1 });
    expect(chat.status).toBe('ready');
  });

  it('before it is sent: it never is', async () => {
    const { server, chatOf } = await scene();
    const chat = chatOf('never');
    const asked = chat.ask();
    await chat.stop();
    await asked;
    expect(chat.finished).toMatchObject([{ isAbort: true, isError: false }]);
    expect(await server.run('never')).toMatchObject({ started: 0, stops: 0 });
  });

  it('while the connection is lost', async () => {
    const { server } = await scene();
    const talker = await puppet();
    const lost = new AbortController();
    let isAway = false;
    const transport = new client.RunChatTransport({
      api: server.api,
      fetch: async (url, init) => {
        if (isAway) throw new TypeError('network error');
        return fetch(url, { ...init, signal: AbortSignal.any([lost.signal, ...(init.signal ? [init.signal] : [])]) });
      },
    });
    const chat = new Chat({ id: 'away', transport });
    const asked = chat.ask({ body: { agent: talker.agent } });
    await talker.say('Hello');
    await shows(chat, 'Hello');
    isAway = true;
    lost.abort();
    await chat.stop();
    await asked;
    expect(chat.status).toBe('ready');
    expect((await server.run('away')).status).toBe('running');
    // What was to be stopped is stopped when the network is back.
    isAway = false;
    const resetting = lost;
    Object.defineProperty(resetting, 'signal', { value: new AbortController().signal });
    await server.hasEnded('away');
    expect(await server.run('away')).toMatchObject({ end: { reason: 'aborted' }, stops: 1 });
  });

  it('also when a resume has found nothing while the message was on its way', async () => {
    const { server } = await scene();
    const talker = await puppet();
    let deliver;
    const delivered = new Promise((resolve) => (deliver = resolve));
    const transport = new client.RunChatTransport({
      api: server.api,
      fetch: async (url, init) => {
        if (init.method === 'POST' && url === server.api) await delivered;
        return fetch(url, init);
      },
    });
    const chat = new Chat({ id: 'nothing', transport });
    const asked = chat.ask({ body: { agent: talker.agent } });
    expect(await transport.reconnectToStream({ chatId: 'nothing' })).toBeNull();
    deliver();
    await talker.say('Hello');
    await shows(chat, 'Hello');
    await chat.stop();
    await asked;
    await server.hasEnded('nothing');
    expect(await server.run('nothing')).toMatchObject({ end: { reason: 'aborted' }, stops: 1 });
  });
});

describe('nothing else ends it', () => {
  it('not a resume that takes the place of another', async () => {
    const { server, chatOf } = await scene();
    const talker = await puppet();
    const sent = chatOf('strict').ask({ body: { agent: talker.agent } });
    await talker.say('Hello');
    const chat = chatOf('strict', { messages: await server.messages('strict') });
    // As React's strict mode has it.
    const resumes = [chat.resumeStream(), chat.resumeStream()];
    await shows(chat, 'Hello');
    resumes.push(chat.resumeStream());
    await talker.say(', and on');
    await shows(chat, 'Hello, and on');
    await talker.exit();
    await Promise.all([sent, ...resumes]);
    expect(chat.messages).toHaveLength(2);
    expect(textOf(chat).match(/Hello/g)).toHaveLength(1);
    expect(chat.finished.at(-1)).toMatchObject({ isAbort: false, isError: false, finishReason: 'stop' });
    expect(await server.run('strict')).toMatchObject({ end: { reason: 'completed' }, stops: 0 });
  });

  it('not a stream that nobody reads any more', async () => {
    const { server } = await scene();
    const talker = await puppet();
    const transport = new client.RunChatTransport({ api: server.api });
    const messages = [{ id: 'question', role: 'user', parts: [{ type: 'text', text: 'a question' }] }];
    const body = { agent: talker.agent };
    const sent = await transport.sendMessages({ chatId: 'left', messages, body, trigger: 'submit-message' });
    await sent.cancel();
    const resumed = await transport.reconnectToStream({ chatId: 'left' });
    const reader = resumed.getReader();
    expect((await reader.read()).value.type).toBe('start');
    await reader.cancel();
    await talker.say('Hello');
    await talker.exit();
    await server.hasEnded('left');
    expect(await server.run('left')).toMatchObject({ end: { reason: 'completed' }, stops: 0 });
  });
});
