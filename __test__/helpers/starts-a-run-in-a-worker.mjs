// A worker thread that starts a run, posts its events, and calls process.exit when it hears `exitOn`.
import { parentPort, workerData } from 'node:worker_threads';
import { runs } from './under-test.mjs';

const { sessionId, agent, exitOn } = workerData;
runs.startRun({ sessionId, message: 'a question', agent });
runs.subscribeToRun(sessionId, (event) => {
  parentPort.postMessage(event);
  if (exitOn && event?.delta === exitOn) process.exit();
});
