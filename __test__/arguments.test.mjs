// Wrong arguments: an Error with a code, whose message names the argument. Nothing is started.
import { existsSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { agent, listen, newSession, play, puppet, runs, start, useStore } from './helpers/index.mjs';

/** The error that `call` throws. */
function thrownBy(call) {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(Error);
    return { code: error.code, message: error.message };
  }
  throw new Error('nothing was thrown');
}

const invalid = (argument) => ({
  code: 'INVALID_ARGUMENT',
  message: expect.stringMatching(new RegExp(`^${argument.replace(/[.[\]]/g, '\\$&')}: .+`)),
});

describe('startRun', () => {
  const good = () => ({ sessionId: newSession(), message: 'm', agent: agent('says') });

  it.each([
    ['sessionId', undefined],
    ['sessionId', 5],
    ['sessionId', null],
    ['sessionId', { toString: () => 's' }],
    ['message', undefined],
    ['message', null],
    ['message', 5],
    ['message', ['m']],
    ['message', 'a\0b'],
    ['agentSessionId', 5],
    ['agentSessionId', {}],
    ['agentSessionId', 'a\0b'],
    ['agent', 'program'],
    ['agent', 5],
    ['agent.command', undefined],
    ['agent.command', 5],
    ['agent.command', ''],
    ['agent.command', 'a\0b'],
    ['agent.args', 'x'],
    ['agent.args', [5]],
    ['agent.args', ['a\0b']],
    ['agent.cwd', 5],
    ['agent.cwd', 'a\0b'],
    ['agent.env', 'x'],
    ['agent.env', { A: 5 }],
    ['agent.env', { A: 'a\0b' }],
    ['agent.env', { 'A=B': 'x' }],
    ['maxSilenceMs', -1],
    ['maxSilenceMs', '1000'],
    ['maxRunMs', 0.5],
    ['maxRunMs', 2 ** 31],
    ['errors', 'all'],
    ['errors', true],
  ])('refuses %s: %j', (path, value) => {
    const store = useStore();
    const params = good();
    const [name, inner] = path.split('.');
    params[name] = inner ? { ...params[name], [inner]: value } : value;
    const error = thrownBy(() => runs.startRun(params));
    expect(error.code).toBe('INVALID_ARGUMENT');
    // What is wrong within a list or a map may be named more closely: agent.args[0], agent.env.A.
    expect(error.message).toMatch(new RegExp(`^${path.replace('.', '\\.')}[\\w.[\\]"=]*: .+`));
    if (path !== 'sessionId') expect(runs.hasActiveRun(params.sessionId)).toBe(false);
    expect(readdirSync(store.dir)).toEqual([]);
  });

  it.each([[undefined], [null], [5], ['session']])('refuses %j in place of its parameters', (params) => {
    expect(thrownBy(() => runs.startRun(params)).code).toBe('INVALID_ARGUMENT');
  });

  it('says what sessionId must be', () => {
    expect(thrownBy(() => runs.startRun({ ...good(), sessionId: 5 })).message).toMatch(/^sessionId: must be a string/);
  });

  it('takes null and undefined for what may be absent', async () => {
    useStore();
    const spec = agent('says', 'x');
    for (const absent of [undefined, null]) {
      const more = { agentSessionId: absent, maxSilenceMs: absent, maxRunMs: absent, errors: absent };
      const { text } = await play({ ...spec, cwd: absent, env: absent }, more);
      expect(text).toBe('x');
    }
  });

  it('throws RUN_ALREADY_ACTIVE with the known words', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    expect(thrownBy(() => runs.startRun({ ...good(), sessionId }))).toEqual({
      code: 'RUN_ALREADY_ACTIVE',
      message: 'Active run already exists for this session',
    });
    await told.exit();
    await listen(sessionId).ended;
  });

  it('passes on what a getter of its parameters throws', () => {
    const oops = new Error('oops');
    const params = {
      ...good(),
      get message() {
        throw oops;
      },
    };
    expect(() => runs.startRun(params)).toThrow(oops);
  });
});

