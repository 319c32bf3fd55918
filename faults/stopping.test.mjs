// What becomes of agents that are stopped, and of all that they have started; agents that hang.
import { fork, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  agentPath,
  chance,
  compiled,
  goneWithin,
  inLanes,
  isRoot,
  listen,
  newMark,
  processesWith,
  program,
  runs,
  server,
  start,
  temporaryFolder,
  tried,
  until,
  useStore,
} from './helpers.mjs';

const hasPython = spawnSync('python3', ['-c', '']).status === 0;

describe('tools', () => {
  const KILL_AFTER = 200;
  /** How long after SIGKILL was due the last process may be there: the machine is busy. */
  const BOUND = 3_000;

  const detached = `require('child_process').spawn(process.argv[1], process.argv.slice(2), { detached: true, stdio: 'inherit' })`;
  /** How agents start a tool: the command that starts the one given. */
  const WAYS = {
    'detached: true': (tool) => [process.execPath, '-e', detached, '--', ...tool],
    setsid: (tool) => ['setsid', ...tool],
    'setsid -f': (tool) => ['setsid', '-f', ...tool],
    'set -m': (tool) => ['bash', '-c', 'set -m; "$@" & wait', 'bash', ...tool],
    timeout: (tool) => ['timeout', '9999', ...tool],
    'double fork': (tool) => ['sh', '-c', '("$@" &)', 'sh', ...tool],
    'double fork into a session without pipes': (tool) => ['sh', '-c', '(setsid "$@" </dev/null >/dev/null 2>&1 &)', 'sh', ...tool],
    'empty environment': (tool) => ['sh', '-c', 'env -i "$@" & wait', 'sh', ...tool],
    'double fork with an empty environment': (tool) => ['sh', '-c', '(env -i "$@" &)', 'sh', ...tool],
    'empty environment in a session': (tool) => ['env', '-i', 'setsid', ...tool],
    ...(hasPython && { 'python daemon': (tool) => ['python3', agentPath('becomes-a-daemon.py'), ...tool] }),
  };
  const MANNERS = ['dies', 'ends', 'goes-on', 'ignores', 'kills-its-tool', 'starts-another'];
  const MOMENTS = ['in the tick of the start', 'soon', 'later', 'when the tool works'];

  it('of every kind are gone when their agent is aborted, at any moment, and nobody is asked twice', async () => {
    useStore({ killAfterMs: KILL_AFTER, pipeGraceMs: 50 });
    const random = chance('tools');
    const mark = newMark();
    const folder = temporaryFolder();
    const perl = (...args) => ['perl', program('counts-sigterms.pl'), ...args];
    const all = Object.keys(WAYS).flatMap((way) =>
      MANNERS.flatMap((manner) => MOMENTS.map((moment) => ({ way, manner, moment }))),
    );
    // Another one that has left its group, and dropped the variable, and lost its parent, may live.
    const tries = all
      .filter(({ way, manner }) => way !== 'empty environment in a session' || manner !== 'starts-another')
      // Drawn before, because the lanes come in any order.
      .map((one) => ({
        ...one,
        pause: random.below(one.moment === 'soon' ? 8 : 200),
        toolManner: random.pick(['dies', 'ends', 'goes-on']),
        isAbortedTwice: random.below(2) === 1,
      }));
    let slowest = 0;
    const asked = { agents: 0, tools: 0 };
    await inLanes(6, tries, async ({ way, manner, moment, pause, toolManner, isAbortedTwice }, n) => {
      const what = `${way}, an agent that ${manner}, aborted ${moment}`;
      const own = `${mark}-${n};`;
      const notes = { agents: join(folder, `${n}-agent`), tools: join(folder, `${n}-tool`) };
      const tool = perl(toolManner, notes.tools, own);
      const [command, ...args] = perl(manner, notes.agents, own, ...WAYS[way](tool));
      const { sessionId, run } = start({ command, args });
      if (moment === 'soon' || moment === 'later') await sleep(pause);
      if (moment === 'when the tool works') await until(() => existsSync(notes.tools), `a tool worked: ${what}`);
      const begin = performance.now();
      expect(runs.abortRun(sessionId)).toBe(true);
      if (isAbortedTwice) runs.abortRun(sessionId);
      expect((await run.whenEnded).reason).toBe('aborted');
      const due = begin + KILL_AFTER;
      await goneWithin(due + BOUND - performance.now(), own, what);
      slowest = Math.max(slowest, performance.now() - due);
      for (const [who, file] of Object.entries(notes)) {
        const pids = existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
        asked[who] += pids.length;
        // Such an agent asks its tool, too, and `timeout` passes on the signal that it gets.
        if (who === 'tools' && (manner === 'kills-its-tool' || way === 'timeout')) continue;
        expect(new Set(pids).size, `the ${who} noted SIGTERMs to ${pids}: ${what}`).toBe(pids.length);
      }
    });
    await until(() => runs.stats().remainingPids.length === 0, 'nobody remained');
    tried(
      'An agent with a tool in a group or session of its own, aborted at a random moment',
      tries.length,
      `${Object.keys(WAYS).join(', ')}${hasPython ? '' : ' (there is no python3 for a daemon)'}; ` +
        `agents noted ${asked.agents} SIGTERMs, none of them two; the last process was gone ${Math.round(slowest)} ms after killAfterMs`,
    );
  });
});

