// A worker thread that posts every warning.
import { parentPort } from 'node:worker_threads';
import { runs } from './under-test.mjs';

runs.onWarning((warning) => parentPort.postMessage(warning));
parentPort.postMessage('listening');
// Listening alone does not keep a thread alive.
setInterval(() => {}, 60_000);