describe('the other functions', () => {
  it.each([[undefined], [null], [5], [{}], [Symbol('s')]])('refuse a session id that is no string: %o', (sessionId) => {
    useStore();
    const wrong = invalid('sessionId');
    expect(thrownBy(() => runs.subscribeToRun(sessionId, () => {}))).toEqual(wrong);
    expect(thrownBy(() => runs.abortRun(sessionId))).toEqual(wrong);
    expect(thrownBy(() => runs.hasActiveRun(sessionId))).toEqual(wrong);
    expect(thrownBy(() => runs.getActiveRun(sessionId))).toEqual(wrong);
    expect(thrownBy(() => runs.persistUserMessage(sessionId, { id: 'u', content: 'x' }))).toEqual(wrong);
  });

  it.each([[undefined], [null], ['callback'], [{}]])('subscribeToRun refuses the callback %j', (callback) => {
    useStore();
    expect(thrownBy(() => runs.subscribeToRun('s', callback))).toEqual(invalid('callback'));
  });

  it.each([
    ['msg', [undefined]],
    ['msg', ['x']],
    ['msg.id', [{ content: 'x' }]],
    ['msg.id', [{ id: 5, content: 'x' }]],
    ['msg.content', [{ id: 'u' }]],
    ['msg.content', [{ id: 'u', content: null }]],
  ])('persistUserMessage refuses %s', (path, [message]) => {
    const store = useStore();
    const error = thrownBy(() => runs.persistUserMessage('s', message));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.message).toContain(path.split('.').at(-1));
    expect(existsSync(store.path('s'))).toBe(false);
  });
});

describe('configure', () => {
  it('gives the settings in force, changes only what it is given', () => {
    const { dir } = useStore();
    const settings = {
      storeDir: dir,
      persistIntervalMs: 2_000,
      cleanupGraceMs: 30_000,
      killAfterMs: 5_000,
      pipeGraceMs: 2_000,
      maxLineBytes: 64 << 20,
      maxRunBytes: 512 << 20,
      maxStderrBytes: 64 << 10,
      maxSilenceMs: 0,
      maxRunMs: 0,
      errors: 'auto',
      storeFormat: 'module',
    };
    expect(runs.configure({})).toEqual(settings);
    expect(runs.configure({ killAfterMs: 7 })).toEqual({ ...settings, killAfterMs: 7 });
    expect(runs.configure({ killAfterMs: undefined })).toEqual({ ...settings, killAfterMs: 7 });
  });

  it('names an unknown key, and the known ones', () => {
    const { code, message } = thrownBy(() => runs.configure({ persistInterval: 5 }));
    expect(code).toBe('INVALID_ARGUMENT');
    expect(message).toContain('persistInterval');
    for (const known of ['storeDir', 'persistIntervalMs', 'cleanupGraceMs', 'killAfterMs', 'maxStderrBytes', 'maxSilenceMs', 'errors']) {
      expect(message).toContain(known);
    }
  });

  it.each([
    ['storeDir', ''],
    ['storeDir', 5],
    ['storeDir', 'a\0b'],
    ['persistIntervalMs', -1],
    ['persistIntervalMs', '5'],
    ['persistIntervalMs', Number.NaN],
    ['persistIntervalMs', Number.POSITIVE_INFINITY],
    ['cleanupGraceMs', -1],
    ['killAfterMs', null],
    ['pipeGraceMs', {}],
    ['maxLineBytes', 0],
    ['maxLineBytes', 1.5],
    ['maxRunBytes', -5],
    ['maxStderrBytes', 2 ** 60],
    ['maxSilenceMs', -1],
    ['maxSilenceMs', 2 ** 31],
    ['maxRunMs', '1000'],
    ['maxRunMs', 0.5],
    ['errors', 'all'],
    ['errors', null],
    ['errors', true],
  ])('refuses %s: %j, and changes nothing', (name, value) => {
    useStore();
    const before = runs.configure({});
    const other = name === 'killAfterMs' ? 'pipeGraceMs' : 'killAfterMs';
    expect(thrownBy(() => runs.configure({ [other]: 1, [name]: value }))).toEqual(invalid(name));
    expect(runs.configure({})).toEqual(before);
  });

  it('holds for runs that start later', async () => {
    const first = useStore({ cleanupGraceMs: 3_600_000 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const second = useStore();
    await told.say('x');
    await told.exit();
    await listen(sessionId).ended;
    expect(first.messages(sessionId)).toHaveLength(1);
    expect(existsSync(second.path(sessionId))).toBe(false);
  });
});
