// What JavaScript can do to the engine: threads that end, callbacks that do what they like, a loop
// that stands still, handles that are collected, copies of the package.
import { createRequire } from 'node:module';
import { expect, describe, it } from 'vitest';
import {
  MIB,
  chance,
  copyOfPackage,
  hosted,
  listen,
  newSession,
  play,
  processesWith,
  program,
  puppet,
  runs,
  server,
  shellAgent,
  start,
  temporaryFolder,
  tried,
  until,
  useStore,
} from './helpers.mjs';
import { join } from 'node:path';

describe('worker threads', () => {
  const TIMES = 60;

  it(`that start, subscribe and are terminated at random, ${TIMES} times, leave nothing behind`, async () => {
    const mark = `mark-${newSession()}`;
    const host = await hosted('works-in-workers.mjs', { storeDir: join(temporaryFolder(), 'store'), mark });
    await host.asks(20);
    const before = await host.settled();
    await host.asks(TIMES);
    await until(() => processesWith(mark).every(({ parent }) => parent !== host.pid), 'every agent ended');
    const after = await host.settled(before);
    const growth = (after.rss - before.rss) / MIB;
    // Node itself keeps a little of every thread that ends.
    expect(growth).toBeLessThan(24);
    tried('Worker threads that start and subscribe, terminated at random', TIMES, host.compared(before, after));
  });
});

describe('callbacks', () => {
  it('that throw, leave, bring others, start and abort runs, at random', async () => {
    useStore({ cleanupGraceMs: 20, killAfterMs: 50 });
    const random = chance('callbacks');
    const RUNS = 150;
    let started = 0;
    let open = 0;
    const problems = [];
    const finished = [];

    function listenAtRandom(sessionId, depth) {
      let last = false;
      let leave;
      let hasLeft = false;
      finished.push(
        new Promise((resolve) => {
          const onEvent = (event) => {
            if (last) problems.push(`${sessionId}: called after its end`);
            if (hasLeft) problems.push(`${sessionId}: called after it had left`);
            if (event === null) {
              last = true;
              resolve();
              if (random.below(2) === 0) begin();
            }
            switch (random.below(12)) {
              case 0:
                throw new Error('a subscriber has failed');
              case 1:
                // In replay there is nothing to leave yet.
                if (leave && !last) {
                  leave();
                  hasLeft = true;
                  resolve();
                }
                break;
              case 2:
                if (depth < 3) listenAtRandom(sessionId, depth + 1);
                break;
              case 3:
                begin();
                break;
              case 4:
                if (random.below(6) === 0) runs.abortRun(sessionId);
                break;
              case 5:
                void runs.getActiveRun(sessionId)?.accumulated.textParts;
                break;
            }
          };
          try {
            leave = runs.subscribeToRun(sessionId, onEvent, { replay: random.below(2) === 0 });
            if (leave === null) resolve();
          } catch (error) {
            // Thrown in replay, it reaches the caller, who is not subscribed then.
            if (error.message !== 'a subscriber has failed') problems.push(error.stack);
            resolve();
          }
        }),
      );
    }

    function begin() {
      if (started >= RUNS || open > 20) return;
      started += 1;
      open += 1;
      const sessionId = `chaos-${started % 30}-${started}`;
      const manner = random.below(4) === 0 ? shellAgent('as-it-is-told', 'fails') : shellAgent('says-numbers', random.below(60));
      start(manner, { sessionId });
      // One that does nothing but count its end.
      let ends = 0;
      const steady = { events: 0 };
      finished.push(
        new Promise((resolve) => {
          runs.subscribeToRun(sessionId, (event) => {
            steady.events += 1;
            if (event !== null) return;
            ends += 1;
            open -= 1;
            if (ends !== 1) problems.push(`${sessionId}: ended ${ends} times`);
            setImmediate(() => {
              resolve();
              begin();
            });
          });
        }),
      );
      for (let n = 0; n < 4; n += 1) listenAtRandom(sessionId, 0);
    }

    for (let n = 0; n < 5; n += 1) begin();
    for (let known = 0; known < finished.length; known += 1) await finished[known];
    while (started < RUNS) {
      begin();
      for (let known = 0; known < finished.length; known += 1) await finished[known];
    }
    expect(problems).toEqual([]);
    tried('Subscribers that throw, leave, bring others, start and abort runs', finished.length, `subscriptions to ${started} runs`);
  });
});

