// What a subscriber may rely on: the module's own guarantees, easy to lose in a port.
import { AsyncLocalStorage } from 'node:async_hooks';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  agent,
  better,
  isAlive,
  isDead,
  listen,
  modulePath,
  newSession,
  play,
  puppet,
  runs,
  server,
  start,
  temporaryFolder,
  textLine,
  textOf,
  until,
  useStore,
} from './helpers/index.mjs';

const numbers = Array.from({ length: 100 }, (_, n) => `${n} `).join('');

/** Holds the event loop until `condition`, and for 300 ms more. */
function blockUntil(condition) {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const deadline = Date.now() + 30_000;
  while (!condition() && Date.now() < deadline) Atomics.wait(cell, 0, 0, 5);
  Atomics.wait(cell, 0, 0, 300);
}

describe('1. ticks: events appear only between ticks of the loop', () => {
  it('gives a subscriber of the same tick everything, however late the tick ends', async () => {
    useStore();
    const mark = join(temporaryFolder(), 'mark');
    const { sessionId } = start(agent('says-and-leaves-a-mark', mark));
    blockUntil(() => existsSync(mark));
    expect(existsSync(mark)).toBe(true);
    const listener = listen(sessionId, { replay: false });
    expect(listener.events).toEqual([]);
    await listener.ended;
    expect(listener.text()).toBe(numbers);
    expect(listener.events.map((event) => event?.type ?? null)).toEqual([
      'text-start',
      ...Array(100).fill('text-delta'),
      'text-end',
      null,
    ]);
  });

  it('gives a replaying subscriber of the same tick each event once', async () => {
    useStore();
    const mark = join(temporaryFolder(), 'mark');
    const { sessionId } = start(agent('says-and-leaves-a-mark', mark));
    blockUntil(() => existsSync(mark));
    const listener = listen(sessionId);
    await listener.ended;
    expect(listener.text()).toBe(numbers);
  });

  it('changes neither status nor buffer within a tick', async () => {
    useStore();
    const mark = join(temporaryFolder(), 'mark');
    const { sessionId, run } = start(agent('says-and-leaves-a-mark', mark));
    expect(runs.hasActiveRun(sessionId)).toBe(true);
    blockUntil(() => existsSync(mark));
    expect(runs.hasActiveRun(sessionId)).toBe(true);
    expect(run.status).toBe('running');
    expect(run.exitCode).toBe(null);
    expect(run.eventBuffer).toHaveLength(0);
    await listen(sessionId).ended;
    expect(runs.hasActiveRun(sessionId)).toBe(false);
  });

  it('delivers nothing within a live subscription in mid-run', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('early');
    await listen(sessionId).has('early');
    const late = listen(sessionId, { replay: false });
    expect(late.events).toEqual([]);
    await told.say('late');
    await late.has('late');
    expect(late.text()).toBe('late');
    await told.exit();
    await late.ended;
  });

  it('keeps hasActiveRun true from inside every event up to the end', async () => {
    useStore();
    const { sessionId } = start(agent('floods', 2_000));
    const seen = new Set();
    runs.subscribeToRun(sessionId, (event) => {
      seen.add(`${event === null ? 'end' : 'event'} ${runs.hasActiveRun(sessionId)}`);
    });
    await listen(sessionId).ended;
    expect([...seen]).toEqual(['event true', 'end false']);
  });
});

