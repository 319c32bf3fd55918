// What a session's next run must not take from those before it: their ids, and what their agents still say.
import { statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished } from 'vitest';
import { better, listen, newSession, play, puppet, runs, sh, start, temporaryFolder, textLine, until, useStore } from './helpers/index.mjs';

const assistants = (store, sessionId) => store.messages(sessionId).filter(({ role }) => role === 'assistant');
const number = (id) => Number(id.slice(id.lastIndexOf('-') + 1));

describe('an answer of its own', () => {
  better('has every one of many quick runs of a session that is forgotten at once', async () => {
    const store = useStore({ cleanupGraceMs: 0 });
    const sessionId = newSession();
    const RUNS = 150;
    onTestFinished(runs.onWarning(() => {}));
    await new Promise((done) => {
      let left = RUNS;
      const next = () => {
        if (left-- === 0) return done();
        start({ command: `/nowhere/${left}` }, { sessionId });
        runs.subscribeToRun(sessionId, (event) => event === null && next());
      };
      next();
    });
    const ids = assistants(store, sessionId).map(({ id }) => id);
    expect(new Set(ids).size).toBe(RUNS);
    // In the order of the runs.
    expect(ids.map(number)).toEqual(ids.map(number).sort((a, b) => a - b));
  });

  better('has one whose clock is behind that of those before', async () => {
    const store = useStore({ cleanupGraceMs: 0 });
    const sessionId = newSession();
    const path = join(runs.configure({}).storeDir, `${sessionId}.jsonl`);
    // As another process has written it an hour from now, and the clock was put back.
    const ahead = Math.floor(Date.now() / 1000) + 3_600;
    const id = `assistant-${sessionId}-${ahead * 1000}`;
    store.write(sessionId, `${JSON.stringify({ id, role: 'assistant', content: 'before', timestamp: '' })}\n`);
    utimesSync(path, ahead, ahead);
    expect(statSync(path).mtimeMs).toBe(ahead * 1000);
    const started = Date.now();
    const { run } = await play(sh(`printf '%s' "$1"`, textLine('after')), { sessionId });
    expect(assistants(store, sessionId).map(({ content }) => content)).toEqual(['before', 'after']);
    expect(number(run.accumulated.id)).toBeGreaterThan(ahead * 1000);
    // What is told of the time is the clock's.
    expect(run.startedAt).toBeGreaterThanOrEqual(started);
    expect(run.startedAt).toBeLessThanOrEqual(Date.now());
  });

  better('has one that is resumed by the ids of its own stream only', async () => {
    useStore();
    const sessionId = newSession();
    const idsOf = async () => {
      const text = await new Response(runs.createRunStream(sessionId, { protocol: 'ai-sdk' })).text();
      return [...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => id);
    };
    await play(sh(`printf '%s' "$1"`, textLine('a')), { sessionId });
    const before = await idsOf();
    await play(sh(`printf '%s' "$1"`, textLine('b')), { sessionId });
    const ids = await idsOf();
    const resumed = (lastEventId) => runs.createRunResponse(sessionId, { lastEventId, protocol: 'ai-sdk' }).headers.get('x-run-resumed');
    expect(before.map(resumed)).toEqual(before.map(() => 'false'));
    expect(ids.map(resumed)).toEqual(ids.map(() => 'true'));
  });
});

describe("a stopped run's rest", () => {
  const line = (runId, stream, data) => `${JSON.stringify({ event: 'agent', runId, stream, data })}\n`;
  const turn = (runId, phase) => line(runId, 'lifecycle', { phase });
  const say = (runId, delta) => textLine(delta, { runId });

  async function stopped(sessionId, runId, agentSessionId) {
    const told = await puppet();
    start(told.agent, { sessionId, agentSessionId });
    const listener = listen(sessionId);
    await told.out(turn(runId, 'start') + say(runId, 'the beginning'));
    await listener.has('the beginning');
    runs.abortRun(sessionId);
    await listener.ended;
  }

  for (const agentSessionId of [undefined, 'mine']) {
    better(`is not the beginning of the next answer (agentSessionId: ${agentSessionId})`, async () => {
      const store = useStore({ cleanupGraceMs: 0 });
      const sessionId = newSession();
      await stopped(sessionId, 'one', agentSessionId);
      await stopped(sessionId, 'two', agentSessionId);
      await until(() => runs.getActiveRun(sessionId) === undefined, 'the run was forgotten');
      const rest = ['one', 'two'].map(
        (runId) =>
          line(runId, 'thinking', { delta: 'REST' }) +
          say(runId, 'REST') +
          line(runId, 'tool', { phase: 'start', toolCallId: runId, name: 'REST', args: {} }) +
          line(runId, 'lifecycle', { phase: 'error', error: 'REST' }) +
          turn(runId, 'end'),
      );
      const told = await puppet();
      const { run } = start(told.agent, { sessionId, agentSessionId });
      const listener = listen(sessionId);
      const before = runs.stats().lines.otherSession;
      await told.out(rest[0] + turn('three', 'start') + rest[1] + say('three', 'the ') + rest[0] + textLine('answer'));
      await told.exit();
      await listener.ended;
      expect(listener.text()).toBe('the answer');
      expect(JSON.stringify(listener.events)).not.toContain('REST');
      expect(run.end.reason).toBe('completed');
      expect(runs.stats().lines.otherSession - before).toBe(15);
      expect(assistants(store, sessionId).map(({ content }) => content)).toEqual(['the beginning', 'the beginning', 'the answer']);
    });
  }

  better('is the answer of an agent that names all its turns alike', async () => {
    useStore();
    const sessionId = newSession();
    await stopped(sessionId, 'always');
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'lines'), turn('always', 'start') + say('always', 'again'));
    const { text } = await play(sh('cat "$1"', join(folder, 'lines')), { sessionId });
    expect(text).toBe('again');
  });

  better("is no other session's business, and an answer that came to its end has none", async () => {
    useStore();
    const sessionId = newSession();
    await stopped(sessionId, 'one');
    expect((await play(sh(`printf '%s' "$1"`, say('one', 'elsewhere')))).text).toBe('elsewhere');
    for (const delta of ['a', 'b']) {
      expect((await play(sh(`printf '%s' "$1"`, say('two', delta)), { sessionId })).text).toBe(delta);
    }
  });
});
