// Ended means freed: when the grace period is over, a run's events are freed, whatever JavaScript still
// holds, as soon as all who read them have read them. The baseline cannot pass these.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { agent, listen, newSleepers, play, runs, server, sh, start, temporaryFolder, textLine, until, useStore } from './helpers/index.mjs';

/** Of an answer of 5 MB. */
const DELTAS = 5_000;
const SIZE = 1_000;

function answerFile() {
  const file = join(temporaryFolder(), 'answer');
  writeFileSync(file, textLine('x'.repeat(SIZE)).repeat(DELTAS));
  return file;
}

describe('the memory of 30 runs of 5 MB goes back to the system, without gc()', () => {
  /** What each server does with a run until that is over. */
  const USES = [
    [
      'without subscribers, looked up many times',
      async ({ runs, run }) => {
        await run.whenEnded;
        for (let n = 0; n < 10; n += 1) {
          runs.hasActiveRun(run.sessionId);
          runs.getActiveRun(run.sessionId);
        }
      },
    ],
    [
      'with subscribers',
      async ({ runs, run }) => {
        const { sessionId } = run;
        const ended = [1, 2, 3].map(
          () => new Promise((resolve) => runs.subscribeToRun(sessionId, (event) => event === null && resolve(), { replay: false })),
        );
        await Promise.all(ended);
      },
    ],
    [
      'with streams that were read to the end',
      async ({ runs, run }) => {
        const read = async (options) => {
          let bytes = 0;
          for await (const chunk of runs.createRunStream(run.sessionId, options)) bytes += chunk.length;
          return bytes;
        };
        await Promise.all([read({ protocol: 'ai-sdk' }), read({ protocol: 'module' }), read({ replay: 'compact' })]);
      },
    ],
    [
      'with streams that were cancelled',
      async ({ runs, run }) => {
        const [first, second] = [runs.createRunStream(run.sessionId), runs.createRunStream(run.sessionId)];
        const reader = first.getReader();
        await reader.read();
        await run.whenEnded;
        await reader.cancel();
        await second.cancel();
      },
    ],
  ];

  /** Plays them in a server that holds all that it is given, and tells how its memory was and is. */
  async function memoryOf(use, { spec, play = 'await use({ runs, run });', more = {} }) {
    const host = server(
      `async ({ runs, data, tell, hear }) => {
        const use = ${use};
        const megabytes = () => Math.round(process.memoryUsage.rss() / 1e6);
        const held = [];
        const one = async (sessionId) => {
          const run = runs.startRun({ sessionId, message: 'm', agent: data.agent });
          held.push(run, run.accumulated, run.subscribers, run.whenEnded, run.abortController);
          ${play}
        };
        // What a server has once, and keeps.
        await one('first');
        const before = megabytes();
        for (let n = 0; n < 30; n += 1) await one('s' + n);
        const until = Date.now() + 5_000;
        const isOver = () => runs.stats().bufferedBytes === 0 && megabytes() < before + 60;
        while (!isOver() && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 50));
        const remaining = runs.stats().remainingPids.length;
        await tell({ before, after: megabytes(), bufferedBytes: runs.stats().bufferedBytes, held: held.length, remaining });
        await hear();
        process.exit();
      }`,
      { agent: spec, settings: { storeDir: temporaryFolder(), cleanupGraceMs: 100, ...more } },
    );
    const memory = await host.told();
    host.send('end');
    await host.exited;
    return memory;
  }

  it.each(USES)('%s', async (_, use) => {
    const { before, after, bufferedBytes } = await memoryOf(use, { spec: { command: 'cat', args: [answerFile()] } });
    expect(bufferedBytes).toBe(0);
    expect(after - before).toBeLessThan(60);
  });

  it('that were aborted, and whose tools still live', async () => {
    const sleepers = newSleepers();
    const script = `(trap "" TERM; exec setsid sleep "$2" >/dev/null 2>&1) & cat "$1"; echo '${textLine('all').trim()}'; wait`;
    const spec = sh(script, answerFile(), sleepers);
    const stop = `await new Promise((resolve) => {
      runs.subscribeToRun(sessionId, (event) => {
        if (event === null) resolve();
        else if (event.delta === 'all') runs.abortRun(sessionId);
      });
    });`;
    const memory = await memoryOf('null', { spec, play: stop, more: { killAfterMs: 3_600_000 } });
    expect(memory.remaining).toBe(31);
    expect(memory.bufferedBytes).toBe(0);
    expect(memory.after - memory.before).toBeLessThan(60);
    await sleepers.haveEnded();
  });
});

