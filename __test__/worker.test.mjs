// Worker threads: each has its own JavaScript, all share the process's runs.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  agent,
  isDead,
  listen,
  modulePath,
  newSession,
  newSleepers,
  play,
  puppet,
  runs,
  server,
  sh,
  start,
  storeAt,
  temporaryFolder,
  textLine,
  until,
  useStore,
} from './helpers/index.mjs';

function startWorker(workerData, options) {
  const worker = new Worker(new URL('helpers/starts-a-run-in-a-worker.mjs', import.meta.url), { workerData, ...options });
  const heard = [];
  worker.on('message', (event) => heard.push(event));
  onTestFinished(() => void worker.terminate());
  return { worker, heard };
}
const texts = (events) => events.map((event) => event?.delta ?? '').join('');

it('a worker starts a run, and hears it', async () => {
  const store = useStore();
  const sessionId = newSession();
  const { heard } = startWorker({ sessionId, agent: agent('says', 'a', 'b') });
  await until(() => heard.includes(null), 'the worker heard the end');
  expect(texts(heard)).toBe('ab');
  expect(store.messages(sessionId)).toMatchObject([{ content: 'ab' }]);
});

it('the main thread hears a run that a worker started, and can stop it', async () => {
  useStore();
  const sessionId = newSession();
  const { heard } = startWorker({ sessionId, agent: agent('says-and-waits', 'x') });
  await until(() => texts(heard) === 'x', 'the worker heard the start');
  expect(runs.hasActiveRun(sessionId)).toBe(true);
  const listener = listen(sessionId);
  expect(listener.text()).toBe('x');
  expect(() => start(agent('says'), { sessionId })).toThrow('Active run already exists for this session');
  expect(runs.abortRun(sessionId)).toBe(true);
  await listener.ended;
  await until(() => heard.includes(null), 'the worker heard the end');
  expect(heard).toEqual(listener.events);
});

it("the agent of a worker's run gets the worker's environment", async () => {
  useStore();
  const env = { ...process.env, TEST_MARK: 'of the worker' };
  const { heard } = startWorker({ sessionId: newSession(), agent: agent('tells-how-it-was-started') }, { env });
  await until(() => heard.includes(null), 'the worker heard the end');
  expect(JSON.parse(texts(heard)).env.TEST_MARK).toBe('of the worker');
  expect(process.env.TEST_MARK).toBe(undefined);
});

