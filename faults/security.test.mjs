// What somebody with bad intentions may send: ids, JSON, links in the store; and what must not get out.
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import {
  chance,
  newSession,
  play,
  puppet,
  runs,
  server,
  shellAgent,
  temporaryFolder,
  tried,
  useStore,
} from './helpers.mjs';

describe('session ids', () => {
  it('made of hostile pieces stay inside the store or are refused, by every function', async () => {
    const folder = temporaryFolder();
    const store = useStore({ storeDir: join(folder, 'store') });
    mkdirSync(store.dir);
    const random = chance('ids');
    const pieces = ['..', '.', '/', '\\', '\0', 'a', '~', '$HOME', '%2e', '\n', ' ', '-', 'ä'.repeat(99), '\u202e', ':', '*', '\ud800', 'index', '.jsonl', 'CON'];
    const times = 3_000;
    let refused = 0;
    const ids = new Set();
    for (let n = 0; n < times; n += 1) {
      const id = Array.from({ length: 1 + random.below(5) }, () => random.pick(pieces)).join('');
      try {
        runs.persistUserMessage(id, { id: `u${n}`, content: 'x' });
        ids.add(`${Buffer.from(id)}.jsonl`);
      } catch (error) {
        expect(error.code).toBe('INVALID_SESSION_ID');
        refused += 1;
        for (const call of [runs.readMessages, runs.deleteSession, (id) => runs.upsertMessages(id, [])]) {
          await expect(call(id)).rejects.toMatchObject({ code: 'INVALID_SESSION_ID' });
        }
      }
    }
    expect(refused).toBeGreaterThan(times / 4);
    expect(new Set(readdirSync(store.dir))).toEqual(ids);
    expect(readdirSync(folder)).toEqual(['store']);
    tried('Hostile session ids', times, `${refused} refused, the others inside the store`);
  });
});

describe('links in the store', () => {
  it.each(['a file', 'a folder', 'nothing', 'another session'])('to %s are not followed', async (kind) => {
    const folder = temporaryFolder();
    const store = useStore({ storeDir: join(folder, 'store'), cleanupGraceMs: 20 });
    mkdirSync(store.dir);
    const outside = join(folder, 'outside');
    if (kind === 'a file') writeFileSync(outside, '{"id":"theirs"}\n');
    if (kind === 'a folder') mkdirSync(outside);
    if (kind === 'another session') store.write('other', '{"id":"theirs"}\n');
    const target = kind === 'another session' ? store.path('other') : outside;
    const before = existsSync(target) && statSync(target).isFile() ? readFileSync(target, 'utf8') : undefined;
    const id = `linked-${newSession()}`;
    symlinkSync(target, store.path(id));
    const refusal = { code: 'STORE_FAILED', message: expect.stringContaining('symbolic link') };
    expect(() => runs.persistUserMessage(id, { id: 'u', content: 'x' })).toThrow(expect.objectContaining(refusal));
    await expect(runs.readMessages(id)).rejects.toMatchObject(refusal);
    await expect(runs.upsertMessages(id, [{ id: 'u', role: 'user' }])).rejects.toMatchObject(refusal);
    const { text } = await play(shellAgent('says-numbers', 2), { sessionId: id });
    expect(text).toBe('1 2 ');
    expect(lstatSync(store.path(id)).isSymbolicLink()).toBe(true);
    if (before !== undefined) expect(readFileSync(target, 'utf8')).toBe(before);
    if (kind === 'a folder') expect(readdirSync(outside)).toEqual([]);
    if (kind === 'nothing') expect(existsSync(outside)).toBe(false);
    tried('A session file that is a symbolic link', 1, `to ${kind}`);
  });

  it('in the place of the index are not followed', async () => {
    const folder = temporaryFolder();
    const store = useStore({ storeDir: join(folder, 'store') });
    mkdirSync(store.dir);
    const outside = join(folder, 'outside.json');
    writeFileSync(outside, JSON.stringify([{ id: 's', messageCount: 0 }]));
    symlinkSync(outside, store.indexPath);
    runs.persistUserMessage('s', { id: 'u', content: 'x' });
    await expect(runs.createSession()).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(JSON.parse(readFileSync(outside, 'utf8'))).toEqual([{ id: 's', messageCount: 0 }]);
  });

  it('hard ones lose their second name with the first rewrite, and pass nothing on', async () => {
    const folder = temporaryFolder();
    const store = useStore({ storeDir: join(folder, 'store') });
    mkdirSync(store.dir);
    const outside = join(folder, 'outside');
    writeFileSync(outside, '{"id":"1"}\n');
    linkSync(outside, store.path('s'));
    await play(shellAgent('says-numbers', 2), { sessionId: 's' });
    expect(readFileSync(outside, 'utf8')).toBe('{"id":"1"}\n');
  });

  it('a FIFO in the place of a session file holds nobody up', async () => {
    const store = useStore({ cleanupGraceMs: 20 });
    const sessionId = `fifo-${newSession()}`;
    spawnSync('mkfifo', [store.path(sessionId)]);
    expect(() => runs.persistUserMessage(sessionId, { id: 'u', content: 'x' })).toThrow(/no regular file/);
    const { text } = await play(shellAgent('says-numbers', 2), { sessionId });
    expect(text).toBe('1 2 ');
  });
});

