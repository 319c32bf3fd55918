// The run as an object: what copying, printing, comparing and wrapping it shows.
import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { describe, expect } from 'vitest';
import { better, listen, newSession, play, puppet, runs, sh, start, textLine, textOf, until, useStore } from './helpers/index.mjs';

// The module's, in the module's order; then what it does not have.
const KEYS = [
  'sessionId',
  'childProcess',
  'eventBuffer',
  'subscribers',
  'accumulated',
  'status',
  'startedAt',
  'exitCode',
  'abortController',
  'end',
  'lastLineAt',
];

const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
const prints = (...lines) => sh('printf %s "$1"', lines.join(''));
const ANSWER = [
  line('thinking', { delta: 'hm' }),
  line('tool', { phase: 'start', toolCallId: 't', name: 'read', args: { path: 'a' } }),
  line('tool', { phase: 'result', toolCallId: 't', result: { details: { size: 3 } } }),
  line('tool', { phase: 'start', toolCallId: '__proto__', name: 'write', args: {} }),
  textLine('hello '),
  textLine('world'),
];

describe('an ActiveRun', () => {
  better('has the keys of the module\'s object, as its own', async () => {
    useStore();
    const { run } = await play(prints(...ANSWER));
    expect(Object.keys(run)).toEqual(KEYS);
    const { eventBuffer, accumulated, abortController } = { ...run };
    expect(eventBuffer).toBe(run.eventBuffer);
    expect(eventBuffer.length).toBeGreaterThan(0);
    expect(abortController).toBe(run.abortController);
    expect({ ...accumulated }).toEqual({
      id: `assistant-${run.sessionId}-${run.startedAt}`,
      role: 'assistant',
      textParts: ['hello ', 'world'],
      reasoningParts: ['hm'],
      toolCalls: new Map([
        ['t', { toolName: 'read', args: { path: 'a' }, output: expect.anything() }],
        ['__proto__', { toolName: 'write', args: {} }],
      ]),
    });
    expect({ ...run.childProcess }).toEqual({ pid: run.childProcess.pid });
  });

  better('is written as JSON with all that it has, tool calls by id', async () => {
    useStore();
    const { run } = await play(prints(...ANSWER));
    const parsed = JSON.parse(JSON.stringify(run));
    expect(Object.keys(parsed)).toEqual(KEYS);
    expect(parsed).toMatchObject({ sessionId: run.sessionId, status: 'completed', exitCode: 0, end: { reason: 'completed' } });
    expect(parsed.abortController).toEqual({ signal: { aborted: false } });
    expect(parsed.childProcess).toEqual({ pid: run.childProcess.pid });
    expect(parsed.eventBuffer).toEqual(run.eventBuffer);
    expect(Object.keys(parsed.accumulated.toolCalls)).toEqual(['t', '__proto__']);
    expect(parsed.accumulated.textParts).toEqual(['hello ', 'world']);
    expect(JSON.parse(JSON.stringify(run.accumulated))).toEqual(parsed.accumulated);
  });

  better('is printed with the values of all its properties', async () => {
    useStore();
    const { run } = await play(prints(...ANSWER));
    const printed = inspect(run, { depth: 5 });
    expect(printed).toMatch(/^ActiveRun \{/);
    for (const key of KEYS) expect(printed).toContain(`\n  ${key}: `);
    expect(printed).not.toMatch(/\[Getter/);
    expect(printed).toContain("textParts: [ 'hello ', 'world' ]");
    expect(printed).toContain(`pid: ${run.childProcess.pid}`);
    expect(inspect({ a: { b: { c: run } } })).toContain('[ActiveRun]');
  });

  better('keeps no events for whoever prints it or writes it as JSON', async () => {
    useStore({ cleanupGraceMs: 0 });
    const { run } = await play(prints(...ANSWER));
    inspect(run);
    JSON.stringify(run);
    inspect(run.accumulated);
    JSON.stringify(run.accumulated);
    await until(() => inspect(run).includes('eventBuffer: [],'), 'the events were freed');
    expect(run.eventBuffer).toEqual([]);
  });

  better('does not keep the process waiting for whoever copies it', async () => {
    useStore();
    const { run } = await play(prints(...ANSWER));
    expect(Object.keys(run)).not.toContain('whenEnded');
    expect(await run.whenEnded).toBe(run.end);
  });

  better('can be read through a proxy and as a prototype', async () => {
    useStore();
    const told = await puppet();
    const { run, sessionId } = start(told.agent);
    for (const seen of [new Proxy(run, {}), Object.create(run)]) {
      for (const key of KEYS) expect(() => seen[key]).not.toThrow();
      expect(seen.status).toBe('running');
      expect(seen.accumulated.role).toBe('assistant');
      expect(seen.abortController).toBe(run.abortController);
      expect(() => JSON.stringify(seen)).not.toThrow();
      expect(() => inspect(seen)).not.toThrow();
    }
    const process = new Proxy(run.childProcess, {});
    await until(() => process.pid, 'the agent was started');
    expect(process.kill(0)).toBe(true);
    expect(new Proxy(run.accumulated, {}).textParts).toEqual([]);
    await told.say('x');
    await listen(sessionId).has('x');
    expect(new Proxy(run, {}).accumulated.textParts).toEqual(['x']);
    expect(JSON.stringify(new Proxy(run, {}))).toBe(JSON.stringify(run));
    await told.exit();
    expect(await new Proxy(run, {}).whenEnded).toBe(run.end);
  });

  better('differs from another run, for those who compare', async () => {
    useStore();
    const [one, other] = [await play(prints(textLine('one'))), await play(prints(textLine('other')))];
    expect(() => assert.deepEqual(one.run.accumulated, other.run.accumulated)).toThrow();
    expect(() => assert.deepEqual(one.run, other.run)).toThrow();
    expect(one.run.accumulated).not.toEqual(other.run.accumulated);
    expect(one.run).not.toEqual(other.run);
    assert.deepEqual(one.run, one.run);
    expect(one.run.accumulated).toMatchObject({ role: 'assistant', textParts: ['one'] });
    expect(one.run).toEqual(expect.objectContaining({ sessionId: one.sessionId, exitCode: 0 }));
    // What a matcher that fails prints.
    expect(() => expect(one.run).toEqual({})).toThrow(expect.objectContaining({ actual: expect.anything() }));
  });

  better('has subscribers that are a Set', async () => {
    useStore();
    const told = await puppet();
    const { run, sessionId } = start(told.agent);
    const callbacks = [() => {}, () => {}];
    for (const callback of callbacks) runs.subscribeToRun(sessionId, callback);
    expect(run.subscribers).toBeInstanceOf(Set);
    expect([...run.subscribers]).toEqual(callbacks);
    expect([...run.subscribers.entries()]).toEqual(callbacks.map((callback) => [callback, callback]));
    expect(new Set(run.subscribers).has(callbacks[1])).toBe(true);
    expect(run.subscribers.size).toBe(2);
    // As in the module's Set, whoever adds a callback to it subscribes.
    const events = [];
    expect(run.subscribers.add((event) => events.push(event))).toBe(run.subscribers);
    expect(run.subscribers.delete(callbacks[0])).toBe(true);
    expect(run.subscribers.delete(callbacks[0])).toBe(false);
    expect(run.subscribers.size).toBe(2);
    await told.say('x');
    await told.exit();
    await run.whenEnded;
    expect(run.subscribers.size).toBe(0);
    expect(textOf(events)).toBe('x');
    expect(events.at(-1)).toBe(null);
  });

  better('can be cloned when nobody is subscribed, and else says why not', async () => {
    useStore();
    const told = await puppet();
    const { run } = start(told.agent);
    const { ended } = listen(run.sessionId);
    expect(() => structuredClone(run)).toThrow(expect.objectContaining({ name: 'DataCloneError' }));
    await told.say('x');
    await told.exit();
    await ended;
    const clone = structuredClone(run);
    expect(Object.keys(clone)).toEqual(KEYS);
    expect(clone.eventBuffer).toEqual(run.eventBuffer);
    expect(clone.accumulated.textParts).toEqual(['x']);
  });

  better('can be frozen and written to, without an effect on the run', async () => {
    useStore();
    const frozen = start(prints(textLine('x')));
    Object.freeze(frozen.run);
    const frozenListener = listen(frozen.sessionId);
    await frozenListener.ended;
    expect(frozenListener.text()).toBe('x');
    expect(frozen.run).toMatchObject({ status: 'completed', exitCode: 0, end: { reason: 'completed' } });

    const sessionId = newSession();
    const { run } = start(prints(textLine('y')), { sessionId });
    for (const key of KEYS) run[key] = 'mine';
    expect({ ...run }).toEqual(Object.fromEntries(KEYS.map((key) => [key, 'mine'])));
    const listener = listen(sessionId);
    await listener.ended;
    expect(listener.text()).toBe('y');
    expect(runs.hasActiveRun(sessionId)).toBe(false);
    expect(JSON.parse(JSON.stringify(run)).status).toBe('mine');
  });
});
