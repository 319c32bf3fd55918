// What can happen to a store's folder: the run goes on and reaches its subscribers, the operator is
// told once, nothing that was there is lost, and the answer is written when the store is well again.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  MIB,
  history,
  listen,
  play,
  puppet,
  runs,
  server,
  shellAgent,
  start,
  storeAt,
  temporaries,
  temporaryFolder,
  textLine,
  tried,
  until,
  useStore,
} from './helpers.mjs';

const isRoot = process.getuid() === 0;
const sh = (command, ...args) => execFileSync(command, args.map(String), { stdio: ['ignore', 'ignore', 'pipe'] });

/** A file system of its own; for a user who may mount one. */
function mounted(size) {
  const folder = temporaryFolder();
  sh('mount', '-t', 'tmpfs', '-o', `size=${size},mode=0777`, 'active-runs-test', folder);
  onTestFinished(() => void spawnSync('umount', ['--lazy', folder]));
  return folder;
}

const probe = isRoot ? spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'active-runs-test', '/tmp']) : { status: 1 };
const mayMount = probe.status === 0;

/** A server that runs `s`, tells what its subscriber hears, and does what it is asked to. */
function serve(dir, agent, options) {
  const body = async ({ runs, data, tell }) => {
    let text = '';
    process.on('message', async (asked) => {
      if (asked === 'start') {
        text = '';
        try {
          runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        } catch (error) {
          await tell({ code: error.code, message: error.message });
          return;
        }
        runs.subscribeToRun(
          's',
          (event) => {
            if (event?.type === 'text-delta') text += event.delta;
            if (event === null) tell({ ended: text, status: runs.getActiveRun('s').status });
          },
          { replay: false },
        );
        await tell({ started: true });
      } else if (asked === 'text') {
        await tell({ text });
      } else if (asked.ask) {
        try {
          runs.persistUserMessage('s', { id: asked.ask, content: 'x' });
          await tell({ isKept: true });
        } catch (error) {
          await tell({ code: error.code, message: error.message });
        }
      } else if (asked === 'read') {
        const messages = runs.readMessages ? await runs.readMessages('s') : [];
        await tell({ ids: messages.map(({ id }) => id) });
      }
    });
    await tell({ ready: true });
  };
  const settings = { storeDir: dir, persistIntervalMs: 1, cleanupGraceMs: 300 };
  const host = server(body, { settings, agent }, options);
  const request = async (message) => {
    host.send(message);
    return host.told();
  };
  return {
    ...host,
    request,
    hears: (text) => until(async () => (await request('text')).text.includes(text), `the subscriber heard ${text}`),
    warnings: () => host.stderr().match(/^\[active-runs\] .*$/gm) ?? [],
  };
}

/** Runs `s` on a store that breaks in mid-run, or before, and is mended after the end. */
async function suffers({ dir, host, told, before, breaks, mends }) {
  const store = storeAt(dir);
  const { path } = store;
  expect(await host.told()).toHaveProperty('ready');
  expect(await host.request('start')).toEqual({ started: true });
  await told.say('one ');
  await host.hears('one ');
  await breaks?.();
  let text = 'one ';
  const kept = [];
  for (let n = 0; n < 40; n += 1) {
    await told.say(`w${n} `);
    text += `w${n} `;
    if (n % 10 === 5) {
      const answer = await host.request({ ask: `u${n}` });
      if (answer.isKept) kept.push(`u${n}`);
      else expect(answer).toMatchObject({ code: 'STORE_FAILED', message: expect.stringContaining(dir) });
    }
  }
  await host.hears('w39 ');
  await until(() => host.warnings().length > 0, 'the operator was told');
  expect(store.read('s').startsWith(before)).toBe(true);
  await told.exit();
  expect(await host.told()).toEqual({ ended: text, status: 'completed' });
  expect(store.read('s').startsWith(before)).toBe(true);
  await mends();
  await until(() => store.read('s').includes('w39 '), 'the answer was written when the store was well again');
  const messages = store.messages('s');
  expect(messages.find(({ role, id }) => role === 'assistant' && id.startsWith('assistant-s-'))).toMatchObject({ content: text });
  for (const id of kept) expect(messages.map((message) => message.id)).toContain(id);
  expect(store.read('s')).not.toContain('_streaming');
  expect(temporaries(dir)).toEqual([]);
  expect(host.warnings()).toHaveLength(1);
  expect(host.warnings()[0]).toContain(path('s'));
  return host.warnings()[0];
}

// Two ways to have no room: a limit on the size of files, and, for who may mount one, a file system
// that is full.
const limits = (bytes) => async (host) => sh('prlimit', '--pid', host.child.pid, `--fsize=${bytes}:`);

