// Ended means told: run.end, run.whenEnded, and what becomes of tool calls that are open at the end. The
// module knows no more than a status and an exit code: the baseline cannot pass these.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readUIMessageStream } from 'ai';
import { beforeAll, describe, expect, it } from 'vitest';
import { dropOpenParts } from '../client.js';
import {
  agent,
  listen,
  play,
  puppet,
  runs,
  server,
  sh,
  start,
  temporaryFolder,
  textLine,
  until,
  useStore,
} from './helpers/index.mjs';

const says = (text) => `echo '${textLine(text).trim()}'`;
const toolLine = (data) => `${JSON.stringify({ event: 'agent', stream: 'tool', data })}\n`;
const calls = (toolCallId, name = 'look') => toolLine({ phase: 'start', toolCallId, name, args: { at: toolCallId } });
const returns = (toolCallId, more = { result: { text: 'seen' } }) => toolLine({ phase: 'result', toolCallId, ...more });

describe('run.end', () => {
  /** The shell has no core file written. */
  const endsBy = (signal) => [
    `a signal that was not sent by an abort: ${signal}`,
    sh(`ulimit -c 0; ${says('half')}; kill -s ${signal.slice(3)} $$`),
    { reason: 'killed', exitCode: null, signal },
    'completed',
  ];
  it.each([
    ['exit code 0', agent('says', 'a'), { reason: 'completed', exitCode: 0, signal: null }, 'completed'],
    [
      'exit code 3, explained by stderr',
      sh('echo "Error: the disk is full" >&2; exit 3'),
      { reason: 'failed', exitCode: 3, signal: null, error: 'the disk is full' },
      'error',
    ],
    [
      'exit code 52 without any output',
      sh('exit 52'),
      { reason: 'failed', exitCode: 52, signal: null, error: 'Agent exited with code 52. Check server logs for details.' },
      'error',
    ],
    ['exit code 1 after an answer', sh(`${says('a')}; exit 1`), { reason: 'failed', exitCode: 1, signal: null }, 'error'],
    [
      "a shell's exit code after its child was killed",
      sh(`${says('a')}; exit 137`),
      { reason: 'failed', exitCode: 137, signal: null },
      'error',
    ],
    [
      'exit code 0 without an answer',
      sh('exit 0'),
      { reason: 'completed', exitCode: 0, signal: null, error: 'No response from agent.' },
      'completed',
    ],
    ...['SIGKILL', 'SIGSEGV', 'SIGTERM', 'SIGPIPE'].map(endsBy),
    [
      'a program that does not exist',
      { command: '/no/such/program' },
      { reason: 'start-failed', exitCode: -2, signal: null, error: 'Failed to start agent: spawn /no/such/program ENOENT' },
      'error',
    ],
  ])('tells of %s', async (_, spec, expected, status) => {
    useStore();
    const { run } = start(spec);
    expect(run.end).toBe(null);
    const end = await run.whenEnded;
    const { endedAt, ...rest } = end;
    // `toStrictEqual` tells a key that is not there from one that is undefined.
    expect(rest).toStrictEqual(expected);
    expect(endedAt).toBeGreaterThanOrEqual(run.startedAt);
    expect(endedAt).toBeLessThanOrEqual(Date.now());
    expect(run).toMatchObject({ status, exitCode: expected.exitCode, end });
    expect(run.end).toBe(end);
    expect(Object.isFrozen(end)).toBe(true);
  });

  it('tells of an agent that was killed from outside', async () => {
    useStore();
    const told = await puppet();
    const { run } = start(told.agent);
    process.kill(await told.pid(), 'SIGKILL');
    expect(await run.whenEnded).toMatchObject({ reason: 'killed', exitCode: null, signal: 'SIGKILL' });
    expect(run.status).toBe('completed');
  });

  it.each([
    ['without a handler', [], { exitCode: null, signal: 'SIGTERM' }, 'completed'],
    ['with exit code 0', ['exit 0'], { exitCode: 0, signal: null }, 'completed'],
    ['with exit code 143', ['exit 143'], { exitCode: 143, signal: null }, 'error'],
    ['only at SIGKILL', [''], { exitCode: null, signal: 'SIGKILL' }, 'completed'],
  ])('tells of an abort, of an agent that ends %s', async (_, trap, expected, status) => {
    useStore({ killAfterMs: 100 });
    const script = `${trap.map((action) => `trap '${action}' TERM`).join('')}\n${says('a')}; sleep 9999 & wait; sleep 9999 & wait; sleep 9999`;
    const { sessionId, run } = start(sh(script));
    await listen(sessionId).has('a');
    runs.abortRun(sessionId);
    expect(run.end).toBe(null);
    expect(await run.whenEnded).toStrictEqual({ reason: 'aborted', ...expected, endedAt: expect.any(Number) });
    expect(run.status).toBe(status);
  });

  it('keeps what an aborted agent prints before it ends', async () => {
    const store = useStore();
    const { sessionId, run } = start(sh(`trap "${says('last words').replaceAll('"', '\\"')}; exit 0" TERM; ${says('a')}; sleep 9999 & wait`));
    await listen(sessionId).has('a');
    runs.abortRun(sessionId);
    await run.whenEnded;
    expect(listen(sessionId).text()).toBe('alast words');
    expect(store.messages(sessionId)).toMatchObject([{ content: 'alast words' }]);
  });

  it('tells of output that exceeded maxRunBytes', async () => {
    useStore({ maxRunBytes: 1_000 });
    const { run, text } = await play(agent('floods', 10_000));
    const error = "The agent's output exceeded 1000 bytes (maxRunBytes) and was stopped";
    expect(run.end).toMatchObject({ reason: 'too-large', error });
    expect(text.endsWith(`[error] ${error}`)).toBe(true);
    expect(run.status).toBe('error');
  });

  it('has the error of the stream', async () => {
    useStore();
    const line = JSON.stringify({ event: 'error', error: '402 {"error":{"message":"no funds"}}' });
    const { run, text } = await play(sh(`echo '${line}'`));
    expect(text).toBe('[error] no funds');
    expect(run.end).toMatchObject({ reason: 'completed', error: 'no funds' });
  });

  it('has the first reason where there are several', async () => {
    useStore({ killAfterMs: 300 });
    const { sessionId, run } = start(agent('stubborn'), { maxRunMs: 1 });
    await listen(sessionId).has('(maxRunMs)');
    runs.abortRun(sessionId);
    expect((await run.whenEnded).reason).toBe('timed-out');
    const second = start(agent('stubborn'), { maxRunMs: 1_000_000 });
    await listen(second.sessionId).has('pid');
    runs.abortRun(second.sessionId);
    second.run.childProcess.kill('SIGKILL');
    expect(await second.run.whenEnded).toMatchObject({ reason: 'aborted', signal: 'SIGKILL' });
  });

  it('tells a worker thread of a run that the end of the server interrupted', async () => {
    const folder = temporaryFolder();
    const told = await puppet();
    const host = server(
      async ({ runs, data, modulePath, said, tell, fs }) => {
        const { Worker } = process.getBuiltinModule('node:worker_threads');
        const worker = new Worker(
          `const { workerData, parentPort } = require('node:worker_threads');
           const { renameSync, writeFileSync } = require('node:fs');
           const run = require(workerData.modulePath).startRun({ sessionId: 's', message: 'm', agent: workerData.agent });
           run.whenEnded.then((end) => {
             writeFileSync(workerData.file + '.new', JSON.stringify({ end, status: run.status }));
             renameSync(workerData.file + '.new', workerData.file);
           });
           parentPort.postMessage('started');`,
          { eval: true, workerData: { modulePath, ...data } },
        );
        await new Promise((resolve) => worker.once('message', resolve));
        await said('s', 'a');
        await tell('ready');
        // Behind the package's own listener: holds the end up until the worker has been told.
        process.on('exit', () => {
          const until = Date.now() + 10_000;
          while (!fs.existsSync(data.file) && Date.now() < until);
        });
        process.exit();
      },
      { agent: told.agent, file: join(folder, 'end'), settings: { storeDir: join(folder, 'store') } },
    );
    await told.say('a');
    await host.told();
    await host.exited;
    const { end, status } = JSON.parse(readFileSync(join(folder, 'end'), 'utf8'));
    expect(end).toMatchObject({ reason: 'interrupted', exitCode: null, signal: 'SIGTERM' });
    expect(status).toBe('completed');
  });
});