describe('2. replay is synchronous and complete', () => {
  it('has delivered the buffer when subscribeToRun returns, and goes on without gap or duplicate', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const first = listen(sessionId, { replay: false });
    await told.say('a', 'b', 'c');
    await first.has('abc');
    const second = listen(sessionId);
    expect(second.text()).toBe('abc');
    expect(second.events).toEqual([...run.eventBuffer]);
    await told.say('d', 'e');
    await told.exit();
    await Promise.all([first.ended, second.ended]);
    expect(second.events).toEqual(first.events);
  });

  it('loses and doubles nothing for subscribers that come at any time of a flood', async () => {
    useStore();
    const { sessionId } = start(agent('floods', 20_000));
    const first = listen(sessionId, { replay: false });
    const others = [];
    while (runs.hasActiveRun(sessionId)) {
      if (others.length < 20) others.push(listen(sessionId));
      await new Promise(setImmediate);
    }
    await first.ended;
    const expected = JSON.stringify(first.events);
    expect(first.events).toHaveLength(20_003);
    for (const other of others) {
      await other.ended;
      expect(JSON.stringify(other.events) === expected).toBe(true);
    }
  });

  better('gives each event once to a replaying subscriber added from inside a callback', async () => {
    useStore();
    const { sessionId } = start(agent('floods', 3_000));
    const added = [];
    const first = listen(sessionId, { replay: false });
    runs.subscribeToRun(sessionId, (event) => {
      if (event?.type === 'text-delta' && /^\d*000 $/.test(event.delta)) added.push(listen(sessionId));
    });
    await first.ended;
    expect(added).toHaveLength(2);
    for (const other of added) {
      await other.ended;
      expect(other.events).toEqual(first.events);
    }
  });

  it('gives a finished run: replay, null, and an unsubscribe that does nothing', async () => {
    useStore();
    const { sessionId, events } = await play(agent('says', 'all', ' of it'));
    const late = listen(sessionId);
    expect(late.events).toEqual(events);
    expect(late.unsubscribe).toBeTypeOf('function');
    expect(late.unsubscribe()).toBe(undefined);
    expect(late.unsubscribe()).toBe(undefined);
    const live = listen(sessionId, { replay: false });
    expect(live.events).toEqual([null]);
  });

  it('answers null where there is no run', () => {
    useStore();
    expect(runs.subscribeToRun(newSession(), () => {})).toBe(null);
    expect(runs.getActiveRun(newSession())).toBe(undefined);
    expect(runs.hasActiveRun(newSession())).toBe(false);
  });

  it('hands an error thrown in replay to the caller, who is not subscribed then', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const other = listen(sessionId);
    await told.say('x');
    await other.has('x');
    const oops = new Error('oops');
    let calls = 0;
    expect(() =>
      runs.subscribeToRun(sessionId, () => {
        calls += 1;
        throw oops;
      }),
    ).toThrow(oops);
    expect(run.subscribers.size).toBe(1);
    await told.say('y');
    await told.exit();
    await other.ended;
    expect(calls).toBe(1);
    expect(() =>
      runs.subscribeToRun(sessionId, () => {
        throw oops;
      }),
    ).toThrow(oops);
  });

  it('swallows an error thrown in live delivery, and disturbs nobody', async () => {
    useStore();
    const { sessionId } = start(agent('says', 'a', 'b'));
    let calls = 0;
    runs.subscribeToRun(sessionId, () => {
      calls += 1;
      throw new Error('ignored');
    });
    const other = listen(sessionId);
    await other.ended;
    expect(other.text()).toBe('ab');
    expect(calls).toBe(other.events.length);
  });
});

