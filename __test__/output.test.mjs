// What an agent prints before it ends is read, however late the server is. An agent's stderr that nobody
// reads holds it up only for a moment. The baseline cannot pass these.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  agent,
  agentPath,
  isAlive,
  newSleepers,
  play,
  seededRandom,
  server,
  sh,
  temporaryFolder,
  textLine,
  until,
  useStore,
} from './helpers/index.mjs';

describe('an agent that exits at once', () => {
  it.each([
    [1, 200_000],
    [1, 250_000],
    [100, 2_000],
    [2_000, 50],
  ])('loses nothing of %i records of %i characters', async (count, size) => {
    useStore();
    for (let n = 0; n < 2; n += 1) {
      const all = await Promise.all(Array.from({ length: 5 }, () => play(agent('prints-and-exits-at-once', count, size))));
      for (const { text, run } of all) {
        expect(text.length).toBe(count * size);
        expect(run.end).toMatchObject({ reason: 'completed', exitCode: 0 });
      }
    }
  });
});

/** A file with an answer that just fits into the pipe: 2,000 deltas. */
function answerFile() {
  const file = join(temporaryFolder(), 'answer');
  writeFileSync(file, Array.from({ length: 2_000 }, (_, n) => textLine(`${n} ${'x'.repeat(40)};`)).join(''));
  expect(readFileSync(file).length).toBeLessThan(256 << 10);
  return file;
}

/** Freezes the server for so long, and more. */
async function freeze(host, ms) {
  host.child.kill('SIGSTOP');
  await sleep(ms);
  host.child.kill('SIGCONT');
}

describe('a server that is stopped (SIGSTOP) for longer than pipeGraceMs', () => {
  const body = async ({ runs, data, tell, hear }) => {
    const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
    if (data.untilExit) {
      while (runs.stats().childPids.length > 0 || !run.childProcess.pid) await new Promise(setImmediate);
      await tell('the agent has ended');
    }
    const end = await run.whenEnded;
    const deltas = run.accumulated.textParts;
    await tell({ end, count: deltas.filter((delta) => /^\d+ x+;$/.test(delta)).length, last: deltas.at(-1) });
    await hear();
    process.exit();
  };

  it.each([0, 100])('while its agent prints and exits, loses nothing (pipeGraceMs %i)', async (pipeGraceMs) => {
    const folder = temporaryFolder();
    const pidFile = join(folder, 'pid');
    const script = 'kill -STOP $PPID; cat "$1"; echo "Error: the last word" >&2; echo $$ >"$2"; exit 3';
    const host = server(body, {
      agent: sh(script, answerFile(), pidFile),
      settings: { storeDir: join(folder, 'store'), pipeGraceMs },
    });
    const pid = await until(() => existsSync(pidFile) && Number(readFileSync(pidFile, 'utf8')), 'the agent printed');
    await until(() => !isAlive(pid), 'the agent ended');
    await freeze(host, pipeGraceMs + 50);
    const { end, count, last } = await host.told();
    expect(end).toMatchObject({ reason: 'failed', exitCode: 3, error: 'the last word' });
    expect([count, last]).toEqual([2_000, '[error] the last word']);
    host.send('end');
  });

  it('after the exit of its agent, while a child of that prints, loses nothing', async () => {
    const folder = temporaryFolder();
    const [go, done] = ['go', 'done'].map((name) => join(folder, name));
    const sleepers = newSleepers();
    const pipeGraceMs = 1_000;
    // The agent has ended when its child, which waits for `go`, freezes the server and prints.
    const script = `server=$PPID
      (while [ ! -e "$2" ]; do sleep 0.01; done
       kill -STOP $server; cat "$1"; echo "Error: the last word" >&2; : >"$3"; exec sleep "$4") & exit 3`;
    const host = server(body, {
      agent: sh(script, answerFile(), go, done, sleepers),
      untilExit: true,
      settings: { storeDir: join(folder, 'store'), pipeGraceMs },
    });
    expect(await host.told()).toBe('the agent has ended');
    writeFileSync(go, '');
    await until(() => existsSync(done), 'its child printed');
    await freeze(host, pipeGraceMs);
    const { end, count, last } = await host.told();
    expect(end).toMatchObject({ reason: 'failed', exitCode: 3 });
    expect([count, last]).toEqual([2_000, '[error] the last word']);
    host.send('end');
  });

  it.each([0, 20])('at a random moment close to the end of its agent, loses nothing (pipeGraceMs %i)', async (pipeGraceMs) => {
    const random = seededRandom();
    const file = answerFile();
    const ends = [];
    const play = async (rounds) => {
      const host = server(
        async ({ runs, data, tell, hear }) => {
          for (;;) {
            const sessionId = await hear();
            const run = runs.startRun({ sessionId, message: 'm', agent: data.agent });
            while (!run.childProcess.pid) await new Promise(setImmediate);
            await tell(run.childProcess.pid);
            await run.whenEnded;
            await tell({ count: run.accumulated.textParts.length, last: run.accumulated.textParts.at(-1) });
          }
        },
        {
          agent: sh('sleep 0.02; cat "$1"; echo "Error: the last word" >&2; exit 3', file),
          settings: { storeDir: join(temporaryFolder(), 'store'), pipeGraceMs },
        },
      );
      for (let n = 0; n < rounds; n += 1) {
        host.send(`s${n}`);
        const pid = await host.told();
        while (isAlive(pid)) await new Promise(setImmediate);
        const moment = performance.now() + random() * 2;
        while (performance.now() < moment) await new Promise(setImmediate);
        await freeze(host, pipeGraceMs + 10);
        ends.push(await host.told());
      }
      host.child.kill('SIGKILL');
      await host.exited;
    };
    await Promise.all([play(25), play(25), play(25), play(25)]);
    expect(ends).toEqual(Array(100).fill({ count: 2_001, last: '[error] the last word' }));
  });
});

