// Stopped means dead: an agent and all that it has started, wherever that has gone, and nobody else.
// The module signals the agent's process alone: the baseline cannot pass these.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  agent,
  agentPath,
  behindInit,
  isAlive,
  isDead,
  isRoot,
  killIfThere,
  listen,
  newSleepers,
  noContainer,
  puppet,
  runs,
  seededRandom,
  server,
  sh,
  start,
  temporaryFolder,
  textLine,
  until,
  useStore,
} from './helpers/index.mjs';

/** So long that whoever ends while a test runs has not been killed. */
const NEVER = 2 ** 31 - 1;

const bash = (script, ...args) => ({ command: 'bash', args: ['-c', script, 'bash', ...args.map(String)] });

/** The agent, which ignores SIGTERM, and so do those that it starts, unless they choose not to. */
const stubborn = ({ command, args }) => sh('trap "" TERM; exec "$@"', command, ...args);

const noneRemain = () => until(() => runs.stats().remainingPids.length === 0, 'no process remained');

/** What agents do with their tools: a name, how many processes sleep then, and the agent. */
const TOOLS = [
  ['in sessions of their own', 2, (sleepers) => sh('setsid sleep "$1" & setsid sleep "$1" & wait', sleepers)],
  ['in a session of its own, forked away', 2, (sleepers) => sh('setsid -f sleep "$1"; exec sleep "$1"', sleepers)],
  ['under nohup', 2, (sleepers) => sh('nohup sleep "$1" >/dev/null 2>&1 & exec sleep "$1"', sleepers)],
  ['re-parented', 2, (sleepers) => sh('(sleep "$1" &); exec sleep "$1"', sleepers)],
  [
    're-parented, in a session of its own, without pipes',
    2,
    (sleepers) => sh('(setsid nohup sleep "$1" </dev/null >/dev/null 2>&1 &); exec sleep "$1"', sleepers),
  ],
  ['under timeout, which makes a group, twice', 1, (sleepers) => sh('timeout 9999 timeout 9999 sleep "$1" & wait', sleepers)],
  [
    'as jobs of shells with job control',
    4,
    (sleepers) => bash('set -m; sleep "$1" & sleep "$1" | sleep "$1" & (set -m; sleep "$1" & wait) & wait', sleepers),
  ],
  ['with an empty environment', 1, (sleepers) => sh('env -i sleep "$1" & wait', sleepers)],
  ['with an empty environment, in a session of its own', 1, (sleepers) => sh('env -i setsid sleep "$1" & wait', sleepers)],
  [
    'with an empty environment, two sessions away',
    1,
    (sleepers) => sh(`setsid sh -c 'env -i setsid sleep "$1" & wait' sh "$1" & wait`, sleepers),
  ],
  ['in groups within groups', 1, (sleepers) => agent('nests-groups', 3, sleepers)],
  ['under xargs', 4, (sleepers) => sh('echo "$1 $1 $1 $1" | xargs -n 1 -P 4 sleep & wait', sleepers)],
  ['60 of them, each in a session of its own', 60, (sleepers) => sh('for n in $(seq 60); do setsid sleep "$1" & done; wait', sleepers)],
];

