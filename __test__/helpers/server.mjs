// A server process of a test: runs the function it was handed as text.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { routesOf } from './routes.mjs';
import { modulePath, runs } from './under-test.mjs';

const data = JSON.parse(process.env.TEST_SERVER_DATA);
const body = (0, eval)(process.env.TEST_SERVER_BODY);
delete process.env.TEST_SERVER_DATA;
delete process.env.TEST_SERVER_BODY;
if (data.settings) runs.configure(data.settings);

const tell = (message) => new Promise((resolve) => process.send(message, resolve));
const hear = () => new Promise((resolve) => process.once('message', resolve));
const agent = (name, ...args) => ({
  command: process.execPath,
  args: [fileURLToPath(new URL(`../agents/${name}.mjs`, import.meta.url)), ...args.map(String)],
});
/** Resolves when the run has said `text`. */
const said = (sessionId, text) =>
  new Promise((resolve) => {
    let all = '';
    runs.subscribeToRun(sessionId, (event) => {
      if (event?.type === 'text-delta') all += event.delta;
      if (all.includes(text)) resolve();
    });
  });
/** Resolves with all events when the run has ended. */
const ended = (sessionId) =>
  new Promise((resolve) => {
    const events = [];
    runs.subscribeToRun(sessionId, (event) => {
      events.push(event);
      if (event === null) resolve(events);
    });
  });

await body({ runs, data, tell, hear, agent, said, ended, routesOf, modulePath, fs, path });