describe('run.whenEnded', () => {
  it('is one promise, fulfilled after the last null, with what run.end is', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const promise = run.whenEnded;
    expect(run.whenEnded).toBe(promise);
    expect(runs.getActiveRun(sessionId).whenEnded).toBe(promise);
    const order = [];
    promise.then((end) => order.push(end));
    for (const name of ['first', 'second']) {
      runs.subscribeToRun(sessionId, (event) => {
        if (event !== null) return;
        order.push(`${name} ${run.end.reason} ${run.whenEnded === promise}`);
        if (name === 'first') throw new Error("a subscriber's own");
      });
    }
    await told.exit();
    expect(await promise).toBe(run.end);
    expect(order).toEqual(['first completed true', 'second completed true', run.end]);
  });

  it('is fulfilled also when it is first asked for at the end, or later', async () => {
    useStore({ cleanupGraceMs: 0 });
    const { sessionId, run } = start(agent('says', 'a'));
    const inNull = await new Promise((resolve) => {
      runs.subscribeToRun(sessionId, (event) => event === null && resolve(run.whenEnded));
    });
    expect(inNull).toBe(run.end);
    const later = start(agent('says', 'b')).run;
    await until(() => later.end !== null, 'the run ended');
    let seen;
    later.whenEnded.then((end) => {
      seen = end;
    });
    await Promise.resolve();
    expect(seen).toBe(later.end);
    await until(() => runs.getActiveRun(later.sessionId) === undefined, 'the run was forgotten');
    expect(await later.whenEnded).toBe(later.end);
  });

  it('is fulfilled, not rejected, whatever became of the run', async () => {
    useStore();
    const all = [{ command: '/no/such/program' }, sh('exit 1'), sh('kill -KILL $$'), agent('says-and-waits')].map((spec) => start(spec));
    runs.abortRun(all.at(-1).sessionId);
    const ends = await Promise.all(all.map(({ run }) => run.whenEnded));
    expect(ends.map(({ reason }) => reason)).toEqual(['start-failed', 'failed', 'killed', 'aborted']);
  });

  it.each([true, false])('keeps the process alive while it is awaited (awaited: %s)', async (isWaiting) => {
    const file = join(temporaryFolder(), 'end');
    const told = await puppet();
    const host = server(
      async ({ runs, data, modulePath, tell, fs }) => {
        const { Worker } = process.getBuiltinModule('node:worker_threads');
        // Its run is not this thread's, and it does not keep the process.
        const worker = new Worker(
          `const { workerData, parentPort } = require('node:worker_threads');
           require(workerData.modulePath).startRun({ sessionId: 's', message: 'm', agent: workerData.agent });
           parentPort.postMessage('started');`,
          { eval: true, workerData: { modulePath, ...data } },
        );
        await new Promise((resolve) => worker.once('message', resolve));
        worker.unref();
        if (data.isWaiting) runs.getActiveRun('s').whenEnded.then((end) => fs.writeFileSync(data.file, end.reason));
        await tell('ready');
      },
      { agent: told.agent, file, isWaiting, settings: { storeDir: temporaryFolder() } },
    );
    await host.told();
    if (isWaiting) {
      await told.say('a');
      await told.exit();
    }
    expect(await host.exited).toEqual({ code: 0, signal: null });
    expect(existsSync(file) && readFileSync(file, 'utf8')).toBe(isWaiting && 'completed');
  });
});