it("a NUL in a worker's process.env is an error that names the variable", async () => {
  useStore();
  const program = `
    import { parentPort } from 'node:worker_threads';
    import { createRequire } from 'node:module';
    const runs = createRequire(${JSON.stringify(modulePath)})(${JSON.stringify(modulePath)});
    process.env.TEST_EVIL = 'a\\0TEST_INJECTED=yes';
    try {
      runs.startRun({ sessionId: 'evil', message: 'm', agent: { command: 'true' } });
      parentPort.postMessage('started');
    } catch ({ code, message }) {
      parentPort.postMessage({ code, message, run: runs.getActiveRun('evil') ?? null });
    }`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`));
  onTestFinished(() => void worker.terminate());
  const [seen] = await once(worker, 'message');
  expect(seen).toEqual({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/^process\.env\["TEST_EVIL"\]: /), run: null });
});

it('a worker terminated in mid-run takes neither the run nor the process with it', async () => {
  const store = useStore();
  const told = await puppet();
  const sessionId = newSession();
  const { worker, heard } = startWorker({ sessionId, agent: told.agent });
  await told.say('one ');
  await until(() => texts(heard) === 'one ', 'the worker heard it');
  const listener = listen(sessionId, { replay: false });
  await worker.terminate();
  await told.say('two');
  await told.exit();
  await listener.ended;
  expect(listener.text()).toBe('two');
  expect(runs.getActiveRun(sessionId)).toMatchObject({ status: 'completed', exitCode: 0 });
  expect(texts(runs.getActiveRun(sessionId).eventBuffer)).toBe('one two');
  expect(store.messages(sessionId)).toMatchObject([{ content: 'one two' }]);
  const late = listen(sessionId);
  expect(late.text()).toBe('one two');
});

it('a worker terminated while events pour into it leaves the others undisturbed', async () => {
  useStore();
  const { sessionId } = start(agent('floods', 100_000));
  const listener = listen(sessionId, { replay: false });
  for (let n = 0; n < 5; n += 1) {
    const worker = new Worker(new URL('helpers/listens-in-a-worker.mjs', import.meta.url), { workerData: { sessionId } });
    await Promise.race([once(worker, 'message'), once(worker, 'exit')]);
    await worker.terminate();
  }
  await listener.ended;
  expect(listener.events).toHaveLength(100_003);
  expect(listener.text() === Array.from({ length: 100_000 }, (_, n) => `${n} `).join('')).toBe(true);
});

it('a worker that called process.exit in mid-run leaves the run running', async () => {
  useStore();
  const told = await puppet();
  const sessionId = newSession();
  const { worker, heard } = startWorker({ sessionId, agent: told.agent, exitOn: 'one' });
  await told.say('one');
  await until(() => heard.length > 0, 'the worker heard it');
  if (worker.threadId !== -1) await once(worker, 'exit');
  expect(runs.hasActiveRun(sessionId)).toBe(true);
  const listener = listen(sessionId);
  await told.say(' two');
  await told.exit();
  await listener.ended;
  expect(listener.text()).toBe('one two');
});

it('a process whose worker started a run ends the agent when it ends', async () => {
  const store = useStore();
  const told = await puppet();
  const host = server(
    async ({ data, tell, modulePath }) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const program = `
        const { runs, data } = { runs: require(${JSON.stringify(modulePath)}), data: ${JSON.stringify(data)} };
        runs.startRun({ sessionId: 's', message: 'm', agent: data.agent });
        runs.subscribeToRun('s', (event) => {
          if (event && event.delta) require('node:worker_threads').parentPort.postMessage('heard');
        });
      `;
      const worker = new Worker(program, { eval: true });
      worker.on('message', async () => {
        await tell('heard');
        process.exit(0);
      });
    },
    { settings: { storeDir: store.dir }, agent: told.agent },
  );
  await told.say('half');
  expect(await host.told()).toBe('heard');
  expect(await host.exited).toEqual({ code: 0, signal: null });
  await isDead(await told.pid());
  expect(store.messages('s')).toMatchObject([{ content: 'half' }]);
  expect(store.read('s')).not.toContain('_streaming');
});

it('workers come and go without a trace', async () => {
  useStore();
  for (let n = 0; n < 5; n += 1) {
    const { worker, heard } = startWorker({ sessionId: newSession(), agent: agent('says', 'x'), exitOn: null });
    await until(() => heard.includes(null), 'the worker heard the end');
    await worker.terminate();
  }
  expect((await play(agent('says', 'still here'))).text).toBe('still here');
});

describe('a run whose worker has ended', () => {
  /** A server whose worker starts a run and ends while it runs; what has become of it when the server ends. */
  async function stored(doesLook) {
    const store = useStore();
    const host = server(
      async ({ runs, data, modulePath }) => {
        const { Worker } = process.getBuiltinModule('node:worker_threads');
        runs.hasActiveRun('nothing');
        const program = `
          const runs = require(${JSON.stringify(modulePath)});
          runs.startRun({ sessionId: 's', message: 'm', agent: ${JSON.stringify(data.agent)} });
          runs.subscribeToRun('s', (event) => event?.delta && require('node:worker_threads').parentPort.postMessage('said'));
        `;
        const worker = new Worker(program, { eval: true });
        await new Promise((resolve) => worker.once('message', resolve));
        if (data.doesLook) runs.getActiveRun('s').eventBuffer.length;
        await worker.terminate();
        process.send('the worker has ended');
        // Nothing else keeps this process.
        process.disconnect();
      },
      { settings: { storeDir: store.dir }, agent: sh('printf %s "$1"; sleep 1; printf %s "$2"', textLine('begin '), textLine('end')), doesLook },
    );
    expect(await host.told()).toBe('the worker has ended');
    expect(await host.exited).toEqual({ code: 0, signal: null });
    return store.messages('s');
  }

  it('keeps the process until it is written', async () => {
    expect(await stored(false)).toMatchObject([{ content: 'begin end' }]);
  });

  it('does so also where the main thread has looked at it before', async () => {
    expect(await stored(true)).toMatchObject([{ content: 'begin end' }]);
  });
});

describe('a process that has the package in a worker only', () => {
  /** Such a server, with a run that has said something and goes on. */
  async function host(prepare = '') {
    const store = storeAt(temporaryFolder());
    const sleepers = newSleepers();
    const program = `
      const runs = require(${JSON.stringify(modulePath)});
      runs.configure({ storeDir: ${JSON.stringify(store.dir)} });
      runs.startRun({ sessionId: 's', message: 'm', agent: ${JSON.stringify(sh('printf %s "$1"; sleep "$2"', textLine('half'), sleepers))} });
      runs.subscribeToRun('s', (event) => event?.delta && require('node:worker_threads').parentPort.postMessage('said'));
    `;
    const main = `
      const { Worker } = require('node:worker_threads');
      ${prepare}
      new Worker(${JSON.stringify(program)}, { eval: true }).on('message', (message) => console.log(message));
      setInterval(() => {}, 1_000_000);
    `;
    const child = spawn(process.execPath, ['-e', main], { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let out = '';
    child.stdout.on('data', (text) => {
      out += text;
    });
    const exited = once(child, 'close');
    await until(() => out.includes('said'), 'the agent said something');
    return { child, exited, store, sleepers, out: () => out };
  }

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'])('writes what was said and ends its agents at %s', async (signal) => {
    const { child, exited, store, sleepers } = await host();
    child.kill(signal);
    expect(await exited).toEqual([null, signal]);
    await sleepers.haveEnded();
    expect(store.messages('s')).toMatchObject([{ content: 'half' }]);
    expect(store.read('s')).not.toContain('_streaming');
  });

  it('leaves a signal to whoever listens for it', async () => {
    const { child, exited, store, out } = await host("process.on('SIGTERM', () => console.log('heard'));");
    child.kill('SIGTERM');
    await until(() => out().includes('heard'), 'the listener heard it');
    await until(() => store.read('s').includes('half'), 'the run went on');
    child.kill('SIGINT');
    expect(await exited).toEqual([null, 'SIGINT']);
  });
});
