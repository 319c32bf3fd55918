// When a server ends, in whatever way, what its agents have started ends, too: at once, or when the
// next server of the same store comes. The baseline cannot pass these.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  asFirstProcess,
  newSleepers,
  noContainer,
  server,
  sh,
  storeAt,
  temporaryFolder,
  textLine,
  until,
} from './helpers/index.mjs';

const newStore = () => storeAt(join(temporaryFolder(), 'store'));

/** The files in which the servers of a store note the marks of their running runs. */
const marksFilesIn = ({ dir }) => (existsSync(dir) ? readdirSync(dir).filter((name) => /^\..+\.active-runs\.marks$/.test(name)) : []);

/** Starts two tools that ignore SIGTERM: one in a session of its own, one re-parented. */
const TOOLS = `setsid sh -c 'trap "" TERM; exec sleep "$1"' sh "$1" >/dev/null 2>&1 &
  (setsid sh -c 'trap "" TERM; exec sleep "$1"' sh "$1" >/dev/null 2>&1 &)`;

describe('a server that ends also ends the tools', () => {
  /** A server that runs the agent `data.agent`, which starts the tools and waits; it is told to go on when they are there. */
  async function hostOf(body, settings) {
    const sleepers = newSleepers();
    const host = server(body, {
      settings: { storeDir: newStore().dir, killAfterMs: 200, ...settings },
      agent: sh(`${TOOLS}\nwait`, sleepers),
    });
    await sleepers.haveStarted(2);
    host.send('go');
    return { host, sleepers };
  }

  it('by process.exit', async () => {
    const { host, sleepers } = await hostOf(async ({ runs, data, hear }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await hear();
      process.exit(5);
    });
    expect(await host.exited).toEqual({ code: 5, signal: null });
    await sleepers.haveEnded();
  });

  it('by an uncaught error', async () => {
    const { host, sleepers } = await hostOf(async ({ runs, data, hear }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await hear();
      setImmediate(() => {
        throw new Error('a bug of the app');
      });
    });
    expect(await host.exited).toEqual({ code: 1, signal: null });
    await sleepers.haveEnded();
  });

  it('by SIGTERM', async () => {
    const { host, sleepers } = await hostOf(async ({ runs, data }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
    });
    host.child.kill('SIGTERM');
    expect(await host.exited).toEqual({ code: null, signal: 'SIGTERM' });
    await sleepers.haveEnded();
  });

  it('of a run that was aborted and is over, long before killAfterMs', async () => {
    const { host, sleepers } = await hostOf(
      async ({ runs, data, tell, hear }) => {
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await hear();
        runs.abortRun('s');
        await run.whenEnded;
        await tell(runs.stats().remainingPids);
        await hear();
        process.exit();
      },
      { killAfterMs: 3_600_000 },
    );
    expect(await host.told()).toEqual(sleepers.pids().sort((a, b) => a - b));
    host.send('end');
    expect(await host.exited).toEqual({ code: 0, signal: null });
    await sleepers.haveEnded();
  });

  it('of a run that is started in an exit listener before ours', async () => {
    const { host, sleepers } = await hostOf(async ({ runs, data, hear }) => {
      runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
      await hear();
      process.prependListener('exit', () => {
        runs.startRun({ sessionId: 't', message: 'm', agent: data.agent });
        // The agent starts meanwhile.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
      });
      process.exit();
    });
    expect(await host.exited).toEqual({ code: 0, signal: null });
    await sleepers.haveEnded();
  });
});

describe('startRun in an exit listener after ours', () => {
  it('throws CLOSING and starts nothing', async () => {
    const file = join(temporaryFolder(), 'told');
    const host = server(
      async ({ runs, data, agent, fs }) => {
        runs.startRun({ sessionId: 'first', message: 'm', agent: agent('says-and-waits', 'a') });
        process.on('exit', () => {
          const started = () => runs.startRun({ sessionId: 'late', message: 'm', agent: agent('says', 'b') });
          const errors = [started, started].map((start) => {
            try {
              return `started ${start().sessionId}`;
            } catch (error) {
              return { code: error.code, isError: error instanceof Error };
            }
          });
          const isActive = runs.hasActiveRun('late');
          fs.writeFileSync(data.file, JSON.stringify({ errors, isActive, pids: runs.stats().childPids }));
        });
        process.exit(3);
      },
      { file, settings: { storeDir: newStore().dir } },
    );
    expect(await host.exited).toEqual({ code: 3, signal: null });
    const closing = { code: 'CLOSING', isError: true };
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({ errors: [closing, closing], isActive: false, pids: [] });
  });
});