describe("an agent's stderr, where nobody reads the server's", () => {
  /** The two ends of a pipe; what is not there to be read is not waited for. */
  function pipe() {
    const path = join(temporaryFolder(), 'pipe');
    execFileSync('mkfifo', [path]);
    const near = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const far = openSync(path, constants.O_WRONLY);
    onTestFinished(() => [near, far].forEach(closeSync));
    return { near, far };
  }

  it('holds the agent up for a moment, is dropped and counted, still explains errors, and passes again when somebody reads', async () => {
    const { near, far } = pipe();
    const host = server(
      async ({ runs, data, tell, hear }) => {
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.flood });
        const { exitCode, error } = await run.whenEnded;
        await tell({ exitCode, error, text: run.accumulated.textParts.join(''), dropped: runs.stats().droppedStderrBytes });
        for (;;) {
          await hear();
          await runs.startRun({ sessionId: 's', message: 'm', agent: data.word }).whenEnded;
          await tell('said');
        }
      },
      {
        flood: sh(
          '"$1" "$2" 8 "Error: the first word" "the last word"; printf %s "$3"; exit 1',
          process.execPath,
          agentPath('floods-stderr.mjs'),
          textLine('answer'),
        ),
        word: sh('echo "a word to the operator" >&2'),
        settings: { storeDir: temporaryFolder() },
      },
      { stderr: far },
    );
    const began = performance.now();
    const { dropped, ...end } = await host.told();
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(end).toEqual({ exitCode: 1, error: 'the first word', text: 'answer[error] the first word' });
    expect(dropped).toBeGreaterThan(1 << 20);
    expect(dropped).toBeLessThan((8 << 20) + 100);

    const buffer = Buffer.alloc(64 << 10);
    let read = 0;
    let last = '';
    const readAll = () => {
      for (;;) {
        try {
          const length = readSync(near, buffer);
          read += length;
          last = last.slice(-100) + buffer.toString('latin1', 0, length);
        } catch (error) {
          if (error.code === 'EAGAIN') return;
          throw error;
        }
      }
    };
    // What was queued comes first.
    await until(() => (readAll(), read > 1 << 20), 'what was queued came');
    await until(async () => {
      host.send('go');
      await host.told();
      readAll();
      return last.includes('\n[active-runs stderr] a word to the operator\n');
    }, 'a word came through');
    expect(read).toBeLessThan(8 << 20);
    host.child.kill('SIGKILL');
    await host.exited;
  });

  it('is not dropped where somebody reads', async () => {
    const host = server(
      async ({ runs, data, tell, hear }) => {
        await runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }).whenEnded;
        await tell(runs.stats().droppedStderrBytes);
        await hear();
        process.exit();
      },
      { agent: agent('floods-stderr', 8, 'first', 'last'), settings: { storeDir: temporaryFolder() } },
    );
    expect(await host.told()).toBe(0);
    host.send('end');
    await host.exited;
    expect(host.stderr().length).toBeGreaterThan(8 << 20);
  });
});
