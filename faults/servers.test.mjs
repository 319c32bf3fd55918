// What happens to servers themselves: they are killed while tools run, frozen, the first process of a
// container; somebody else reaps their children, and nobody reads their stderr.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  MIB,
  asFirstProcess,
  chance,
  compiled,
  goneWithin,
  inLanes,
  newMark,
  noContainer,
  notesIn,
  processesWith,
  program,
  server,
  sh,
  shellAgent,
  storeAt,
  temporaryFolder,
  textLine,
  tried,
  until,
} from './helpers.mjs';

describe('a server that is killed (SIGKILL) while tools run', () => {
  const TIMES = 24;
  const KILL_AFTER = 100;
  const BOUND = 4_000;
  /** Tools that outlive their agent: in sessions of their own, without a parent, deaf to SIGTERM. */
  const SLEEP = `perl -e 'sleep 1000' "$1"`;
  const TOOLS = `setsid ${SLEEP} & (${SLEEP} >/dev/null 2>&1 &)
    (trap "" TERM; setsid ${SLEEP} >/dev/null 2>&1 &)
    timeout 9999 ${SLEEP} & wait`;
  const DAEMON = `(setsid ${SLEEP} >/dev/null 2>&1 &)`;
  const sleeping = (mark) => processesWith(mark).map(({ pid }) => pid).sort((a, b) => a - b);

  const killed = async ({ runs, data, tell }) => {
    for (const [n, agent] of data.ending.entries()) await runs.startRun({ sessionId: `ending-${n}`, message: 'm', agent }).whenEnded;
    for (const [n, agent] of data.working.entries()) runs.startRun({ sessionId: `working-${n}`, message: 'm', agent });
    await tell('started');
  };
  const next = async ({ runs, data, tell, hear }) => {
    const warnings = [];
    runs.onWarning((warning) => warnings.push(warning));
    await tell('there');
    await hear();
    if (data.use === 'startRun') runs.startRun({ sessionId: 'next', message: 'm', agent: { command: 'true' } });
    if (data.use === 'persistUserMessage') runs.persistUserMessage('next', { id: 'u', content: 'x' });
    if (data.use === 'listSessions') await runs.listSessions();
    await hear();
    await tell(warnings.filter(({ code }) => code === 'LEFTOVERS_ENDED').map(({ message }) => message));
    process.exit();
  };

  it('at random moments: the next one ends what running runs have left, and nothing else', async () => {
    const random = chance('killed');
    const mark = newMark();
    let ended = 0;
    let slowest = 0;
    // Drawn before, because the lanes come in any order. There are one or two next servers.
    const tries = Array.from({ length: TIMES }, (_, n) => ({
      working: 1 + random.below(3),
      ending: random.below(3),
      ms: random.below(120),
      uses: Array.from({ length: 1 + (n % 2) }, () => random.pick(['startRun', 'persistUserMessage', 'listSessions'])),
    }));
    await inLanes(4, tries, async ({ ms, uses, ...count }, n) => {
      const store = storeAt(join(temporaryFolder(), 'store'));
      mkdirSync(store.dir);
      const settings = { storeDir: store.dir, killAfterMs: KILL_AFTER };
      const [tools, daemons] = [`${mark}-${n}-tool;`, `${mark}-${n}-daemon;`];
      const working = Array(count.working).fill(sh(TOOLS, tools));
      const ending = Array(count.ending).fill(sh(DAEMON, daemons));
      const host = server(killed, { settings, working, ending });
      expect(await host.told()).toBe('started');
      // Before, while and after the tools are started.
      await sleep(ms);
      host.child.kill('SIGKILL');
      await host.exited;
      // Those that were on their way to become a tool are by now.
      let left = [];
      await until(async () => {
        const before = left;
        left = sleeping(tools);
        if (`${left}` !== `${before}`) await sleep(50);
        return `${left}` === `${before}`;
      }, 'the tools had settled');
      const notes = notesIn(store.dir);
      const noted = notes.map((name) => readFileSync(join(store.dir, name), 'utf8'));
      const servers = uses.map((use) => server(next, { settings, use }));
      for (const one of servers) expect(await one.told()).toBe('there');
      const begin = performance.now();
      for (const one of servers) one.send('use the store');
      const what = `${working.length} runs of a server that was killed ${ms} ms after their start and had noted ${JSON.stringify(noted)}`;
      await goneWithin(KILL_AFTER + BOUND, tools, what);
      slowest = Math.max(slowest, performance.now() - begin);
      await until(() => !notesIn(store.dir).some((name) => notes.includes(name)), 'the notes of the dead were removed');
      for (const one of servers) one.send('tell');
      const told = (await Promise.all(servers.map((one) => one.told()))).flat();
      await Promise.all(servers.map(({ exited }) => exited));
      const pids = told.flatMap((message) => message.match(/\d+/g).map(Number));
      expect(told.length, told.join('\n')).toBe(left.length > 0 ? 1 : 0);
      for (const pid of left) expect(pids, 'the warning names whom it ended').toContain(pid);
      expect(new Set(pids).size).toBe(pids.length);
      expect(sleeping(daemons)).toHaveLength(ending.length);
      expect(notesIn(store.dir)).toEqual([]);
      ended += left.length;
    });
    tried(
      'A server that is killed (SIGKILL) while tools run, at a random moment',
      TIMES,
      `${ended} processes that its running runs had left, ended by the next server of the store or by one of two, told of once; ` +
        `the last one ${Math.round(slowest)} ms after it came`,
    );
  });
});

