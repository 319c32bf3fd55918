// Readers that come back to a long run, or come late to it: what is before them is not encoded for them.
import { describe, expect } from 'vitest';
import { createRunStream, subscribeToRun } from '../index.js';
import { better, listen, puppet, runs, start, textLine, until, useStore } from './helpers/index.mjs';

const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
const TURNS = 300;
const WORDS = 40;
/** Turns of a tool call with a long result and some words of text. */
const history = Array.from({ length: TURNS }, (_, turn) => {
  const call = { phase: 'start', toolCallId: `t${turn}`, name: 'read', args: { path: `${turn}` } };
  const result = { phase: 'result', toolCallId: `t${turn}`, result: `r"\n`.repeat(1_000) };
  return line('tool', call) + line('tool', result) + textLine('word ').repeat(WORDS);
});

async function longRun() {
  useStore();
  const told = await puppet();
  const { sessionId, run } = start(told.agent);
  const listener = listen(sessionId);
  for (let turn = 0; turn < TURNS; turn += 50) await told.out(history.slice(turn, turn + 50).join(''));
  const words = () => listener.events.filter(({ delta }) => delta).length;
  await until(() => words() === TURNS * WORDS, 'all was told');
  const hub = globalThis[Symbol.for('active-runs.hub.2')];
  return { told, sessionId, run, events: listener.events, encoded: () => hub.find(sessionId).framesEncoded };
}

/** Reads until `text` has come, or to the end. */
async function read(reader, text) {
  let all = '';
  while (!text || !all.includes(text)) {
    const { done, value } = await reader.read();
    if (done) break;
    all += Buffer.from(value).toString('utf8');
  }
  return all;
}

const chunks = (text) =>
  text
    .split('\n')
    .filter((one) => one.startsWith('data: {'))
    .map((one) => JSON.parse(one.slice(6)));

describe('a reader of a long run', () => {
  better('that comes late or comes back reads a few events, not all before it', async () => {
    const { told, sessionId, run, events, encoded } = await longRun();
    const cursor = { lastEventId: `${run.startedAt}-${events.length - 7}`, protocol: 'ai-sdk' };
    const readers = {
      live: createRunStream(sessionId, { replay: false }),
      sdk: createRunStream(sessionId, { replay: false, protocol: 'ai-sdk' }),
      exact: createRunStream(sessionId, cursor),
      back: createRunStream(sessionId, { ...cursor, resume: 'rewind' }),
    };
    for (const [name, stream] of Object.entries(readers)) readers[name] = stream.getReader();
    const first = await readers.back.read();
    expect(first.value.length).toBeLessThanOrEqual(64 * 1024);
    // Points are a few hundred events apart, in each of the two protocols.
    expect(encoded()).toBeLessThan(2 * 600);
    await told.say('THE END');
    await told.exit();
    const texts = {};
    for (const [name, reader] of Object.entries(readers)) texts[name] = await read(reader);
    expect(encoded()).toBeLessThan(2 * 600);
    const deltas = (name) => chunks(texts[name]).map(({ delta }) => delta ?? '').join('');
    expect(deltas('live')).toBe('THE END');
    expect(deltas('sdk')).toBe('THE END');
    expect(deltas('exact')).toBe(`${'word '.repeat(7)}THE END`);
    const back = Buffer.from(first.value).toString('utf8') + texts.back;
    expect(chunks(back).map(({ delta }) => delta ?? '').join('')).toBe(`${'word '.repeat(WORDS)}THE END`);
    // Who joins in mid-part is told what the AI SDK must know: each call's last input, and the open part.
    const types = chunks(texts.sdk).map(({ type }) => type);
    expect(types.filter((type) => type === 'tool-input-available')).toHaveLength(TURNS);
    expect(types.indexOf('text-start')).toBeLessThan(types.indexOf('text-delta'));
  });

  better('that reads all shares what is encoded with those that began in the middle', async () => {
    const { told, sessionId, run, events, encoded } = await longRun();
    const at = [0.9, 0.2, 0.5, 0.7, 0.999].map((part) => Math.floor(events.length * part));
    const middle = at.map((event) =>
      createRunStream(sessionId, { lastEventId: `${run.startedAt}-${event}`, protocol: 'ai-sdk' }).getReader(),
    );
    await Promise.all(middle.map((reader) => reader.read()));
    const whole = createRunStream(sessionId, { protocol: 'ai-sdk' }).getReader();
    await whole.read();
    await told.say('THE END');
    await told.exit();
    const all = await read(whole);
    for (const [index, reader] of middle.entries()) {
      const rest = await read(reader);
      const cut = rest.indexOf(`\nid: ${run.startedAt}-${at[index] + 200}\n`);
      if (cut >= 0) expect(all.endsWith(rest.slice(cut))).toBe(true);
      expect(rest.endsWith('data: [DONE]\n\n')).toBe(true);
    }
    // But for the null at the end.
    expect(encoded()).toBe(events.length - 1);
  });

  better('that subscribes late is told what comes, in the parts that are open', async () => {
    const { told, sessionId } = await longRun();
    const listener = listen(sessionId, { replay: false });
    await told.say('more');
    await told.exit();
    const [first] = await listener.ended;
    expect(first).toEqual({ type: 'text-delta', id: expect.stringMatching(/^text-/), delta: 'more' });
    const all = [];
    subscribeToRun(sessionId, (event) => all.push(event));
    expect(all.find((event) => event?.delta === 'more').id).toBe(first.id);
  });

  better('gets an event that is much longer than a chunk whole, however it reads', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const listener = listen(sessionId);
    const result = `r"\n`.repeat(500_000);
    await told.out(line('tool', { phase: 'start', toolCallId: 't', name: 'read', args: {} }));
    await told.out(line('tool', { phase: 'result', toolCallId: 't', result }));
    await told.say('after');
    await listener.has('after');
    await told.exit();
    await listener.ended;
    const options = [
      { replay: 'compact' },
      { replay: 'compact', protocol: 'ai-sdk' },
      { lastEventId: `${run.startedAt}-1` },
      { lastEventId: `${run.startedAt}-1`, protocol: 'ai-sdk' },
    ];
    const isOutput = ({ type }) => type === 'tool-output-available';
    expect(JSON.stringify(listener.events.find(isOutput)).length).toBeGreaterThan(result.length);
    for (const option of options) {
      const all = chunks(await read(createRunStream(sessionId, option).getReader()));
      expect(JSON.stringify(all.find(isOutput)) === JSON.stringify(listener.events.find(isOutput))).toBe(true);
      expect(all.filter(({ delta }) => delta).map(({ delta }) => delta)).toEqual(['after']);
    }
  });
});
