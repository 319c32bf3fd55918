// Which agent is started, and how: the contract's, and agents of one's own.
import { chmodSync, copyFileSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import {
  agent,
  agentPath,
  better,
  isAddon,
  listen,
  newSession,
  play,
  runs,
  server,
  start,
  temporaryFolder,
  until,
  useStore,
} from './helpers/index.mjs';

const kept = { ...process.env };
afterEach(() => {
  for (const name of Object.keys(process.env)) if (!(name in kept)) delete process.env[name];
  Object.assign(process.env, kept);
});

/** A package root whose agent tells how it was started. */
function packageRoot(...scripts) {
  const root = realpathSync(temporaryFolder());
  for (const script of scripts) {
    mkdirSync(join(root, script, '..'), { recursive: true });
    copyFileSync(agentPath('tells-how-it-was-started.mjs'), join(root, script));
  }
  return root;
}

/** Starts the contract's agent and gives what it tells. */
async function startContractAgent(params = {}) {
  const { text } = await play(undefined, params);
  return JSON.parse(text);
}

/** What a server in `cwd` gets to read from the contract's agent. */
async function answerIn(cwd, env = {}) {
  const host = server(
    async ({ runs, tell, ended }) => {
      runs.startRun({ sessionId: 's', message: 'm' });
      const events = await ended('s');
      await tell(events.map((event) => event?.delta ?? '').join(''));
      process.exit();
    },
    { settings: { storeDir: join(temporaryFolder(), 'store') } },
    { cwd, env: { OPENCLAW_ROOT: '', ...env } },
  );
  return host.told();
}

describe('the package root', () => {
  it('is OPENCLAW_ROOT', async () => {
    useStore();
    const root = packageRoot('openclaw.mjs');
    process.env.OPENCLAW_ROOT = root;
    const told = await startContractAgent();
    expect(told.script).toBe(join(root, 'openclaw.mjs'));
    expect(told.cwd).toBe(root);
  });

  it('is the nearest folder upwards that holds openclaw.mjs or scripts/run-node.mjs', async () => {
    for (const script of ['openclaw.mjs', 'scripts/run-node.mjs']) {
      const root = packageRoot(script);
      const cwd = join(root, 'a', 'b');
      mkdirSync(cwd, { recursive: true });
      const told = JSON.parse(await answerIn(cwd));
      expect(told.script).toBe(join(root, script));
      expect(told.cwd).toBe(root);
    }
  });

  it('is the working directory itself where that holds the script', async () => {
    const root = packageRoot('openclaw.mjs');
    expect(JSON.parse(await answerIn(root)).cwd).toBe(root);
  });

  it('is searched in 20 folders', async () => {
    const root = packageRoot('openclaw.mjs');
    const at19 = join(root, ...Array(19).fill('d'));
    const at20 = join(at19, 'd');
    mkdirSync(at20, { recursive: true });
    expect(JSON.parse(await answerIn(at19)).cwd).toBe(root);
    expect(await answerIn(at20)).toBe(`[error] Cannot find module '${join(at20, 'openclaw.mjs')}'`);
  });

  it('does not come from an OPENCLAW_ROOT that is no path there', async () => {
    const root = packageRoot('openclaw.mjs');
    expect(JSON.parse(await answerIn(root, { OPENCLAW_ROOT: join(root, 'nowhere') })).cwd).toBe(root);
  });

  it('is two levels above a working directory that ends in apps/web, where none is found', async () => {
    const top = realpathSync(temporaryFolder());
    const cwd = join(top, 'apps', 'web');
    mkdirSync(cwd, { recursive: true });
    expect(await answerIn(cwd)).toBe(`[error] Cannot find module '${join(top, 'openclaw.mjs')}'`);
  });

  it('is the working directory, where nothing else is', async () => {
    const cwd = realpathSync(temporaryFolder());
    expect(await answerIn(cwd)).toBe(`[error] Cannot find module '${join(cwd, 'openclaw.mjs')}'`);
  });
});

describe('the script and its arguments', () => {
  it('prefers the development script', async () => {
    useStore();
    const root = packageRoot('openclaw.mjs', 'scripts/run-node.mjs');
    process.env.OPENCLAW_ROOT = root;
    const told = await startContractAgent();
    expect(told.script).toBe(join(root, 'scripts', 'run-node.mjs'));
    expect(told.cwd).toBe(root);
  });

  it('passes the message as it is', async () => {
    useStore();
    process.env.OPENCLAW_ROOT = packageRoot('openclaw.mjs');
    for (const message of ['hello', '', '--help', '{message} $& "q" \'s\' \\', 'two\nlines\t🙂 é', '\ud83d!']) {
      const { args } = await startContractAgent({ message });
      const seen = Buffer.from(message).toString();
      expect(args).toEqual(['agent', '--agent', 'main', '--message', seen, '--stream-json']);
    }
  });

  it('adds key and lane for an agentSessionId that is not empty', async () => {
    useStore();
    process.env.OPENCLAW_ROOT = packageRoot('openclaw.mjs');
    const plain = ['agent', '--agent', 'main', '--message', 'm', '--stream-json'];
    const keyed = [...plain, '--session-key', 'agent:main:subagent:abc', '--lane', 'subagent'];
    expect((await startContractAgent({ message: 'm', agentSessionId: 'abc' })).args).toEqual(keyed);
    expect((await startContractAgent({ message: 'm', agentSessionId: '' })).args).toEqual(plain);
    expect((await startContractAgent({ message: 'm', agentSessionId: undefined })).args).toEqual(plain);
  });

  it('closes stdin', async () => {
    useStore();
    const { text } = await play(agent('tells-how-it-was-started'));
    expect(JSON.parse(text).stdin).toEqual({ bytes: 0, isPipe: false });
  });
});

describe('the environment', () => {
  it('is process.env at the call', async () => {
    useStore();
    process.env.OPENCLAW_ROOT = packageRoot('openclaw.mjs');
    process.env.TEST_MARK = 'at the call, ü 🙂';
    const { sessionId } = start(undefined);
    process.env.TEST_MARK = 'later';
    const listener = listen(sessionId);
    await listener.ended;
    expect(JSON.parse(listener.text()).env.TEST_MARK).toBe('at the call, ü 🙂');
  });

  it.each([
    ['another object', () => ({ PATH: kept.PATH, TEST_MARK: 'another' })],
    ['a proxy', (env) => new Proxy(env, { get: (env, key) => (key === 'TEST_MARK' ? 'another' : env[key]) })],
    ['an heir', (env) => Object.assign(Object.create(env), { PATH: kept.PATH, TEST_MARK: 'another' })],
  ])('is that of %s in the place of process.env', async (_, replacement) => {
    useStore();
    const own = process.env;
    own.TEST_MARK = 'own';
    try {
      for (const env of [own, replacement(own), own]) {
        process.env = env;
        const { text } = await play(agent('tells-how-it-was-started'));
        // By this one the addon finds the agent's children.
        const { ACTIVE_RUNS_RUN: mark, ...told } = JSON.parse(text).env;
        if (isAddon) expect(mark).toMatch(/^[0-9a-f]{32}$/);
        expect(told.TEST_MARK).toBe(env.TEST_MARK);
        expect(Object.keys(told).sort()).toEqual(Object.keys(env).sort());
      }
    } finally {
      process.env = own;
    }
    expect(Object.keys(process.env).filter((name) => name.startsWith('ACTIVE_RUNS_PROBE'))).toEqual([]);
  });

  better.each([
    ['the value', { TEST_EVIL: 'a\0TEST_INJECTED=yes' }, 'process.env["TEST_EVIL"]'],
    ['the name', { 'TEST_EVIL=a\0TEST_INJECTED': 'yes' }, 'process.env["TEST_EVIL=a\\u0000TEST_INJECTED"]'],
    ['the text', { TEST_EVIL: { toString: () => 'a\0TEST_INJECTED=yes' } }, 'process.env["TEST_EVIL"]'],
    ['no text at all', { TEST_EVIL: Symbol('evil') }, 'process.env["TEST_EVIL"]'],
  ])('injects no variable where another object is in the place of process.env: %s', (_, evil, name) => {
    useStore();
    const own = process.env;
    for (const added of [undefined, {}]) {
      const { sessionId, ...params } = { sessionId: newSession(), message: 'm', agent: { command: 'true', env: added } };
      process.env = { ...own, ...evil };
      try {
        expect(() => runs.startRun({ sessionId, ...params })).toThrow(
          expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(`${name}: `) }),
        );
      } finally {
        process.env = own;
      }
      expect(runs.getActiveRun(sessionId)).toBe(undefined);
    }
  });

  better('takes away what agent.env takes away, also when no program could be given it', async () => {
    useStore();
    const own = process.env;
    process.env = { ...own, TEST_EVIL: 'a\0b', TEST_ODD: Symbol('odd') };
    let started;
    try {
      started = start({ ...agent('tells-how-it-was-started'), env: { TEST_EVIL: undefined, TEST_ODD: 'even' } });
    } finally {
      process.env = own;
    }
    const listener = listen(started.sessionId);
    await listener.ended;
    const { env } = JSON.parse(listener.text());
    expect([env.TEST_EVIL, env.TEST_ODD]).toEqual([undefined, 'even']);
  });

  better('has the values of another object as text, and no variable that is undefined', async () => {
    useStore();
    const own = process.env;
    process.env = { PATH: own.PATH, TEST_NUMBER: 5, TEST_NULL: null, TEST_NONE: undefined, TEST_EMPTY: '' };
    let started;
    try {
      started = start(agent('tells-how-it-was-started'));
    } finally {
      process.env = own;
    }
    const listener = listen(started.sessionId);
    await listener.ended;
    const { ACTIVE_RUNS_RUN: _, ...told } = JSON.parse(listener.text()).env;
    expect(told).toEqual({ PATH: own.PATH, TEST_NUMBER: '5', TEST_NULL: 'null', TEST_EMPTY: '' });
  });

  it('decides by its PATH which node is found', async () => {
    useStore();
    const bin = temporaryFolder();
    const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'another node' } });
    writeFileSync(join(bin, 'node'), `#!/bin/sh\necho '${line}'\n`, { mode: 0o755 });
    process.env.OPENCLAW_ROOT = packageRoot('openclaw.mjs');
    process.env.PATH = bin;
    expect((await play(undefined)).text).toBe('another node');
    process.env.PATH = join(bin, 'empty');
    expect((await play(undefined)).text).toBe('[error] Failed to start agent: spawn node ENOENT');
  });

  it('takes additions and removals of an agent of one\'s own', async () => {
    useStore();
    Object.assign(process.env, { TEST_KEPT: 'kept', TEST_CHANGED: 'old', TEST_REMOVED: 'old' });
    const env = { TEST_CHANGED: 'new', TEST_ADDED: 'a=b', TEST_REMOVED: undefined };
    const { text } = await play({ ...agent('tells-how-it-was-started'), env });
    const told = JSON.parse(text).env;
    expect(told).toMatchObject({ TEST_KEPT: 'kept', TEST_CHANGED: 'new', TEST_ADDED: 'a=b' });
    expect(told).not.toHaveProperty('TEST_REMOVED');
    expect(process.env.TEST_CHANGED).toBe('old');
  });
});