describe('3. order at the end: disk, status, null', () => {
  it('has the final message on disk and the final status when null comes, once', async () => {
    const store = useStore();
    const { sessionId, run } = start(agent('says', 'the answer'));
    const atTheEnd = await new Promise((resolve) => {
      runs.subscribeToRun(sessionId, (event) => {
        if (event === null) {
          resolve({
            messages: store.messages(sessionId),
            status: run.status,
            exitCode: run.exitCode,
            active: runs.hasActiveRun(sessionId),
            lastEvent: run.eventBuffer.at(-1).type,
          });
        }
      });
    });
    expect(atTheEnd).toMatchObject({ status: 'completed', exitCode: 0, active: false, lastEvent: 'text-end' });
    expect(atTheEnd.messages).toHaveLength(1);
    expect(atTheEnd.messages[0].content).toBe('the answer');
    expect(atTheEnd.messages[0]).not.toHaveProperty('_streaming');
  });

  it('says null once to each subscriber, the last thing it says', async () => {
    useStore();
    const { sessionId } = start(agent('says', 'x'));
    const listeners = [listen(sessionId), listen(sessionId), listen(sessionId, { replay: false })];
    await Promise.all(listeners.map(({ ended }) => ended));
    await new Promise(setImmediate);
    for (const { events } of listeners) expect(events.indexOf(null)).toBe(events.length - 1);
  });

  it('lets a new run start from inside that null', async () => {
    const store = useStore();
    const sessionId = newSession();
    start(agent('says', 'one'), { sessionId });
    const old = [];
    const second = await new Promise((resolve, reject) => {
      runs.subscribeToRun(sessionId, (event) => {
        old.push(event);
        if (event !== null) return;
        try {
          start(agent('says', 'two'), { sessionId });
          resolve(listen(sessionId, { replay: false }));
        } catch (error) {
          reject(error);
        }
      });
    });
    await second.ended;
    expect(second.text()).toBe('two');
    expect(textOf(old)).toBe('one');
    expect(old.filter((event) => event === null)).toHaveLength(1);
    expect(store.messages(sessionId).map(({ content }) => content)).toEqual(['one', 'two']);
  });

  it('gives the other subscribers of the old run their null, too', async () => {
    useStore();
    const sessionId = newSession();
    start(agent('says', 'one'), { sessionId });
    const restarted = new Promise((resolve) => {
      runs.subscribeToRun(sessionId, (event) => {
        if (event === null) resolve(start(agent('says', 'two'), { sessionId }));
      });
    });
    const other = listen(sessionId);
    await restarted;
    await other.ended;
    expect(other.text()).toBe('one');
    await listen(sessionId).ended;
  });

  better('does not forget the new run when the grace of the old one is over', async () => {
    useStore({ cleanupGraceMs: 50 });
    const { sessionId } = await play(agent('says', 'one'));
    const told = await puppet();
    start(told.agent, { sessionId });
    const { sessionId: witness } = await play(agent('says', 'later'));
    await until(() => runs.getActiveRun(witness) === undefined, 'a later run was forgotten');
    expect(runs.hasActiveRun(sessionId)).toBe(true);
    await told.exit();
    await listen(sessionId).ended;
  });

  it('forgets a finished run after its grace', async () => {
    useStore({ cleanupGraceMs: 20 });
    const { sessionId } = await play(agent('says', 'x'));
    await until(() => runs.getActiveRun(sessionId) === undefined, 'the run was forgotten');
    expect(runs.subscribeToRun(sessionId, () => {})).toBe(null);
  });

  it('refuses a second run of a running session in the known words', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    expect(() => runs.startRun({ sessionId, message: 'again', agent: told.agent })).toThrow(
      /^Active run already exists for this session$/,
    );
    await told.say('still here');
    await told.exit();
    const { text, ended } = listen(sessionId);
    await ended;
    expect(text()).toBe('still here');
  });
});

