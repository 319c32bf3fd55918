// The session files as an app's routes use them: read, written and listed without file code.
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createSession, deleteSession, listSessions, readMessages, upsertMessages } from '../index.js';
import { agent, isAlive, listen, newSession, puppet, runs, sh, start, textLine, until, useStore } from './helpers/index.mjs';

const rejects = (promise, code, message = /./) =>
  expect(promise).rejects.toEqual(expect.objectContaining({ code, message: expect.stringMatching(message) }));

describe('createSession', () => {
  it('puts an entry first and makes an empty file', async () => {
    const store = useStore();
    const first = await createSession();
    const second = await createSession({ title: 'Ünï 🙂', filePath: '/a/b.md' });
    expect(first).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      title: 'New Chat',
      createdAt: expect.any(Number),
      updatedAt: first.createdAt,
      messageCount: 0,
    });
    expect(Object.keys(second)).toEqual(['id', 'title', 'createdAt', 'updatedAt', 'messageCount', 'filePath']);
    expect(readFileSync(store.indexPath, 'utf8')).toBe(JSON.stringify([second, first], null, 2));
    expect(readFileSync(store.path(first.id), 'utf8')).toBe('');
    expect(statSync(store.path(first.id)).mode & 0o777).toBe(0o600);
  });

  it('says so when the index is broken, and leaves it alone', async () => {
    const store = useStore();
    writeFileSync(store.indexPath, '{broken');
    await rejects(createSession(), 'STORE_FAILED', /index\.json/);
    await rejects(listSessions(), 'STORE_FAILED', /index\.json/);
    expect(readFileSync(store.indexPath, 'utf8')).toBe('{broken');
  });
});

describe('listSessions', () => {
  it('gives the entries as they are, the one updated last first', async () => {
    const store = useStore();
    const entry = (id, updatedAt) => ({ id, title: id, createdAt: 1, updatedAt, messageCount: 0, own: { kept: [1] } });
    store.writeIndex([entry('a', 5), entry('b', 9), entry('c', 7)]);
    expect(await listSessions()).toEqual([entry('b', 9), entry('c', 7), entry('a', 5)]);
  });

  it('gives none where there is no index', async () => {
    useStore();
    expect(await listSessions()).toEqual([]);
  });
});

