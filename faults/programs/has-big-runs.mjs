// A server that has big runs, one after the other, each read in the way that it is told: by a subscriber
// ("callback") or as a stream of bytes ("stream"). Says when the grace period of the last one is over.
import { runs } from '../../__test__/helpers/under-test.mjs';

const { storeDir, times, bytes, how } = JSON.parse(process.argv[2]);
const GRACE = 300;
const DELTA = 1_000;
runs.configure({ storeDir, cleanupGraceMs: GRACE });
const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'x'.repeat(DELTA) } });
const agent = { command: '/bin/sh', args: ['-c', 'yes "$1" | head -n "$2"', 'sh', line, `${bytes / DELTA}`] };

const read = {
  callback: (sessionId) =>
    new Promise((resolve) => {
      let length = 0;
      runs.subscribeToRun(sessionId, (event) => {
        if (event?.type === 'text-delta') length += event.delta.length;
        if (event === null) resolve(length);
      });
    }),
  async stream(sessionId) {
    let length = 0;
    for await (const chunk of runs.createRunStream(sessionId, { protocol: 'ai-sdk' })) length += chunk.length;
    return length;
  },
};
const isForgotten = (sessionId) => runs.getActiveRun(sessionId) === undefined;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The answers are not what is measured: they go, as soon as the runs are over. */
async function forget(sessionId) {
  while (!isForgotten(sessionId)) await pause(50);
  await runs.deleteSession(sessionId);
}

process.once('message', async () => {
  const forgotten = [];
  for (let n = 0; n < times; n += 1) {
    const sessionId = `big-${n}`;
    runs.startRun({ sessionId, message: 'm', agent });
    const length = await read[how](sessionId);
    if (length < bytes) throw new Error(`${length} bytes were read of run ${n}`);
    forgotten.push(forget(sessionId));
  }
  await Promise.all(forgotten);
  process.send({ stats: runs.stats() });
});
process.on('disconnect', () => process.exit());
process.send({ ready: true });