describe('an unknown end is a failure', () => {
  let library;
  beforeAll(() => {
    library = join(process.env.TMPDIR, 'reaps-children.so');
    const source = fileURLToPath(new URL('helpers/reaps-children.c', import.meta.url));
    execFileSync('cc', ['-shared', '-fPIC', '-pthread', '-o', library, source]);
  });

  /** The ends of runs of these agents, all at once, in a server whose children somebody else reaps. */
  async function endsOf(how, agents, onText = () => {}) {
    const host = server(
      `async ({ runs, data, tell, fs }) => {
        // Not the agents'.
        delete process.env.LD_PRELOAD;
        const ignored = () => BigInt('0x' + /^SigIgn:\\t(.*)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]);
        while (data.how === 'ignoring' && !(ignored() & (1n << 16n))) await new Promise(setImmediate);
        const play = async (agent, n) => {
          const run = runs.startRun({ sessionId: 's' + n, message: 'm', agent });
          runs.subscribeToRun(run.sessionId, (event) => event?.delta && (${onText})(runs, run));
          const { reason, exitCode, signal } = await run.whenEnded;
          const text = run.accumulated.textParts.join('');
          return { reason, exitCode, signal, status: run.status, text, kill: run.childProcess.kill(0) };
        };
        const ends = await Promise.all(data.agents.map(play));
        await tell({ ends, pids: runs.stats().childPids });
        process.exit();
      }`,
      { how, agents, settings: { storeDir: temporaryFolder(), killAfterMs: 200, pipeGraceMs: 100 } },
      { env: { LD_PRELOAD: library, REAPS_CHILDREN: how } },
    );
    const { ends, pids } = await host.told();
    expect(pids).toEqual([]);
    return ends;
  }
  const unknown = { reason: 'failed', exitCode: null, signal: null, status: 'error', kill: false };

  it.each([0, 7])('where SIGCHLD is ignored, of an agent that exits with %i', async (code) => {
    const ends = await endsOf('ignoring', Array(20).fill(sh(`${says('half an answer')}; exit ${code}`)));
    for (const end of ends) expect(end).toEqual({ ...unknown, text: 'half an answer' });
  });

  it('where another library waits for all children', async () => {
    const ends = await endsOf('waiting', Array(20).fill(sh(`${says('half an answer')}; exit 7`)));
    for (const end of ends) {
      // It may be us who learn it.
      expect([null, 7]).toContain(end.exitCode);
      expect(end).toEqual({ ...unknown, exitCode: end.exitCode, text: 'half an answer' });
    }
  });

  it.each(['ignoring', 'waiting'])('and is explained by stderr; what cannot be started is told as ever (%s)', async (how) => {
    const ends = await endsOf(how, [sh('echo "Error: the disk is full" >&2'), { command: '/no/such/program' }]);
    expect(ends[0].text).toBe('[error] the disk is full');
    expect(ends[1]).toMatchObject({ reason: 'start-failed', exitCode: -2, text: '[error] Failed to start agent: spawn /no/such/program ENOENT' });
  });

  it.each(['ignoring', 'waiting'])('and such runs can be stopped (%s)', async (how) => {
    const stubborn = sh(`trap "" TERM; ${says('a')}; exec sleep 9999`);
    const agents = [sh(`${says('a')}; exec sleep 9999`), stubborn];
    const ends = await endsOf(how, [...agents, ...agents, ...agents, ...agents], (runs, run) => runs.abortRun(run.sessionId));
    for (const end of ends) expect(end).toMatchObject({ reason: 'aborted', text: 'a' });
  });
});