describe("the mark in the agent's environment", () => {
  const markOf = async (more) => JSON.parse((await play({ ...agent('tells-how-it-was-started'), ...more })).text).env.ACTIVE_RUNS_RUN;

  better('is of each run its own', async () => {
    useStore();
    const marks = await Promise.all(Array.from({ length: 10 }, () => markOf()));
    expect(new Set(marks).size).toBe(10);
  });

  better('stands behind the one that the server was started with, or that it is told to add to', async () => {
    useStore();
    process.env.ACTIVE_RUNS_RUN = 'outer';
    expect(await markOf()).toMatch(/^outer\.[0-9a-f]{32}$/);
    expect(await markOf({ env: { ACTIVE_RUNS_RUN: 'a.b' } })).toMatch(/^a\.b\.[0-9a-f]{32}$/);
    for (const nothing of ['', undefined]) {
      expect(await markOf({ env: { ACTIVE_RUNS_RUN: nothing } })).toMatch(/^[0-9a-f]{32}$/);
    }
    expect(process.env.ACTIVE_RUNS_RUN).toBe('outer');
  });
});

describe.skipIf(process.platform !== 'linux')("the agent's priority", () => {
  it('is that of the server, whatever the threads that start and read it have', async () => {
    useStore();
    const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: '%s' } });
    const { text } = await play({ command: '/bin/sh', args: ['-c', `printf '${line}\n' "$(cat /proc/$$/stat)"`] });
    // The fields behind the name: nice value and scheduling class, see proc(5).
    const priority = (stat) => {
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return { nice: fields[19 - 3], schedulingClass: fields[41 - 3] };
    };
    expect(priority(text)).toEqual(priority(readFileSync('/proc/self/stat', 'utf8')));
  });
});