describe('a loop that stands still', () => {
  it('for seconds, in a flood from ten agents, loses nothing and then goes on', async () => {
    const host = server(
      async ({ runs, tell, agent }) => {
        const sessions = Array.from({ length: 10 }, (_, n) => `s${n}`);
        const ended = sessions.map((sessionId) => {
          const run = runs.startRun({ sessionId, message: 'm', agent: agent('floods', 50_000) });
          return new Promise((resolve) => {
            let next = 0;
            runs.subscribeToRun(
              sessionId,
              (event) => {
                if (event?.type === 'text-delta') {
                  for (const word of event.delta.trim().split(' ')) if (Number(word) === next) next += 1;
                }
                if (event === null) resolve({ next, status: run.status });
              },
              { replay: false },
            );
          });
        });
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4_000);
        await tell(await Promise.all(ended));
        process.exit();
      },
      { settings: { storeDir: join(temporaryFolder(), 'store') } },
    );
    expect(await host.told()).toEqual(Array(10).fill({ next: 50_000, status: 'completed' }));
    tried('A blocked loop under a flood', 10, 'runs of 50,000 events, blocked for 4 s');
  });
});

describe('memory and handles', () => {
  const ROUNDS = 4;

  it('of 1,000 runs and 10,000 subscriptions is flat, under forced collections', async () => {
    const host = await hosted('many-runs.mjs', { storeDir: join(temporaryFolder(), 'store'), subscriptions: 10 });
    await host.asks(250);
    const before = await host.settled();
    let last;
    for (let round = 0; round < ROUNDS; round += 1) last = await host.asks(250);
    const after = await host.settled(before);
    // The handles of all runs but the youngest have been collected.
    expect(last.collected).toBeGreaterThan(last.number * 0.9);
    const growth = (after.rss - before.rss) / MIB;
    expect(growth).toBeLessThan(16);
    tried('Runs', ROUNDS * 250, `with ${ROUNDS * 2_500} subscriptions: ${host.compared(before, after)}`);
  });

  it('of a run that is running are found again though every handle was collected', async () => {
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell, said, ended }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'one');
        for (let turn = 0; turn < 20; turn += 1) {
          globalThis.gc();
          await new Promise(setImmediate);
        }
        await tell({ isActive: runs.hasActiveRun('s') });
        const events = await ended('s');
        await tell({ text: events.map((event) => event?.delta ?? '').join(''), last: events.at(-1) });
        process.exit();
      },
      { settings: { storeDir: temporaryFolder() }, agent: told.agent },
      { execArgv: ['--expose-gc'] },
    );
    await told.say('one');
    expect(await host.told()).toEqual({ isActive: true });
    await told.say(' two');
    await told.exit();
    expect(await host.told()).toEqual({ text: 'one two', last: null });
  });
});

describe('copies', () => {
  const require = createRequire(import.meta.url);

  it('of the JavaScript, loaded anew again and again (hot reload), share the runs', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const heard = [];
    const times = 100;
    for (let n = 0; n < times; n += 1) {
      for (const path of Object.keys(require.cache)) if (path.startsWith(join(program('.'), '../..'))) delete require.cache[path];
      const again = require('../index.js');
      expect(again.hasActiveRun(sessionId)).toBe(true);
      expect(() => again.startRun({ sessionId, message: 'm' })).toThrow('Active run already exists');
      const events = [];
      again.subscribeToRun(sessionId, (event) => events.push(event));
      heard.push(events);
    }
    await told.say('word');
    await told.exit();
    await listen(sessionId).ended;
    for (const events of heard) expect(events).toEqual(heard[0]);
    expect(heard[0].at(-1)).toBe(null);
    tried('The package is loaded anew in mid-run (hot reload)', times);
  });

  it('of the whole package, native part and all, share the runs', async () => {
    useStore();
    const second = require(copyOfPackage(temporaryFolder()));
    expect(second.startRun).not.toBe(runs.startRun);
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    expect(second.getActiveRun(sessionId)).toBe(run);
    expect(() => second.startRun({ sessionId, message: 'm' })).toThrow('Active run already exists');
    const events = [];
    second.subscribeToRun(sessionId, (event) => events.push(event));
    await told.say('word');
    await until(() => events.some((event) => event?.delta === 'word'), 'the second copy heard');
    expect(second.abortRun(sessionId)).toBe(true);
    await listen(sessionId).ended;
    expect(run.status).toBe('completed');
    const { text } = await play(shellAgent('says-numbers', 2));
    expect(text).toBe('1 2 ');
    tried('Two copies of the package in one process', 1);
  });
});
