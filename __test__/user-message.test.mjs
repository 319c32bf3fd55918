// `startRun` with the user's message: it is stored and answered once, however often it is sent.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { abortRun, configure, createRunResponse, startRun } from '../index.js';
import { listen, newSession, play, puppet, runs, server, sh, start, textLine, until, useStore } from './helpers/index.mjs';

const userMessage = { id: 'u1', content: 'What is it?', parts: [{ type: 'text', text: 'What is it?' }] };
const answers = (text) => sh('printf %s "$1"', textLine(text));
const idsOf = (store, sessionId) => store.messages(sessionId).map(({ id, role }) => (role === 'user' ? id : role));

describe('a run that is started with its user message', () => {
  it('has it stored before the agent is started, with what else is in it', async () => {
    const store = useStore();
    const more = { metadata: { from: 'x' }, html: '<p>', left: { toJSON() {} }, role: 'system', timestamp: 'T', _streaming: true, nothing: undefined };
    const parts = [...userMessage.parts, { type: 'file', mediaType: 'image/png', url: 'data:image/png;base64,iVBO', filename: 'a.png' }];
    const sessionId = newSession();
    const seen = sh('cat "$1"; printf %s "$2"', store.path(sessionId), textLine('x'));
    const { run } = start(seen, { sessionId, userMessage: { ...userMessage, parts, ...more } });
    const [stored] = store.messages(sessionId);
    expect(stored).toEqual({ id: 'u1', role: 'user', content: 'What is it?', parts, metadata: { from: 'x' }, html: '<p>', timestamp: expect.stringMatching(/^20/) });
    await run.whenEnded;
    expect(idsOf(store, sessionId)).toEqual(['u1', 'assistant']);
  });

  it('is refused while another is running, and then nothing is stored', async () => {
    const store = useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent, { userMessage });
    const second = { ...userMessage, id: 'u2' };
    expect(() => startRun({ sessionId, message: 'x', userMessage: second, agent: told.agent })).toThrow(
      expect.objectContaining({ code: 'RUN_ALREADY_ACTIVE' }),
    );
    expect(idsOf(store, sessionId)).toEqual(['u1']);
    await told.say('x');
    await told.exit();
  });

  it('is the same run when it is started again, running or just ended', async () => {
    const store = useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent, { userMessage });
    const again = () => startRun({ sessionId, message: 'x', agent: answers('another'), userMessage });
    expect(again()).toBe(run);
    await told.say('the answer');
    await told.exit();
    await run.whenEnded;
    expect(again()).toBe(run);
    expect(await createRunResponse(sessionId).text()).toContain('the answer');
    expect(idsOf(store, sessionId)).toEqual(['u1', 'assistant']);
    // A run that was stopped is not started again by a request that comes twice.
    const other = await puppet();
    const stopped = start(other.agent, { userMessage });
    abortRun(stopped.sessionId);
    await stopped.run.whenEnded;
    expect(startRun({ sessionId: stopped.sessionId, message: 'x', agent: answers('x'), userMessage })).toBe(stopped.run);
  });

  it('is null when the message was answered and the run is gone', async () => {
    const store = useStore({ cleanupGraceMs: 0 });
    const { sessionId, run } = await play(answers('once'), { userMessage });
    await run.whenEnded;
    await until(() => runs.getActiveRun(sessionId) === undefined, 'the run was forgotten');
    expect(startRun({ sessionId, message: 'x', agent: answers('twice'), userMessage })).toBeNull();
    expect(runs.getActiveRun(sessionId)).toBeUndefined();
    expect(idsOf(store, sessionId)).toEqual(['u1', 'assistant']);
    // The next message is another one.
    const next = await play(answers('next'), { sessionId, userMessage: { ...userMessage, id: 'u2' } });
    expect(next.text).toBe('next');
    expect(idsOf(store, sessionId)).toEqual(['u1', 'assistant', 'u2', 'assistant']);
    expect(startRun({ sessionId, message: 'x', agent: answers('x'), userMessage })).toBeNull();
  });

  it('answers a message that is stored and has no answer, but not again one that a dead server has left unfinished', async () => {
    const store = useStore();
    const sessionId = newSession();
    runs.persistUserMessage(sessionId, userMessage);
    expect((await play(answers('first'), { sessionId, userMessage })).text).toBe('first');
    expect(idsOf(store, sessionId)).toEqual(['u1', 'assistant']);

    const left = newSession();
    const user = JSON.stringify({ ...userMessage, role: 'user' });
    store.write(left, `${user}\n{"id":"assistant-${left}-5","role":"assistant","content":"ha","parts":[],"timestamp":"T","_streaming":true}\n`);
    const again = () => startRun({ sessionId: left, message: 'x', agent: answers('whole'), userMessage });
    expect(again()).toBeNull();
    // Whatever is written to the session in between.
    runs.persistUserMessage(left, { id: 'u2', content: 'x' });
    expect(again()).toBeNull();
    expect(idsOf(store, left)).toEqual(['u1', 'assistant', 'u2']);
  });

  it.each([
    ['a long answer', 3_000_000, 0],
    ['a long history after it', 10, 4_000],
    ['a long history before it', 10, -4_000],
  ])('is known to be answered by the next server, too: %s', async (_, length, others) => {
    const store = useStore();
    const sessionId = newSession();
    const history = Array.from({ length: Math.abs(others) }, (_, n) => `{"id":"h${n}","role":"user","content":"${'x'.repeat(200)}"}\n`).join('');
    const own = `${JSON.stringify({ role: 'user', ...userMessage })}\n{"id":"a","role":"assistant","content":"${'x'.repeat(length)}"}\n`;
    store.write(sessionId, others > 0 ? own + history : history + own);
    const before = store.read(sessionId);
    expect(startRun({ sessionId, message: 'x', agent: answers('twice'), userMessage })).toBeNull();
    expect(store.read(sessionId)).toBe(before);
    // One that has no answer yet is answered, and not stored twice.
    const last = { ...userMessage, id: 'half \ud83d' };
    store.append(sessionId, `${JSON.stringify({ role: 'user', ...last })}\n`);
    expect((await play(answers('once'), { sessionId, userMessage: last })).text).toBe('once');
    expect(store.messages(sessionId).filter(({ id }) => id === last.id)).toHaveLength(1);
  });

  it('is not started when the message cannot be stored', async () => {
    const store = useStore();
    mkdirSync(store.path('s-1'), { recursive: true });
    const start = () => startRun({ sessionId: 's-1', message: 'x', agent: answers('x'), userMessage });
    expect(start).toThrow(expect.objectContaining({ code: 'STORE_FAILED' }));
    expect(runs.getActiveRun('s-1')).toBeUndefined();
    // And the session is free.
    expect(start).toThrow(expect.objectContaining({ code: 'STORE_FAILED' }));
  });

  it('names what is wrong with the message, before anything is done', () => {
    const store = useStore();
    for (const [wrong, name] of [
      [5, 'userMessage'],
      [{}, 'userMessage.id'],
      [{ id: 'u', content: 5 }, 'userMessage.content'],
      [{ id: 'u', content: 'x', parts: 'y' }, 'userMessage.parts'],
      [{ id: 'u', content: 'x', html: 5n }, 'userMessage.html'],
    ]) {
      const error = { code: 'INVALID_ARGUMENT', message: expect.stringMatching(`^${name}: `) };
      expect(() => startRun({ sessionId: 's', message: 'x', agent: answers('x'), userMessage: wrong })).toThrow(expect.objectContaining(error));
    }
    const agent = { format: 'unknown', command: 'x' };
    expect(() => startRun({ sessionId: 's', message: 'x', agent, userMessage })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(existsSync(store.path('s'))).toBe(false);
  });

  it('is found again by who has lost its response: the response says which message it answers', async () => {
    useStore();
    const id = 'ü "1"\u2028';
    const { sessionId } = start(answers('x'), { userMessage: { ...userMessage, id } });
    const { headers } = createRunResponse(sessionId, { protocol: 'ai-sdk' });
    expect(decodeURIComponent(headers.get('x-run-user-message'))).toBe(id);
    await listen(sessionId).ended;
  });

  it('is started once by two threads at once', async () => {
    const store = useStore();
    const process = server(async ({ runs, data, tell }) => {
      const { Worker } = globalThis.process.getBuiltinModule('node:worker_threads');
      runs.configure({ storeDir: data.dir });
      const code = `
        const { workerData, parentPort } = require('node:worker_threads');
        const runs = require(workerData.module);
        const start = () => {
          try {
            const run = runs.startRun({ sessionId: workerData.sessionId, message: 'x', userMessage: workerData.userMessage, agent: workerData.agent });
            return run === null ? 'answered' : run.startedAt;
          } catch (error) {
            return error.code;
          }
        };
        parentPort.postMessage(start());
        setInterval(() => {}, 1_000);`;
      const workers = Array.from({ length: 4 }, () => new Worker(code, { eval: true, workerData: data }));
      const outcomes = await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
      await runs.getActiveRun(data.sessionId)?.whenEnded;
      tell(outcomes);
    }, { dir: store.dir, sessionId: 's', userMessage, agent: answers('once'), module: new URL('../index.js', import.meta.url).pathname });
    const outcomes = await process.told();
    expect(new Set(outcomes).size, `${outcomes}`).toBe(1);
    expect(outcomes[0]).toBeTypeOf('number');
    process.child.kill();
    expect(idsOf(store, 's')).toEqual(['u1', 'assistant']);
  });
});

it('a store that is configured later has its own messages', async () => {
  useStore();
  const sessionId = newSession();
  await play(answers('x'), { sessionId, userMessage });
  const other = useStore();
  configure({ storeDir: other.dir });
  writeFileSync(other.path('unrelated'), '');
  expect((await play(answers('y'), { sessionId, userMessage: { ...userMessage, id: 'u3' } })).text).toBe('y');
  expect(idsOf(other, sessionId)).toEqual(['u3', 'assistant']);
});
