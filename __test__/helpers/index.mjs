// What the tests share: stores of their own, agents, subscribers that remember, server processes.
// Nothing here waits for a time; `until` waits for a condition and says which one never came.
import { execFileSync, fork, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { it, onTestFailed, onTestFinished } from 'vitest';
import { isAddon, modulePath, runs } from './under-test.mjs';

export { isAddon, modulePath, runs };

/** A test of something the module cannot do; the baseline is not asked to. */
export const better = isAddon ? it : it.skip;

export async function until(condition, what) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`it never came to pass that ${what}`);
    await sleep(5);
  }
}

export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'active-runs-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** Random numbers from 0 to 1; those of a test that fails can be had again, with the seed that it prints. */
export function seededRandom() {
  const seed = Number(process.env.SEED || Math.floor(Math.random() * 2 ** 32));
  onTestFailed(() => console.log(`SEED=${seed} gives the same random numbers`));
  let state = seed;
  return () => {
    // Mulberry32.
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const DEFAULTS = {
  persistIntervalMs: 2_000,
  cleanupGraceMs: 30_000,
  killAfterMs: 5_000,
  pipeGraceMs: 2_000,
  maxLineBytes: 64 << 20,
  maxRunBytes: 512 << 20,
  maxStderrBytes: 64 << 10,
  maxSilenceMs: 0,
  maxRunMs: 0,
  errors: 'auto',
  storeFormat: 'module',
};

/** A new, empty store, in force for the runs this test starts; other settings at their defaults. */
export function useStore(settings = {}) {
  const dir = temporaryFolder();
  runs.configure({ ...DEFAULTS, storeDir: dir, ...settings });
  return storeAt(settings.storeDir ?? dir);
}

export function storeAt(dir) {
  const path = (sessionId) => join(dir, `${sessionId}.jsonl`);
  const read = (sessionId) => (existsSync(path(sessionId)) ? readFileSync(path(sessionId), 'utf8') : '');
  const indexPath = join(dir, 'index.json');
  return {
    dir,
    path,
    read,
    messages: (sessionId) =>
      read(sessionId)
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line)),
    write: (sessionId, text) => writeFileSync(path(sessionId), text),
    append: (sessionId, text) => appendFileSync(path(sessionId), text),
    indexPath,
    index: () => JSON.parse(readFileSync(indexPath, 'utf8')),
    writeIndex: (index) => writeFileSync(indexPath, JSON.stringify(index, null, 2)),
  };
}

export const newSession = () => randomUUID();

// ── Agents ──

export const agentPath = (name) => fileURLToPath(new URL(`../agents/${name}`, import.meta.url));

/** A stand-in agent: a program of `agents/`, with these arguments. */
export const agent = (name, ...args) => ({
  command: process.execPath,
  args: [agentPath(`${name}.mjs`), ...args.map(String)],
});

/** A stand-in agent that is a shell script; `args` are its `$1` and so on. */
export const sh = (script, ...args) => ({ command: '/bin/sh', args: ['-c', script, 'sh', ...args.map(String)] });

/** An agent line that says a piece of the answer. */
export const textLine = (delta, more = {}) =>
  `${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta }, ...more })}\n`;

/** An agent that writes what the test tells it to, when the test says so. It dies with the test. */
export async function puppet() {
  const path = join(temporaryFolder(), 'strings');
  const waiting = [];
  const signals = [];
  let connect;
  const connection = new Promise((resolve) => {
    connect = resolve;
  });
  const strings = createServer((socket) => {
    onEnd.push(() => socket.destroy());
    // The agent's end is cut whenever the agent dies: by what it has just done, too.
    socket.on('error', () => {}).on('close', () => {
      for (const done of waiting.splice(0)) done();
    });
    createInterface({ input: socket })
      .on('error', () => {})
      .on('line', (line) => {
        const { hello, signal } = JSON.parse(line);
        if (hello) connect({ socket, pid: hello.pid });
        else if (signal) signals.push(signal);
        else waiting.shift()?.();
      });
  });
  const onEnd = [() => strings.close()];
  onTestFinished(() => onEnd.forEach((end) => end()));
  await new Promise((resolve) => strings.listen(path, resolve));

  // In some versions of Node, the agent's readline takes these two for line ends.
  const escaped = (character) => `\\u${character.codePointAt(0).toString(16)}`;
  const send = async (command) => {
    const { socket } = await connection;
    socket.write(`${JSON.stringify(command).replace(/[\u2028\u2029]/g, escaped)}\n`);
  };
  /** Resolves when the agent has done it, or is dead. */
  const tell = async (command) => {
    const done = new Promise((resolve) => waiting.push(resolve));
    await send(command);
    if ((await connection).socket.closed) return;
    await done;
  };
  return {
    agent: agent('does-as-told', path),
    pid: async () => (await connection).pid,
    out: (text) => tell({ out: text }),
    err: (text) => tell({ err: text }),
    say: (...deltas) => tell({ out: deltas.map((delta) => textLine(delta)).join('') }),
    ignore: (signal) => tell({ ignore: signal }),
    exit: (code = 0) => send({ exit: `${code}` }),
    die: (signal) => send({ die: signal }),
    signals: () => signals,
  };
}

/** Starts a run of `agent` on a new session. */
export function start(agentSpec, more = {}) {
  const sessionId = more.sessionId ?? newSession();
  const run = runs.startRun({ sessionId, message: 'a question', agent: agentSpec, ...more });
  onTestFinished(() => {
    if (runs.getActiveRun(sessionId)?.status === 'running') runs.abortRun(sessionId);
  });
  return { sessionId, run };
}