describe('no room on the disk', () => {
  const before = history(600_000);

  it('from the middle of a run on: the copy fails on its way', async () => {
    const dir = join(temporaryFolder(), 'store');
    mkdirSync(dir);
    storeAt(dir).write('s', before);
    const told = await puppet();
    const host = serve(dir, told.agent);
    const warning = await suffers({
      dir,
      host,
      told,
      before,
      breaks: () => limits(300_000)(host),
      mends: () => limits('unlimited')(host),
    });
    expect(warning).toMatch(/File too large/);
    tried('A flush that fails on its way (EFBIG)', 1, warning);
  });

  it.runIf(mayMount)('at all', async () => {
    const dir = mounted('4m');
    storeAt(dir).write('s', before);
    const told = await puppet();
    const host = serve(dir, told.agent);
    const ballast = join(dir, 'ballast');
    const warning = await suffers({
      dir,
      host,
      told,
      before,
      breaks: () => void spawnSync('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=4096']),
      mends: () => rmSync(ballast),
    });
    expect(warning).toMatch(/No space left/);
    tried('A full disk (ENOSPC)', 1, warning);
  });

  it.runIf(mayMount)('for a second copy of the history: the kernel has copied half of it', async () => {
    const dir = mounted('1m');
    storeAt(dir).write('s', before);
    const told = await puppet();
    const host = serve(dir, told.agent);
    const warning = await suffers({ dir, host, told, before, mends: () => sh('mount', '-o', 'remount,size=8m', dir) });
    expect(warning).toMatch(/No space left/);
    tried('ENOSPC in the middle of a flush', 1, warning);
  });
});

describe('a store that may not be written', () => {
  const before = history(20_000);

  it('by this user', async () => {
    const folder = temporaryFolder();
    const dir = join(folder, 'store');
    mkdirSync(dir);
    storeAt(dir).write('s', before);
    const told = await puppet();
    chmodSync(dir, 0o500);
    // Root may do everything, unless it gives that up.
    const rights = 'dac_override,-dac_read_search';
    const more = { execPath: 'setpriv', execArgv: [`--bounding-set=-${rights}`, `--inh-caps=-${rights}`, process.execPath] };
    const host = serve(dir, told.agent, isRoot ? more : {});
    const warning = await suffers({
      dir,
      host,
      told,
      before,
      mends: () => chmodSync(dir, 0o700),
    });
    expect(warning).toMatch(/Permission denied/);
    tried('No permission to write the store', 1, warning);
  });

  it.runIf(mayMount)('by anybody: it is mounted read-only', async () => {
    const dir = mounted('4m');
    storeAt(dir).write('s', before);
    sh('mount', '-o', 'remount,ro', dir);
    const told = await puppet();
    const host = serve(dir, told.agent);
    const warning = await suffers({
      dir,
      host,
      told,
      before,
      breaks: async () => {
        const { ids } = await host.request('read');
        expect(ids, 'it can still be read').toContain('h-0');
      },
      mends: () => sh('mount', '-o', 'remount,rw', dir),
    });
    expect(warning).toMatch(/Read-only file system/);
    tried('A read-only store', 1, warning);
  });
});

describe('no file descriptors left (EMFILE)', () => {
  const before = history(20_000);
  const files = (host, soft) => sh('prlimit', '--pid', host.child.pid, `--nofile=${soft}:`);

  it('from the middle of a run on', async () => {
    const dir = join(temporaryFolder(), 'store');
    mkdirSync(dir);
    storeAt(dir).write('s', before);
    const told = await puppet();
    const host = serve(dir, told.agent);
    const warning = await suffers({
      dir,
      host,
      told,
      before,
      breaks: () => files(host, 3),
      mends: () => files(host, 1_024),
    });
    expect(warning).toMatch(/Too many open files/);
    tried('No file descriptors left in mid-run (EMFILE)', 1, warning);
  });

  it('when the first run of a server starts; the next one is well again', async () => {
    const dir = join(temporaryFolder(), 'store');
    const host = serve(dir, shellAgent('says-numbers', 3));
    expect(await host.told()).toHaveProperty('ready');
    files(host, 3);
    const refused = await host.request('start');
    expect(refused).toMatchObject({ code: 'NO_THREADS', message: expect.stringContaining('Too many open files') });
    files(host, 1_024);
    expect(await host.request('start')).toEqual({ started: true });
    expect(await host.told()).toEqual({ ended: '1 2 3 ', status: 'completed' });
    // With its threads there, an agent that cannot be started is an error in the stream.
    files(host, 3);
    expect(await host.request('start')).toEqual({ started: true });
    const { ended, status } = await host.told();
    expect(ended).toContain('[error] Failed to start agent: spawn');
    expect(ended).toContain('EMFILE');
    expect(status).toBe('error');
    files(host, 1_024);
    expect(await host.request('start')).toEqual({ started: true });
    expect((await host.told()).ended).toMatch(/1 2 3 $/);
    tried('No file descriptors left when a run starts (EMFILE)', 2, refused.message);
  });
});

