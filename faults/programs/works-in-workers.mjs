// A server whose worker threads start runs, subscribe to those of others, and are terminated at
// random, as many as it is asked for.
import { Worker } from 'node:worker_threads';
import { runs } from '../../__test__/helpers/under-test.mjs';
import { chance } from '../chance.mjs';

const { storeDir, mark } = JSON.parse(process.argv[2]);
const random = chance('workers');
runs.configure({ storeDir, persistIntervalMs: 5, cleanupGraceMs: 10, killAfterMs: 50, pipeGraceMs: 20 });
let number = 0;

async function one() {
  number += 1;
  const own = `own-${number}`;
  const other = `other-${number}`;
  const started = runs.startRun({
    sessionId: other,
    message: 'm',
    agent: { command: '/bin/sh', args: [new URL('./says-numbers.sh', import.meta.url).pathname, '300', mark] },
  });
  const heard = new Promise((resolve) => {
    const deltas = [];
    runs.subscribeToRun(other, (event) => {
      if (event?.type === 'text-delta') deltas.push(event.delta);
      if (event === null) resolve(deltas.length);
    });
  });
  const worker = new Worker(new URL('./worker-that-is-terminated.mjs', import.meta.url), {
    workerData: { own, other, mark },
  });
  const word = new Promise((resolve) => worker.once('message', resolve));
  if (random.below(3) > 0) await Promise.race([word, new Promise((resolve) => worker.once('exit', resolve))]);
  const turns = random.below(20);
  for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
  await worker.terminate();
  if ((await heard) !== 300) throw new Error('the main thread lost events');
  if (started.status !== 'completed') throw new Error(`${started.status}`);
  // The run of a worker that is gone belongs to the process.
  runs.abortRun(own);
  await new Promise((resolve) => {
    if (runs.subscribeToRun(own, (event) => event === null && resolve()) === null) resolve();
  });
}

process.on('message', async (count) => {
  for (let left = count; left > 0; left -= 1) await one();
  globalThis.gc?.();
  process.send({ done: count });
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
