// What those who operate a server are told: numbers, and warnings.
import { AsyncLocalStorage } from 'node:async_hooks';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, onTestFinished } from 'vitest';
import {
  agent,
  better,
  listen,
  newSession,
  play,
  puppet,
  runs,
  server,
  start,
  storeAt,
  temporaryFolder,
  textLine,
  until,
  useStore,
} from './helpers/index.mjs';

/** An agent that cannot be started. */
const missing = { command: '/nowhere/no-such-agent' };

/** Listens for as long as the test lasts. Runs of earlier tests may still have something to say, of another kind. */
function hearWarnings(code) {
  const heard = [];
  onTestFinished(runs.onWarning((warning) => warning.code === code && heard.push(warning)));
  return heard;
}

describe('stats', () => {
  better('count the runs that can be found by status, and name the running agents', async () => {
    useStore({ cleanupGraceMs: 60_000 });
    const before = runs.stats();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('a');
    await play(agent('says', 'b'));
    await play(missing);
    const during = runs.stats();
    expect(during.runs).toEqual({
      running: before.runs.running + 1,
      completed: before.runs.completed + 1,
      error: before.runs.error + 1,
    });
    expect(during.childPids.filter((pid) => !before.childPids.includes(pid))).toEqual([await told.pid()]);
    const listener = listen(sessionId);
    await told.exit();
    await listener.ended;
    const after = runs.stats();
    expect(after.runs).toEqual({ ...during.runs, running: before.runs.running, completed: before.runs.completed + 2 });
    expect(after.childPids).toEqual(before.childPids);
  });

  better('forget runs whose grace period is over, and remember what became of their lines', async () => {
    useStore({ cleanupGraceMs: 0 });
    const before = runs.stats();
    const { sessionId } = await play(agent('says', 'a', 'b'));
    await until(() => runs.getActiveRun(sessionId) === undefined, 'the run was forgotten');
    const after = runs.stats();
    expect(after.runs).toEqual(before.runs);
    expect([after.events, after.bufferedBytes]).toEqual([before.events, before.bufferedBytes]);
    expect(after.lines.read).toBe(before.lines.read + 2);
  });

  better('count subscribers, events and the bytes that they take', async () => {
    useStore();
    const before = runs.stats();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const [one] = [listen(sessionId), listen(sessionId)];
    expect(runs.stats().subscribers).toBe(before.subscribers + 2);
    one.unsubscribe();
    expect(runs.stats().subscribers).toBe(before.subscribers + 1);
    const streams = [runs.createRunStream(sessionId), runs.createRunStream(sessionId)];
    expect(runs.stats().subscribers).toBe(before.subscribers + 3);
    await streams[0].cancel();
    expect(runs.stats().subscribers).toBe(before.subscribers + 2);
    await told.say('x'.repeat(1_000), 'y'.repeat(1_000));
    await until(() => runs.stats().events === before.events + 3, 'start and deltas were buffered');
    const bytes = runs.stats().bufferedBytes - before.bufferedBytes;
    expect(bytes).toBeGreaterThan(2_000);
    expect(bytes).toBeLessThan(2_200);
    await told.exit();
    await new Response(streams[1]).text();
    await until(() => runs.stats().subscribers === before.subscribers, 'nobody was left');
  });

  better('count lines by what became of them, also when none of them was an event', async () => {
    useStore({ maxLineBytes: 1_000 });
    hearWarnings('LINE_TOO_LONG');
    const before = runs.stats().lines;
    const told = await puppet();
    start(told.agent, { agentSessionId: 'mine' });
    await told.out('no JSON\n\nnull\n');
    await told.out(textLine('theirs', { sessionKey: 'agent:main:subagent:theirs' }));
    await told.out(`${'x'.repeat(2_000)}\n`);
    await until(() => runs.stats().lines.tooLong > before.tooLong, 'the lines were counted');
    expect(runs.stats().lines).toEqual({
      read: before.read,
      unreadable: before.unreadable + 2,
      otherSession: before.otherSession + 1,
      tooLong: before.tooLong + 1,
    });
  });

  better('count flushes, and keep the failure that came last', async () => {
    useStore();
    const before = runs.stats().flushes;
    await play(agent('says', 'a'));
    const good = runs.stats().flushes;
    expect(good.written).toBeGreaterThan(before.written);
    expect(good.failed).toBe(before.failed);

    hearWarnings('STORE_FAILED');
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'file'), '');
    useStore({ storeDir: join(folder, 'file', 'store'), cleanupGraceMs: 0 });
    const started = Date.now();
    const { sessionId } = await play(agent('says', 'a'));
    const bad = runs.stats().flushes;
    expect(bad.failed).toBeGreaterThan(good.failed);
    expect(bad.lastError).toEqual({ message: expect.stringContaining(folder), sessionId, at: expect.any(Number) });
    expect(bad.lastError.at).toBeGreaterThanOrEqual(started);
  });
});

