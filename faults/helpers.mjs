// What the fault tests share: reproducible chance, a record of what was tried, and what is left of
// processes. The rest comes from the ordinary tests' helpers.
import { execFileSync, fork } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { until } from '../__test__/helpers/index.mjs';

export * from '../__test__/helpers/index.mjs';

export { chance, seed } from './chance.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));

export const program = (name) => fileURLToPath(new URL(`./programs/${name}`, import.meta.url));

/** Notes how often a fault was tried, for the table that `npm run test:faults` prints. */
export function tried(fault, times, what) {
  if (!process.env.FAULTS_RECORD) return;
  appendFileSync(process.env.FAULTS_RECORD, `${JSON.stringify({ fault, times, what })}\n`);
}

/** An agent that is a shell script: it starts in a millisecond. */
export const shellAgent = (name, ...args) => ({
  command: '/bin/sh',
  args: [program(`${name}.sh`), ...args.map(String)],
});

/** A program of `programs/` in C, or a library that Node.js can load, made in `folder`. */
export function compiled(name, folder, { isLibrary = false } = {}) {
  const made = join(folder, `${name.slice(0, -'.c'.length)}${isLibrary ? '.node' : ''}`);
  execFileSync('cc', [...(isLibrary ? ['-shared', '-fPIC', '-pthread'] : []), '-o', made, program(name)]);
  return made;
}

/** A copy of the package, readable by everyone, in a folder of its own. */
export function copyOfPackage(folder) {
  const to = join(folder, 'active-runs');
  mkdirSync(to, { recursive: true });
  const parts = readdirSync(root).filter((name) => /^(index\.js|lib|package\.json|.*\.node)$/.test(name));
  for (const part of parts) cpSync(join(root, part), join(to, part), { recursive: true });
  return join(to, 'index.js');
}

/** Runs `body` for each item, so many at a time. */
export async function inLanes(count, items, body) {
  const waiting = [...items].entries();
  const lane = async () => {
    for (const [n, item] of waiting) await body(item, n);
  };
  // All of them have ended when the first error is thrown: nothing goes on behind the test's back.
  const ends = await Promise.allSettled(Array.from({ length: count }, lane));
  for (const { reason } of ends) if (reason) throw reason;
}

// ── What is left ──

const stat = (pid) => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent, group] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { pid, state, parent: Number(parent), group: Number(group) };
  } catch {
    return undefined;
  }
};

/** All processes of the machine, zombies included. */
export const processes = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => stat(Number(name)))
    .filter(Boolean);

const argumentsOf = (pid) => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
};

/** Processes that have this text among their arguments. */
export const processesWith = (text) => processes().filter(({ pid }) => argumentsOf(pid).includes(text));

let marks = 0;

/** A text by which the processes of a test can be found; those that are left when it ends are killed. */
export function newMark(textOf = (n) => `mark-${process.pid}-${n};`) {
  marks += 1;
  const mark = textOf(marks);
  onTestFinished(() => processesWith(mark).forEach(({ pid }) => killIfThere(pid)));
  return mark;
}

/** The same for `sleep`, which takes no text: for how many seconds only this test's processes sleep. */
export const newSeconds = () => newMark((n) => `${20_000 + n}.${process.pid}000`);

function killIfThere(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

/** Waits until no process has this text among its arguments; not for longer than `bound` ms. */
export async function goneWithin(bound, mark, what) {
  const deadline = performance.now() + bound;
  for (;;) {
    const left = processesWith(mark);
    if (left.length === 0) return;
    if (performance.now() > deadline) {
      const told = left.map(({ pid, state, parent, group }) => `${pid} (${state}, parent ${parent}, group ${group}: ${argumentsOf(pid)})`);
      throw new Error(`after ${Math.round(bound)} ms there is still ${told.join(', ')}: ${what}`);
    }
    await sleep(20);
  }
}

/** What a process has open. */
const descriptors = (pid) =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // Closed since; the one with which the folder was read, above all.
      return [];
    }
  });

