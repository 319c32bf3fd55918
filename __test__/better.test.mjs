// Where the addon must be better than the module it replaces. The baseline cannot pass these.
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  agent,
  isAlive,
  isDead,
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

/** The process numbers that an agent has said so far. */
const pidsIn = (text) => [...text.matchAll(/pid (\d+);/g)].map(([, pid]) => Number(pid));
const json = (value) => `${JSON.stringify(value)}\n`;

/** Waits until `count` processes have told their numbers. */
async function family(listener, count) {
  await until(() => pidsIn(listener.text()).length === count, `${count} processes told their numbers`);
  return pidsIn(listener.text());
}

describe('abort means dead', () => {
  it('for an agent that ignores SIGTERM', async () => {
    useStore({ killAfterMs: 100 });
    const { sessionId, run } = start(agent('stubborn'));
    const listener = listen(sessionId);
    const [pid] = await family(listener, 1);
    expect(runs.abortRun(sessionId)).toBe(true);
    await listener.ended;
    expect(isAlive(pid)).toBe(false);
    expect(run).toMatchObject({ status: 'completed', exitCode: null });
  });

  it('for its children and theirs, which ignore SIGTERM and hold the pipes', async () => {
    useStore({ killAfterMs: 100 });
    const { sessionId } = start(agent('stubborn-family', 2));
    const listener = listen(sessionId);
    const pids = await family(listener, 3);
    runs.abortRun(sessionId);
    await listener.ended;
    for (const pid of pids) await isDead(pid);
  });

  it('for a child that shares nothing with its parent but the group', async () => {
    useStore();
    const { sessionId } = start(agent('has-a-quiet-child'));
    const listener = listen(sessionId);
    const pids = await family(listener, 2);
    runs.abortRun(sessionId);
    await listener.ended;
    for (const pid of pids) await isDead(pid);
  });

  it('for a stubborn child of an agent that ends at once', async () => {
    useStore({ killAfterMs: 100 });
    const { sessionId } = start({
      command: '/bin/sh',
      args: ['-c', '"$0" "$1" & trap "exit 0" TERM; wait; wait', ...stubbornCommand()],
    });
    const listener = listen(sessionId);
    const [pid] = await family(listener, 1);
    runs.abortRun(sessionId);
    await listener.ended;
    await isDead(pid);
  });

  it('in the tick of the start, too', async () => {
    useStore({ killAfterMs: 100 });
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    expect(runs.abortRun(sessionId)).toBe(true);
    await listen(sessionId).ended;
    const { pid } = run.childProcess;
    if (pid !== undefined) expect(isAlive(pid)).toBe(false);
  });
});

function stubbornCommand() {
  const { command, args } = agent('stubborn');
  return [command, ...args];
}

describe('a child of the agent that keeps the pipes open', () => {
  it.each(['', 'detached'])('does not keep the run running (%s)', async (how) => {
    const store = useStore({ pipeGraceMs: 100 });
    const { sessionId, run } = start(agent('leaves-a-child-holding-the-pipes', how));
    const listener = listen(sessionId);
    await listener.ended;
    expect(run).toMatchObject({ status: 'completed', exitCode: 0 });
    expect(store.messages(sessionId)).toMatchObject([{ content: listener.text() }]);
    const [pid] = pidsIn(listener.text());
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    await isDead(pid);
  });
});