describe('an answer that could not be written', () => {
  /** A server whose run has ended while its store was a file; then it does as told. */
  async function hostOf(body, data = {}) {
    const store = newStore();
    writeFileSync(store.dir, 'in the place of the folder');
    const host = server(body, {
      settings: { storeDir: store.dir },
      agent: sh('printf %s "$1"', textLine('precious')),
      ...data,
    });
    return { host, store };
  }

  it.each(['by itself', 'by process.exit', 'by SIGTERM'])('is written when its server ends %s and it can be', async (how) => {
    const { host, store } = await hostOf(
      async ({ runs, data, tell, fs }) => {
        await runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }).whenEnded;
        // Longer than signals are listened for because a run has just ended.
        if (data.how === 'by SIGTERM') await new Promise((resolve) => setTimeout(resolve, 1_500));
        fs.unlinkSync(data.settings.storeDir);
        await tell('mended');
        if (data.how === 'by process.exit') process.exit();
        if (data.how === 'by SIGTERM') setInterval(() => {}, 1_000_000);
        process.disconnect();
      },
      { how },
    );
    expect(await host.told()).toBe('mended');
    if (how === 'by SIGTERM') host.child.kill('SIGTERM');
    expect(await host.exited).toEqual(how === 'by SIGTERM' ? { code: null, signal: 'SIGTERM' } : { code: 0, signal: null });
    expect(store.messages('s')).toMatchObject([{ content: 'precious' }]);
    expect(host.stderr()).not.toContain('is lost');
  });

  it('is told as lost when its server ends and it still cannot', async () => {
    const { host } = await hostOf(async ({ runs, data }) => {
      await runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }).whenEnded;
      process.disconnect();
    });
    expect(await host.exited).toEqual({ code: 0, signal: null });
    expect(host.stderr().match(/The answer of session s is lost/g)).toHaveLength(1);
  });
});