describe('4. subscribers are a set in subscription order', () => {
  it('delivers event by event, to each subscriber in order', async () => {
    useStore();
    const { sessionId } = start(agent('says', '1', '2', '3'));
    const calls = [];
    for (const name of ['A', 'B', 'C']) {
      runs.subscribeToRun(sessionId, (event) => {
        if (event?.delta) calls.push(name + event.delta);
        if (event === null) calls.push(`${name}.`);
      });
    }
    await listen(sessionId).ended;
    expect(calls.join(' ')).toBe('A1 B1 C1 A2 B2 C2 A3 B3 C3 A. B. C.');
  });

  it('calls the same function once, at its first place', async () => {
    useStore();
    const { sessionId, run } = start(agent('says', '1', '2'));
    const calls = [];
    const a = (event) => event?.delta && calls.push(`A${event.delta}`);
    const b = (event) => event?.delta && calls.push(`B${event.delta}`);
    runs.subscribeToRun(sessionId, a);
    runs.subscribeToRun(sessionId, b);
    runs.subscribeToRun(sessionId, a);
    expect(run.subscribers.size).toBe(2);
    await listen(sessionId).ended;
    expect(calls.join(' ')).toBe('A1 B1 A2 B2');
  });

  it('unsubscribes a function subscribed twice by either handle', async () => {
    useStore();
    const { sessionId, run } = start(agent('says', '1'));
    const calls = [];
    const callback = (event) => calls.push(event);
    runs.subscribeToRun(sessionId, callback);
    const second = runs.subscribeToRun(sessionId, callback);
    second();
    second();
    expect(run.subscribers.size).toBe(0);
    await listen(sessionId).ended;
    expect(calls).toEqual([]);
  });

  it('unsubscribes at once, from inside a callback too', async () => {
    useStore();
    const { sessionId, run } = start(agent('floods', 500));
    const calls = [];
    const stop = runs.subscribeToRun(sessionId, (event) => {
      calls.push(event);
      if (calls.length === 10) stop();
    });
    await listen(sessionId).ended;
    expect(calls).toHaveLength(10);
    expect(run.subscribers.size).toBe(0);
  });

  it('unsubscribes another from inside a callback, before that one is called', async () => {
    useStore();
    const { sessionId } = start(agent('says', '1', '2', '3'));
    const calls = [];
    runs.subscribeToRun(sessionId, (event) => {
      if (!event?.delta) return;
      calls.push(`A${event.delta}`);
      if (event.delta === '2') stopB();
    });
    const stopB = runs.subscribeToRun(sessionId, (event) => event?.delta && calls.push(`B${event.delta}`));
    await listen(sessionId).ended;
    expect(calls.join(' ')).toBe('A1 B1 A2 A3');
  });

  it.each([
    ['one added inside a callback', 1],
    ['one added inside the callback of the only one there', 0],
  ])('lets %s join with the event at hand', async (_, others) => {
    useStore();
    const { sessionId } = start(agent('says', '1', '2', '3'));
    const calls = [];
    for (let other = 0; other < others; other++) listen(sessionId);
    runs.subscribeToRun(sessionId, (event) => {
      if (!event?.delta) return;
      calls.push(`A${event.delta}`);
      if (event.delta !== '2') return;
      runs.subscribeToRun(sessionId, (event) => event?.delta && calls.push(`B${event.delta}`), { replay: false });
    });
    await until(() => !runs.hasActiveRun(sessionId), 'the run ended');
    expect(calls.join(' ')).toBe('A1 A2 B2 A3 B3');
  });

  it('puts one that left and came back at the end of the line', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const calls = [];
    const a = (event) => event?.delta && calls.push(`A${event.delta}`);
    const stopA = runs.subscribeToRun(sessionId, a);
    runs.subscribeToRun(sessionId, (event) => event?.delta && calls.push(`B${event.delta}`));
    const witness = listen(sessionId);
    await told.say('1');
    await witness.has('1');
    stopA();
    runs.subscribeToRun(sessionId, a, { replay: false });
    await told.say('2');
    await told.exit();
    await witness.ended;
    expect(calls.join(' ')).toBe('A1 B1 B2 A2');
  });
});