describe('nobody is orphaned when the server ends in mid-run', () => {
  /** A server that starts the agent, waits for its word, and then ends in its way. */
  async function endingServer(body, spec, data) {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const told = await puppet();
    const host = server(
      body,
      { settings: { storeDir: store.dir, persistIntervalMs: 3_600_000, killAfterMs: 200 }, agent: spec ?? told.agent, ...data },
    );
    return { store, told, host };
  }

  async function expectFlushedAndDead({ store, host }, pid, exit) {
    expect(await host.exited).toEqual(exit);
    expect(store.messages('s')).toMatchObject([{ role: 'assistant', content: 'one two' }]);
    expect(store.read('s')).not.toContain('_streaming');
    await isDead(pid);
  }

  async function speak({ told, host, store }) {
    await told.say('one');
    await until(() => store.read('s').includes('"one"'), 'the first flush came');
    await told.say(' two');
    expect(await host.told()).toBe('heard');
    return told.pid();
  }

  it('by process.exit', async () => {
    const it = await endingServer(async ({ runs, data, said, tell }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
      process.exit(5);
    });
    await expectFlushedAndDead(it, await speak(it), { code: 5, signal: null });
  });

  it('by an uncaught error', async () => {
    const it = await endingServer(async ({ runs, data, said, tell }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
      setImmediate(() => {
        throw new Error('a bug of the app');
      });
    });
    await expectFlushedAndDead(it, await speak(it), { code: 1, signal: null });
    expect(it.host.stderr()).toContain('a bug of the app');
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'])('by %s', async (signal) => {
    const it = await endingServer(async ({ runs, data, said, tell }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
    });
    const pid = await speak(it);
    it.host.child.kill(signal);
    await expectFlushedAndDead(it, pid, { code: null, signal });
  });

  it('though the agent ignores SIGTERM', async () => {
    const it = await endingServer(async ({ runs, data, said, tell }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
      process.exit(0);
    });
    await it.told.ignore('SIGTERM');
    await expectFlushedAndDead(it, await speak(it), { code: 0, signal: null });
  });

  it('and its children go with it', async () => {
    const { host } = await endingServer(
      async ({ runs, data, tell }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        let text = '';
        runs.subscribeToRun('s', (event) => {
          text += event?.delta ?? '';
          if (text.match(/pid/g)?.length === 3) tell(text).then(() => process.exit(0));
        });
      },
      agent('stubborn-family', 2),
    );
    const pids = pidsIn(await host.told());
    await host.exited;
    expect(pids).toHaveLength(3);
    for (const pid of pids) await isDead(pid);
  });

  it.runIf(process.platform === 'linux')('by SIGKILL: the agent is stopped by the system', async () => {
    const it = await endingServer(async ({ runs, data, said, tell }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
    });
    const pid = await speak(it);
    it.host.child.kill('SIGKILL');
    await it.host.exited;
    await isDead(pid);
  });

  it.each(['signal-exit', 'signal-exit-3'])('by a signal, where %s listens, too', async (name) => {
    for (const isFirst of [true, false]) {
      const it = await endingServer(
        async ({ runs, data, said, tell }) => {
          const { createRequire } = process.getBuiltinModule('node:module');
          const listen = () => {
            const exported = createRequire(data.from)(data.name);
            (exported.onExit ?? exported)((code, signal) => process._rawDebug(`exit listener: ${signal}`));
          };
          if (data.isFirst) listen();
          runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
          await said('s', 'one two');
          if (!data.isFirst) listen();
          await tell('heard');
        },
        undefined,
        { name, isFirst, from: import.meta.url },
      );
      const pid = await speak(it);
      it.host.child.kill('SIGTERM');
      await expectFlushedAndDead(it, pid, { code: null, signal: 'SIGTERM' });
      expect(it.host.stderr()).toContain('exit listener: SIGTERM');
    }
  });

  it('but a server that handles SIGTERM itself goes on', async () => {
    const it = await endingServer(async ({ runs, data, said, ended, tell }) => {
      process.once('SIGTERM', () => void tell('handled'));
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await said('s', 'one two');
      await tell('heard');
      await ended('s');
      process.disconnect();
    });
    await speak(it);
    it.host.child.kill('SIGTERM');
    expect(await it.host.told()).toBe('handled');
    await it.told.say(' three');
    await it.told.exit();
    expect(await it.host.exited).toEqual({ code: 0, signal: null });
    expect(it.store.messages('s')).toMatchObject([{ content: 'one two three' }]);
  });
});

