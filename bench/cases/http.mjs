// Many readers of many live runs, over real HTTP, each with a connection of its own.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { routeStream } from '../route.mjs';

const READERS = fileURLToPath(new URL('../http-readers.mjs', import.meta.url));
const SECONDS = 5;

/** How a route hands a stream to `node:http`. */
function send(stream, response) {
  const body = Readable.fromWeb(stream);
  response.on('close', () => body.destroy());
  body.on('error', () => {}).pipe(response);
}

const asStream = (api, sessionId, response) => {
  response.flushHeaders();
  send(api.createRunStream?.(sessionId) ?? routeStream(api, sessionId), response);
};
const asPipe = (api, sessionId, response) => {
  if (api.pipeRun) return api.pipeRun(sessionId, response);
  return asStream(api, sessionId, response);
};

/** So many readers of so many runs, to their end; `around` measures from the moment when all are connected. */
async function read({ api, start }, { runs, rate, readers, answer }, around) {
  const server = createServer((request, response) => answer(api, request.url.slice(1), response));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  for (let run = 0; run < runs; run++) start(`s-${run}`, 'pace', rate * (SECONDS + 3), 8, rate);
  const client = fork(READERS, [server.address().port, readers, runs].map(String));
  const ended = once(client, 'exit');
  await once(client, 'message');
  const result = await around(() => new Promise((resolve) => setTimeout(resolve, SECONDS * 1_000)));
  await ended;
  server.close();
  return result;
}

/** Two cases: the timer that finds stalls is work as well. */
function readersOf(id, title, how, bars) {
  return [
    {
      id,
      title,
      figures: [{ key: 'cpu', label: `${title}: CPU`, unit: '%', bar: bars.cpu }],
      async measure(tools) {
        const { cpuS } = await read(tools, how, tools.busy);
        return { cpu: (cpuS / SECONDS) * 100 };
      },
    },
    {
      id: `${id}-stall`,
      title,
      figures: [{ key: 'stall', label: 'the same: longest stall', unit: 'ms', bar: bars.stall }],
      measure: async (tools) => ({ stall: await read(tools, how, tools.longestStall) }),
    },
  ];
}

const half = { ratio: { atMost: 1 / 2 } };
const less = { ratio: { atMost: 0.6 } };

export const http = [
  ...readersOf(
    'http-fast',
    '5 runs of 500 deltas/s, 120 SSE readers over HTTP',
    { runs: 5, rate: 500, readers: 120, answer: asStream },
    { cpu: less, stall: half },
  ),
  ...readersOf(
    'http-many',
    '20 runs of 50 deltas/s, 200 SSE readers over HTTP',
    { runs: 20, rate: 50, readers: 200, answer: asStream },
    { cpu: less, stall: half },
  ),
  ...readersOf(
    'http-pipe',
    '20 runs of 50 deltas/s, 1,000 readers, `pipeRun`',
    { runs: 20, rate: 50, readers: 1_000, answer: asPipe },
    { cpu: less, stall: half },
  ),
];
