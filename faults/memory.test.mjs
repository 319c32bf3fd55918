// What ended runs leave in memory, without anybody calling for a collection.
import { fork } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { MIB, program, resources, temporaryFolder, tried } from './helpers.mjs';

const RUNS = 100;
const BYTES = 10_000_000;
/** How much more than at the start may be resident, and when. */
const BOUND = 60 * MIB;
const AFTER_MS = 5_000;

/** A server that has its runs read in one way: its resident memory before, at most, and after. */
async function memoryOf(how) {
  const setting = { storeDir: join(temporaryFolder(), 'store'), times: RUNS, bytes: BYTES, how };
  const child = fork(program('has-big-runs.mjs'), [JSON.stringify(setting)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const message = () =>
    new Promise((resolve, reject) => {
      child.once('message', resolve).once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
    });
  await message();
  const resident = () => resources(child.pid).rss;
  const before = resident();
  let most = 0;
  const looks = setInterval(() => {
    most = Math.max(most, resident());
  }, 20);
  onTestFinished(() => clearInterval(looks));
  child.send('go');
  const { stats } = await message();
  clearInterval(looks);
  expect(stats).toMatchObject({ events: 0, bufferedBytes: 0, runs: { running: 0, completed: 0, error: 0 } });
  await sleep(AFTER_MS);
  return { before, most, after: resident() };
}

it(`${RUNS} runs of ${BYTES / 1e6} MB are given back, however they were read`, async () => {
  const ways = { callback: 'a subscriber', stream: 'a stream' };
  const measured = await Promise.all(Object.keys(ways).map(memoryOf));
  for (const [n, how] of Object.keys(ways).entries()) {
    const { before, most, after } = measured[n];
    expect((after - before) / MIB, `MiB more ${AFTER_MS} ms after the grace period, with ${ways[how]} each`).toBeLessThan(BOUND / MIB);
    const mib = (bytes) => Math.round(bytes / MIB);
    tried(
      `Runs of ${BYTES / 1e6} MB, ended, their memory not collected by anybody`,
      RUNS,
      `with ${ways[how]} each: ${mib(before)} MiB before, ${mib(most)} at most, ${mib(after)} at ${AFTER_MS / 1_000} s after the grace period`,
    );
  }
});