it('new files are for their owner only, whatever the umask', async () => {
  const folder = temporaryFolder();
  const dir = join(folder, 'deep', 'store');
  const host = server(
    async ({ runs, agent, tell, ended }) => {
      process.umask(0);
      runs.persistUserMessage('asked', { id: 'u', content: 'x' });
      runs.startRun({ sessionId: 'answered', message: 'm', agent: agent('says', 'x') });
      await ended('answered');
      const { id } = await runs.createSession();
      await runs.upsertMessages('upserted', [{ id: 'u', role: 'user' }]);
      await tell(id);
      process.exit();
    },
    { settings: { storeDir: dir } },
  );
  const created = await host.told();
  const mode = (...path) => (statSync(join(dir, ...path)).mode & 0o777).toString(8);
  for (const name of ['asked', 'answered', 'upserted', created]) expect(mode(`${name}.jsonl`)).toBe('600');
  expect(mode('index.json')).toBe('600');
  expect([mode(), mode('..')]).toEqual(['700', '700']);
  tried('Permissions of new files and folders', 7);
});

it('nothing of the environment is in errors, warnings or events', async () => {
  const secret = 'sk-very-secret-0123456789';
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'a-file'), '');
  const told = await puppet();
  const host = server(
    async ({ runs, data, tell, ended, path }) => {
      const said = [];
      const failing = [
        { agent: { command: '/no/such/agent', env: { KEY: data.secret } } },
        { agent: { command: data.file, env: { KEY: data.secret } } },
        { agent: { command: '/bin/sh', cwd: '/no/such/folder', env: { KEY: data.secret } } },
        { agent: { command: '/bin/sh', args: ['-c', 'exit 3'], env: { KEY: data.secret } } },
        { agent: { command: '/bin/sh', args: ['-c', 'kill -SEGV $$'], env: { KEY: data.secret } } },
        { agent: { command: '/bin/sh', args: ['x'.repeat(1 << 21)], env: { KEY: data.secret } } },
        { agent: { command: '', env: { KEY: data.secret } } },
        { agent: { command: 'x', env: { 'A=B': data.secret } } },
        { agent: { command: 'x', env: { KEY: `${data.secret}\0` } } },
        { message: 'a\0b' },
        {},
      ];
      for (const [n, more] of failing.entries()) {
        try {
          runs.startRun({ sessionId: `s${n}`, message: 'm', ...more });
          said.push(await ended(`s${n}`));
        } catch (error) {
          said.push(`${error.stack} ${JSON.stringify(error)}`);
        }
      }
      runs.configure({ storeDir: path.join(data.file, 'store') });
      try {
        runs.persistUserMessage('s', { id: 'u', content: 'x' });
      } catch (error) {
        said.push(error.stack);
      }
      runs.startRun({ sessionId: 'last', message: 'm', agent: data.agent });
      said.push(await ended('last'));
      await tell(JSON.stringify(said));
      process.exit();
    },
    { secret, file: join(folder, 'a-file'), agent: told.agent, settings: { storeDir: join(folder, 'store') } },
    { cwd: folder, env: { API_KEY: secret, OPENCLAW_ROOT: '' } },
  );
  await told.say('word');
  await told.exit(2);
  const said = await host.told();
  await host.exited;
  expect(said).toContain('ENOENT');
  expect(said).toContain('[error]');
  expect(said + host.stderr()).not.toContain(secret);
  expect(host.stderr()).toContain('is not saved');
  tried('Errors that might tell of the environment', 13);
});