describe('5. abort', () => {
  it('is true only for a running run', async () => {
    useStore();
    expect(runs.abortRun(newSession())).toBe(false);
    const { sessionId } = start(agent('says-and-waits', 'half'));
    await listen(sessionId).has('half');
    expect(runs.abortRun(sessionId)).toBe(true);
    await listen(sessionId).ended;
    expect(runs.abortRun(sessionId)).toBe(false);
  });

  it('leaves exitCode null and status completed, and keeps what was said', async () => {
    const store = useStore();
    const { sessionId, run } = start(agent('says-and-waits', 'half'));
    const listener = listen(sessionId);
    await listener.has('half');
    runs.abortRun(sessionId);
    await listener.ended;
    expect(run).toMatchObject({ status: 'completed', exitCode: null });
    expect(listener.events.map((event) => event?.type ?? null)).toEqual([
      'text-start',
      'text-delta',
      'text-end',
      null,
    ]);
    expect(store.messages(sessionId)).toMatchObject([{ content: 'half' }]);
  });

  it('holds for an agent that dies by another signal', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    await told.die('SIGKILL');
    const listener = listen(sessionId);
    await listener.ended;
    expect(run).toMatchObject({ status: 'completed', exitCode: null });
    expect(listener.text()).toBe('[error] No response from agent.');
  });

  it('is harmless twice, and in the tick of the start', async () => {
    useStore();
    const { sessionId, run } = start(agent('says-and-waits', 'never heard, perhaps'));
    const listener = listen(sessionId);
    expect(runs.abortRun(sessionId)).toBe(true);
    expect(runs.abortRun(sessionId)).toBe(true);
    expect(run.status).toBe('running');
    await listener.ended;
    expect(run.status).toBe('completed');
  });

  it('can be asked for from inside a callback', async () => {
    useStore();
    const { sessionId } = start(agent('says-and-waits', 'stop me'));
    const listener = listen(sessionId);
    runs.subscribeToRun(sessionId, (event) => {
      if (event?.delta) runs.abortRun(sessionId);
    });
    await listener.ended;
    expect(listener.text()).toBe('stop me');
  });
});

describe('6. the process lives until a running run is on disk', () => {
  it('and ends by itself then', async () => {
    const store = useStore();
    const sessionId = newSession();
    const told = await puppet();
    const host = server(
      ({ runs, data }) => void runs.startRun({ sessionId: data.sessionId, message: 'm', agent: data.agent }),
      { settings: { storeDir: store.dir, cleanupGraceMs: 10 }, sessionId, agent: told.agent },
    );
    await told.say('late ');
    await until(() => store.read(sessionId).includes('late '), 'the first flush came');
    await told.say('but whole');
    await told.exit();
    expect(await host.exited).toEqual({ code: 0, signal: null });
    expect(store.messages(sessionId)).toMatchObject([{ content: 'late but whole' }]);
    expect(store.read(sessionId)).not.toContain('_streaming');
  });

  better('and a finished run does not hold it, however long its grace', async () => {
    const store = useStore();
    const host = server(
      async ({ runs, data, ended, agent }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'x') });
        await ended('s');
      },
      { settings: { storeDir: store.dir, cleanupGraceMs: 3_600_000 } },
    );
    expect(await host.exited).toEqual({ code: 0, signal: null });
    expect(store.messages('s')).toMatchObject([{ content: 'x' }]);
  });

  it('and a process that only loaded the module ends', async () => {
    const host = server(({ runs }) => void runs.hasActiveRun('s'));
    expect(await host.exited).toEqual({ code: 0, signal: null });
  });
});