describe('others write the same files', () => {
  it('and what they write between flushes stays', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const sessionId = newSession();
    store.writeIndex([{ id: sessionId, title: 'old', messageCount: 0 }]);
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'q' });
    start(told.agent, { sessionId });
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    await until(() => store.index()[0].messageCount === 2, 'it was counted');

    // As a route does: read all, change a line, add one before the answer and one behind, write all.
    const [first, answer] = store.messages(sessionId);
    store.write(sessionId, [{ ...first, edited: true }, { id: 'x' }, answer, { id: 'y' }].map(json).join(''));
    const [entry] = store.index();
    store.writeIndex([{ id: 'new one' }, { ...entry, title: 'new', starred: true }]);

    await told.say(' two');
    await until(() => store.read(sessionId).includes('"one two"'), 'a later flush came');
    expect(store.messages(sessionId)).toMatchObject([
      { id: 'u1', edited: true },
      { id: 'x' },
      { content: 'one two', _streaming: true },
      { id: 'y' },
    ]);
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toHaveLength(4);
    expect(store.index()).toMatchObject([
      { id: 'new one' },
      { id: sessionId, title: 'new', starred: true, messageCount: 2 },
    ]);
  });

  it('also when they replace the file by another', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    writeFileSync(join(store.dir, 'new'), `${json({ id: 'x' })}${store.read(sessionId)}`);
    renameSync(join(store.dir, 'new'), store.path(sessionId));
    await told.say(' two');
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toMatchObject([{ id: 'x' }, { content: 'one two' }]);
  });

  it('also when they take the unfinished answer away', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    store.write(sessionId, json({ id: 'x' }));
    await told.say(' two');
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toMatchObject([{ id: 'x' }, { content: 'one two' }]);
  });

  it('and a finished answer that a late writer lost is put back within the grace', async () => {
    const store = useStore({ cleanupGraceMs: 2_000 });
    const sessionId = newSession();
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'q' });
    const stale = store.read(sessionId);
    await play(agent('says', 'the answer'), { sessionId });
    // A route that had read the file before the answer was there writes it back now, and more.
    store.write(sessionId, stale + json({ id: 'u2' }));
    await until(() => store.read(sessionId).includes('the answer'), 'the answer was put back');
    const messages = store.messages(sessionId);
    expect(messages.map(({ id }) => id).filter((id) => /^u/.test(id))).toEqual(['u1', 'u2']);
    expect(messages.filter(({ content }) => content === 'the answer')).toHaveLength(1);
    expect(store.read(sessionId)).not.toContain('_streaming');
  });

  it('and a finished answer that lies there is not written again', async () => {
    const store = useStore({ cleanupGraceMs: 50 });
    const { sessionId } = await play(agent('says', 'x'));
    const before = store.read(sessionId);
    await until(() => runs.getActiveRun(sessionId) === undefined, 'the grace was over');
    expect(store.read(sessionId)).toBe(before);
  });

  it('in two processes, on one session: nothing is lost', async () => {
    const store = useStore();
    store.writeIndex([{ id: 's', messageCount: 0 }]);
    const body = async ({ runs, data, agent, ended, hear, tell }) => {
      const go = hear();
      await tell('ready');
      await go;
      runs.startRun({ sessionId: 's', message: 'm', agent: agent('floods', 20_000) });
      for (let n = 0; n < 100; n += 1) {
        runs.persistUserMessage('s', { id: `${data.name}${n}`, content: 'x'.repeat(n * 10) });
        await new Promise(setImmediate);
      }
      await ended('s');
      process.exit();
    };
    const hosts = ['a', 'b'].map((name) =>
      server(body, { name, settings: { storeDir: store.dir, persistIntervalMs: 1 } }),
    );
    for (const host of hosts) expect(await host.told()).toBe('ready');
    for (const host of hosts) host.send('go');
    for (const host of hosts) expect(await host.exited).toEqual({ code: 0, signal: null });
    const messages = store.messages('s');
    for (const name of ['a', 'b']) {
      const mine = messages.map(({ id }) => id).filter((id) => id.startsWith(name) && !id.startsWith('assistant'));
      expect(mine).toEqual(Array.from({ length: 100 }, (_, n) => `${name}${n}`));
    }
    const answers = messages.filter(({ role }) => role === 'assistant');
    const whole = Array.from({ length: 20_000 }, (_, n) => `${n} `).join('');
    expect(answers.length).toBeGreaterThan(0);
    for (const { content, _streaming } of answers) {
      expect(content === whole).toBe(true);
      expect(_streaming).toBe(undefined);
    }
    expect(store.index()).toMatchObject([{ id: 's', messageCount: 200 + answers.length }]);
  });
});