describe('after a SIGKILL, the next server of the store', () => {
  const agentWithTools = (sleepers) => sh(`${TOOLS}\nwait`, sleepers);

  /**
   * Kills a server whose run has two tools, which live on. If `before` is given, the server does that
   * before, with a run of its own. Returns the name of the server's marks file.
   */
  async function killServer(store, sleepers, before, more = {}) {
    const known = marksFilesIn(store);
    const host = server(
      `async (all) => {
        await (${before ?? (async () => {})})(all);
        all.runs.startRun({ sessionId: 'running', message: 'm', agent: all.data.agent });
        await all.tell('started');
      }`,
      { settings: { storeDir: store.dir, killAfterMs: 3_600_000 }, agent: agentWithTools(sleepers), ...more },
    );
    await more.meanwhile?.(host);
    expect(await host.told()).toBe('started');
    await sleepers.haveStarted(2);
    // The mark of each run is noted in the background.
    const newFiles = () => marksFilesIn(store).filter((name) => !known.includes(name));
    const noted = () => newFiles().flatMap((name) => readFileSync(join(store.dir, name), 'utf8').match(/^\+/gm) ?? []);
    await until(() => noted().length === (before ? 2 : 1), 'the runs were noted');
    const [marksFile, ...others] = newFiles();
    expect(others).toEqual([]);
    host.child.kill('SIGKILL');
    await host.exited;
    await until(() => sleepers.allPids().length === 2, 'the system ended the agent, and nothing else');
    return marksFile;
  }

  /** A server that uses the store in one way; then it is asked what it was warned of, and ends. */
  const startNext = (store, use) => {
    const host = server(
      `async (all) => {
        const { runs, tell, hear } = all;
        const warnings = [];
        runs.onWarning((warning) => warnings.push(warning));
        await (${use})(all);
        await hear();
        for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
        await tell(warnings);
        process.exit();
      }`,
      { settings: { storeDir: store.dir, killAfterMs: 100 } },
    );
    const warnings = async () => {
      host.send('tell');
      const heard = await host.told();
      await host.exited;
      return heard;
    };
    return { ...host, warnings };
  };
  const listSessions = async ({ runs }) => runs.listSessions();
  const isRemoved = (store, file) => until(() => !marksFilesIn(store).includes(file), `${file} was removed`);

  const pidsIn = ({ message }) => message.match(/\d+/g).map(Number);
  const inOrder = (pids) => [...pids].sort((a, b) => a - b);

  it('ends what is left of running runs at its first use of the store, whichever that is, and names the pids', async () => {
    const uses = {
      startRun: async ({ runs, agent }) => runs.startRun({ sessionId: 's', message: 'm', agent: agent('says') }).whenEnded,
      persistUserMessage: async ({ runs }) => runs.persistUserMessage('s', { id: 'u', content: 'x' }),
      readMessages: async ({ runs }) => runs.readMessages('s'),
      upsertMessages: async ({ runs }) => runs.upsertMessages('s', [{ id: 'u' }]),
      listSessions,
      createSession: async ({ runs }) => runs.createSession(),
      deleteSession: async ({ runs }) => runs.deleteSession('s'),
    };
    const endedBy = async (use) => {
      const store = newStore();
      const sleepers = newSleepers();
      const marksFile = await killServer(store, sleepers);
      const pids = sleepers.pids();
      const next = startNext(store, use);
      await sleepers.haveEnded();
      await isRemoved(store, marksFile);
      const warnings = await next.warnings();
      const codes = warnings.map(({ code }) => code);
      return { pids: inOrder(pids), codes, named: inOrder(warnings.flatMap(pidsIn)), marksFiles: marksFilesIn(store) };
    };
    const ends = await Promise.all(Object.values(uses).map(endedBy));
    for (const [n, { pids, ...seen }] of ends.entries()) {
      expect(seen, Object.keys(uses)[n]).toEqual({ codes: ['LEFTOVERS_ENDED'], named: pids, marksFiles: [] });
    }
  });

  it('prints the warning to stderr where nobody listens', async () => {
    const store = newStore();
    const sleepers = newSleepers();
    await killServer(store, sleepers);
    const next = server(
      async ({ runs, hear }) => {
        await runs.listSessions();
        await hear();
        process.exit();
      },
      { settings: { storeDir: store.dir, killAfterMs: 0 } },
    );
    await until(() => next.stderr().includes('\n'), 'it said so');
    next.send('go');
    await next.exited;
    expect(next.stderr()).toMatch(/^\[active-runs\] .*\b\d+, \d+\n$/);
    await sleepers.haveEnded();
  });

  it('does nothing before it uses the store; a server of another store never does', async () => {
    const [store, other] = [newStore(), newStore()];
    const sleepers = newSleepers();
    const marksFile = await killServer(store, sleepers);
    const idle = startNext(store, async ({ runs }) => void [runs.configure(), runs.stats(), runs.hasActiveRun('running')]);
    const elsewhere = startNext(other, async ({ runs, agent }) => {
      await runs.listSessions();
      await runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'a') }).whenEnded;
    });
    expect(await Promise.all([idle.warnings(), elsewhere.warnings()])).toEqual([[], []]);
    expect(sleepers.pids()).toHaveLength(2);
    expect(marksFilesIn(store)).toEqual([marksFile]);
  });

  it('leaves alone what was left by runs that had ended', async () => {
    const store = newStore();
    const [sleepers, daemon] = [newSleepers(), newSleepers()];
    const before = async ({ runs, data }) => runs.startRun({ sessionId: 'ended', message: 'm', agent: data.ending }).whenEnded;
    const marksFile = await killServer(store, sleepers, before, { ending: sh('setsid sleep "$1" >/dev/null 2>&1 &', daemon) });
    await daemon.haveStarted(1);
    const next = startNext(store, listSessions);
    await sleepers.haveEnded();
    await isRemoved(store, marksFile);
    expect(await next.warnings()).toHaveLength(1);
    expect(daemon.pids()).toHaveLength(1);
  });

  it('ends what was left by aborted runs that were over, but whose tools still lived', async () => {
    const store = newStore();
    const [sleepers, others] = [newSleepers(), newSleepers()];
    const before = async ({ runs, data, hear }) => {
      const run = runs.startRun({ sessionId: 'stopped', message: 'm', agent: data.stopped });
      await hear();
      runs.abortRun('stopped');
      await run.whenEnded;
    };
    const meanwhile = async (host) => {
      await others.haveStarted(2);
      host.send('stop it');
    };
    const marksFile = await killServer(store, sleepers, before, { stopped: agentWithTools(others), meanwhile });
    const pids = [...sleepers.pids(), ...others.pids()];
    expect(pids).toHaveLength(4);
    const next = startNext(store, listSessions);
    await Promise.all([sleepers.haveEnded(), others.haveEnded()]);
    await isRemoved(store, marksFile);
    expect(inOrder((await next.warnings()).flatMap(pidsIn))).toEqual(inOrder(pids));
  });

  it('ends the leftovers of each killed server, and leaves the runs of living servers alone', async () => {
    const store = newStore();
    const [living, ...killed] = Array.from({ length: 4 }, newSleepers);
    const host = server(
      async ({ runs, data, tell, hear }) => {
        const run = runs.startRun({ sessionId: 'living', message: 'm', agent: data.agent });
        await tell('started');
        await hear();
        await tell(run.end);
        process.exit();
      },
      { settings: { storeDir: store.dir, killAfterMs: 100 }, agent: agentWithTools(living) },
    );
    await host.told();
    await living.haveStarted(2);
    const files = [];
    for (const sleepers of killed) files.push(await killServer(store, sleepers));
    const pids = killed.flatMap((sleepers) => sleepers.pids());
    const next = startNext(store, listSessions);
    for (const sleepers of killed) await sleepers.haveEnded();
    for (const file of files) await isRemoved(store, file);
    expect(inOrder((await next.warnings()).flatMap(pidsIn))).toEqual(inOrder(pids));
    expect(living.pids()).toHaveLength(2);
    host.send('end');
    expect(await host.told()).toBe(null);
    await living.haveEnded();
    await host.exited;
  });

  it('does it once, where several servers come at the same time', async () => {
    const store = newStore();
    const sleepers = newSleepers();
    const marksFile = await killServer(store, sleepers);
    const pids = sleepers.pids();
    const nexts = Array.from({ length: 4 }, () => startNext(store, listSessions));
    await sleepers.haveEnded();
    await isRemoved(store, marksFile);
    const warnings = (await Promise.all(nexts.map((next) => next.warnings()))).flat();
    expect(inOrder(warnings.flatMap(pidsIn))).toEqual(inOrder(pids));
    expect(await startNext(store, listSessions).warnings()).toEqual([]);
  });
});