describe('7. ActiveRun is live', () => {
  it('has the fields of the module, and they follow the run', async () => {
    useStore();
    const before = Date.now();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    expect(run.sessionId).toBe(sessionId);
    expect(run.status).toBe('running');
    expect(run.exitCode).toBe(null);
    expect(run.startedAt).toBeGreaterThanOrEqual(before);
    expect(run.startedAt).toBeLessThanOrEqual(Date.now());
    expect(run.eventBuffer).toEqual([]);
    expect(run.subscribers.size).toBe(0);
    expect(run.accumulated.id).toMatch(new RegExp(`^assistant-${sessionId}-\\d+$`));
    expect(run.accumulated).toMatchObject({ role: 'assistant', textParts: [], reasoningParts: [] });
    expect(run.accumulated.toolCalls.size).toBe(0);
    expect(run.abortController).toBeInstanceOf(AbortController);
    expect(run.abortController.signal.aborted).toBe(false);

    const listener = listen(sessionId);
    expect(run.subscribers.size).toBe(1);
    expect(await until(() => run.childProcess.pid, 'the pid was known')).toBe(await told.pid());
    await told.out(`${JSON.stringify({ event: 'agent', stream: 'thinking', data: { delta: 'hm' } })}\n`);
    const call = { phase: 'start', toolCallId: 't1', name: 'ls', args: { path: '/' } };
    await told.out(`${JSON.stringify({ event: 'agent', stream: 'tool', data: call })}\n`);
    await told.say('a', 'b');
    await listener.has('ab');
    expect(run.eventBuffer).toEqual(listener.events);
    expect([...run.accumulated.textParts].join('')).toBe('ab');
    expect([...run.accumulated.reasoningParts].join('')).toBe('hm');
    expect([...run.accumulated.toolCalls]).toEqual([['t1', { toolName: 'ls', args: { path: '/' } }]]);
    const result = { phase: 'result', toolCallId: 't1', result: 'files' };
    await told.out(`${JSON.stringify({ event: 'agent', stream: 'tool', data: result })}\n`);
    await until(() => run.eventBuffer.at(-1).type === 'tool-output-available', 'the result arrived');
    expect(run.accumulated.toolCalls.get('t1').output).toEqual({ text: 'files' });

    await told.exit(3);
    await listener.ended;
    expect(run).toMatchObject({ status: 'error', exitCode: 3 });
    expect(run.subscribers.size).toBe(0);
    expect([...run.eventBuffer, null]).toEqual(listener.events);
  });

  it('is what getActiveRun gives, after the end as well', async () => {
    useStore();
    const { sessionId, run } = start(agent('says', 'x'));
    expect(runs.getActiveRun(sessionId)).toBe(run);
    await listen(sessionId).ended;
    expect(runs.getActiveRun(sessionId)).toBe(run);
  });

  it('stops the agent when its abortController is aborted, and aborts it when the run is', async () => {
    useStore();
    const one = start(agent('says-and-waits', 'x'));
    await listen(one.sessionId).has('x');
    one.run.abortController.abort();
    await listen(one.sessionId).ended;
    expect(one.run).toMatchObject({ status: 'completed', exitCode: null });

    const two = start(agent('says-and-waits', 'x'));
    await listen(two.sessionId).has('x');
    runs.abortRun(two.sessionId);
    expect(two.run.abortController.signal.aborted).toBe(true);
    await listen(two.sessionId).ended;
  });

  it('sends signals through childProcess.kill', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const pid = await told.pid();
    await told.ignore('SIGUSR2');
    await until(() => run.childProcess.pid, 'the pid was known');
    expect(run.childProcess.kill('SIGUSR2')).toBe(true);
    await until(() => told.signals().length > 0, 'the signal arrived');
    expect(told.signals()).toEqual(['SIGUSR2']);
    expect(isAlive(pid)).toBe(true);
    expect(run.childProcess.kill()).toBe(true);
    await listen(sessionId).ended;
    await isDead(pid);
    expect(run).toMatchObject({ status: 'completed', exitCode: null });
    expect(run.childProcess.kill()).toBe(false);
  });
});