describe('abortRun ends tools', () => {
  it.each(TOOLS)('%s', async (_, count, spec) => {
    useStore({ killAfterMs: NEVER });
    const sleepers = newSleepers();
    const { sessionId, run } = start(spec(sleepers));
    await sleepers.haveStarted(count);
    expect(runs.abortRun(sessionId)).toBe(true);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', exitCode: null, signal: 'SIGTERM' });
    await sleepers.haveEnded();
    await noneRemain();
  });

  it.each(TOOLS)('that ignore SIGTERM: %s', async (_, count, spec) => {
    useStore({ killAfterMs: 50 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(stubborn(spec(sleepers)));
    await sleepers.haveStarted(count);
    runs.abortRun(sessionId);
    expect((await run.whenEnded).reason).toBe('aborted');
    await sleepers.haveEnded();
    await noneRemain();
  });

  const noPython = spawnSync('python3', ['-c', '']).status === 0 ? '' : ' (skipped: there is no python3)';
  it.skipIf(noPython)(`that are daemons${noPython}`, async () => {
    useStore({ killAfterMs: NEVER });
    const sleepers = newSleepers();
    const script = 'python3 "$2" sleep "$1"; exec sleep "$1"';
    const { sessionId, run } = start(sh(script, sleepers, agentPath('becomes-a-daemon.py')));
    await sleepers.haveStarted(2);
    runs.abortRun(sessionId);
    expect((await run.whenEnded).reason).toBe('aborted');
    await sleepers.haveEnded();
  });

  it('that are stopped (SIGSTOP), by SIGKILL', async () => {
    useStore({ killAfterMs: 100 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh('setsid sleep "$1" & sleep "$1" & wait', sleepers));
    await sleepers.haveStarted(2);
    for (const pid of sleepers.pids()) process.kill(pid, 'SIGSTOP');
    runs.abortRun(sessionId);
    await run.whenEnded;
    await sleepers.haveEnded();
  });

  it('of an agent that is stopped (SIGSTOP), by SIGKILL', async () => {
    useStore({ killAfterMs: 100 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh('setsid sleep "$1" & wait', sleepers));
    await sleepers.haveStarted(1);
    const { pid } = run.childProcess;
    process.kill(pid, 'SIGSTOP');
    // Of two signals that wait, it would take SIGTERM first.
    const state = () => execFileSync('ps', ['-o', 'state=', '-p', pid], { encoding: 'utf8' });
    await until(() => state().startsWith('T'), 'the agent was stopped');
    runs.abortRun(sessionId);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGKILL' });
    await sleepers.haveEnded();
  });

  it('that the agent starts in its SIGTERM handler', async () => {
    useStore({ killAfterMs: NEVER });
    const sleepers = newSleepers();
    const script = `trap 'setsid sleep "$1" & setsid -f sleep "$1"; exit 0' TERM; sleep "$1" & wait`;
    const { sessionId, run } = start(sh(script, sleepers));
    await sleepers.haveStarted(1);
    runs.abortRun(sessionId);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', exitCode: 0 });
    await sleepers.haveEnded();
    await noneRemain();
  });

  it('that the agent starts again and again', async () => {
    useStore({ killAfterMs: 100 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh('trap "" TERM; while :; do setsid sleep "$1" & sleep 0.01; done', sleepers));
    await until(() => sleepers.pids().length > 10, 'a dozen of them slept');
    runs.abortRun(sessionId);
    expect((await run.whenEnded).signal).toBe('SIGKILL');
    await sleepers.haveEnded();
    await noneRemain();
  });

  it('that start each other again when killed', async () => {
    useStore({ killAfterMs: 50 });
    const sleepers = newSleepers();
    const { sessionId, run } = start({ command: '/bin/sh', args: [agentPath('starts-itself-anew.sh'), 4, sleepers].map(String) });
    await sleepers.haveStarted(1);
    runs.abortRun(sessionId);
    expect((await run.whenEnded).signal).toBe('SIGKILL');
    await sleepers.haveEnded();
    await noneRemain();
  });

  it('of an agent that has ended, while its pipes are still open', async () => {
    useStore({ killAfterMs: NEVER, pipeGraceMs: NEVER });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh('setsid sleep "$1" & (sleep "$1" &); exit 3', sleepers));
    await sleepers.haveStarted(2);
    await until(() => !isAlive(run.childProcess.pid), 'the agent ended');
    expect(run.end).toBe(null);
    runs.abortRun(sessionId);
    expect(await run.whenEnded).toMatchObject({ exitCode: 3, signal: null });
    await sleepers.haveEnded();
    await noneRemain();
  });
});

describe('abortRun leaves alone', () => {
  it('what an agent that ended by itself has left', async () => {
    useStore({ killAfterMs: 0, pipeGraceMs: 0 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh('setsid sleep "$1" >/dev/null 2>&1 & (sleep "$1" >/dev/null 2>&1 &)', sleepers));
    expect((await run.whenEnded).reason).toBe('completed');
    expect(runs.abortRun(sessionId)).toBe(false);
    expect(run.childProcess.kill('SIGKILL')).toBe(false);
    run.abortController.abort();
    expect(runs.stats().remainingPids).toEqual([]);
    // Another one is stopped, from the first signal to the last, and they are none of it.
    const other = newSleepers();
    const second = start(stubborn(sh('sleep "$1"', other)));
    await other.haveStarted(1);
    runs.abortRun(second.sessionId);
    await second.run.whenEnded;
    await other.haveEnded();
    expect(sleepers.pids()).toHaveLength(2);
  });

  it('what has left its parent and dropped the mark', async () => {
    useStore({ killAfterMs: 100 });
    const [tool, server] = [newSleepers(), newSleepers()];
    const script = '(env -u ACTIVE_RUNS_RUN setsid sleep "$2" >/dev/null 2>&1 &); sleep "$1" & wait';
    const { sessionId, run } = start(stubborn(sh(script, tool, server)));
    await Promise.all([tool.haveStarted(1), server.haveStarted(1)]);
    runs.abortRun(sessionId);
    await run.whenEnded;
    await tool.haveEnded();
    await noneRemain();
    expect(server.pids()).toHaveLength(1);
  });

  it('the other runs, and what these have started', async () => {
    useStore({ killAfterMs: 50 });
    const all = Array.from({ length: 6 }, newSleepers);
    const started = all.map((sleepers) => start(stubborn(sh('setsid sleep "$1" & sleep "$1" & wait', sleepers))));
    await Promise.all(all.map((sleepers) => sleepers.haveStarted(2)));
    for (const [n, sleepers] of all.entries()) {
      runs.abortRun(started[n].sessionId);
      await started[n].run.whenEnded;
      await sleepers.haveEnded();
      for (const other of all.slice(n + 1)) expect(other.pids()).toHaveLength(2);
    }
  });
});

describe('the signals of an abort', () => {
  const counting = agentPath('counts-sigterms.sh');

  it('SIGTERM is sent once to each process, however often the run is aborted', async () => {
    useStore({ killAfterMs: 400 });
    const folder = temporaryFolder();
    const members = ['agent', 'in-its-group', 'in-a-session', 'without-parent'];
    // The first letter of each file says whose it is.
    const script = `cd "$2"
      sh "$1" in-its-group & setsid sh "$1" in-a-session & (setsid sh "$1" without-parent &)
      . "$1" agent`;
    const agents = Array.from({ length: 8 }, (_, n) => {
      const cwd = join(folder, `${n}`);
      execFileSync('mkdir', [cwd]);
      // A sourced script has the arguments of the shell.
      const { sessionId, run } = start(sh(script.replace('. "$1" agent', 'script=$1; set -- agent; . "$script"'), counting, cwd));
      return { sessionId, run, files: members.map((name) => join(cwd, name)) };
    });
    const files = agents.flatMap((started) => started.files);
    await until(() => files.every(existsSync), 'all of them listened');
    for (const { sessionId, run } of agents) {
      expect(runs.abortRun(sessionId)).toBe(true);
      expect(runs.abortRun(sessionId)).toBe(true);
      run.abortController.abort();
    }
    await sleep(50);
    for (const { sessionId } of agents) expect(runs.abortRun(sessionId)).toBe(true);
    for (const { run } of agents) expect(await run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGKILL' });
    await noneRemain();
    expect(files.map((file) => readFileSync(file, 'utf8'))).toEqual(files.map(() => 'T'));
  });

  it('SIGKILL comes after killAfterMs, not before', async () => {
    useStore({ killAfterMs: 500 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(stubborn(sh('setsid sleep "$1" & sleep "$1" & wait', sleepers)));
    await sleepers.haveStarted(2);
    const asked = performance.now();
    runs.abortRun(sessionId);
    await until(() => sleepers.pids().length < 2, 'one of them ended');
    expect(performance.now() - asked).toBeGreaterThan(490);
    await run.whenEnded;
    await sleepers.haveEnded();
  });

  it('SIGKILL waits for a tool also when the agent and the run have ended; stats().remainingPids lists it', async () => {
    useStore({ killAfterMs: NEVER });
    const file = join(temporaryFolder(), 'asked');
    const { sessionId, run } = start(sh('setsid sh "$1" "$2" >/dev/null 2>&1 & wait', counting, file));
    await until(() => existsSync(file), 'the tool listened');
    runs.abortRun(sessionId);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGTERM' });
    await until(() => readFileSync(file, 'utf8') === 'T', 'the tool was asked to end');
    const remaining = runs.stats().remainingPids;
    // The tool, and what it has started.
    expect(remaining.length).toBeGreaterThan(0);
    expect(runs.stats().childPids).toEqual([]);
    remaining.forEach(killIfThere);
    await noneRemain();
  });

  it('SIGKILL reaches a tool that holds a pipe open; the run ends before, after pipeGraceMs', async () => {
    useStore({ killAfterMs: 700, pipeGraceMs: 10 });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh(`setsid sh -c 'trap "" TERM; exec sleep "$1"' sh "$1" & wait`, sleepers));
    await sleepers.haveStarted(1);
    runs.abortRun(sessionId);
    await run.whenEnded;
    expect(sleepers.pids()).toHaveLength(1);
    // There may be somebody of another test, too.
    expect(runs.stats().remainingPids).toContain(sleepers.pids()[0]);
    await sleepers.haveEnded();
    await noneRemain();
  });
});

describe('an abort close to the start', () => {
  it('in the same tick: an agent that has not been executed never is', async () => {
    useStore();
    const sleepers = newSleepers();
    const folder = temporaryFolder();
    const started = Array.from({ length: 300 }, (_, n) => {
      const mark = join(folder, `${n}`);
      return { mark, ...start(sh(': >"$1"; exec sleep "$2"', mark, sleepers)) };
    });
    for (const { sessionId } of started) expect(runs.abortRun(sessionId)).toBe(true);
    // One more may be on its way to its pid.
    const executed = started.filter(({ run }) => run.childProcess.pid !== undefined).length + 1;
    for (const { run } of started) {
      expect(await run.whenEnded).toMatchObject({ reason: 'aborted', exitCode: null });
      expect(run.status).toBe('completed');
      if (run.childProcess.pid === undefined) expect(run.end.signal).toBe(null);
    }
    await sleepers.haveEnded();
    expect(started.filter(({ mark }) => existsSync(mark)).length).toBeLessThanOrEqual(executed);
    expect(executed).toBeLessThan(100);
  });

  it('in the same tick: few agents come to do anything', async () => {
    useStore();
    const folder = temporaryFolder();
    for (let n = 0; n < 100; n += 1) {
      const { sessionId, run } = start(sh(': >"$1"; exec sleep 9999', join(folder, `${n}`)));
      runs.abortRun(sessionId);
      await run.whenEnded;
    }
    const executed = Array.from({ length: 100 }, (_, n) => existsSync(join(folder, `${n}`))).filter(Boolean).length;
    // One or two; of the module's, 42.
    expect(executed).toBeLessThan(20);
  });

  it.each([
    ['ends at SIGTERM', (spec) => spec],
    ['ignores SIGTERM', stubborn],
  ])('at a random moment leaves no process of an agent that %s', async (_, manner) => {
    useStore({ killAfterMs: 30 });
    const random = seededRandom();
    const sleepers = newSleepers();
    const script = 'setsid sleep "$1" & (sleep "$1" &); sleep "$1" & wait';
    const one = async () => {
      const { sessionId, run } = start(manner(sh(script, sleepers)));
      const moment = performance.now() + random() ** 2 * 12;
      while (performance.now() < moment) await new Promise(setImmediate);
      expect(runs.abortRun(sessionId)).toBe(true);
      expect((await run.whenEnded).reason).toBe('aborted');
    };
    const many = async () => {
      for (let n = 0; n < 50; n += 1) await one();
    };
    await Promise.all([many(), many(), many(), many()]);
    await sleepers.haveEnded();
    await noneRemain();
    expect(runs.stats().childPids).toEqual([]);
  });
});

describe('childProcess.kill', () => {
  const invalid = expect.objectContaining({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^signal: /),
  });

  it('refuses an unknown signal before the start, while the agent runs, and after its end', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const refuses = () => {
      for (const signal of [99, -1, 1.5, Number.NaN, 'SIGFOO', 'sigterm', '15', '', null, {}]) {
        expect(() => run.childProcess.kill(signal), String(signal)).toThrow(invalid);
      }
    };
    refuses();
    await told.say('a');
    refuses();
    await told.say('b');
    await told.exit();
    expect(await run.whenEnded).toMatchObject({ reason: 'completed', exitCode: 0 });
    refuses();
    expect(listen(sessionId).text()).toBe('ab');
  });

  it('with 0 sends nothing', async () => {
    useStore();
    const told = await puppet();
    const { run } = start(told.agent);
    expect(run.childProcess.kill(0)).toBe(true);
    await told.say('a');
    expect(run.childProcess.kill(0)).toBe(true);
    await told.exit();
    expect(await run.whenEnded).toMatchObject({ reason: 'completed', exitCode: 0 });
    expect(run.childProcess.kill(0)).toBe(false);
    expect(run.childProcess.kill('SIGTERM')).toBe(false);
  });

  it.each([
    [undefined, 'SIGTERM'],
    ['SIGKILL', 'SIGKILL'],
    [9, 'SIGKILL'],
    ['SIGUSR1', 'SIGUSR1'],
    [1, 'SIGHUP'],
  ])('sends %j, also before the agent has started', async (signal, name) => {
    useStore();
    const { run: soon } = start(sh('exec sleep 9999'));
    expect(soon.childProcess.kill(signal)).toBe(true);
    expect(await soon.whenEnded).toMatchObject({ reason: 'killed', exitCode: null, signal: name });
    expect(soon.status).toBe('completed');
    const sleepers = newSleepers();
    const { run: later } = start(sh('sleep "$1" & exec sleep "$1"', sleepers));
    await sleepers.haveStarted(2);
    expect(later.childProcess.kill(signal)).toBe(true);
    expect(await later.whenEnded).toMatchObject({ reason: 'killed', signal: name });
    await sleepers.haveEnded();
  });
});

describe('an agent that has left its group', () => {
  const leaver = (...args) => ({ command: 'perl', args: [agentPath('leaves-its-group.pl'), ...args] });

  it.each([
    ['SIGTERM', NEVER, []],
    ['SIGKILL', 100, ['stubborn']],
  ])('is ended by %s', async (signal, killAfterMs, args) => {
    useStore({ killAfterMs });
    const { sessionId, run } = start(leaver(...args));
    await listen(sessionId).has('left;');
    const { pid } = run.childProcess;
    expect(runs.abortRun(sessionId)).toBe(true);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', exitCode: null, signal });
    expect(isAlive(pid)).toBe(false);
    expect(runs.abortRun(sessionId)).toBe(false);
    await noneRemain();
  });

  it('is reached by kill()', async () => {
    useStore();
    const { sessionId, run } = start(leaver());
    await listen(sessionId).has('left;');
    expect(run.childProcess.kill('SIGUSR2')).toBe(true);
    expect(await run.whenEnded).toMatchObject({ reason: 'killed', signal: 'SIGUSR2' });
  });

  it('does not hold up the end of its server', async () => {
    const host = server(
      async ({ runs, data, tell, said }) => {
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'left;');
        await tell(run.childProcess.pid);
        process.exit(4);
      },
      { settings: { storeDir: temporaryFolder() }, agent: leaver() },
    );
    const pid = await host.told();
    const asked = performance.now();
    expect(await host.exited).toEqual({ code: 4, signal: null });
    expect(performance.now() - asked).toBeLessThan(2_000);
    await isDead(pid);
  });
});

describe.skipIf(!isRoot)(`agents of other users${isRoot ? '' : ' (skipped: only root can start them)'}`, () => {
  const NOBODY = 65_534;

  it.each([
    ['the agent itself', 1, 'exec setpriv --reuid 65534 --clear-groups sleep "$1"'],
    ['its tool', 1, 'setpriv --reuid 65534 --clear-groups setsid sleep "$1" & wait'],
  ])('%s is stopped by a server that may', async (_, count, script) => {
    useStore({ killAfterMs: NEVER });
    const sleepers = newSleepers();
    const { sessionId, run } = start(sh(script, sleepers));
    await sleepers.haveStarted(count);
    runs.abortRun(sessionId);
    expect(await run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGTERM' });
    await sleepers.haveEnded();
  });

  it("one that the server may not signal is left, with a warning, and the run ends", async () => {
    const folder = temporaryFolder();
    const source = join(folder, 'becomes-root.c');
    const program = join(folder, 'becomes-root');
    writeFileSync(source, '#include <unistd.h>\nint main(void) { setreuid(0, 0); for (;;) pause(); }\n');
    execFileSync('cc', ['-o', program, source]);
    chmodSync(program, 0o4755);
    // Nobody's way to them.
    for (const path of [folder, process.env.TMPDIR]) chmodSync(path, 0o755);
    const storeDir = join(folder, 'store');
    execFileSync('mkdir', ['-m', '777', storeDir]);
    const host = server(
      async ({ runs, data, tell, hear }) => {
        const warnings = [];
        runs.onWarning((warning) => warnings.push(warning));
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: { command: data.program } });
        while (!run.childProcess.pid) await new Promise(setImmediate);
        await tell(run.childProcess.pid);
        await hear();
        runs.abortRun('s');
        const end = await run.whenEnded;
        while (warnings.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
        await tell({ end, status: run.status, warnings, remaining: runs.stats().remainingPids, abort: runs.abortRun('s') });
        process.exit(6);
      },
      { settings: { storeDir, killAfterMs: 100 }, program },
      { uid: NOBODY, gid: NOBODY, cwd: folder },
    );
    const pid = await host.told();
    onTestFinished(() => killIfThere(pid));
    await until(() => /^Uid:\t0\t0\t/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')), 'the agent became root');
    host.send('go');
    const { end, warnings, ...seen } = await host.told();
    expect(end).toMatchObject({ reason: 'aborted', exitCode: null, signal: null });
    expect(seen).toEqual({ status: 'completed', remaining: [pid], abort: false });
    expect(warnings).toEqual([{ code: 'PROCESS_LEFT', message: expect.stringContaining(`${pid}`) }]);
    expect(await host.exited).toEqual({ code: 6, signal: null });
    expect(isAlive(pid)).toBe(true);
  });
});

describe.skipIf(noContainer)(`another process that got the pid of one that has ended${noContainer}`, () => {
  /** What a shell script says. */
  const saying = (text) => `echo "${textLine(text).trim().replaceAll('"', '\\"')}"`;

  /**
   * In a container, where the next pid can be chosen: stops a run with two tools, starts other processes
   * with the pids of the first tool and, where `withAgents`, of the agent, and tells how these ended, if
   * they did, when the abort is over.
   */
  async function exitsOfOthers(first, second, { withAgents }) {
    const host = server(
      async ({ runs, data, tell, said, fs }) => {
        const { spawn } = process.getBuiltinModule('node:child_process');
        const until = async (condition) => {
          while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
        };
        /** Starts a program that leads a group of its own and has this pid. */
        const startAs = async (number) => {
          for (;;) {
            fs.writeFileSync('/proc/sys/kernel/ns_last_pid', `${number - 1}`);
            const child = spawn('sleep', ['9999'], { detached: true, stdio: 'ignore' });
            if (child.pid === number) return child;
            child.kill('SIGKILL');
            await new Promise((resolve) => child.on('exit', resolve));
            if (fs.existsSync(`/proc/self/task/${number}`)) {
              // A thread that was just started has it, and keeps it.
              await tell(null);
              process.exit();
            }
          }
        };
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await Promise.all([said('s', ' is the first;'), said('s', ' is the second;')]);
        const [number] = /\d+(?= is the first;)/.exec(run.accumulated.textParts.join(''));
        const numbers = [Number(number), ...(data.withAgents ? [run.childProcess.pid] : [])];
        runs.abortRun('s');
        const killed = performance.now() + data.settings.killAfterMs;
        await run.whenEnded;
        await until(() => !numbers.some((number) => fs.existsSync(`/proc/${number}`)));
        const others = [];
        for (const number of numbers) others.push(await startAs(number));
        const remaining = runs.stats().remainingPids;
        await until(() => performance.now() > killed + 200 && runs.stats().remainingPids.length === 0);
        await tell({ end: run.end, remaining, exits: others.map(({ signalCode, exitCode }) => signalCode ?? exitCode) });
        process.exit();
      },
      {
        agent: sh('setsid sh -c "$1" & setsid sh -c "$2" & exec sleep 9999', first, second),
        withAgents,
        settings: { storeDir: temporaryFolder(), killAfterMs: 700, pipeGraceMs: 50 },
      },
      behindInit,
    );
    return (await host.told()) ?? exitsOfOthers(first, second, { withAgents });
  }

  it('is not killed when no process of the run is left', async () => {
    // It tidies up for a moment.
    const tool = (name) => `trap "sleep 0.1; exit" TERM; ${saying(`$$ is the ${name};`)}; sleep 9999 & wait`;
    const { end, exits } = await exitsOfOthers(tool('first'), tool('second'), { withAgents: true });
    expect(end).toMatchObject({ reason: 'aborted', signal: 'SIGTERM' });
    expect(exits).toEqual([null, null]);
  });

  it('is not killed when the rest of the run is', async () => {
    const first = `${saying('$$ is the first;')}; exec sleep 9999`;
    const second = `trap "" TERM; ${saying('$$ is the second;')}; exec sleep 9999`;
    // The agent's own pid stays taken until nobody of its group is left.
    const { remaining, exits } = await exitsOfOthers(first, second, { withAgents: false });
    expect(remaining).toHaveLength(1);
    expect(exits).toEqual([null]);
  });
});