describe('the store is never torn', () => {
  it('for a reader in another process, while a long history is flushed all the time', async () => {
    const store = useStore({ persistIntervalMs: 1 });
    const sessionId = newSession();
    const history = Array.from({ length: 500 }, (_, n) => json({ id: `${n}`, content: 'é'.repeat(1_000) })).join('');
    store.write(sessionId, history);
    store.writeIndex([{ id: sessionId, title: 'x'.repeat(100_000), messageCount: 500 }]);
    const reader = server(
      async ({ data, tell, hear, fs }) => {
        let stop = false;
        hear().then(() => {
          stop = true;
        });
        const versions = new Set();
        let torn = 0;
        for (let reads = 0; !stop; reads += 1) {
          const text = fs.readFileSync(data.path, 'utf8');
          const answer = text.slice(data.length);
          try {
            if (!text.endsWith('\n')) throw new Error('cut');
            if (answer) versions.add(JSON.parse(answer).content);
            JSON.parse(fs.readFileSync(data.indexPath, 'utf8'));
          } catch {
            torn += 1;
          }
          if (versions.size === 30) await tell('enough');
          if (reads % 10 === 0) await new Promise(setImmediate);
        }
        await tell({ torn });
        process.exit();
      },
      { path: store.path(sessionId), indexPath: store.indexPath, length: history.length },
    );
    const told = await puppet();
    start(told.agent, { sessionId });
    let enough = false;
    const heard = reader.told().finally(() => {
      enough = true;
    });
    while (!enough) await told.say('a word, ');
    await heard;
    await told.exit();
    await listen(sessionId).ended;
    reader.send('stop');
    const last = await until(async () => {
      const message = await reader.told();
      return message.torn === undefined ? undefined : message;
    }, 'the reader told what it saw');
    expect(last).toEqual({ torn: 0 });
    expect(store.read(sessionId).startsWith(history)).toBe(true);
  });
});

