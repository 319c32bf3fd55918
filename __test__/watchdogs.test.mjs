// Limits on how long an agent may be silent, and how long a run may take. The module has none: the
// baseline cannot pass these.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { agent, isDead, listen, newSleepers, puppet, runs, server, sh, start, temporaryFolder, textLine, useStore } from './helpers/index.mjs';

const toolLine = (data) => `${JSON.stringify({ event: 'agent', stream: 'tool', data })}\n`;
const calls = (toolCallId) => toolLine({ phase: 'start', toolCallId, name: 'look', args: {} });
const returns = (toolCallId, isError = false) => toolLine({ phase: 'result', toolCallId, isError, result: { text: 'x' } });

const says = (text) => `echo '${textLine(text).trim()}'`;

const silent = (ms) => `The agent printed nothing for ${ms} ms (maxSilenceMs) and was stopped`;
const late = (ms) => `The agent ran for more than ${ms} ms (maxRunMs) and was stopped`;
const timedOut = (error) => ({ reason: 'timed-out', exitCode: null, signal: 'SIGTERM', error });

/** Since that call. */
const elapsedSince = (began) => performance.now() - began;

describe('maxSilenceMs', () => {
  it('stops an agent that falls silent; stream, run.end and file tell why', async () => {
    const store = useStore({ maxSilenceMs: 300 });
    const { sessionId, run } = start(sh(`${says('half')}; sleep 9999`));
    const listener = listen(sessionId, { replay: false });
    await listener.has('half');
    const began = performance.now();
    await listener.ended;
    expect(elapsedSince(began)).toBeGreaterThan(250);
    expect(run.end).toMatchObject(timedOut(silent(300)));
    expect(run).toMatchObject({ status: 'error', exitCode: null });
    expect(listener.events.map((event) => event?.delta ?? event?.type ?? null)).toEqual([
      'text-start',
      'half',
      'text-end',
      'text-start',
      `[error] ${silent(300)}`,
      'text-end',
      null,
    ]);
    expect(store.messages(sessionId)).toMatchObject([{ content: `half[error] ${silent(300)}` }]);
    expect(store.read(sessionId)).not.toContain('_streaming');
  });

  it('stops an agent that never prints anything', async () => {
    useStore({ maxSilenceMs: 1_000 });
    const { run } = start(sh('sleep 9999'));
    expect(await run.whenEnded).toMatchObject(timedOut(silent(1_000)));
  });

  it('stops the tools, too, and by SIGKILL what ignores SIGTERM', async () => {
    useStore({ maxSilenceMs: 200, killAfterMs: 200 });
    const sleepers = newSleepers();
    const { run } = start(sh('trap "" TERM; setsid sleep "$1" & sleep "$1" & wait', sleepers));
    await sleepers.haveStarted(2);
    expect(await run.whenEnded).toMatchObject({ reason: 'timed-out', signal: 'SIGKILL' });
    await sleepers.haveEnded();
  });

  it('counts from the last line, of whatever kind', async () => {
    useStore({ maxSilenceMs: 500 });
    const lines = [textLine('a'), 'no JSON\n', textLine('b', { sessionKey: 'agent:main:subagent:theirs' }), '{}\n'];
    const script = 'for n in 1 2 3 4; do for line in "$@"; do printf %s "$line"; sleep 0.1; done; done; sleep 9999';
    const { run } = start(sh(script, ...lines), { agentSessionId: 'mine' });
    const { endedAt, ...end } = await run.whenEnded;
    expect(end).toEqual(timedOut(silent(500)));
    expect(run.lastLineAt - run.startedAt).toBeGreaterThan(1_400);
    expect(endedAt - run.lastLineAt).toBeGreaterThan(450);
  });

  it('does not count blank lines, the beginning of a line, or stderr', async () => {
    useStore({ maxSilenceMs: 400 });
    const speaking = ['echo', 'printf \'{"event"\'', 'echo busy >&2'].map((words) => `while :; do ${words}; sleep 0.02; done`);
    const ends = await Promise.all(speaking.map((script) => start(sh(script)).run.whenEnded));
    expect(ends).toMatchObject(speaking.map(() => timedOut(silent(400))));
  });

  it('does not count while a tool call is open', async () => {
    useStore({ maxSilenceMs: 250 });
    const script = 'printf %s "$1$2"; sleep 0.5; printf %s "$3"; sleep 0.5; printf %s "$4"; sleep 9999';
    const { run } = start(sh(script, calls('1'), calls('2'), returns('1', true), returns('2')));
    const { endedAt, ...end } = await run.whenEnded;
    expect(end).toEqual(timedOut(silent(250)));
    expect(run.lastLineAt - run.startedAt).toBeGreaterThan(950);
    expect(endedAt - run.lastLineAt).toBeGreaterThan(200);
  });

  it('starts again when the server itself was stopped (SIGSTOP)', async () => {
    const file = join(temporaryFolder(), 'go on');
    const host = server(
      async ({ runs, data, said, tell }) => {
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'a');
        await tell('heard');
        await tell(await run.whenEnded);
        process.exit();
      },
      {
        agent: sh(`${says('a')}; while [ ! -e "$1" ]; do sleep 0.01; done; ${says('b')}`, file),
        settings: { storeDir: temporaryFolder(), maxSilenceMs: 400 },
      },
    );
    await host.told();
    host.child.kill('SIGSTOP');
    // Beyond the limit, and by so much that it cannot be the load.
    await sleep(1_600);
    host.child.kill('SIGCONT');
    writeFileSync(file, '');
    expect(await host.told()).toMatchObject({ reason: 'completed', exitCode: 0 });
  });

  it('does not depend on the event loop: it may be held', async () => {
    const host = server(
      async ({ runs, data, said, tell }) => {
        const run = runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        await said('s', 'a');
        // The loop is held; the engine has threads of its own.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000);
        await tell({ ...(await run.whenEnded), text: run.accumulated.textParts.join('') });
        process.exit();
      },
      {
        agent: sh(`${says('a')}; for n in 1 2 3 4 5; do sleep 0.2; ${says('.')}; done`),
        settings: { storeDir: temporaryFolder(), maxSilenceMs: 500 },
      },
    );
    expect(await host.told()).toMatchObject({ reason: 'completed', text: 'a.....' });
  });
});