describe('upsertMessages', () => {
  it('keeps the places of known messages, appends new ones, counts them and sets the title', async () => {
    const store = useStore();
    const { id } = await createSession();
    await upsertMessages(id, [{ id: 'u1', content: 'one' }, { id: 'a1', content: 'two' }]);
    await upsertMessages(id, [{ id: 'u2', content: '\ud83d' }, { id: 'u1', content: 'changed' }], { title: 'Named' });
    const messages = [{ id: 'u1', content: 'changed' }, { id: 'a1', content: 'two' }, { id: 'u2', content: '\ud83d' }];
    expect(store.read(id)).toBe(messages.map((message) => `${JSON.stringify(message)}\n`).join(''));
    expect(await readMessages(id)).toEqual(messages);
    expect(await listSessions()).toMatchObject([{ id, title: 'Named', messageCount: 3 }]);
  });

  it('does not disturb an answer that is being written', async () => {
    useStore({ persistIntervalMs: 1 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    for (let word = 0; word < 20; word++) {
      await told.say(`${word} `);
      await upsertMessages(sessionId, [{ id: `u${word}`, content: `${word}` }]);
    }
    await told.exit();
    await until(() => !runs.hasActiveRun(sessionId), 'the run ended');
    const messages = await readMessages(sessionId);
    expect(messages.filter(({ role }) => role !== 'assistant').map(({ id }) => id)).toEqual(
      Array.from({ length: 20 }, (_, word) => `u${word}`),
    );
    expect(messages.find(({ role }) => role === 'assistant').content).toBe(
      Array.from({ length: 20 }, (_, word) => `${word} `).join(''),
    );
  });

  it('refuses what is no message, and writes nothing', async () => {
    const store = useStore();
    const circular = { id: 'x' };
    circular.self = circular;
    for (const [messages, name] of [
      ['x', /^messages: /],
      [[null], /^messages\[0\]: /],
      [[{ id: 'a' }, { content: 'no id' }], /^messages\[1\]\.id: /],
      [[circular], /^messages\[0\]: /],
    ]) {
      await rejects(upsertMessages('s', messages), 'INVALID_ARGUMENT', name);
    }
    await rejects(upsertMessages('s', [], { title: 5 }), 'INVALID_ARGUMENT', /^title: /);
    expect(existsSync(store.path('s'))).toBe(false);
  });
});

describe('readMessages', () => {
  it('leaves out what cannot be read, and leaves it on the disk', async () => {
    const store = useStore();
    const text = '{"id":"a"}\n\n{torn\nnull\n[1]\n"x"\n{"id":"b","n":1e400}\n';
    store.write('s', text);
    expect((await readMessages('s')).map(({ id }) => id)).toEqual(['a', 'b']);
    expect(store.read('s')).toBe(text);
    expect(await readMessages(newSession())).toEqual([]);
  });

  it('gives the first message of a file that begins with a byte order mark', async () => {
    const store = useStore();
    const lines = ['{"id":"u1","content":"x"}', '{"id":"u2","content":"y"}'];
    store.write('s', `\ufeff${lines.join('\n')}\n`);
    expect(await readMessages('s')).toEqual(lines.map((line) => JSON.parse(line)));
    runs.persistUserMessage('s', { id: 'u1', content: 'again' });
    runs.persistUserMessage('s', { id: 'u3', content: 'z' });
    expect((await readMessages('s')).map(({ id }) => id)).toEqual(['u1', 'u2', 'u3']);
    await upsertMessages('s', [{ id: 'u1', content: 'changed' }]);
    expect(await readMessages('s')).toMatchObject([{ id: 'u1', content: 'changed' }, { id: 'u2' }, { id: 'u3' }]);
  });

  it('says what is in the way', async () => {
    const store = useStore();
    mkdirSync(store.path('s'));
    await rejects(readMessages('s'), 'STORE_FAILED', /s\.jsonl/);
  });
});

describe('deleteSession', () => {
  it('removes the entry and the file, once', async () => {
    const store = useStore();
    const { id } = await createSession();
    const other = await createSession();
    runs.persistUserMessage(id, { id: 'u', content: 'x' });
    expect(await deleteSession(id)).toBe(true);
    expect(existsSync(store.path(id))).toBe(false);
    expect((await listSessions()).map((entry) => entry.id)).toEqual([other.id]);
    expect(await deleteSession(id)).toBe(false);
  });

  /** Waits until nothing of the session's run can be written any more, and expects that nothing was. */
  async function staysDeleted(store, id) {
    await until(() => runs.getActiveRun(id) === undefined, 'the grace period ended');
    expect(existsSync(store.path(id))).toBe(false);
    expect(await listSessions()).toEqual([]);
  }

  it('stops the run, waits for its end, and nothing of it is written any more', async () => {
    const store = useStore({ persistIntervalMs: 0, cleanupGraceMs: 200 });
    const { id } = await createSession();
    const { run } = start(sh(`while :; do printf %s "$1"; sleep 0.01; done`, textLine('x')), { sessionId: id });
    const listener = listen(id);
    const stream = new Response(runs.createRunStream(id)).text();
    await until(() => runs.stats().flushes.written > 0 && existsSync(store.path(id)), 'the answer was written');
    const { pid } = run.childProcess;
    expect(await deleteSession(id)).toBe(true);
    expect(run.end).toMatchObject({ reason: 'aborted' });
    expect(listener.events.at(-1)).toBe(null);
    expect(isAlive(pid)).toBe(false);
    expect(existsSync(store.path(id))).toBe(false);
    expect(await stream).toContain('"delta":"x"');
    await staysDeleted(store, id);
  });

  it('waits for what the agent has started, also when that ignores SIGTERM', async () => {
    const store = useStore({ killAfterMs: 50, cleanupGraceMs: 200 });
    const { id } = await createSession();
    start(agent('stubborn-family'), { sessionId: id });
    const listener = listen(id);
    const pids = await until(() => {
      const found = listener.text().match(/\d+/g) ?? [];
      return found.length === 3 && found.map(Number);
    }, 'all of the family were there');
    expect(await deleteSession(id)).toBe(true);
    expect(pids.filter(isAlive)).toEqual([]);
    await staysDeleted(store, id);
  });

  it.each([
    ['aborted', (id) => runs.abortRun(id)],
    ['not started yet', () => {}],
  ])('holds for a run that is %s in the same tick', async (_, stop) => {
    const store = useStore({ persistIntervalMs: 0, cleanupGraceMs: 200 });
    const { id } = await createSession();
    const { run } = start(agent('says-and-waits', 'x'), { sessionId: id });
    stop(id);
    expect(await deleteSession(id)).toBe(true);
    expect(run.end).toMatchObject({ reason: 'aborted' });
    await staysDeleted(store, id);
  });

  it('holds for an answer that could not be written before', async () => {
    const store = useStore({ cleanupGraceMs: 1_000 });
    const { id } = await createSession();
    rmSync(store.path(id));
    mkdirSync(store.path(id));
    start(agent('says', 'x'), { sessionId: id });
    await listen(id).ended;
    expect(runs.stats().flushes.failed).toBeGreaterThan(0);
    rmSync(store.path(id), { recursive: true });
    expect(await deleteSession(id)).toBe(true);
    await staysDeleted(store, id);
  });

  it('lets the session be used anew at once', async () => {
    const store = useStore({ cleanupGraceMs: 200 });
    const { id } = await createSession();
    start(agent('says-and-waits', 'old'), { sessionId: id });
    await listen(id).has('old');
    expect(await deleteSession(id)).toBe(true);
    start(agent('says', 'new'), { sessionId: id });
    await listen(id).ended;
    expect(store.messages(id)).toMatchObject([{ content: 'new' }]);
  });

  it('leaves a run of the same session in another store alone', async () => {
    const first = useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const second = useStore();
    runs.persistUserMessage(sessionId, { id: 'u', content: 'x' });
    expect(await deleteSession(sessionId)).toBe(true);
    expect(existsSync(second.path(sessionId))).toBe(false);
    expect(run.status).toBe('running');
    await told.say('x');
    await told.exit();
    await run.whenEnded;
    expect(first.messages(sessionId)).toMatchObject([{ content: 'x' }]);
  });
});

it.each([
  ['readMessages', () => readMessages('../x')],
  ['upsertMessages', () => upsertMessages('', [])],
  ['deleteSession', () => deleteSession('a/b')],
])('%s keeps session ids inside the store', async (_, call) => {
  useStore();
  await rejects(call(), 'INVALID_SESSION_ID', /^sessionId: /);
});
