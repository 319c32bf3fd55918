// A server that starts runs and aborts them at random, as many as it is asked for, a few at a time,
// and says what it heard of them. Asked for nothing more, it collects its garbage.
import { fileURLToPath } from 'node:url';
import { runs } from '../../__test__/helpers/under-test.mjs';
import { chance } from '../chance.mjs';

const { storeDir, name, mark, seconds } = JSON.parse(process.argv[2]);
const script = fileURLToPath(new URL('./as-it-is-told.sh', import.meta.url));
const MANNERS = ['waits', 'waits', 'is-stubborn', 'stops', 'ends', 'fails', 'closes-stdout', 'is-killed', 'leaves-a-child', 'is-silent'];
const ENDLESS = ['waits', 'is-stubborn', 'stops', 'closes-stdout'];
const AT_ONCE = 12;

runs.configure({ storeDir, persistIntervalMs: 5, cleanupGraceMs: 10, killAfterMs: 50, pipeGraceMs: 20 });
const random = chance(name);
let number = 0;

async function one() {
  const sessionId = `${name}-${number % 20}-${(number += 1)}`;
  const manner = random.pick(MANNERS);
  runs.startRun({ sessionId, message: 'm', agent: { command: '/bin/sh', args: [script, manner, mark, seconds] } });
  let ends = 0;
  const ended = new Promise((resolve) => {
    runs.subscribeToRun(
      sessionId,
      (event) => {
        if (ends > 0) throw new Error(`${sessionId} went on after its end`);
        if (event !== null) return;
        ends += 1;
        resolve();
      },
      { replay: false },
    );
  });
  if (ENDLESS.includes(manner) || random.below(2) === 0) {
    const turns = random.below(30);
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
    runs.abortRun(sessionId);
  }
  await ended;
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
  globalThis.gc?.();
  process.send({ done: count });
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
