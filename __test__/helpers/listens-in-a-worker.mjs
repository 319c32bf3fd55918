// A worker thread that subscribes to a session's run and posts every event.
import { parentPort, workerData } from 'node:worker_threads';
import { runs } from './under-test.mjs';

runs.subscribeToRun(workerData.sessionId, (event) => parentPort.postMessage(event));