/** Subscribes and remembers every call. */
export function listen(sessionId, options) {
  const events = [];
  let end;
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  const listener = {
    events,
    ended,
    text: () => textOf(events),
    has: (text) => until(() => textOf(events).includes(text), `a subscriber read ${JSON.stringify(text)}`),
  };
  listener.callback = (event) => {
    events.push(event);
    if (event === null) end(events);
  };
  listener.unsubscribe = runs.subscribeToRun(sessionId, listener.callback, options);
  return listener;
}

export const textOf = (events) =>
  events
    .filter((event) => event?.type === 'text-delta')
    .map((event) => event.delta)
    .join('');

/** Starts a run, subscribes in the same tick, resolves at its end. */
export async function play(agentSpec, more) {
  const { sessionId, run } = start(agentSpec, more);
  const listener = listen(sessionId, { replay: false });
  await listener.ended;
  return { sessionId, run, events: listener.events, text: listener.text() };
}

// ── Processes ──

/** Whether a process of that number runs; one that has ended and waits for its parent does not. */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  if (process.platform !== 'linux') return true;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !'ZX'.includes(stat[stat.lastIndexOf(')') + 2]);
  } catch {
    return false;
  }
}

export function killIfThere(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

export const isDead = (pid) => until(() => !isAlive(pid), `process ${pid} ended`);

/** The running processes, as number and arguments. */
function processes() {
  if (process.platform !== 'linux') {
    const lines = execFileSync('ps', ['-Ao', 'pid=,command='], { encoding: 'utf8' }).trim().split('\n');
    return lines.map((line) => /^ *(\d+) (.*)$/.exec(line)).map(([, pid, args]) => ({ pid: Number(pid), args }));
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => {
    try {
      // Of one that has ended and waits for its parent, it is empty.
      const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trimEnd();
      return [{ pid: Number(pid), args }];
    } catch {
      return [];
    }
  });
}

let sleepTimes = 0;

/**
 * A time to sleep, in seconds, that no other test gives to its processes, so that they can be found by
 * their arguments, wherever they went. Those that are left when the test ends are killed.
 */
export function newSleepers() {
  sleepTimes += 1;
  const seconds = `${20_000 + sleepTimes}.${String(Math.floor(Math.random() * 1e9)).padStart(9, '0')}`;
  const found = (isMeant) => processes().filter(isMeant).map(({ pid }) => pid);
  const sleepers = {
    seconds,
    /** The processes that sleep so long: not the shells that start them. */
    pids: () => found(({ args }) => args === `sleep ${seconds}`),
    /** All processes with this time among their arguments. */
    allPids: () => found(({ args }) => args.includes(seconds)),
    haveStarted: (count) => until(() => sleepers.pids().length === count, `${count} processes slept`),
    haveEnded: () => until(() => sleepers.allPids().length === 0, `no process had ${seconds} among its arguments`),
    toString: () => seconds,
  };
  onTestFinished(() => sleepers.allPids().forEach(killIfThere));
  return sleepers;
}

export const isRoot = process.getuid() === 0;

/** Options of a server in a container of its own, whose processes have numbers of their own. */
const contained = (...command) => ({
  execPath: 'unshare',
  execArgv: [...(isRoot ? [] : ['--user', '--map-root-user']), '--pid', '--fork', '--mount-proc', '--kill-child', ...command],
});
/** It is the first process: what loses its parent comes to it. */
export const asFirstProcess = contained(process.execPath);
/** It is behind a first process that reaps what comes to that. */
export const behindInit = contained('/bin/sh', '-c', '"$@"; exit $?', 'sh', process.execPath);

/** Why there can be no container here; empty when there can. Root can have one, or the tests fail. */
export const noContainer = (() => {
  if (process.platform !== 'linux') return ' (skipped: only Linux has containers)';
  if (isRoot) return '';
  const { execPath, execArgv } = contained('true');
  const { status, error, stderr } = spawnSync(execPath, execArgv, { encoding: 'utf8' });
  return status === 0 ? '' : ` (skipped: this user can have no container: ${error?.message ?? stderr.trim()})`;
})();

/**
 * A server process of its own, which runs `body({ runs, data, tell, hear, agent, … })`: for what can
 * only be seen from outside. `body` is sent as text and sees nothing of the test but `data`.
 */
export function server(body, data = {}, { cwd, env, stderr = 'pipe', execArgv = [], ...more } = {}) {
  const program = fileURLToPath(new URL('./server.mjs', import.meta.url));
  const child = fork(program, {
    ...more,
    cwd,
    execArgv,
    env: { ...process.env, ...env, TEST_SERVER_BODY: `(${body})`, TEST_SERVER_DATA: JSON.stringify(data) },
    stdio: ['ignore', 'inherit', stderr, 'ipc'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const told = [];
  let errors = '';
  child.on('message', (message) => told.push(message));
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    errors += text;
  });
  const exited = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  let ended = false;
  exited.then(() => {
    ended = true;
  });
  return {
    child,
    exited,
    stderr: () => errors,
    send: (message) => child.send(message),
    /** The next message that the server tells. */
    told: async () => {
      await until(() => told.length > 0 || ended, `a server told something; its stderr: ${errors}`);
      if (told.length === 0) throw new Error(`a server ended without a word; its stderr: ${errors}`);
      return told.shift();
    },
  };
}