describe('hostile JSON', () => {
  const DEEP = 1_000_000;
  const deep = '['.repeat(DEEP) + ']'.repeat(DEEP);
  const deepObjects = '{"a":'.repeat(DEEP / 10) + '1' + '}'.repeat(DEEP / 10);
  const digits = '9'.repeat(5_000_000);
  const VALUES = {
    'arrays nested a million deep': deep,
    'objects nested deeply': deepObjects,
    'a number of five million digits': digits,
    'a number with an enormous exponent': `[1e999999999999, -1e-999999999999, 0.${digits.slice(0, 100_000)}e-100000]`,
    'a member called __proto__': '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":2}},"a":{"__proto__":null}}',
    'a hundred thousand members of one name': `{${'"a":1,'.repeat(100_000)}"a":2}`,
    'a hundred thousand members': `{${Array.from({ length: 100_000 }, (_, n) => `"k${n}":${n}`).join()}}`,
    'megabytes of escapes': `"${'\\ud83d\\u0000'.repeat(500_000)}"`,
  };

  // In each place where a value of the agent's is read.
  const output = (raw) =>
    [
      `{"event":"agent","stream":"tool","data":{"phase":"start","toolCallId":"a","name":"n","args":${raw.startsWith('{') ? raw : `{"x":${raw}}`}}}`,
      `{"event":"agent","stream":"tool","data":{"phase":"result","toolCallId":"a","result":{"details":${raw},"content":[]}}}`,
      `{"event":"agent","stream":"tool","data":{"phase":"result","toolCallId":"a","result":${raw},"isError":${raw}}}`,
      raw,
      `{"event":${raw}}`,
      `{"event":"agent","stream":"assistant","data":{"delta":${raw}}}`,
      `{"event":"agent","stream":"lifecycle","data":{"phase":"end","error":${raw}}}`,
      '{"event":"agent","stream":"assistant","data":{"delta":"after"}}',
      '',
    ].join('\n');

  it.each(Object.entries(VALUES))('%s, in what the agent says', async (name, raw) => {
    const store = useStore();
    const path = join(temporaryFolder(), 'stdout');
    writeFileSync(path, output(raw));
    const { sessionId, events, text } = await play({ command: 'cat', args: [path] });
    expect(text.endsWith('after')).toBe(true);
    expect(events.at(-1)).toBe(null);
    expect({}.polluted).toBe(undefined);
    const input = events.find((event) => event?.type === 'tool-input-available')?.input;
    expect(Object.getPrototypeOf(input)).toBe(Object.prototype);
    // Whoever comes late is told the same.
    let late = 0;
    runs.subscribeToRun(sessionId, () => {
      late += 1;
    });
    expect(late).toBe(events.length);
    expect(store.read(sessionId).endsWith('}\n')).toBe(true);
    const messages = await runs.readMessages(sessionId);
    expect(messages).toHaveLength(1);
    expect(Object.keys(messages[0]).slice(0, 2)).toEqual(['id', 'role']);
    tried('Hostile JSON from the agent', 1, name);
  });

  it.each(Object.entries(VALUES))('%s, in the files of the store', async (name, raw) => {
    const store = useStore();
    const lines = `{"id":"before","x":${raw}}\n${raw}\n{"x":${raw},"id":"after"}\n`;
    store.write('s', lines);
    const index = `[{"id":"s","title":"t","messageCount":1,"x":${raw}}]`;
    writeFileSync(store.indexPath, index);
    runs.persistUserMessage('s', { id: 'u', content: 'x' });
    await play(shellAgent('says-numbers', 2), { sessionId: 's' });
    expect(store.read('s').startsWith(lines)).toBe(true);
    const ids = (await runs.readMessages('s')).map(({ id }) => id).filter(Boolean);
    expect(ids.slice(0, 3)).toEqual(['before', 'after', 'u']);
    const sessions = await runs.listSessions();
    expect(sessions).toHaveLength(1);
    expect(sessions[0].id).toBe('s');
    expect({}.polluted).toBe(undefined);
    tried('Hostile JSON in the files of the store', 1, name);
  });

  it('in messages from the browser pollutes nothing', async () => {
    const store = useStore();
    const message = JSON.parse('{"id":"u","role":"user","content":"x","__proto__":{"polluted":1},"parts":[{"__proto__":{"polluted":1}}]}');
    runs.persistUserMessage('s', message);
    await runs.upsertMessages('s', [message, JSON.parse('{"id":"__proto__","role":"user"}'), { id: 'constructor' }]);
    const read = await runs.readMessages('s');
    expect(read.map(({ id }) => id)).toEqual(['u', '__proto__', 'constructor']);
    expect({}.polluted).toBe(undefined);
    const cyclic = { id: 'c', content: 'x', parts: [] };
    cyclic.parts.push(cyclic);
    expect(() => runs.persistUserMessage('s', cyclic)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(store.messages('s')).toHaveLength(3);
  });
});