describe("a tool call without a result, at the run's end", () => {
  const decoder = new TextDecoder();
  /** The chunks of an AI SDK stream, each with its id, if it has one. */
  const framesOf = async (stream) => {
    let text = '';
    for await (const bytes of stream) text += decoder.decode(bytes, { stream: true });
    const fieldOf = (frame, name) => frame.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
    const frames = text.split('\n\n').filter(Boolean);
    return frames.map((frame) => ({ id: fieldOf(frame, 'id'), data: fieldOf(frame, 'data') }));
  };
  /** Of frames with data: one may have an id alone. Without that the agent failed, which ends the SDK's reading. */
  const chunksOf = (frames) =>
    frames
      .filter(({ data }) => data && data !== '[DONE]')
      .map(({ data }) => JSON.parse(data))
      .filter(({ type }) => type !== 'error');
  const interrupted = (frames) =>
    chunksOf(frames)
      .filter(({ errorText }) => errorText === 'interrupted')
      .map(({ type, toolCallId }) => `${type} ${toolCallId}`);

  /** The message that the AI SDK builds of frames. */
  async function messageOf(frames, message) {
    let last = message;
    const onError = (error) => {
      throw error;
    };
    for await (const snapshot of readUIMessageStream({ message, stream: ReadableStream.from(chunksOf(frames)), onError })) last = snapshot;
    return last;
  }
  const statesOf = ({ parts }) =>
    Object.fromEntries(parts.filter(({ toolCallId }) => toolCallId).map((part) => [part.toolCallId, part.errorText ?? part.state]));

  const LINES = [
    textLine('Looking. '),
    calls('1'),
    returns('1'),
    calls('2"\u2028é'),
    calls('3', 'search'),
    returns('3', { isError: true, result: { content: [{ type: 'text', text: 'no' }] } }),
    calls('4'),
    calls('1'),
    returns('never called'),
  ].join('');
  const OPEN = ['tool-output-error 2"\u2028é', 'tool-output-error 4', 'tool-output-error 1'];

  it.each([
    ['it is aborted', (told, sessionId) => runs.abortRun(sessionId), 'aborted'],
    ['it ends by itself', (told) => told.exit(), 'completed'],
    ['it crashes', (told) => told.die('SIGKILL'), 'killed'],
  ])('ends as an error for the AI SDK: %s', async (_, endIt, reason) => {
    const store = useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const live = framesOf(runs.createRunStream(sessionId, { protocol: 'ai-sdk' }));
    const module = framesOf(runs.createRunStream(sessionId));
    await told.out(LINES);
    await until(() => runs.getActiveRun(sessionId).accumulated.toolCalls.size === 4, 'the calls came');
    const late = framesOf(runs.createRunStream(sessionId, { protocol: 'ai-sdk', replay: false }));
    await endIt(told, sessionId);
    expect((await run.whenEnded).reason).toBe(reason);

    const frames = await live;
    expect(interrupted(frames).sort()).toEqual([...OPEN].sort());
    expect(JSON.parse(frames.at(-2).data)).toMatchObject({ type: 'finish', messageMetadata: { end: reason } });
    expect(frames.at(-1).data).toBe('[DONE]');
    const message = await messageOf(frames);
    expect(statesOf(message)).toEqual({ 1: 'interrupted', '2"\u2028é': 'interrupted', 3: expect.any(String), 4: 'interrupted' });
    for (const part of message.parts.filter(({ errorText }) => errorText === 'interrupted')) expect(part.state).toBe('output-error');

    // Whoever reads it, once each.
    for (const options of [{}, { replay: 'compact' }, { replay: false }]) {
      const again = await framesOf(runs.createRunStream(sessionId, { protocol: 'ai-sdk', ...options }));
      expect(interrupted(again).sort()).toEqual([...OPEN].sort());
      expect(statesOf(await messageOf(again))).toMatchObject({ 4: 'interrupted' });
    }
    expect(statesOf(await messageOf(await late))).toMatchObject({ 1: 'interrupted', 4: 'interrupted' });

    // And goes on after any frame.
    for (const { id } of frames.filter((frame) => frame.id)) {
      const seen = frames.slice(0, frames.findIndex((frame) => frame.id === id) + 1);
      const exact = await framesOf(runs.createRunStream(sessionId, { protocol: 'ai-sdk', lastEventId: id }));
      expect([...seen, ...exact]).toEqual(frames);
      const options = { protocol: 'ai-sdk', lastEventId: id, resume: 'rewind' };
      const resumed = await framesOf(runs.createRunStream(sessionId, options));
      const continued = await messageOf(resumed, dropOpenParts(await messageOf(seen)));
      expect(statesOf(continued)).toEqual(statesOf(message));
    }

    // The module's protocol, the events and the file are as they were.
    const text = (await module).map(({ data }) => data);
    expect(text).toEqual(run.eventBuffer.map((event) => JSON.stringify(event)));
    expect(JSON.stringify([text, store.read(sessionId)])).not.toContain('interrupted');
    const invocations = store.messages(sessionId)[0].parts.filter(({ type }) => type === 'tool-invocation');
    expect(invocations.find(({ toolCallId }) => toolCallId === '4')).not.toHaveProperty('result');
  });

  it('is not told of a run without one', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    await told.out(calls('1') + returns('1'));
    await told.exit();
    await run.whenEnded;
    expect(interrupted(await framesOf(runs.createRunStream(sessionId, { protocol: 'ai-sdk' })))).toEqual([]);
  });
});