describe('the marks file of a server', () => {
  it('is removed when the server ends', async () => {
    const store = newStore();
    const host = server(
      async ({ runs, agent, tell, hear }) => {
        await runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'a') }).whenEnded;
        await tell('ended');
        await hear();
        process.exit();
      },
      { settings: { storeDir: store.dir } },
    );
    await host.told();
    expect(marksFilesIn(store)).toHaveLength(1);
    expect(readFileSync(join(store.dir, marksFilesIn(store)[0]), 'utf8')).toMatch(/\n\+([0-9a-f]{32})\n-\1\n$/);
    host.send('end');
    await host.exited;
    expect(readdirSync(store.dir)).toEqual(['s.jsonl']);
  });

  it('is removed when the server ends in mid-run', async () => {
    // A matter of moments: several times.
    const ends = Array.from({ length: 5 }, async () => {
      const store = newStore();
      const sleepers = newSleepers();
      const host = server(
        async ({ runs, data, hear }) => {
          runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
          await hear();
          process.exit();
        },
        { agent: sh(`${TOOLS}\nwait`, sleepers), settings: { storeDir: store.dir, killAfterMs: 50 } },
      );
      await sleepers.haveStarted(2);
      host.send('end');
      await host.exited;
      await sleepers.haveEnded();
      return marksFilesIn(store);
    });
    expect((await Promise.all(ends)).flat()).toEqual([]);
  });
});