describe('bounds', () => {
  it('a line of 100 MiB is skipped with a warning, and the run goes on', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const host = server(
      async ({ runs, tell, ended, agent }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: agent('writes-a-huge-line', 100) });
        const events = await ended('s');
        await tell({ text: events.map((event) => event?.delta ?? '').join(''), status: runs.getActiveRun('s').status });
        process.exit();
      },
      { settings: { storeDir: store.dir } },
    );
    expect(await host.told()).toEqual({ text: 'before after', status: 'completed' });
    await host.exited;
    expect(host.stderr()).toMatch(/^\[active-runs\] .*line.*/m);
    expect(store.messages('s')).toMatchObject([{ content: 'before after' }]);
  });

  it('the limit of a line can be set', async () => {
    useStore({ maxLineBytes: 1_000 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.out(textLine('a') + textLine('x'.repeat(1_000)) + textLine('b'));
    await told.exit();
    const listener = listen(sessionId);
    await listener.ended;
    expect(listener.text()).toBe('ab');
  });

  it('256 MiB of stderr need bounded memory, and the first of them are quoted', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const host = server(
      async ({ runs, tell, ended, agent }) => {
        const before = process.memoryUsage.rss();
        const run = agent('floods-stderr', 256, '[tag] Error: the first trouble', 'the last word');
        runs.startRun({ sessionId: 's', message: 'm', agent: run });
        let peak = before;
        const timer = setInterval(() => {
          peak = Math.max(peak, process.memoryUsage.rss());
        }, 5);
        const events = await ended('s');
        clearInterval(timer);
        await tell({ text: events.map((event) => event?.delta ?? '').join(''), grownMiB: (peak - before) / (1 << 20) });
        process.exit();
      },
      { settings: { storeDir: store.dir } },
      { stderr: 'ignore' },
    );
    const { text, grownMiB } = await host.told();
    expect(text).toBe('[error] the first trouble');
    expect(grownMiB).toBeLessThan(64);
  });

  it('of stderr the first and the last 64 KiB count, what is between does not', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const host = server(
      async ({ runs, tell, ended, agent }) => {
        const play = async (sessionId, ...args) => {
          runs.startRun({ sessionId, message: 'm', agent: agent('floods-stderr', ...args) });
          const events = await ended(sessionId);
          return events.map((event) => event?.delta ?? '').join('');
        };
        await tell(await play('last', 1, 'nothing', 'the last word'));
        await tell(await play('late', 1, 'nothing', 'Error: the late trouble\nthe last word'));
        await tell(await play('between', 1, `${'x\n'.repeat(40_000)}Error: between`, 'the last word'));
        process.exit();
      },
      { settings: { storeDir: store.dir } },
      { stderr: 'ignore' },
    );
    expect(await host.told()).toBe('[error] the last word');
    expect(await host.told()).toBe('[error] the late trouble');
    expect(await host.told()).toBe('[error] the last word');
  });

  it('a run that says more than its limit is stopped, with an error that says so', async () => {
    const store = useStore({ maxRunBytes: 100_000 });
    const { sessionId, run } = start(agent('floods', 1_000_000_000));
    const listener = listen(sessionId);
    await listener.ended;
    expect(run.status).toBe('error');
    expect(listener.text()).toMatch(/\[error\] .*100,?000.*$/);
    expect(isAlive(run.childProcess.pid)).toBe(false);
    expect(store.messages(sessionId)).toMatchObject([{ content: listener.text() }]);
    expect(listener.text().startsWith('0 1 2 3 ')).toBe(true);
  });
});

describe('session ids stay inside the store', () => {
  it.each([
    ['empty', ''],
    ['a dot', '.'],
    ['two dots', '..'],
    ['longer than 200 bytes', 'é'.repeat(101)],
    ['with a slash', 'a/b'],
    ['a way out', '../../etc/passwd'],
    ['with a backslash', 'a\\b'],
    ['with a NUL', 'a\0b'],
  ])('%s is refused by every function that would touch a file', (_, sessionId) => {
    const store = useStore();
    const refused = expect.objectContaining({ code: 'INVALID_SESSION_ID', message: expect.stringMatching(/^sessionId/) });
    expect(() => runs.startRun({ sessionId, message: 'm', agent: agent('says') })).toThrow(refused);
    expect(() => runs.persistUserMessage(sessionId, { id: 'u', content: 'x' })).toThrow(refused);
    for (const ask of [runs.hasActiveRun, runs.abortRun, runs.getActiveRun, (id) => runs.subscribeToRun(id, () => {})]) {
      let answer;
      try {
        answer = ask(sessionId);
      } catch (error) {
        answer = error;
      }
      expect([undefined, null, false, refused]).toContainEqual(answer);
    }
    expect(readdirSync(store.dir)).toEqual([]);
    expect(readdirSync(join(store.dir, '..')).filter((name) => name.endsWith('.jsonl'))).toEqual([]);
  });

  it.each(['x'.repeat(200), 'é'.repeat(100), '...', 'ein Name mit Raum 🙂', '-rf', '%2e%2e'])(
    '%s is fine',
    async (sessionId) => {
      const store = useStore();
      runs.persistUserMessage(sessionId, { id: 'u', content: 'q' });
      await play(agent('says', 'a'), { sessionId });
      expect(store.messages(sessionId)).toHaveLength(2);
    },
  );
});

