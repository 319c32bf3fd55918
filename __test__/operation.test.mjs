// What those who operate a server are told: numbers, and warnings.
import { AsyncLocalStorage } from 'node:async_hooks';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, onTestFinished } from 'vitest';
import {
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

// Each in a process of its own, so that runs of other tests do not count.
describe('stats', () => {
  better('count the runs that can be found by status, and name the running agents', async () => {
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell, agent, said, ended }) => {
        await tell(runs.stats());
        runs.startRun({ sessionId: 'running', message: 'm', agent: data.agent });
        runs.startRun({ sessionId: 'completed', message: 'm', agent: agent('says', 'b') });
        runs.startRun({ sessionId: 'error', message: 'm', agent: data.missing });
        await Promise.all([said('running', 'a'), ended('completed'), ended('error')]);
        await tell(runs.stats());
        await ended('running');
        await tell(runs.stats());
        process.exit();
      },
      { settings: { storeDir: temporaryFolder(), cleanupGraceMs: 60_000 }, agent: told.agent, missing },
    );
    expect(await host.told()).toEqual({
      runs: { running: 0, completed: 0, error: 0 },
      subscribers: 0,
      events: 0,
      bufferedBytes: 0,
      lines: { read: 0, unreadable: 0, otherSession: 0, tooLong: 0, lastAt: null },
      silentSince: null,
      flushes: { written: 0, failed: 0, lastError: null },
      droppedStderrBytes: 0,
      childPids: [],
      remainingPids: [],
    });
    await told.say('a');
    const during = await host.told();
    expect(during.runs).toEqual({ running: 1, completed: 1, error: 1 });
    expect(during.childPids).toEqual([await told.pid()]);
    await told.exit();
    const after = await host.told();
    expect(after.runs).toEqual({ running: 0, completed: 2, error: 1 });
    expect(after.childPids).toEqual([]);
  });

  better('forget runs whose grace period is over, and remember what became of their lines', async () => {
    const host = server(
      async ({ runs, tell, agent, ended }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'a', 'b') });
        await ended('s');
        while (runs.getActiveRun('s')) await new Promise((resolve) => setImmediate(resolve));
        await tell(runs.stats());
        process.exit();
      },
      { settings: { storeDir: temporaryFolder(), cleanupGraceMs: 0 } },
    );
    expect(await host.told()).toMatchObject({
      runs: { running: 0, completed: 0, error: 0 },
      events: 0,
      bufferedBytes: 0,
      lines: { read: 2 },
    });
  });

  better('count subscribers, events and the bytes that they take', async () => {
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell, said }) => {
        const subscribers = () => runs.stats().subscribers;
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        const unsubscribe = runs.subscribeToRun('s', () => {});
        runs.subscribeToRun('s', () => {});
        const counts = [subscribers()];
        unsubscribe();
        counts.push(subscribers());
        const streams = [runs.createRunStream('s'), runs.createRunStream('s')];
        counts.push(subscribers());
        await streams[0].cancel();
        counts.push(subscribers());
        await said('s', 'y');
        const { events, bufferedBytes } = runs.stats();
        await tell({ counts, events, bufferedBytes });
        await new Response(streams[1]).text();
        while (subscribers() > 0) await new Promise((resolve) => setImmediate(resolve));
        await tell('nobody is left');
        process.exit();
      },
      { settings: { storeDir: temporaryFolder() }, agent: told.agent },
    );
    await told.say('x'.repeat(1_000), 'y'.repeat(1_000));
    const { counts, events, bufferedBytes } = await host.told();
    expect(counts).toEqual([2, 1, 3, 2]);
    expect(events).toBe(3);
    expect(bufferedBytes).toBeGreaterThan(2_000);
    expect(bufferedBytes).toBeLessThan(2_200);
    await told.exit();
    expect(await host.told()).toBe('nobody is left');
  });

  better('count lines by what became of them, also when none of them was an event', async () => {
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell }) => {
        runs.onWarning(() => {});
        runs.startRun({ sessionId: 's', message: 'm', agentSessionId: 'mine', agent: data.agent });
        while (runs.stats().lines.tooLong === 0) await new Promise((resolve) => setImmediate(resolve));
        await tell(runs.stats().lines);
        process.exit();
      },
      { settings: { storeDir: temporaryFolder(), maxLineBytes: 1_000 }, agent: told.agent },
    );
    await told.out('no JSON\n\nnull\n');
    await told.out(textLine('theirs', { sessionKey: 'agent:main:subagent:theirs' }));
    await told.out(`${'x'.repeat(2_000)}\n`);
    expect(await host.told()).toMatchObject({ read: 0, unreadable: 2, otherSession: 1, tooLong: 1 });
  });

  better('tell when the last line came, and since when the quietest running agent has been silent', async () => {
    const [quiet, loud] = [await puppet(), await puppet()];
    const host = server(
      async ({ runs, data, tell, hear, said }) => {
        const [first, second] = data.agents.map((agent, n) => {
          const sessionId = `${n}`;
          return runs.startRun({ sessionId, message: 'm', agent });
        });
        const look = () => {
          const { silentSince, lines } = runs.stats();
          const started = [first, second].map((run) => run.startedAt);
          return { silentSince, lastAt: lines.lastAt, lastLineAt: [first, second].map((run) => run.lastLineAt), started };
        };
        await tell(look());
        await said('1', 'a');
        await tell({ ...look(), now: Date.now() });
        await said('0', 'b');
        await tell({ ...look(), now: Date.now() });
        await Promise.all([first.whenEnded, second.whenEnded]);
        await tell(look());
        process.exit();
      },
      { agents: [quiet.agent, loud.agent], settings: { storeDir: temporaryFolder() } },
    );
    const before = await host.told();
    expect(before).toMatchObject({ silentSince: before.started[0], lastAt: null, lastLineAt: [null, null] });
    await loud.say('a');
    const one = await host.told();
    expect(one).toMatchObject({ silentSince: before.started[0], lastLineAt: [null, one.lastAt] });
    expect(one.lastAt).toBeGreaterThanOrEqual(before.started[1]);
    expect(one.lastAt).toBeLessThanOrEqual(one.now);
    await quiet.say('b');
    const two = await host.told();
    expect(two).toMatchObject({ silentSince: one.lastAt, lastLineAt: [two.lastAt, one.lastAt] });
    expect(two.lastAt).toBeGreaterThanOrEqual(one.lastAt);
    await Promise.all([quiet.exit(), loud.exit()]);
    expect(await host.told()).toMatchObject({ silentSince: null, lastAt: two.lastAt, lastLineAt: two.lastLineAt });
  });

  better('count no flush of a run that has only shown a status', async () => {
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell, agent, ended }) => {
        runs.startRun({ sessionId: 'status', message: 'm', agent: data.agent });
        await new Promise((resolve) => runs.subscribeToRun('status', resolve));
        // A flush would be due at once, and this takes a while.
        runs.startRun({ sessionId: 'other', message: 'm', agent: agent('says', 'a') });
        await ended('other');
        const ofOther = runs.stats().flushes.written;
        await new Promise((resolve) => setTimeout(resolve, 50));
        await tell({ ofOther, now: runs.stats().flushes.written });
        process.exit();
      },
      { agent: told.agent, settings: { storeDir: temporaryFolder(), persistIntervalMs: 0 } },
    );
    await told.out('{"event":"agent","stream":"lifecycle","data":{"phase":"start"}}\n');
    const { ofOther, now } = await host.told();
    expect(ofOther).toBeLessThanOrEqual(2);
    expect(now).toBe(ofOther);
  });

  better('count flushes, and keep the failure that came last', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'file'), '');
    const host = server(
      async ({ runs, data, tell, agent, ended }) => {
        runs.onWarning(() => {});
        runs.startRun({ sessionId: 'good', message: 'm', agent: agent('says', 'a') });
        await ended('good');
        await tell(runs.stats().flushes);
        runs.configure({ storeDir: data.bad });
        const started = Date.now();
        runs.startRun({ sessionId: 'bad', message: 'm', agent: agent('says', 'a') });
        await ended('bad');
        const { failed, lastError } = runs.stats().flushes;
        await tell({ failed, lastError, isNew: lastError.at >= started && lastError.at <= Date.now() });
        process.exit();
      },
      { settings: { storeDir: temporaryFolder() }, bad: join(folder, 'file', 'store') },
    );
    const good = await host.told();
    expect(good.written).toBeGreaterThan(0);
    expect(good).toMatchObject({ failed: 0, lastError: null });
    const bad = await host.told();
    expect(bad.failed).toBeGreaterThan(0);
    expect(bad.lastError).toMatchObject({ message: expect.stringContaining(folder), sessionId: 'bad' });
    expect(bad.isNew).toBe(true);
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
    await until(() => storeAt(storeDir).messages(sessionId).length === 1, 'the answer was saved');
    // Or it is written again while the folder is removed.
    await told.exit();
    await listen(sessionId).ended;
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
    onTestFinished(
      runs.onWarning(({ code }) => {
        if (code === 'START_FAILED') throw new Error('a bug of the app');
      }),
    );
    onTestFinished(storage.run('mine', () => runs.onWarning(({ code }) => code === 'START_FAILED' && contexts.push(storage.getStore()))));
    await play(missing);
    await until(() => contexts.length > 0, 'the second callback was called');
    expect(contexts).toEqual(['mine']);
  });

  better('says on stderr what a callback throws, without waiting until somebody reads that', async () => {
    const host = server(
      async ({ runs, data, tell, fs }) => {
        runs.onWarning(() => {
          throw new Error('a bug of the app');
        });
        const fail = () => runs.startRun({ sessionId: 's', message: 'm', agent: data.missing }).whenEnded;
        await fail();
        await tell('once');
        // More than the pipe holds.
        for (let n = 0; n < 200; n += 1) await fail();
        await tell('often');
      },
      { missing, settings: { storeDir: temporaryFolder() } },
    );
    expect(await host.told()).toBe('once');
    await until(() => host.stderr().includes('the callback of onWarning threw Error: a bug of the app'), 'it was said');
    host.child.stderr.pause();
    expect(await host.told()).toBe('often');
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

describe('a fault of the package with one run', () => {
  better('neither keeps the others from their events nor ends the process, and is said', async () => {
    const host = server(
      async ({ runs, tell, agent, ended }) => {
        runs.startRun({ sessionId: 'broken', message: 'm', agent: agent('says-and-waits', 'x') });
        globalThis[Symbol.for('active-runs.hub.2')].find('broken').deliver = () => {
          throw new Error('a fault of the package');
        };
        runs.startRun({ sessionId: 'whole', message: 'm', agent: agent('floods', 5_000) });
        let text = '';
        runs.subscribeToRun('whole', (event) => {
          if (event?.type === 'text-delta') text += event.delta;
        });
        await ended('whole');
        await tell(text.length);
      },
      { settings: { storeDir: temporaryFolder() } },
    );
    expect(await host.told()).toBe(Array.from({ length: 5_000 }, (_, number) => `${number} `).join('').length);
    await until(() => host.stderr().includes('events of session broken: Error: a fault of the package'), 'it was said');
  });
});
