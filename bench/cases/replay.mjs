// Readers who come late or come back, and readers who want bytes.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TEMP } from '../places.mjs';

const middle = (times) => times.sort((a, b) => a - b)[times.length >> 1];

/** The first reader of a process has Node load its streams: not what each costs. */
async function warmUp({ start, readBytes }) {
  start('warm', 'flood', 100, 8);
  await readBytes('warm');
}

/** The callbacks of a reader who comes after 100,000 events. */
export const replay = {
  id: 'replay',
  title: 'late subscriber, 100,000 events',
  figures: [{ key: 'time', label: 'late subscriber, 100,000 events replayed', unit: 'ms', digits: 2, bar: { ratio: { atMost: 2 } } }],
  async measure({ api, start, finish, sleep }) {
    start('s', 'flood', 100_000, 8);
    await finish('s');
    await sleep(200);
    // Once: that is what a late subscriber gets, and not what the compiler makes of the tenth.
    let events = 0;
    const begin = performance.now();
    api.subscribeToRun('s', () => events++);
    return { time: performance.now() - begin };
  },
};

/** The same reader as a route serves it. */
export const replayBytes = {
  id: 'replay-bytes',
  title: 'the same as SSE bytes (what a route does)',
  figures: [{ key: 'time', label: 'the same as SSE bytes (what a route does)', unit: 'ms', bar: { ratio: { atMost: 1 / 20 } } }],
  async measure({ start, finish, readBytes, sleep }) {
    await warmUp({ start, readBytes });
    start('s', 'flood', 100_000, 8);
    await finish('s');
    const times = [];
    for (let round = 0; round < 5; round++) {
      await sleep(20);
      const begin = performance.now();
      await readBytes('s');
      times.push(performance.now() - begin);
    }
    return { time: middle(times) };
  },
};

/** Many open tabs. */
export const readers = {
  id: 'readers',
  title: '100 SSE readers of one run of 10,000 deltas',
  figures: [{ key: 'loop', label: '100 SSE readers of one run of 10,000 deltas: loop time', unit: 'ms', bar: { ratio: { atMost: 1 / 50 } } }],
  async measure({ start, readBytes, busy }) {
    await warmUp({ start, readBytes });
    const { loopMs } = await busy(async () => {
      start('s', 'flood', 10_000, 8);
      await Promise.all(Array.from({ length: 100 }, () => readBytes('s')));
    });
    return { loop: loopMs };
  },
};

const TURNS = 60;
const DELTAS = 20_000;

/** What an agent prints in a long session: tool calls with results of 50 kB, and text between them. */
function longSession() {
  const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
  const result = 'r"\n'.repeat(12_500);
  const turns = Array.from({ length: TURNS }, (_, turn) => {
    const toolCallId = `t${turn}`;
    const call = line('tool', { phase: 'start', toolCallId, name: 'read', args: { path: 'x' } });
    return call + line('tool', { phase: 'result', toolCallId, result }) + line('assistant', { delta: 'some words ' }).repeat(DELTAS / TURNS);
  });
  return turns.join('');
}

/** Bytes of the module's way: it has no cursor, so each reader gets all again. */
function replayAll(api) {
  const encoder = new TextEncoder();
  let bytes = 0;
  const leave = api.subscribeToRun('s', (event) => {
    bytes += encoder.encode(`data: ${JSON.stringify(event)}\n\n`).length;
  });
  leave();
  return bytes;
}

/** Until each of 100 readers of a running run has its first bytes; `options` are those of the stream. */
async function hundredReaders({ api, busy, finish, sleep, start, readBytes }, optionsOf) {
  await warmUp({ start, readBytes });
  const path = join(TEMP, 'long-session');
  writeFileSync(path, longSession());
  const agent = { command: '/bin/sh', args: ['-c', 'cat "$1"; exec sleep 1000', 'sh', path] };
  const run = api.startRun({ sessionId: 's', message: 'm', agent });
  let events = 0;
  api.subscribeToRun('s', () => events++);
  for (let before = -1; events === 0 || events !== before; await sleep(200)) before = events;
  const options = optionsOf(run, events);
  const { loopMs } = await busy(async () => {
    for (let reader = 0; reader < 100; reader++) {
      if (!api.createRunStream) replayAll(api);
      else await api.createRunStream('s', options).getReader().read();
    }
  });
  const ended = finish('s');
  api.abortRun('s');
  await ended;
  return { loop: loopMs };
}

/** A connection that was lost: all tabs come back with the id of the last event they have. */
export const returning = {
  id: 'returning',
  title: '100 readers come back near the end of a session of 20,000 deltas and 60 results of 50 kB',
  figures: [
    {
      key: 'loop',
      label: '100 readers come back to a run of 20,000 deltas and 60 tool results of 50 kB: loop time',
      unit: 'ms',
      bar: { ratio: { atMost: 1 / 50 } },
    },
  ],
  measure: (tools) =>
    hundredReaders(tools, (run, events) => ({ protocol: 'ai-sdk', lastEventId: `${run.startedAt}-${events - 5}` })),
};

/** Readers who want only what comes from now on, as the AI SDK needs it. */
export const joining = {
  id: 'joining',
  title: '100 readers join the same run without a replay',
  figures: [{ key: 'loop', label: '100 readers join the same run without a replay: loop time', unit: 'ms', bar: { ratio: { atMost: 1 / 50 } } }],
  measure: (tools) => hundredReaders(tools, () => ({ protocol: 'ai-sdk', replay: false })),
};