describe.skipIf(noContainer)(`as the first process of a container${noContainer}`, () => {
  /** The number of the server as it is seen from here. */
  async function serverIn(host) {
    const children = `/proc/${host.child.pid}/task/${host.child.pid}/children`;
    const number = await until(() => readFileSync(children, 'utf8').trim(), 'the first process was there');
    return Number(number);
  }

  it.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ])('a server ends its runs at %s, and then itself', async (signal, code) => {
    const store = newStore();
    const sleepers = newSleepers();
    const host = server(
      async ({ runs, data, said, tell }) => {
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'half;');
        await tell(process.pid);
        setInterval(() => {}, 1_000);
      },
      {
        agent: sh(`${TOOLS}\necho '${textLine('half;').trim()}'; wait`, sleepers),
        settings: { storeDir: store.dir, killAfterMs: 100, persistIntervalMs: 3_600_000 },
      },
      asFirstProcess,
    );
    expect(await host.told()).toBe(1);
    await sleepers.haveStarted(2);
    process.kill(await serverIn(host), signal);
    expect(await host.exited).toEqual({ code, signal: null });
    await sleepers.haveEnded();
    expect(store.messages('s')).toMatchObject([{ role: 'assistant', content: 'half;' }]);
    expect(store.read('s')).not.toContain('_streaming');
  });

  it('a server that handles SIGTERM itself goes on', async () => {
    const host = server(
      async ({ runs, agent, said, tell }) => {
        process.once('SIGTERM', async () => {
          await tell(runs.hasActiveRun('s'));
          process.exit(9);
        });
        runs.startRun({ sessionId: 's', message: 'm', agent: agent('says-and-waits', 'a') });
        await said('s', 'a');
        await tell('ready');
        setInterval(() => {}, 1_000);
      },
      { settings: { storeDir: newStore().dir } },
      asFirstProcess,
    );
    await host.told();
    process.kill(await serverIn(host), 'SIGTERM');
    expect(await host.told()).toBe(true);
    expect(await host.exited).toEqual({ code: 9, signal: null });
  });

  // An orphan that has left its group is known by its mark while it lives. One that ends before it is
  // seen cannot be told from the app's own children, and is reaped after a minute: not tested here.
  it('a server reaps orphans, and not its own children', async () => {
    const scripts = ['(sleep 0.2 >/dev/null 2>&1 &)', '(sleep 1.5 >/dev/null 2>&1 &)', '(setsid sleep 1.5 >/dev/null 2>&1 &)'];
    const host = server(
      async ({ runs, data, tell, fs }) => {
        const { spawn } = process.getBuiltinModule('node:child_process');
        const sh = (script) => ({ command: '/bin/sh', args: ['-c', script] });
        const all = Array.from({ length: 5 * data.scripts.length }, (_, n) =>
          runs.startRun({ sessionId: `${n}`, message: 'm', agent: sh(data.scripts[n % data.scripts.length]) }),
        );
        // Of the app's own: in its group, and in groups of their own.
        const own = Array.from({ length: 20 }, (_, n) => {
          const { command, args } = sh(`sleep 0.${n % 10}; exit ${n}`);
          const child = spawn(command, args, { detached: n % 2 === 0, stdio: 'ignore' });
          return new Promise((resolve) => {
            child.on('exit', (code, signal) => resolve(code ?? signal));
          });
        });
        await Promise.all(all.map((run) => run.whenEnded));
        // The event loop, which reaps the app's own, is held for longer than the orphans' reaper sleeps.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_300);
        const codes = await Promise.all(own);
        const children = () => fs.readFileSync('/proc/1/task/1/children', 'utf8').trim();
        const until = Date.now() + 5_000;
        while (children() !== '' && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
        await tell({ codes, children: children() });
        process.exit();
      },
      { scripts, settings: { storeDir: newStore().dir } },
      asFirstProcess,
    );
    expect(await host.told()).toEqual({ codes: Array.from({ length: 20 }, (_, n) => n), children: '' });
  });
});