describe('an agent that forks all the time', () => {
  const KILL_AFTER = 200;
  const BOUND = 3_000;
  const MANNERS = {
    dies: 'dies of SIGTERM',
    ignores: 'ignores it',
    'has-another-fork': 'dies of it, while one in another session ignores it and goes on',
    'forks-when-asked': 'starts twenty more when it is asked',
    'hands-over': 'has each process start the next one and end, 50 times a second',
  };
  const TIMES = 6;

  it('is gone soon after killAfterMs, with all that it has started', async () => {
    useStore({ killAfterMs: KILL_AFTER, pipeGraceMs: 50 });
    const random = chance('forks');
    const mark = newMark();
    const all = Object.keys(MANNERS).flatMap((manner) => Array(TIMES).fill(manner));
    const tries = all.map((manner) => ({ manner, pause: random.below(60) }));
    let slowest = 0;
    await inLanes(2, tries, async ({ manner, pause }, n) => {
      const own = `${mark}-${n};`;
      const { sessionId, run } = start({ command: 'perl', args: [program('forks-all-the-time.pl'), manner, own] });
      await listen(sessionId).has('word');
      await sleep(pause);
      const due = performance.now() + KILL_AFTER;
      runs.abortRun(sessionId);
      expect((await run.whenEnded).reason).toBe('aborted');
      await goneWithin(due + BOUND - performance.now(), own, `an agent that ${MANNERS[manner]}`);
      slowest = Math.max(slowest, performance.now() - due);
    });
    await until(() => runs.stats().remainingPids.length === 0, 'nobody remained');
    const what = `it ${Object.values(MANNERS).join('; it ')}; the last process was gone ${Math.round(slowest)} ms after killAfterMs`;
    tried('An agent that starts processes in groups of their own all the time, aborted', tries.length, what);
  });
});