describe("an agent of one's own", () => {
  it('starts where it is told to, else where the server is', async () => {
    useStore();
    const cwd = realpathSync(temporaryFolder());
    const spec = agent('tells-how-it-was-started');
    expect(JSON.parse((await play({ ...spec, cwd })).text).cwd).toBe(cwd);
    expect(JSON.parse((await play(spec)).text).cwd).toBe(realpathSync(process.cwd()));
  });

  it('gets message, session and agent session in its arguments, in a single pass', async () => {
    useStore();
    const sessionId = newSession();
    const spec = agent('tells-how-it-was-started', '{message}', '<{sessionId}|{agentSessionId}>', '{other}', '{message}');
    const message = '{sessionId} $& $1 {agentSessionId}';
    const { text } = await play(spec, { sessionId, message, agentSessionId: '{message}' });
    expect(JSON.parse(text).args).toEqual([message, `<${sessionId}|{message}>`, '{other}', message]);
  });

  it('gets an empty text for an absent agent session', async () => {
    useStore();
    const { text } = await play(agent('tells-how-it-was-started', '[{agentSessionId}]'));
    expect(JSON.parse(text).args).toEqual(['[]']);
  });

  it('needs no arguments', async () => {
    useStore();
    const program = join(temporaryFolder(), 'program');
    writeFileSync(program, '#!/bin/sh\nexit 7\n', { mode: 0o755 });
    const { run, text } = await play({ command: program });
    expect(run).toMatchObject({ status: 'error', exitCode: 7 });
    expect(text).toBe('[error] Agent exited with code 7. Check server logs for details.');
  });
});

