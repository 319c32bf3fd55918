// A worker thread that starts a run, subscribes to it and to another, and is terminated from outside.
import { parentPort, workerData } from 'node:worker_threads';
import { runs } from '../../__test__/helpers/under-test.mjs';

const { own, other, mark } = workerData;
const agent = { command: '/bin/sh', args: [new URL('./as-it-is-told.sh', import.meta.url).pathname, 'waits', mark] };
runs.startRun({ sessionId: own, message: 'm', agent });
for (const session of [own, other]) runs.subscribeToRun(session, () => parentPort.postMessage('heard'));