describe('a store that goes away', () => {
  it('in mid-run, deleted: the answer is in the one that is made anew', async () => {
    const store = useStore({ persistIntervalMs: 1, storeDir: join(temporaryFolder(), 'store') });
    const times = 20;
    for (let n = 0; n < times; n += 1) {
      const told = await puppet();
      const { sessionId } = start(told.agent);
      const listener = listen(sessionId, { replay: false });
      await told.say('one ');
      await until(() => store.read(sessionId).includes('one '), 'the first flush came');
      rmSync(store.dir, { recursive: true, force: true, maxRetries: 20 });
      await told.say('two');
      await until(() => store.read(sessionId).includes('two'), 'the next flush made the store anew');
      await told.exit();
      await listener.ended;
      expect(listener.text()).toBe('one two');
      expect(store.messages(sessionId)).toMatchObject([{ content: 'one two' }]);
    }
    tried('The store is deleted in mid-run', times);
  });

  it('in mid-run, for a file in its place, and comes back', async () => {
    const folder = temporaryFolder();
    const dir = join(folder, 'store');
    const before = history(20_000);
    mkdirSync(dir);
    storeAt(dir).write('s', before);
    const told = await puppet();
    const host = serve(dir, told.agent);
    expect(await host.told()).toHaveProperty('ready');
    expect(await host.request('start')).toEqual({ started: true });
    await told.say('one ');
    await until(() => storeAt(dir).read('s').includes('one '), 'the first flush came');
    renameSync(dir, join(folder, 'away'));
    writeFileSync(dir, 'not a folder');
    for (let n = 0; n < 20; n += 1) await told.say(`w${n} `);
    await until(() => host.warnings().length > 0, 'the operator was told');
    await told.exit();
    expect((await host.told()).ended).toMatch(/^one w0 .*w19 $/);
    rmSync(dir);
    renameSync(join(folder, 'away'), dir);
    await until(() => storeAt(dir).read('s').includes('w19 '), 'the answer was written when the store was back');
    expect(storeAt(dir).read('s').startsWith(before)).toBe(true);
    expect(host.warnings()).toHaveLength(1);
    tried('A file in the place of the store', 1, host.warnings()[0]);
  });
});

describe('a folder in the place of a session file', () => {
  it('and the answer is written when it is gone, long after the grace of its run', async () => {
    const store = useStore({ persistIntervalMs: 1, cleanupGraceMs: 20 });
    const { sessionId, text } = await (async () => {
      const told = await puppet();
      const { sessionId } = start(told.agent);
      mkdirSync(store.path(sessionId));
      const listener = listen(sessionId, { replay: false });
      await told.say('answer');
      expect(() => runs.persistUserMessage(sessionId, { id: 'u', content: 'x' })).toThrow(/directory/);
      await told.exit();
      await listener.ended;
      return { sessionId, text: listener.text() };
    })();
    expect(text).toBe('answer');
    await until(() => runs.getActiveRun(sessionId) === undefined, 'the run was forgotten');
    expect(existsSync(store.path(sessionId)) && readdirSync(store.path(sessionId))).toEqual([]);
    rmSync(store.path(sessionId), { recursive: true });
    await until(() => store.read(sessionId).includes('answer'), 'the answer was written after all');
    expect(store.messages(sessionId)).toMatchObject([{ content: 'answer' }]);
    tried('A folder in the place of a session file', 1);
  });

  it('is left alone, whatever happens to its session', async () => {
    const store = useStore({ cleanupGraceMs: 20 });
    mkdirSync(store.path('folder'));
    writeFileSync(join(store.path('folder'), 'theirs'), 'theirs');
    const { text } = await play(shellAgent('says-numbers', 2), { sessionId: 'folder' });
    expect(text).toBe('1 2 ');
    expect(readdirSync(store.path('folder'))).toEqual(['theirs']);
    expect(temporaries(store.dir)).toEqual([]);
    rmSync(store.path('folder'), { recursive: true });
    await until(() => store.read('folder').includes('1 2 '), 'the answer was written after all');
  });
});

it('an answer of many megabytes is kept when the disk has room for it only later', async () => {
  const dir = join(temporaryFolder(), 'store');
  mkdirSync(dir);
  const told = await puppet();
  const host = serve(dir, told.agent);
  expect(await host.told()).toHaveProperty('ready');
  await limits(2 * MIB)(host);
  expect(await host.request('start')).toEqual({ started: true });
  const piece = 'x'.repeat(MIB / 4);
  for (let n = 0; n < 40; n += 1) await told.out(textLine(piece));
  await told.exit();
  const { ended } = await host.told();
  expect(ended.length).toBe(10 * MIB);
  await limits('unlimited')(host);
  await until(() => storeAt(dir).read('s').length > 20 * MIB, 'the answer was written');
  expect(storeAt(dir).messages('s')).toMatchObject([{ content: ended }]);
  expect(host.warnings()).toHaveLength(1);
});