/** Resolves when a run has been forgotten that ended after all that were started before: their events are gone, too. */
async function untilForgotten() {
  const { sessionId } = await play(agent('says', 'witness'));
  await until(() => runs.getActiveRun(sessionId) === undefined, 'a later run was forgotten');
}

describe('a run that is held beyond its grace period', () => {
  it('has no events any more, unless it was asked for them before', async () => {
    useStore({ cleanupGraceMs: 100 });
    const asked = start(agent('says', 'a', 'b'));
    // Asked for before there are any.
    const buffer = asked.run.eventBuffer;
    await asked.run.whenEnded;
    const copy = [...buffer];
    const other = await play(agent('says', 'a', 'b'));
    expect(buffer).toHaveLength(4);
    await untilForgotten();
    expect(other.run.eventBuffer).toEqual([]);
    expect(other.run.accumulated.textParts).toEqual([]);
    expect(other.run.accumulated.toolCalls.size).toBe(0);
    expect(asked.run.eventBuffer).toBe(buffer);
    expect(buffer).toEqual(copy);
    expect(asked.run.accumulated.textParts).toEqual(['a', 'b']);
    for (const { run } of [asked, other]) {
      expect(run).toMatchObject({ status: 'completed', exitCode: 0, end: { reason: 'completed' } });
      expect(run.accumulated.id).toMatch(/^assistant-/);
      expect(run.lastLineAt).toBeTypeOf('number');
      expect(run.childProcess.kill(0)).toBe(false);
      expect(runs.subscribeToRun(run.sessionId, () => {})).toBe(null);
      expect(runs.createRunStream(run.sessionId)).toBe(null);
    }
  });

  it('has none, though it was looked up and replayed during the grace period', async () => {
    useStore({ cleanupGraceMs: 200 });
    const { sessionId, run } = await play(agent('says', 'a'));
    expect(runs.hasActiveRun(sessionId)).toBe(false);
    expect(runs.getActiveRun(sessionId)).toBe(run);
    expect(listen(sessionId).text()).toBe('a');
    expect(await new Response(runs.createRunStream(sessionId)).text()).toContain('"delta":"a"');
    expect(runs.abortRun(sessionId)).toBe(false);
    await untilForgotten();
    expect(run.eventBuffer).toEqual([]);
  });

  it('has none, though another run of its session replaced it', async () => {
    useStore({ cleanupGraceMs: 50 });
    const first = await play(agent('says', 'a'));
    const second = await play(agent('says', 'b'), { sessionId: first.sessionId });
    expect(runs.getActiveRun(first.sessionId)).toBe(second.run);
    await untilForgotten();
    for (const { run } of [first, second]) expect(run.eventBuffer).toEqual([]);
  });
});

describe('events are kept beyond the grace period', () => {
  it('for subscribers whose thread was busy', async () => {
    useStore({ cleanupGraceMs: 0 });
    const { sessionId, run } = start(agent('floods', 20_000));
    const listeners = [listen(sessionId, { replay: false }), listen(sessionId)];
    const cell = new Int32Array(new SharedArrayBuffer(4));
    while (runs.stats().runs.running > 0) Atomics.wait(cell, 0, 0, 5);
    Atomics.wait(cell, 0, 0, 300);
    const whole = Array.from({ length: 20_000 }, (_, n) => `${n} `).join('');
    for (const listener of listeners) {
      await listener.ended;
      expect(listener.text() === whole).toBe(true);
    }
    await untilForgotten();
    expect(run.eventBuffer).toEqual([]);
  });

  it('for a reader of bytes that is slow, but reads', async () => {
    useStore({ cleanupGraceMs: 0 });
    const { sessionId, run } = start({ command: 'cat', args: [answerFile()] });
    const readers = ['module', 'ai-sdk'].map((protocol) => runs.createRunStream(sessionId, { protocol }).getReader());
    await run.whenEnded;
    await untilForgotten();
    const texts = await Promise.all(
      readers.map(async (reader) => {
        const decoder = new TextDecoder();
        let text = '';
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return text;
          text += decoder.decode(value, { stream: true });
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      }),
    );
    for (const text of texts) expect(text.split('"text-delta"')).toHaveLength(DELTAS + 1);
    expect(texts[1].endsWith('data: [DONE]\n\n')).toBe(true);
    await untilForgotten();
    expect(run.eventBuffer).toEqual([]);
  });

  it('for nobody else: not for a reader that was cancelled', async () => {
    useStore({ cleanupGraceMs: 0 });
    const { sessionId, run } = start(agent('says', 'a'));
    const stream = runs.createRunStream(sessionId);
    await stream.cancel();
    await run.whenEnded;
    await untilForgotten();
    expect(run.eventBuffer).toEqual([]);
  });
});