describe("other sessions' lines are not this run's", () => {
  const mine = 'agent:main:subagent:mine';
  const lines = [
    textLine('a', { sessionKey: mine, runId: 'r1' }),
    textLine('B', { sessionKey: 'agent:main:subagent:other', runId: 'r2' }),
    textLine('C', { runId: 'r2' }),
    textLine('d', { runId: 'r1' }),
    textLine('e'),
    textLine('f', { sessionKey: '' }),
    textLine('g', { sessionKey: 5 }),
    textLine('h', { runId: 'r3' }),
    // A run that moves to this session is this session's from there on.
    textLine('i', { sessionKey: mine, runId: 'r2' }),
    textLine('j', { runId: 'r2' }),
  ].join('');

  async function said(agentSessionId) {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent, { agentSessionId });
    await told.out(lines);
    await told.exit();
    const listener = listen(sessionId);
    await listener.ended;
    return listener.text();
  }

  it('with an agentSessionId', async () => {
    expect(await said('mine')).toBe('adefghij');
  });

  it('but without one nothing is skipped', async () => {
    expect(await said(undefined)).toBe('aBCdefghij');
  });
});

describe('odd lines', () => {
  async function said(text) {
    const store = useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.out(text);
    await told.exit();
    const listener = listen(sessionId);
    await listener.ended;
    return { text: listener.text(), file: store.read(sessionId), stored: store.messages(sessionId) };
  }

  it('a line that is null is skipped', async () => {
    expect((await said(`null\n${textLine('ok')}null\n`)).text).toBe('ok');
  });

  it('U+2028 and U+2029 inside a string are text', async () => {
    const { text, stored } = await said(textLine('a\u2028b\u2029c'));
    expect(text).toBe('a\u2028b\u2029c');
    expect(stored).toMatchObject([{ content: 'a\u2028b\u2029c' }]);
  });

  it('lone surrogates across deltas meet in the file', async () => {
    const { text, file } = await said(textLine('\ud83d') + textLine('\ude00 and ') + textLine('\ud83d'));
    expect(text).toBe('😀 and \ud83d');
    expect(file).toContain('"content":"😀 and \\ud83d"');
  });

  it('a line that comes in single bytes is one line', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    for (const character of textLine('x')) await told.out(character);
    await told.exit();
    const listener = listen(sessionId);
    await listener.ended;
    expect(listener.text()).toBe('x');
  });
});

describe('a stale _streaming mark', () => {
  const stale = json({ id: 'old', role: 'assistant', content: 'half', parts: [], timestamp: 'then', _streaming: true });
  const cleared = json({ id: 'old', role: 'assistant', content: 'half', parts: [], timestamp: 'then' });
  const similar = json({ id: 'text', content: '"_streaming":true', data: { _streaming: true } });

  it('is cleared by the next user message', async () => {
    const store = useStore();
    store.write('s', similar + stale);
    runs.persistUserMessage('s', { id: 'u', content: 'x' });
    await until(() => store.read('s').startsWith(similar + cleared), 'the mark was cleared');
    expect(store.messages('s')).toHaveLength(3);
  });

  it('is cleared by the next answer', async () => {
    const store = useStore();
    const sessionId = newSession();
    store.write(sessionId, stale + similar);
    await play(agent('says', 'x'), { sessionId });
    expect(store.read(sessionId).startsWith(cleared + similar)).toBe(true);
    expect(store.messages(sessionId)).toHaveLength(3);
  });

  it('is left behind by a server that is killed, and cleared then', async () => {
    const store = useStore();
    const told = await puppet();
    const host = server(({ runs, data }) => void runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }), {
      settings: { storeDir: store.dir },
      agent: told.agent,
    });
    await told.say('half');
    await until(() => store.read('s').includes('half'), 'the first flush came');
    host.child.kill('SIGKILL');
    await host.exited;
    expect(store.messages('s')).toMatchObject([{ content: 'half', _streaming: true }]);
    runs.persistUserMessage('s', { id: 'u', content: 'and now?' });
    await until(() => !store.read('s').includes('_streaming'), 'the mark was cleared');
    expect(store.messages('s')).toMatchObject([{ content: 'half' }, { id: 'u' }]);
  });

  it('of a run that is running is no stale one', async () => {
    const store = useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('half');
    await until(() => store.read(sessionId).includes('half'), 'the first flush came');
    runs.persistUserMessage(sessionId, { id: 'u', content: 'x' });
    expect(store.messages(sessionId)).toMatchObject([{ content: 'half', _streaming: true }, { id: 'u' }]);
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toMatchObject([{ content: 'half' }, { id: 'u' }]);
  });
});