describe('a server whose children somebody else reaps', () => {
  const TIMES = 8;
  /** What agents do, and how the run ended where that can be known. */
  const ENDS = [
    ['exit with 0', shellAgent('as-it-is-told', 'ends'), { reason: 'completed', exitCode: 0, signal: null }],
    ['exit with 7', shellAgent('as-it-is-told', 'fails'), { reason: 'failed', exitCode: 7, signal: null }],
    ['are killed', shellAgent('as-it-is-told', 'is-killed'), { reason: 'killed', exitCode: null, signal: 'SIGKILL' }],
    ['close their pipes and exit with 3', shellAgent('as-it-is-told', 'closes-stdout-and-ends'), { reason: 'failed', exitCode: 3, signal: null }],
    ['are aborted', shellAgent('as-it-is-told', 'waits'), { reason: 'aborted', exitCode: null, signal: 'SIGTERM' }],
    ['are stubborn and aborted', shellAgent('as-it-is-told', 'is-stubborn'), { reason: 'aborted', exitCode: null, signal: 'SIGKILL' }],
    ['cannot be started', { command: '/no/such/agent' }, { reason: 'start-failed', exitCode: -2, signal: null }],
  ];

  const body = async ({ runs, data, tell, said }) => {
    process.dlopen({ exports: {} }, data.library);
    const outcomeOf = async (agent, sessionId) => {
      const run = runs.startRun({ sessionId, message: 'm', agent });
      if (/waits|is-stubborn/.test(agent.args?.[1])) await said(sessionId, 'word').then(() => runs.abortRun(sessionId));
      const { reason, exitCode, signal } = await run.whenEnded;
      return { reason, exitCode, signal, status: run.status };
    };
    const round = (n) => Promise.all(data.agents.map((agent, place) => outcomeOf(agent, `${n}-${place}`)));
    await tell(await Promise.all(Array.from({ length: data.times }, (_, n) => round(n))));
    process.exit();
  };

  it.each([
    ['SIGCHLD is ignored by the server', 'ignores-sigchld.c', {}],
    ['Another library of the server reaps every child, at once', 'reaps-everybody.c', {}],
    ['Another library of the server reaps every child, every 2 ms', 'reaps-everybody.c', { REAP_EVERY_US: '2000' }],
  ])('%s: no run reads as completed that is not, and none waits for ever', async (title, source, env) => {
    const library = compiled(source, temporaryFolder(), { isLibrary: true });
    const settings = { storeDir: join(temporaryFolder(), 'store'), killAfterMs: 100, pipeGraceMs: 100 };
    const agents = ENDS.map(([, agent]) => agent);
    const host = server(body, { library, settings, agents, times: TIMES }, { env });
    const outcomes = await host.told();
    let known = 0;
    for (const outcome of outcomes) {
      for (const [n, { status, ...end }] of outcome.entries()) {
        const [name, , truth] = ENDS[n];
        // Or nobody knows: then it failed, unless it was stopped.
        const unknown = { ...truth, reason: truth.reason === 'aborted' ? 'aborted' : 'failed', exitCode: null, signal: null };
        expect([truth, unknown], `agents that ${name}`).toContainEqual(end);
        if (end.reason === 'failed') expect(status).toBe('error');
        if (end.exitCode !== null || end.signal !== null) known += 1;
      }
    }
    expect(await host.exited).toEqual({ code: 0, signal: null });
    const all = TIMES * ENDS.length;
    tried(title, all, `agents that ${ENDS.map(([name]) => name).join(', ')}; of ${known} the end was known, the others read as failed or aborted`);
  });
});