describe('onWarning', () => {
  better('tells what otherwise goes to stderr, with a code and the session', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const host = server(
      async ({ runs, data, tell, ended, agent }) => {
        const heard = [];
        const isEnough = new Promise((resolve) => {
          runs.onWarning((warning) => heard.push(warning) === 2 && resolve());
        });
        runs.startRun({ sessionId: 'missing', message: 'm', agent: data.missing });
        runs.startRun({ sessionId: 'long', message: 'm', agent: agent('writes-a-huge-line', 1) });
        await Promise.all([ended('missing'), ended('long'), isEnough]);
        heard.sort((a, b) => (a.code < b.code ? -1 : 1));
        await tell({ heard, isPlain: heard.every((warning) => Object.getPrototypeOf(warning) === Object.prototype) });
        process.exit();
      },
      { settings: { storeDir: store.dir, maxLineBytes: 1_000 }, missing },
    );
    expect(await host.told()).toEqual({
      heard: [
        { code: 'LINE_TOO_LONG', message: expect.stringContaining('1000 bytes'), sessionId: 'long' },
        { code: 'START_FAILED', message: expect.stringContaining('spawn /nowhere/no-such-agent ENOENT'), sessionId: 'missing' },
      ],
      isPlain: true,
    });
    await host.exited;
    expect(host.stderr()).toBe('');
  });

  better('tells of an answer that cannot be saved, once, until it can be', async () => {
    const folder = temporaryFolder();
    const storeDir = join(folder, 'store');
    writeFileSync(storeDir, 'in the way of the folder');
    useStore({ storeDir, persistIntervalMs: 1 });
    const heard = hearWarnings('STORE_FAILED');
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('a');
    await until(() => heard.some((warning) => warning.sessionId === sessionId), 'a warning came');
    const before = runs.stats().flushes.failed;
    await until(() => runs.stats().flushes.failed > before + 3, 'more flushes failed');
    expect(heard.filter((warning) => warning.sessionId === sessionId)).toEqual([
      { code: 'STORE_FAILED', message: expect.stringContaining(storeDir), sessionId },
    ]);
    rmSync(storeDir);
    mkdirSync(storeDir);
    await until(() => storeAt(storeDir).messages(sessionId).length === 1, 'the answer was saved');
  });

  better('does not tell in the tick of the call, and not after it was taken back', async () => {
    useStore();
    const heard = [];
    const callback = (warning) => warning.code === 'START_FAILED' && heard.push(warning);
    const takeBack = runs.onWarning(callback);
    const takeBackAgain = runs.onWarning(callback);
    const others = hearWarnings('START_FAILED');
    const first = start(missing);
    expect(heard).toEqual([]);
    await listen(first.sessionId).ended;
    await until(() => heard.length > 0, 'a warning came');
    expect(heard).toHaveLength(1);
    takeBack();
    takeBackAgain();
    await play(missing);
    await until(() => others.length === 2, 'the other callback was told');
    expect(heard).toHaveLength(1);
  });

  better('calls every callback, in its own asynchronous context, whatever another one throws', async () => {
    useStore();
    const storage = new AsyncLocalStorage();
    const contexts = [];
    const log = console.error;
    const printed = [];
    console.error = (...parts) => printed.push(parts.join(' '));
    onTestFinished(() => {
      console.error = log;
    });
    onTestFinished(
      runs.onWarning(({ code }) => {
        if (code === 'START_FAILED') throw new Error('a bug of the app');
      }),
    );
    onTestFinished(storage.run('mine', () => runs.onWarning(({ code }) => code === 'START_FAILED' && contexts.push(storage.getStore()))));
    await play(missing);
    await until(() => contexts.length > 0, 'the second callback was called');
    expect(contexts).toEqual(['mine']);
    expect(printed).toEqual([expect.stringContaining('a bug of the app')]);
  });

  better('refuses what is no function', () => {
    expect(() => runs.onWarning('x')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  better('leaves to stderr what was not delivered when the process ends', async () => {
    const host = server(
      async ({ runs, data, tell }) => {
        runs.onWarning(() => tell('delivered'));
        runs.startRun({ sessionId: 's', message: 'm', agent: data.missing });
        // The loop is never given back, so nothing can be delivered.
        const cell = new Int32Array(new SharedArrayBuffer(4));
        while (runs.stats().runs.running > 0) Atomics.wait(cell, 0, 0, 5);
        process.exit();
      },
      { settings: { storeDir: temporaryFolder() }, missing },
    );
    await host.exited;
    expect(host.stderr()).toMatch(/^\[active-runs\] Failed to start the agent: .* ENOENT$/m);
  });

  better('leaves to stderr what comes after the listening thread has ended', async () => {
    const host = server(
      async ({ runs, data, ended, modulePath }) => {
        const { Worker } = process.getBuiltinModule('node:worker_threads');
        const worker = new Worker(
          `require(require('node:worker_threads').workerData).onWarning(() => {});
           require('node:worker_threads').parentPort.postMessage('listening');
           setInterval(() => {}, 1_000);`,
          { eval: true, workerData: modulePath },
        );
        await new Promise((resolve) => worker.once('message', resolve));
        await worker.terminate();
        runs.startRun({ sessionId: 's', message: 'm', agent: data.missing });
        await ended('s');
        process.exit();
      },
      { settings: { storeDir: temporaryFolder() }, missing },
    );
    await host.exited;
    expect(host.stderr()).toMatch(/^\[active-runs\] Failed to start the agent: /m);
  });

  better('tells a worker thread, too', async () => {
    useStore();
    const worker = new Worker(new URL('helpers/hears-warnings-in-a-worker.mjs', import.meta.url));
    onTestFinished(() => void worker.terminate());
    const heard = [];
    worker.on('message', (message) => heard.push(message));
    await until(() => heard.includes('listening'), 'the worker listened');
    const { sessionId } = start(missing, { sessionId: newSession() });
    await until(() => heard.some((warning) => warning.sessionId === sessionId), 'the worker was told');
    expect(heard).toContainEqual(expect.objectContaining({ code: 'START_FAILED', sessionId }));
  });
});
