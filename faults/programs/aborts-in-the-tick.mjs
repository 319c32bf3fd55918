// Starts runs, as many as it is told, one after the other, and aborts each in the tick of its start; tells
// how many agents printed something all the same. The package, or the JavaScript baseline (see
// `under-test.mjs`).
import { runs } from '../../__test__/helpers/under-test.mjs';

const { storeDir, times, mark } = JSON.parse(process.argv[2]);
runs.configure({ storeDir, cleanupGraceMs: 1 });
const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'word' } });
const agent = { command: '/bin/sh', args: ['-c', 'echo "$1"; exec sleep 1000', 'sh', line, mark] };

let printed = 0;
for (let n = 0; n < times; n += 1) {
  const sessionId = `${n}`;
  runs.startRun({ sessionId, message: 'm', agent });
  runs.abortRun(sessionId);
  await new Promise((resolve) => {
    runs.subscribeToRun(sessionId, (event) => {
      if (event?.type === 'text-delta' && event.delta === 'word') printed += 1;
      if (event === null) resolve();
    });
  });
}
process.send({ printed }, () => process.exit());
