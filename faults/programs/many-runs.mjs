// A server that has as many runs as it is asked for, a few at a time, with as many subscriptions each
// as it was told, some of which leave early; now and then its handles are left to the collector.
import { runs } from '../../__test__/helpers/under-test.mjs';

const { storeDir, subscriptions } = JSON.parse(process.argv[2]);
const script = new URL('./says-numbers.sh', import.meta.url).pathname;
runs.configure({ storeDir, persistIntervalMs: 5, cleanupGraceMs: 1 });
const AT_ONCE = 8;
const SAID = 20;
let number = 0;
let collected = 0;
const registry = new FinalizationRegistry(() => {
  collected += 1;
});

async function one() {
  number += 1;
  const sessionId = `run-${number}`;
  const run = runs.startRun({ sessionId, message: 'm', agent: { command: '/bin/sh', args: [script, `${SAID}`] } });
  registry.register(run);
  const heard = await Promise.all(
    Array.from({ length: subscriptions }, (_, place) =>
      new Promise((resolve) => {
        let count = 0;
        const leave = runs.subscribeToRun(
          sessionId,
          (event) => {
            if (event?.type === 'text-delta') count += 1;
            if (event === null) resolve(count);
            if (place % 10 === 9 && count === 5) {
              leave();
              resolve(SAID);
            }
          },
          { replay: place % 2 === 0 },
        );
      }),
    ),
  );
  if (heard.some((count) => count !== SAID)) throw new Error(`heard ${heard}`);
}

process.on('message', async (count) => {
  let left = count;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      await one();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  // Whatever the collector can take is gone when its callbacks have run.
  for (let turn = 0; turn < 20 && globalThis.gc; turn += 1) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  process.send({ done: count, number, collected, stats: runs.stats?.() });
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
