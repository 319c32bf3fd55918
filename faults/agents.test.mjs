// Agents with bad manners, and what is left of them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  MIB,
  goneWithin,
  hosted,
  listen,
  newMark,
  newSeconds,
  play,
  processesWith,
  program,
  runs,
  server,
  shellAgent,
  start,
  temporaryFolder,
  textLine,
  tried,
  until,
  useStore,
} from './helpers.mjs';

const bad = (manner, ...args) => shellAgent('as-it-is-told', manner, ...args);
const isGone = (mark) => goneWithin(30_000, mark, 'agents');

describe('an agent that', () => {
  const TIMES = 20;
  const many = (body) => Promise.all(Array.from({ length: TIMES }, body));

  it.each([
    ['is-killed', 'is killed (SIGKILL)', { status: 'completed', end: { reason: 'killed', exitCode: null, signal: 'SIGKILL' } }],
    ['crashes', 'crashes (SIGSEGV)', { status: 'completed', end: { reason: 'killed', exitCode: null, signal: 'SIGSEGV' } }],
    ['closes-stdout-and-ends', 'closes its pipes before it ends', { status: 'error', end: { reason: 'failed', exitCode: 3, signal: null } }],
    ['fails', 'fails', { status: 'error', end: { reason: 'failed', exitCode: 7, signal: null } }],
  ])('%s: what it said is kept', async (manner, title, outcome) => {
    const store = useStore();
    const mark = newMark();
    await many(async () => {
      const { sessionId, run, text } = await play(bad(manner, mark));
      expect(run).toMatchObject({ ...outcome, exitCode: outcome.end.exitCode });
      expect(text.startsWith('word')).toBe(true);
      expect(store.messages(sessionId)).toMatchObject([{ content: text }]);
    });
    await isGone(mark);
    tried(`An agent that ${title}`, TIMES);
  });

  it.each([
    ['stops', 'is stopped (SIGSTOP) and aborted'],
    ['is-stubborn', 'ignores every polite signal, and is aborted'],
    ['closes-stdout', 'closes its pipes, lives on, and is aborted'],
    ['waits', 'is aborted'],
  ])('%s: is gone when it is aborted', async (manner, title) => {
    const store = useStore({ killAfterMs: 50 });
    const mark = newMark();
    await many(async () => {
      const { sessionId, run } = start(bad(manner, mark));
      const listener = listen(sessionId);
      await listener.has('word');
      expect(run.status).toBe('running');
      runs.abortRun(sessionId);
      await listener.ended;
      expect(run).toMatchObject({ status: 'completed', exitCode: null, end: { reason: 'aborted', exitCode: null } });
      expect(store.messages(sessionId)).toMatchObject([{ content: 'word' }]);
    });
    await isGone(mark);
    tried(`An agent that ${title}`, TIMES);
  });

  it.each([
    ['leaves-a-child', 'ends and leaves a child that holds its pipes'],
    ['leaves-a-daemon', 'leaves a daemon in a session of its own that holds its pipes'],
  ])('%s: the run ends all the same, and what is left lives on', async (manner, title) => {
    useStore({ pipeGraceMs: 50 });
    const seconds = newSeconds();
    await many(async () => {
      const { run, sessionId, text } = await play(bad(manner, newMark(), seconds));
      expect([run.status, run.end.reason, text]).toEqual(['completed', 'completed', 'word']);
      expect(runs.hasActiveRun(sessionId)).toBe(false);
    });
    expect(processesWith(`sleep\0${seconds}`)).toHaveLength(TIMES);
    tried(`An agent that ${title}`, TIMES);
  });

  it('cannot be started is heard of by the subscriber of the same tick', async () => {
    const times = 300;
    const host = server(
      async ({ runs, data, tell, ended }) => {
        const texts = new Set();
        for (let n = 0; n < data.times; n += 1) {
          runs.startRun({ sessionId: `${n}`, message: 'm', agent: { command: '/no/such/agent' } });
          const events = await ended(`${n}`);
          texts.add(events.map((event) => event?.delta ?? '').join(''));
        }
        await tell([...texts]);
        process.exit();
      },
      { times, settings: { storeDir: temporaryFolder() } },
    );
    const texts = await host.told();
    expect(texts).toHaveLength(1);
    expect(texts[0]).toMatch(/\[error\] Failed to start agent: spawn \/no\/such\/agent ENOENT$/);
    tried('An agent that cannot be started', times);
  });
});

describe('output', () => {
  const words = Array.from({ length: 400 }, (_, n) => ['ä', '日本語', '🙂', '\u2028', 'plain', '\\', '"', '\ud83d', '\n'][n % 9] + n);
  const whole = words.join('');
  const bytes = Buffer.from(words.map((word) => textLine(word)).join(''));

  it.each([1, 2, 3, 5, 7, 1_000, 4_096, 65_537])('in pieces of %i bytes, cut inside characters, is whole', async (size) => {
    const store = useStore();
    const path = join(temporaryFolder(), 'output');
    writeFileSync(path, bytes);
    const pieces = { command: process.execPath, args: [program('writes-in-pieces.mjs'), path, `${size}`] };
    const { sessionId, text } = await play(pieces);
    expect(text).toBe(whole);
    expect(store.messages(sessionId)).toMatchObject([{ content: whole }]);
    tried('Output in single bytes or pieces that cut characters', Math.ceil(bytes.length / size), 'pieces');
  });

  it('in blocks of 1 MiB is whole', async () => {
    const store = useStore();
    const path = join(temporaryFolder(), 'output');
    const delta = 'x🙂'.repeat(10_000);
    const line = textLine(delta);
    const count = Math.ceil((32 * MIB) / line.length);
    writeFileSync(path, line.repeat(count));
    const pieces = { command: process.execPath, args: [program('writes-in-pieces.mjs'), path, `${MIB}`] };
    const { sessionId, text } = await play(pieces);
    expect(text === delta.repeat(count)).toBe(true);
    expect(store.messages(sessionId)[0].content === text).toBe(true);
    tried('Output in blocks of 1 MiB', Math.ceil((line.length * count) / MIB), 'blocks');
  });
});

const STARTED = 400;

it(`${STARTED} agents, started and aborted at random, leave nothing behind`, async () => {
  // What agents that ended by themselves have left is nobody's, and goes with the test.
  const [mark, seconds] = [newMark(), newSeconds()];
  const setting = { storeDir: join(temporaryFolder(), 'store'), name: 'r', mark, seconds };
  const host = await hosted('starts-and-aborts.mjs', setting);
  // To warm up: what is allocated once is there then.
  await host.asks(100);
  const before = await host.settled();
  await host.asks(STARTED);
  const after = await host.settled(before);
  expect((after.rss - before.rss) / MIB).toBeLessThan(8);
  await until(() => processesWith(mark).every(({ pid }) => pid === host.pid), 'no agent was left');
  tried('Agents of all manners, started and aborted at random', STARTED, host.compared(before, after));
});