describe('a server that is the first process of its container', () => {
  const TERM = 'A server that is the first process of its container gets SIGTERM at a random moment';
  const ORPHANS = 'Orphans that come to a server that is the first process of its container';
  const isGone = async (host, ms) => Promise.race([host.exited, sleep(ms).then(() => 'it lives on')]);
  const numberOf = async ({ child: { pid } }) => {
    const children = () => spawnSync('cat', [`/proc/${pid}/task/${pid}/children`], { encoding: 'utf8' }).stdout.trim();
    return Number(await until(children, 'the first process was there'));
  };

  it.skipIf(noContainer)('ends at SIGTERM, with its runs, and their answers are kept', async () => {
    const times = 10;
    const random = chance('first');
    const mark = newMark();
    const pauses = Array.from({ length: times }, () => random.below(100));
    await inLanes(3, pauses, async (pause) => {
      const store = storeAt(join(temporaryFolder(), 'store'));
      const host = server(
        async ({ runs, data, tell, said }) => {
          data.agents.forEach((agent, n) => runs.startRun({ sessionId: `s${n}`, message: 'm', agent }));
          await Promise.all(data.agents.map((_, n) => said(`s${n}`, 'word')));
          await tell(process.pid);
          setInterval(() => {}, 1_000);
        },
        {
          agents: ['waits', 'is-stubborn', 'stops', 'closes-stdout'].map((manner) => shellAgent('as-it-is-told', manner, mark)),
          settings: { storeDir: store.dir, killAfterMs: 100, persistIntervalMs: 3_600_000 },
        },
        asFirstProcess,
      );
      expect(await host.told()).toBe(1);
      await sleep(pause);
      process.kill(await numberOf(host), 'SIGTERM');
      expect(await isGone(host, 6_000)).toEqual({ code: 143, signal: null });
      for (let n = 0; n < 4; n += 1) expect(store.messages(`s${n}`)).toMatchObject([{ content: 'word' }]);
      expect(store.read('s0')).not.toContain('_streaming');
    });
    await goneWithin(1_000, mark, 'agents of a first process that ended');
    tried(TERM, times, 'with 4 agents each: it ends them and then itself, with exit code 143');
  });

  it.skipIf(noContainer)('leaves no zombies of the orphans that come to it', async () => {
    const data = {
      // In the agent's group; in sessions of their own; aborted, or left by an agent that ended.
      scripts: [
        '(sleep 0.0$1 >/dev/null 2>&1 &)',
        '(sleep 1.$1 >/dev/null 2>&1 &); (sleep 0.$1 >/dev/null 2>&1 &)',
        '(setsid sleep 2.$1 >/dev/null 2>&1 &)',
        'setsid sleep 9$1 >/dev/null 2>&1 & (setsid sleep 9$1 >/dev/null 2>&1 &); wait',
        '(sleep 9$1 & sleep 9$1 &); sleep 9$1',
      ],
      settings: { storeDir: join(temporaryFolder(), 'store'), killAfterMs: 100, pipeGraceMs: 50 },
      times: 12,
    };
    const host = server(
      async ({ runs, data, tell, fs }) => {
        const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
        const children = () => fs.readFileSync('/proc/1/task/1/children', 'utf8').split(' ').filter(Boolean);
        const seen = new Set();
        const look = setInterval(() => children().forEach((pid) => seen.add(pid)), 5);
        const started = data.scripts.flatMap((script, place) =>
          Array.from({ length: data.times }, (_, n) => {
            const agent = { command: '/bin/sh', args: ['-c', script, 'sh', `${n}`] };
            return { run: runs.startRun({ sessionId: `${place}-${n}`, message: 'm', agent }), isAborted: place > 2 };
          }),
        );
        await pause(500);
        for (const { run, isAborted } of started) if (isAborted) runs.abortRun(run.sessionId);
        await Promise.all(started.map(({ run }) => run.whenEnded));
        const begin = Date.now();
        while (children().length > 0 && Date.now() < begin + 10_000) await pause(20);
        clearInterval(look);
        const left = children().map((pid) => fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ').slice(1, 6).join(' '));
        const agents = started.map(({ run }) => `${run.childProcess.pid}`);
        await tell({ left, seen: seen.size, orphans: [...seen].filter((pid) => !agents.includes(pid)).length, ms: Date.now() - begin });
        process.exit();
      },
      data,
      asFirstProcess,
    );
    const { left, orphans, ms } = await host.told();
    expect(left).toEqual([]);
    expect(orphans).toBeGreaterThan(data.times * 4);
    tried(ORPHANS, orphans, `the last one was reaped ${(ms / 1_000).toFixed(1)} s after the last run had ended`);
  });

  it.runIf(noContainer)('is tried where there can be a container', () => {
    for (const fault of [TERM, ORPHANS]) tried(fault, 0, `not tried${noContainer}`);
  });
});

describe('a server that is frozen (SIGSTOP) as its agent exits', () => {
  const LANES = 4;
  const ROUNDS = 7;
  const WORDS = 3_000;

  it('for longer than pipeGraceMs loses no end of an answer', async () => {
    const random = chance('frozen');
    let frozen = 0;
    // By turns: hardly any grace, a short one, and once in each lane the usual one.
    const rounds = Array.from({ length: LANES }, () =>
      Array.from({ length: ROUNDS }, (_, n) => {
        const pipeGraceMs = n === ROUNDS - 1 ? 2_000 : [0, 50][n % 2];
        return { pipeGraceMs, code: random.below(2) * 3, after: random.below(4_000) / 1e6, seconds: pipeGraceMs / 1_000 + 0.3 };
      }),
    );
    await Promise.all(
      rounds.map(async (lane) => {
        const host = server(
          async ({ runs, data, tell, ended }) => {
            for (const [n, { pipeGraceMs, agent }] of data.lane.entries()) {
              runs.configure({ pipeGraceMs });
              // Its time as it passes: where it stood still, it was frozen.
              let longest = 0;
              let last = performance.now();
              const clock = setInterval(() => {
                longest = Math.max(longest, performance.now() - last);
                last = performance.now();
              }, 5);
              const run = runs.startRun({ sessionId: `${n}`, message: 'm', agent });
              const events = await ended(`${n}`);
              // It may be frozen only now.
              await new Promise((resolve) => setTimeout(resolve, 100));
              clearInterval(clock);
              const text = events.map((event) => event?.delta ?? '').join('');
              await tell({ text, end: run.end, longest });
            }
            process.exit();
          },
          {
            settings: { storeDir: join(temporaryFolder(), 'store') },
            lane: lane.map(({ pipeGraceMs, code, after, seconds }) => ({
              pipeGraceMs,
              agent: { command: 'perl', args: [program('freezes-its-server.pl'), WORDS, code, after, seconds].map(String) },
            })),
          },
        );
        const whole = Array.from({ length: WORDS }, (_, n) => `${n + 1};`).join('');
        for (const { code, seconds, pipeGraceMs } of lane) {
          const { text, end, longest } = await host.told();
          const what = `pipeGraceMs ${pipeGraceMs}`;
          expect(end, what).toMatchObject({ exitCode: code, reason: code ? 'failed' : 'completed' });
          expect(text.startsWith(whole), `${what}: ${text.length} characters`).toBe(true);
          if (code) expect(text, what).toContain('the reason');
          if (longest > seconds * 900) frozen += 1;
        }
        await host.exited;
      }),
    );
    expect(frozen).toBeGreaterThanOrEqual(24);
    const fault = 'A server that is frozen (SIGSTOP) for longer than pipeGraceMs as its agent exits';
    tried(fault, frozen, `with pipeGraceMs 0, 50 and 2,000; ${WORDS.toLocaleString('en')} deltas each`);
  });
});

describe('a stderr of the server', () => {
  const RUNS = 8;
  const PREFIX = '[active-runs stderr] ';
  const LINE = 'a line of an agent that has a lot to complain of';

  /** A pipe for a server's stderr, which is read when, and as fast as, the test says. */
  function newPipe() {
    const fifo = join(temporaryFolder(), 'stderr');
    spawnSync('mkfifo', [fifo]);
    const [far, near] = [constants.O_RDONLY | constants.O_NONBLOCK, constants.O_WRONLY].map((flags) => openSync(fifo, flags));
    onTestFinished(() => [far, near].forEach(closeSync));
    const chunk = Buffer.alloc(65_536);
    let text = '';
    return {
      near,
      /** Reads for as long as `isWanted`, and on until there has been nothing for a while. */
      async read(isWanted, pauseMs) {
        let quietSince = performance.now();
        while (isWanted() || performance.now() < quietSince + 500) {
          try {
            text += chunk.toString('latin1', 0, readSync(far, chunk));
            quietSince = performance.now();
          } catch (error) {
            if (error.code !== 'EAGAIN') throw error;
          }
          await sleep(pauseMs);
        }
      },
      /** What agents have written of all that was read, in bytes. A line end is counted for each. */
      bytes() {
        const lines = text.split('\n').filter(Boolean);
        for (const line of lines) expect(line.startsWith(PREFIX)).toBe(true);
        return lines.reduce((sum, line) => sum + line.length - PREFIX.length + 1, 0);
      },
    };
  }

  /** A server whose agents flood their stderr, all at once: how long they ran, and how much was dropped. */
  async function flood(stderr, bytes, meanwhile = () => {}) {
    const script = 'yes "$1" | head -c "$2" >&2; echo "$3"';
    const host = server(
      async ({ runs, data, tell, hear }) => {
        const play = async (agent, n) => {
          const begin = performance.now();
          const run = runs.startRun({ sessionId: `${n}`, message: 'm', agent });
          const { reason } = await run.whenEnded;
          return { reason, ms: performance.now() - begin, text: run.accumulated.textParts.join('') };
        };
        await tell(await Promise.all(data.agents.map(play)));
        await hear();
        await tell(runs.stats().droppedStderrBytes);
        process.exit();
      },
      {
        agents: Array(RUNS).fill(sh(script, LINE, bytes, textLine('answer').trim())),
        settings: { storeDir: join(temporaryFolder(), 'store') },
      },
      { stderr },
    );
    let isRunning = true;
    const [ends] = await Promise.all([host.told().finally(() => (isRunning = false)), meanwhile(() => isRunning)]);
    for (const { reason, text } of ends) expect([reason, text]).toEqual(['completed', 'answer']);
    return {
      longest: Math.max(...ends.map(({ ms }) => ms)),
      async dropped() {
        host.send('tell');
        return host.told();
      },
    };
  }

  it('that nobody reads holds agents up that flood theirs for about a second; what was dropped is counted', async () => {
    const each = 8 * MIB;
    const pipe = newPipe();
    const unhindered = await flood('ignore', each);
    const stuck = await flood(pipe.near, each);
    const late = stuck.longest - unhindered.longest;
    expect(late).toBeLessThan(1_000 + 1_500);
    // All that was not dropped is still to be read.
    await pipe.read(() => false, 1);
    const dropped = await stuck.dropped();
    expect(dropped).toBeGreaterThan(0);
    // The last line of a flood has no end of its own.
    expect(Math.abs(pipe.bytes() + dropped - RUNS * each)).toBeLessThanOrEqual(RUNS);
    tried(
      'Agents that flood their stderr while nobody reads the server’s',
      RUNS,
      `of ${(RUNS * each) / MIB} MiB, ${(dropped / MIB).toFixed(1)} MiB were dropped and counted, the others passed on when somebody read; ` +
        `the runs ended ${Math.round(late)} ms later than with a reader`,
    );
  });

  it('that is read slowly gets all that agents flood theirs with', async () => {
    const each = MIB;
    const pipe = newPipe();
    const slow = await flood(pipe.near, each, (isRunning) => pipe.read(isRunning, 2));
    expect(await slow.dropped()).toBe(0);
    expect(Math.abs(pipe.bytes() - RUNS * each)).toBeLessThanOrEqual(RUNS);
    tried('Agents that flood their stderr while the server’s is read slowly', RUNS, 'none of it was dropped');
  });
});