describe('an agent that cannot be started', () => {
  async function failure(command, more = {}) {
    const store = useStore();
    const { sessionId, run, events, text } = await play({ command, ...more.agent }, more.params);
    expect(events.map((event) => event?.type ?? null)).toEqual(['text-start', 'text-delta', 'text-end', null]);
    expect(run.status).toBe('error');
    expect(run.childProcess.pid).toBe(undefined);
    expect(store.messages(sessionId)).toMatchObject([{ role: 'assistant', content: text }]);
    expect(store.read(sessionId)).not.toContain('_streaming');
    // The module announces the end with 'error' and knows the exit code with 'close', a little later.
    await until(() => run.exitCode !== null, 'the exit code was known');
    return { text, exitCode: run.exitCode };
  }

  it('is an error in the stream and the store: no such program', async () => {
    expect(await failure('/no/such/program')).toEqual({
      text: '[error] Failed to start agent: spawn /no/such/program ENOENT',
      exitCode: -2,
    });
    expect(await failure('no-such-program-anywhere')).toEqual({
      text: '[error] Failed to start agent: spawn no-such-program-anywhere ENOENT',
      exitCode: -2,
    });
  });

  it('is an error in the stream and the store: no such working directory', async () => {
    expect(await failure(process.execPath, { agent: { cwd: '/no/such/folder' } })).toEqual({
      text: `[error] Failed to start agent: spawn ${process.execPath} ENOENT`,
      exitCode: -2,
    });
  });

  it('is an error in the stream and the store: not executable', async () => {
    const program = join(temporaryFolder(), 'program');
    writeFileSync(program, '#!/bin/sh\n');
    chmodSync(program, 0o644);
    expect(await failure(program)).toEqual({
      text: `[error] Failed to start agent: spawn ${program} EACCES`,
      exitCode: -13,
    });
  });

  better('is an error in the stream and the store: a message longer than the system takes', async () => {
    const spec = { agent: { args: ['{message}'] }, params: { message: 'x'.repeat(8 << 20) } };
    expect(await failure('/bin/echo', spec)).toEqual({
      text: '[error] Failed to start agent: spawn /bin/echo E2BIG',
      exitCode: -7,
    });
  });

  it('is heard in full however soon it fails', async () => {
    useStore();
    const plays = await Promise.all(Array.from({ length: 200 }, () => play({ command: '/no/such/program' })));
    for (const { events, run } of plays) {
      expect(events).toHaveLength(4);
      expect(run.status).toBe('error');
    }
  });

  it('does not block the session', async () => {
    useStore();
    const sessionId = newSession();
    await play({ command: '/no/such/program' }, { sessionId });
    expect(runs.hasActiveRun(sessionId)).toBe(false);
    expect(runs.abortRun(sessionId)).toBe(false);
    expect((await play(agent('says', 'well'), { sessionId })).text).toBe('well');
  });
});
