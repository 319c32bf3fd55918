// `readRun`, for readers that are no browser: the events of the run, each once, over as many connections as that takes.
import { describe, expect, it } from 'vitest';
import { puppet, temporaryFolder } from '../helpers/index.mjs';
import { asking, cutOnce, keepRuns, someCuts } from './helpers/cuts.mjs';
import { client, inParallel, isSame, serverOfTest } from './helpers/index.mjs';

const kept = keepRuns();
const urlOf = (run) => `${kept.api}/${run.id}/stream`;

/** The events of the run's bytes, up to its `finish`. */
const eventsOf = (run) =>
  run.bytes
    .toString()
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice('data: '.length)));

async function all(reader) {
  const events = [];
  for await (const event of reader) events.push(event);
  return events;
}

it('gives the events of an uncut stream, wherever the connection was lost', async () => {
  const cuts = someCuts(kept.runs, 6);
  const expected = new Map(kept.runs.map((run) => [run, eventsOf(run)]));
  const wrong = [];
  await inParallel(cuts, 100, async ({ run, at }) => {
    const events = await all(client.readRun(urlOf(run), { fetch: asking(cutOnce(at, 'lost')) }));
    if (!isSame(events, expected.get(run))) wrong.push({ run: run.name, at, events });
  });
  expect(wrong).toEqual([]);
});

it('goes on behind lastEventId, exactly', async () => {
  const run = kept.runs.at(-1);
  const expected = eventsOf(run);
  const events = [];
  let connections = 0;
  let lastEventId;
  // A reader each, which reads seven events and goes.
  while (events.at(-1)?.type !== 'finish') {
    const reader = client.readRun(urlOf(run), { lastEventId });
    connections += 1;
    const before = events.length;
    for await (const event of reader) {
      events.push(event);
      if (events.length - before === 7) break;
    }
    lastEventId = reader.lastEventId;
    expect(lastEventId).toMatch(/^\d+-\d+$/);
  }
  expect(events).toEqual(expected);
  expect(connections).toBe(Math.ceil(expected.length / 7));
  // There is nothing behind the end.
  expect(await all(client.readRun(urlOf(run), { lastEventId }))).toEqual([]);
});

it('says that a cursor is of another run', async () => {
  const run = kept.runs.at(-1);
  const reading = all(client.readRun(urlOf(run), { lastEventId: '17-4' }));
  await expect(reading).rejects.toMatchObject({ name: 'RunStreamError', message: expect.stringContaining('Another run') });
});

it("gives the events of the module's protocol, which has no cursor", async () => {
  const run = kept.runs.find(({ name }) => name.endsWith('gw-main-tool'));
  const headers = { 'x-options': '{"protocol":"module"}' };
  const events = await all(client.readRun(urlOf(run), { headers }));
  expect(events.length).toBeGreaterThan(10);
  expect(events.every(({ type }) => type !== 'start' && type !== 'finish')).toBe(true);
});

it('gives nothing where there is no run', async () => {
  expect(await all(client.readRun(`${kept.api}/nobody/stream`))).toEqual([]);
});

it('throws what the server says', async () => {
  const read = all(client.readRun(`${kept.api}/x/unknown`));
  await expect(read).rejects.toBeInstanceOf(client.RunStreamError);
  await expect(read).rejects.toMatchObject({ status: 404, message: 'There is no such route' });
});

it.each([0, -1, Number.NaN, '', 'soon'])('refuses a silence of %o', (silenceMs) => {
  expect(() => client.readRun('http://127.0.0.1', { silenceMs })).toThrow(/^silenceMs: /);
  expect(() => new client.RunChatTransport({ silenceMs })).toThrow(/^silenceMs: /);
});

describe('a run that goes on', () => {
  it('ends with an AbortError when the signal is aborted, and goes on itself', async () => {
    const server = await serverOfTest({ settings: { storeDir: temporaryFolder() } });
    const talker = await puppet();
    const messages = [{ id: 'question', role: 'user', parts: [{ type: 'text', text: 'a question' }] }];
    const body = JSON.stringify({ id: 'aborted', messages, agent: talker.agent });
    const answer = await fetch(server.api, { method: 'POST', body });
    await talker.say('Hello');
    const stop = new AbortController();
    const read = (async () => {
      for await (const event of client.readRun(server.path('aborted', 'stream'), { signal: stop.signal })) {
        if (event.delta === 'Hello') stop.abort();
      }
    })();
    await expect(read).rejects.toMatchObject({ name: 'AbortError' });
    expect(await server.run('aborted')).toMatchObject({ status: 'running' });
    await talker.exit();
    await answer.text();
  });
});
