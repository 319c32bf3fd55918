// The main job, as many times as the first argument says, and a little of everything else; for a
// memory checker, under which nothing may take long.
import { runs } from '../../__test__/helpers/under-test.mjs';

const [times, storeDir] = [Number(process.argv[2]), process.argv[3]];
const says = new URL('./says-numbers.sh', import.meta.url).pathname;
const bad = new URL('./as-it-is-told.sh', import.meta.url).pathname;
const shell = (...args) => ({ command: '/bin/sh', args });
runs.configure({ storeDir, persistIntervalMs: 1, cleanupGraceMs: 1, pipeGraceMs: 1, killAfterMs: 50 });

const ended = (sessionId) => new Promise((resolve) => runs.subscribeToRun(sessionId, (event) => event === null && resolve()));

for (let n = 0; n < times; n += 1) {
  runs.persistUserMessage('s', { id: `u${n}`, content: 'x'.repeat(1_000) });
  runs.startRun({ sessionId: 's', message: 'm', agent: shell(says, '50') });
  runs.subscribeToRun('s', () => {
    throw new Error('swallowed');
  });
  const leave = runs.subscribeToRun('s', () => leave());
  await ended('s');
  void runs.getActiveRun('s')?.eventBuffer;
  runs.startRun({ sessionId: 'failed', message: 'm', agent: { command: '/no/such/agent' } });
  runs.startRun({ sessionId: 'aborted', message: 'm', agent: shell(bad, 'waits') });
  runs.abortRun('aborted');
  await Promise.all([ended('failed'), ended('aborted')]);
  await runs.upsertMessages('s', [{ id: `u${n}`, role: 'user', content: 'y' }]);
  await runs.readMessages('s');
}