describe('a store that cannot be written', () => {
  it('stops no run; there is one warning, one more when the server ends, and persistUserMessage throws', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'file'), '');
    const told = await puppet();
    const host = server(
      async ({ runs, data, tell, said, ended }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'one');
        await tell('heard');
        const events = await ended('s');
        let error;
        try {
          runs.persistUserMessage('s', { id: 'u', content: 'x' });
        } catch (caught) {
          error = { isError: caught instanceof Error, code: caught.code, message: caught.message };
        }
        await tell({ text: events.map((event) => event?.delta ?? '').join(''), error });
        process.exit();
      },
      { settings: { storeDir: join(folder, 'file', 'store'), persistIntervalMs: 1 }, agent: told.agent },
    );
    await told.say('one');
    await host.told();
    for (let n = 0; n < 20; n += 1) await told.say(' more');
    await told.exit();
    const { text, error } = await host.told();
    expect(text).toBe(`one${' more'.repeat(20)}`);
    expect(error).toMatchObject({ isError: true, code: 'STORE_FAILED' });
    expect(error.message).toMatch(/^failed to .*store.*: .+/);
    await host.exited;
    expect(host.stderr().match(/^\[active-runs\] .*$/gm)).toEqual([
      expect.stringContaining('The answer of session s is not saved: '),
      '[active-runs] The answer of session s is lost',
    ]);
  });

  it('gets the whole answer when it can be written again', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    mkdirSync(store.path(sessionId));
    await told.say('one');
    await listen(sessionId).has('one');
    renameSync(store.path(sessionId), join(store.dir, 'away'));
    await told.say(' two');
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toMatchObject([{ content: 'one two' }]);
  });
});

describe('the collector of garbage', () => {
  it('between two runs does not silence the second', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const host = server(
      async ({ runs, tell, ended, agent }) => {
        for (const sessionId of ['first', 'second', 'third']) {
          runs.startRun({ sessionId, message: 'm', agent: agent('says', sessionId) });
          const events = await ended(sessionId);
          await tell(events.map((event) => event?.delta ?? '').join(''));
          // Twice, with the loop in between, so that finalizers run as well.
          for (let n = 0; n < 2; n += 1) {
            globalThis.gc();
            await new Promise(setImmediate);
          }
        }
        process.exit();
      },
      { settings: { storeDir: store.dir } },
      { execArgv: ['--expose-gc'] },
    );
    for (const sessionId of ['first', 'second', 'third']) expect(await host.told()).toBe(sessionId);
  });

  it('leaves a subscription alone that nobody else refers to', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const told = await puppet();
    const host = server(
      ({ runs, data, tell }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        runs.subscribeToRun('s', (event) => {
          if (event?.delta) tell(event.delta);
          globalThis.gc();
        });
      },
      { settings: { storeDir: store.dir, cleanupGraceMs: 10 }, agent: told.agent },
      { execArgv: ['--expose-gc'] },
    );
    for (const delta of ['one', 'two', 'three']) {
      await told.say(delta);
      expect(await host.told()).toBe(delta);
    }
    await told.exit();
    expect(await host.exited).toEqual({ code: 0, signal: null });
  });
});

describe("the agent's stderr", () => {
  it('goes to the server line by line, with its prefix', async () => {
    const store = storeAt(join(temporaryFolder(), 'store'));
    const told = await puppet();
    const host = server(
      async ({ runs, data, ended }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await ended('s');
        process.exit();
      },
      { settings: { storeDir: store.dir }, agent: told.agent },
    );
    await told.err('one\ntwo ');
    await told.err('halves\n');
    await told.err('no end, é');
    await told.say('x');
    await told.exit();
    await host.exited;
    const lines = host.stderr().split('\n').filter(Boolean);
    expect(lines).toEqual(['one', 'two halves', 'no end, é'].map((line) => `[active-runs stderr] ${line}`));
  });
});