describe('maxRunMs', () => {
  it('stops an agent that prints all the time', async () => {
    const store = useStore({ maxRunMs: 300 });
    const { sessionId, run } = start(sh(`while :; do ${says('~')}; sleep 0.01; done`));
    const began = performance.now();
    expect(await run.whenEnded).toMatchObject(timedOut(late(300)));
    expect(elapsedSince(began)).toBeGreaterThan(290);
    const text = listen(sessionId).text();
    // It goes on until it is gone.
    expect(text.replaceAll('~', '')).toBe(`[error] ${late(300)}`);
    expect(text.startsWith('~')).toBe(true);
    expect(store.messages(sessionId)).toMatchObject([{ content: text }]);
  });

  it('counts while a tool call is open', async () => {
    useStore({ maxRunMs: 900, maxSilenceMs: 400 });
    const { run } = start(sh('printf %s "$1"; sleep 9999', calls('1')));
    expect(await run.whenEnded).toMatchObject(timedOut(late(900)));
  });

  it('leaves an answer alone that comes in time', async () => {
    useStore({ maxRunMs: 60_000, maxSilenceMs: 60_000 });
    const { run } = start(agent('floods', 20_000));
    expect(await run.whenEnded).toMatchObject({ reason: 'completed', exitCode: 0 });
  });

  it('is the only error told, whatever the agent prints when it is stopped', async () => {
    useStore({ maxRunMs: 200 });
    const script = `trap 'echo "Error: interrupted" >&2; exit 1' TERM; sleep 9999 & wait`;
    for (const errors of ['module', 'full']) {
      const { sessionId, run } = start(sh(script), { errors });
      expect(await run.whenEnded).toMatchObject({ reason: 'timed-out', exitCode: 1, signal: null, error: late(200) });
      expect(listen(sessionId).text()).toBe(`[error] ${late(200)}`);
    }
  });
});

describe('both limits', () => {
  it('are off by default', async () => {
    useStore();
    expect(runs.configure()).toMatchObject({ maxSilenceMs: 0, maxRunMs: 0 });
  });

  it('are those given to startRun, else those that are configured', async () => {
    useStore({ maxSilenceMs: 100, maxRunMs: 200 });
    const endOf = (more) => start(sh('exec sleep 0.6'), more).run.whenEnded;
    const ends = [{}, { maxSilenceMs: 0 }, { maxSilenceMs: 0, maxRunMs: 50 }, { maxRunMs: 0, maxSilenceMs: 50 }, { maxRunMs: 0, maxSilenceMs: 0 }];
    // Not by which signal: on a busy machine an agent may not have been executed by then.
    expect(await Promise.all(ends.map(endOf))).toMatchObject([
      { reason: 'timed-out', error: silent(100) },
      { reason: 'timed-out', error: late(200) },
      { reason: 'timed-out', error: late(50) },
      { reason: 'timed-out', error: silent(50) },
      { reason: 'completed', exitCode: 0 },
    ]);
  });

  it('stay the same for a run that has begun', async () => {
    useStore();
    const told = await puppet();
    const { run } = start(told.agent);
    await told.say('a');
    runs.configure({ maxSilenceMs: 1, maxRunMs: 1 });
    const other = start(sh('sleep 9999')).run;
    await other.whenEnded;
    await told.say('b');
    await told.exit();
    expect((await run.whenEnded).reason).toBe('completed');
  });

  it('hold for many runs at a time', async () => {
    useStore();
    const limits = Array.from({ length: 30 }, (_, n) => 100 + 5 * n);
    const all = limits.map((maxRunMs) => start(sh('exec sleep 9999'), { maxRunMs }).run);
    for (const [n, run] of all.entries()) {
      expect(await run.whenEnded).toMatchObject({ reason: 'timed-out', error: late(limits[n]) });
    }
    // One that was stopped before it was executed has no pid.
    for (const { childProcess } of all) if (childProcess.pid) await isDead(childProcess.pid);
  });

  it('end with the agent: what it has left may hold the pipes for longer', async () => {
    useStore({ pipeGraceMs: 400, killAfterMs: 100 });
    const sleepers = newSleepers();
    // It ends well, and its child holds the pipe for longer than the limit.
    const script = `${says('a')}; sleep "$1" & exit 0`;
    const all = [{ maxSilenceMs: 150 }, { maxRunMs: 150 }].map((limit) => start(sh(script, sleepers), limit));
    for (const { sessionId, run } of all) {
      expect(await run.whenEnded).toStrictEqual({ reason: 'completed', exitCode: 0, signal: null, endedAt: expect.any(Number) });
      expect(listen(sessionId).text()).toBe('a');
    }
    await sleep(150);
    expect(sleepers.pids()).toHaveLength(2);
  });
});