/** What a process has of what could leak: children (zombies too), threads, descriptors, memory. */
export function resources(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    children: processes().filter(({ parent }) => parent === pid).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
    fds: descriptors(pid).length,
    rss: Number(/^VmRSS:\s+(\d+)/m.exec(status)[1]) * 1024,
  };
}

export const MIB = 1 << 20;

/** A program of `programs/` that does as many of something as it is asked for, and is measured. */
export async function hosted(name, setting) {
  const child = fork(program(name), [JSON.stringify(setting)], {
    execArgv: ['--expose-gc'],
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors = (errors + text).slice(-10_000);
  });
  const answers = [];
  child.on('message', (message) => answers.push(message));
  const isEnded = () => child.exitCode !== null || child.signalCode !== null;
  const answer = async () => {
    await until(() => answers.length > 0 || isEnded(), 'the server answered').catch((error) => {
      throw new Error(`${error.message}; its stderr: ${errors}`);
    });
    if (answers.length === 0) throw new Error(`the server ended; its stderr: ${errors}`);
    return answers.shift();
  };
  await answer();
  return {
    pid: child.pid,
    /** In portions, so that each is over soon. */
    async asks(count) {
      let last;
      for (let left = count; left > 0; left -= 50) {
        child.send(Math.min(left, 50));
        last = await answer();
      }
      return last;
    },
    /** What it has when it has come to rest: no more, if compared, than it had. */
    async settled(than = IDLE) {
      let now;
      const fits = () => {
        now = resources(child.pid);
        const threads = Math.max(than.threads, IDLE.threads);
        return now.children === 0 && now.threads <= threads && now.fds <= than.fds;
      };
      await until(fits, 'a server came to rest').catch((error) => {
        throw new Error(`${error.message}: ${JSON.stringify({ than, now, open: descriptors(child.pid) })}`);
      });
      return now;
    },
    compared(before, after) {
      const growth = ((after.rss - before.rss) / MIB).toFixed(1);
      return `${before.threads} → ${after.threads} threads, ${before.fds} → ${after.fds} descriptors, ${growth} MiB more`;
    },
  };
}

/**
 * Node's own threads and descriptors, and those of the engine. The engine's threads never end, and the
 * disk's come as they are needed, up to eight; replaced files are closed when they have had nothing to do
 * for two seconds.
 */
const IDLE = { threads: 26, fds: 64 };

// ── Store files ──

/** A history of about `bytes`, as a session's file has it. */
export function history(bytes, id = 'h') {
  const lines = [];
  for (let size = 0, n = 0; size < bytes; n += 1) {
    const line = JSON.stringify({ id: `${id}-${n}`, role: n % 2 ? 'assistant' : 'user', content: `${n} `.repeat(200) });
    lines.push(`${line}\n`);
    size += line.length + 1;
  }
  return lines.join('');
}

/** Temporary files of the store that nobody has put in their place yet. */
export const temporaries = (dir) => readdirSync(dir).filter((name) => name.endsWith('.tmp'));

/** The files in which the processes that use a store note what has to be ended should they be killed. */
export const notesIn = (dir) => readdirSync(dir).filter((name) => /^\..+\.active-runs\.marks$/.test(name));

/** What waits in the folder to be added to its session, for living and for dead processes. */
export function messagesWaitingIn(dir) {
  const names = readdirSync(dir).filter((name) => /^\..+\.active-runs\.waiting$/.test(name));
  try {
    const lines = names.flatMap((name) => readFileSync(join(dir, name), 'utf8').split('\n').slice(0, -1));
    return lines.filter(Boolean).flatMap((line) => JSON.parse(line).waits ?? []);
  } catch (error) {
    // One is no longer needed, or was taken over by another process.
    if (error.code === 'ENOENT') return messagesWaitingIn(dir);
    throw error;
  }
}