describe('8. events', () => {
  it('are plain objects with the keys of the module in its order', async () => {
    useStore();
    const lines = [
      { event: 'agent', stream: 'lifecycle', data: { phase: 'start' } },
      { event: 'agent', stream: 'thinking', data: { delta: 'hm' } },
      { event: 'agent', stream: 'tool', data: { phase: 'start', toolCallId: 'a', name: 'n', args: { z: 1, 7: 2, y: 3 } } },
      { event: 'agent', stream: 'tool', data: { phase: 'result', toolCallId: 'a', result: { details: { url: 'u', exitCode: 0 } } } },
      { event: 'agent', stream: 'tool', data: { phase: 'result', toolCallId: 'a', isError: true, result: 'no' } },
      { event: 'agent', stream: 'assistant', data: { delta: 'x' } },
    ];
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId);
    await told.out(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await told.exit();
    await listener.ended;
    const shown = JSON.stringify(listener.events).replace(/"(\w+)-\d+-(\d+)"/g, '"$1-T-$2"');
    expect(JSON.parse(shown)).toHaveLength(14);
    expect(shown).toBe(
      '[{"type":"reasoning-start","id":"status-T-1"},' +
        '{"type":"reasoning-delta","id":"status-T-1","delta":"Preparing response..."},' +
        '{"type":"reasoning-end","id":"status-T-1"},' +
        '{"type":"reasoning-start","id":"reasoning-T-2"},' +
        '{"type":"reasoning-delta","id":"reasoning-T-2","delta":"hm"},' +
        '{"type":"reasoning-end","id":"reasoning-T-2"},' +
        '{"type":"tool-input-start","toolCallId":"a","toolName":"n"},' +
        '{"type":"tool-input-available","toolCallId":"a","toolName":"n","input":{"7":2,"z":1,"y":3}},' +
        '{"type":"tool-output-available","toolCallId":"a","output":{"exitCode":0,"url":"u","text":"{\\"url\\":\\"u\\",\\"exitCode\\":0}"}},' +
        '{"type":"tool-output-error","toolCallId":"a","errorText":"no"},' +
        '{"type":"text-start","id":"text-T-3"},' +
        '{"type":"text-delta","id":"text-T-3","delta":"x"},' +
        '{"type":"text-end","id":"text-T-3"},null]',
    );
    for (const event of listener.events.slice(0, -1)) {
      expect(Object.getPrototypeOf(event)).toBe(Object.prototype);
    }
  });

  it('have the time of their part in its id', async () => {
    useStore();
    const before = Date.now();
    const { events } = await play(agent('says', 'x'));
    const time = Number(/^text-(\d+)-1$/.exec(events[0].id)[1]);
    expect(time).toBeGreaterThanOrEqual(before);
    expect(time).toBeLessThanOrEqual(Date.now());
  });

  it('reach a second copy of the JavaScript, as after a hot reload', async () => {
    useStore();
    const require = createRequire(import.meta.url);
    const kept = { ...require.cache };
    for (const path of Object.keys(require.cache)) {
      if (!path.includes('node_modules') && !path.endsWith('.node')) delete require.cache[path];
    }
    const copy = require(modulePath);
    Object.assign(require.cache, kept);
    expect(copy).not.toBe(runs);
    expect(copy.startRun).not.toBe(runs.startRun);

    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId, { replay: false });
    await told.say('one ');
    await listener.has('one ');
    expect(copy.hasActiveRun(sessionId)).toBe(true);
    expect(copy.getActiveRun(sessionId)).toMatchObject({ sessionId, status: 'running' });
    expect(() => copy.startRun({ sessionId, message: 'm', agent: told.agent })).toThrow(
      'Active run already exists for this session',
    );
    const events = [];
    copy.subscribeToRun(sessionId, (event) => events.push(event));
    expect(textOf(events)).toBe('one ');
    await told.say('two');
    await listener.has('two');
    expect(copy.abortRun(sessionId)).toBe(true);
    await listener.ended;
    await until(() => events.includes(null), 'the copy heard the end');
    expect(events).toEqual(listener.events);
    expect(copy.getActiveRun(sessionId).status).toBe('completed');
  });

  better('reach a worker thread', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId);
    await told.say('one ');
    await listener.has('one ');
    const worker = new Worker(new URL('helpers/listens-in-a-worker.mjs', import.meta.url), {
      workerData: { sessionId },
    });
    const heard = [];
    worker.on('message', (event) => heard.push(event));
    await until(() => textOf(heard) === 'one ', 'the worker heard the replay');
    await told.say('two');
    await told.exit();
    await listener.ended;
    await until(() => heard.includes(null), 'the worker heard the end');
    expect(heard).toEqual(listener.events);
    await worker.terminate();
  });

  better('come in the async context of the subscription', async () => {
    useStore();
    const context = new AsyncLocalStorage();
    const told = await puppet();
    const { sessionId } = context.run('starter', () => start(told.agent));
    const seen = { one: new Set(), two: new Set() };
    for (const name of Object.keys(seen)) {
      context.run(name, () => runs.subscribeToRun(sessionId, () => seen[name].add(context.getStore())));
    }
    await told.out(textLine('x'));
    await told.exit();
    await listen(sessionId).ended;
    expect(seen).toEqual({ one: new Set(['one']), two: new Set(['two']) });
  });
});
