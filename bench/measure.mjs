// One measurement in a fresh process: `node --expose-gc bench/measure.mjs CASE addon|module`.
// Prints the case's figures as JSON.
import { once } from 'node:events';
import { closeSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { cases } from './cases/index.mjs';
import { AGENT, ROOT, TEMP } from './places.mjs';
import { routeBytes } from './route.mjs';

const require = createRequire(import.meta.url);
const [, , caseId, implementation] = process.argv;
const isAddon = implementation === 'addon';
const api = require(isAddon ? join(ROOT, 'index.js') : './baseline.cjs');

mkdirSync(TEMP, { recursive: true });
const storeDir = mkdtempSync(join(TEMP, 'store-'));
api.configure({ storeDir });

/** Starts the agent with these arguments (see `agent.rs`). */
function start(sessionId, ...args) {
  const agent = { command: AGENT, args: args.map(String) };
  return api.startRun({ sessionId, message: 'Measure', agent });
}

/** Subscribes and waits for the end. `onEvent` is optional. */
function finish(sessionId, onEvent = () => {}, options = undefined) {
  return new Promise((resolve) => {
    api.subscribeToRun(sessionId, (event) => (event === null ? resolve() : onEvent(event)), options);
  });
}

/** Reads the session's run as ready SSE bytes, to the end. */
async function readBytes(sessionId) {
  if (!isAddon) return routeBytes(api, sessionId);
  let seen = 0;
  for await (const chunk of api.createRunStream(sessionId)) {
    // A byte of each page: it is there when it is touched, and whoever sends it touches it.
    for (let at = 0; at < chunk.length; at += 4_096) seen += chunk[at];
  }
  return seen;
}

/** A session's file with `bytes` of earlier messages, 2 kB each; synced to the disk with `isOnDisk`. */
function writeHistory(sessionId, bytes, { isOnDisk = false } = {}) {
  if (bytes === 0) return;
  const file = openSync(join(storeDir, `${sessionId}.jsonl`), 'w');
  const content = 'What was said before, at some length. '.repeat(26);
  let written = 0;
  for (let number = 0; written < bytes; ) {
    let block = '';
    for (const end = number + 500; number < end && written + block.length < bytes; number++) {
      const role = number % 2 ? 'assistant' : 'user';
      const parts = [{ type: 'text', text: content }];
      block += `${JSON.stringify({ id: `m-${number}`, role, content, parts, timestamp: '2026-01-01T00:00:00.000Z' })}\n`;
    }
    written += writeSync(file, block);
  }
  if (isOnDisk) fsyncSync(file);
  closeSync(file);
}

/** An index with these sessions. */
function writeIndex(sessionIds) {
  const entries = sessionIds.map((id, number) => ({
    id,
    title: `Chat number ${number}`,
    createdAt: 1_771_000_000_000 + number,
    updatedAt: 1_771_000_000_000 + number,
    messageCount: 2,
  }));
  writeFileSync(join(storeDir, 'index.json'), JSON.stringify(entries, null, 2));
}

/** How long the event loop (ms), and all threads' CPU time (s, in user mode and in all), are busy while `work` goes on. */
async function busy(work) {
  await nextTurn();
  const before = performance.eventLoopUtilization();
  const cpu = process.cpuUsage();
  await work();
  await nextTurn();
  const { user, system } = process.cpuUsage(cpu);
  const { active } = performance.eventLoopUtilization(before);
  return { loopMs: active, userS: user / 1e6, cpuS: (user + system) / 1e6 };
}

/** The longest stall of the event loop (ms) while `work` goes on. Its timer is work as well: never in one run with `busy`. */
async function longestStall(work) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  // What it takes to get going is not the work's.
  await sleep(20);
  delay.reset();
  await work();
  // A stall is noted by the timer that comes after it.
  await sleep(5);
  delay.disable();
  return delay.max / 1e6;
}

/** RSS in bytes once garbage is gone. */
async function settledRss() {
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await sleep(20);
  }
  return process.memoryUsage.rss();
}

/** The threads of this process. */
function threads() {
  return Number(/^Threads:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
}

/** Waits until `condition` holds. */
async function until(condition) {
  while (!condition()) await sleep(5);
}

const tools = { api, start, finish, readBytes, writeHistory, writeIndex, busy, longestStall, settledRss, threads, until, sleep, nextTurn };
const found = cases.find(({ id }) => id === caseId);
const figures = await found.measure(tools);
rmSync(storeDir, { recursive: true, force: true });
process.stdout.write(`${JSON.stringify(figures)}\n`);
if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain');
process.exit();