describe('an agent that', () => {
  const TIMES = 20;
  const NOBODY = 65_534;

  it.each([
    ['goes-with-its-parents', 'leaves its group, and is aborted', 'SIGTERM'],
    ['goes-and-ignores', 'leaves its group and ignores every polite signal, and is aborted', 'SIGKILL'],
  ])('%s, to another group, is gone when it is aborted', async (manner, title, signal) => {
    useStore({ killAfterMs: 50 });
    const mark = newMark();
    await Promise.all(
      Array.from({ length: TIMES }, async () => {
        const { sessionId, run } = start({ command: 'perl', args: [program('leaves-its-group.pl'), manner, mark] });
        await listen(sessionId).has('word');
        runs.abortRun(sessionId);
        expect(await run.whenEnded).toMatchObject({ reason: 'aborted', exitCode: null });
        if (signal === 'SIGKILL') expect(run.end.signal).toBe(signal);
      }),
    );
    await goneWithin(3_000, mark, title);
    tried(`An agent that ${title}`, TIMES);
  });

  const CHANGES = 'An agent that changes its user, and is aborted';
  const NOT_STOPPED = 'An agent of a user whom the server may not signal, aborted';

  it.runIf(isRoot)('changes its user is gone when it is aborted by a server that may', async () => {
    useStore({ killAfterMs: 1_000 });
    const mark = newMark();
    const asNobody = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'];
    // The agent itself, or its tool, in a session of its own.
    const agents = [
      { command: 'setpriv', args: [...asNobody, 'perl', '-e', 'sleep 1000', mark] },
      { command: 'sh', args: ['-c', 'setpriv "$@" & wait', 'sh', ...asNobody, 'setsid', 'perl', '-e', 'sleep 1000', mark] },
    ];
    const isNobodys = ({ pid }) => new RegExp(`^Uid:\\s${NOBODY}\\s`, 'm').test(readFileSync(`/proc/${pid}/status`, 'utf8'));
    for (let n = 0; n < TIMES / 2; n += 1) {
      const started = agents.map((agent) => start(agent));
      await until(() => processesWith(mark).filter(isNobodys).length === agents.length, 'all had changed their user');
      for (const { sessionId } of started) runs.abortRun(sessionId);
      for (const { run } of started) expect(await run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGTERM' });
      await goneWithin(4_000, mark, CHANGES);
    }
    tried(CHANGES, TIMES, 'itself, or its tool');
  });

  it.runIf(isRoot)("is root's, which a server may not signal, does not keep its run running", async () => {
    const times = 6;
    const folder = temporaryFolder();
    const mark = newMark();
    const command = compiled('becomes-root.c', folder);
    chmodSync(command, 0o4755);
    // Nobody's way there.
    chmodSync(folder, 0o755);
    const storeDir = join(folder, 'store');
    mkdirSync(storeDir);
    chmodSync(storeDir, 0o777);
    const host = server(
      async ({ runs, data, tell, hear, said }) => {
        const warnings = [];
        runs.onWarning(({ code, message }) => warnings.push(`${code} ${message}`));
        const agent = { command: data.command, args: [data.mark] };
        const started = Array.from({ length: data.times }, (_, n) => runs.startRun({ sessionId: `${n}`, message: 'm', agent }));
        await Promise.all(started.map(({ sessionId }) => said(sessionId, 'word')));
        const pids = started.map((run) => run.childProcess.pid);
        const begin = performance.now();
        for (const { sessionId } of started) runs.abortRun(sessionId);
        const ends = await Promise.all(started.map((run) => run.whenEnded));
        const ms = performance.now() - begin;
        while (warnings.length < data.times) await new Promise((resolve) => setTimeout(resolve, 10));
        await tell({ reasons: ends.map(({ reason }) => reason), ms, pids, warnings, remaining: runs.stats().remainingPids });
        await hear();
        process.exit(6);
      },
      { settings: { storeDir, killAfterMs: 100 }, command, mark, times },
      { uid: NOBODY, gid: NOBODY, cwd: folder },
    );
    const { reasons, ms, pids, warnings, remaining } = await host.told();
    expect(reasons).toEqual(Array(times).fill('aborted'));
    // killAfterMs, and the 2 s for which the end of a killed agent is waited for.
    expect(ms).toBeLessThan(2_100 + 2_000);
    expect([...remaining].sort()).toEqual([...pids].sort());
    const about = (pid) => warnings.filter((text) => text.startsWith('PROCESS_LEFT ') && text.includes(`${pid}`));
    for (const pid of pids) expect(about(pid)).toHaveLength(1);
    expect(processesWith(mark)).toHaveLength(times);
    const asked = performance.now();
    host.send('end');
    expect(await host.exited).toEqual({ code: 6, signal: null });
    expect(performance.now() - asked).toBeLessThan(3_000);
    tried(NOT_STOPPED, times, `the runs end after ${Math.round(ms)} ms; the warning PROCESS_LEFT and stats() name the processes`);
  });

  it.runIf(!isRoot)('changes its user is for root to try', () => {
    for (const fault of [CHANGES, NOT_STOPPED]) tried(fault, 0, 'not tried: only root can');
  });
});

describe('watchdogs', () => {
  const SILENCE = 600;
  const RUN = 3_000;
  const KILL_AFTER = 50;
  const BOUND = 2_500;
  const MANNERS = ['sleeps', 'stops', 'ignores', 'closes-its-pipes', 'prints-blank-lines'];
  const CALLS = {
    none: 'without an open tool call',
    done: 'after a tool call that took longer than maxSilenceMs',
    open: 'in an open tool call (maxRunMs)',
  };
  const TIMES = 3;

  it('stop agents that hang at random points, and none that waits for its tool', async () => {
    const settings = { maxSilenceMs: SILENCE, maxRunMs: RUN, killAfterMs: KILL_AFTER, pipeGraceMs: 50 };
    const store = useStore(settings);
    const random = chance('watchdogs');
    const mark = newMark();
    const all = Object.keys(CALLS).flatMap((call) => MANNERS.flatMap((manner) => Array(TIMES).fill({ call, manner })));
    const tries = all.map((one) => ({ ...one, words: random.below(20) }));
    let latest = 0;
    await inLanes(15, tries, async ({ call, manner, words }, n) => {
      const own = `${mark}-${n};`;
      const args = [manner, words, call, (2 * SILENCE) / 1_000, own].map(String);
      const { sessionId, run } = start({ command: 'perl', args: [program('hangs.pl'), ...args] });
      const listener = listen(sessionId);
      const end = await run.whenEnded;
      const what = `${manner}, ${CALLS[call]}, after ${words} words`;
      const silentSince = run.lastLineAt ?? run.startedAt;
      const [limit, ms, since] = call === 'open' ? ['maxRunMs', RUN, run.startedAt] : ['maxSilenceMs', SILENCE, silentSince];
      expect(end, what).toMatchObject({ reason: 'timed-out', error: expect.stringContaining(`${ms} ms (${limit})`) });
      expect(run.status).toBe('error');
      await listener.ended;
      expect(listener.text().startsWith('word;'.repeat(words)), `${listener.text()}: ${what}`).toBe(true);
      expect(store.messages(sessionId)[0].content).toContain(end.error);
      expect(listener.events.some((event) => event?.type === 'tool-output-available')).toBe(call === 'done');
      const late = end.endedAt - since - ms;
      // The two clocks have whole milliseconds.
      expect(late, what).toBeGreaterThanOrEqual(-2);
      expect(late, what).toBeLessThan(KILL_AFTER + BOUND);
      latest = Math.max(latest, late);
      await goneWithin(BOUND, own, what);
    });
    const what = `${Object.values(CALLS).join(', ')}; ended ${latest} ms after its time at the latest`;
    tried('An agent that hangs silently at a random point', tries.length, what);
  });
});

it('runs aborted in the tick of their start: hardly one prints anything, of the JavaScript way more do', async () => {
  const times = 200;
  const mark = newMark();
  async function printed(underTest) {
    const setting = { storeDir: join(temporaryFolder(), 'store'), times, mark };
    const child = fork(program('aborts-in-the-tick.mjs'), [JSON.stringify(setting)], {
      env: { ...process.env, ACTIVE_RUNS_UNDER_TEST: underTest },
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const told = await new Promise((resolve) => child.on('message', resolve).on('exit', resolve));
    expect(told).toHaveProperty('printed');
    return told.printed;
  }
  const [ours, baseline] = [await printed(''), await printed('bench/baseline.cjs')];
  // The baseline's share goes from 2 to 40 %, as the machine is busy.
  expect(ours).toBeLessThanOrEqual(Math.max(baseline, times / 20));
  await goneWithin(5_000, mark, 'agents aborted in the tick of their start');
  tried('A run that is aborted in the tick of its start', times, `${ours} printed something; with the JavaScript baseline, ${baseline} of ${times}`);
});
