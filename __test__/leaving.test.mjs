// The transport for browsers, where a page goes and where connections last less long than an agent thinks.
import { createServer } from 'node:http';
import { expect, it, onTestFinished } from 'vitest';
import { RunChatTransport } from '../client.js';
import { until } from './helpers/index.mjs';

/** Serves on a free port until the test ends. Returns the address. */
async function serve(onRequest) {
  const server = createServer(onRequest);
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

const frame = (id, chunk) => `id: ${id}\ndata: ${JSON.stringify(chunk)}\n\n`;

it('reads no further a chat that is left, and does not stop its run', async () => {
  const requests = [];
  let connections = 0;
  const url = await serve((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    connections += 1;
    response.on('close', () => (connections -= 1));
    response.writeHead(200, { 'x-run-id': '1' });
    response.write(frame('1-0', { type: 'start', messageId: 'm' }));
  });
  const transport = new RunChatTransport({ api: `${url}/api/chat` });
  const chat = new AbortController();
  const stream = await transport.reconnectToStream({ chatId: 'c', abortSignal: chat.signal });
  const reader = stream.getReader();
  expect((await reader.read()).value).toMatchObject({ type: 'start' });
  const next = reader.read();
  transport.leave('another');
  transport.leave('c');
  await expect(next).rejects.toMatchObject({ name: 'AbortError' });
  await until(() => connections === 0, 'the connection is closed');

  // Who comes back reads on, whatever the chat that is gone does.
  const again = (await transport.reconnectToStream({ chatId: 'c' })).getReader();
  chat.abort();
  expect((await again.read()).value).toMatchObject({ type: 'start' });
  transport.leave('c');
  await expect(again.read()).rejects.toMatchObject({ name: 'AbortError' });
  await until(() => connections === 0, 'the connection is closed');
  expect(requests).toEqual(['GET /api/chat/c/stream', 'GET /api/chat/c/stream']);
});

it('takes a connection that brings heartbeats for one that works, however often it is cut', async () => {
  // No server: what has come must have been read before the connection is cut, which no server can know.
  const bodies = [frame('1-0', { type: 'start', messageId: 'm' }), ...Array(3).fill(': keepalive\n\n'), frame('1-1', { type: 'finish' })];
  async function fetch() {
    const pieces = [new TextEncoder().encode(bodies.shift())];
    const body = new ReadableStream(
      {
        pull(controller) {
          const piece = pieces.shift();
          if (piece) controller.enqueue(piece);
          else controller.error(new TypeError('network error'));
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(body, { headers: { 'x-run-id': '1' } });
  }
  const attempts = [];
  const transport = new RunChatTransport({ fetch, onReconnect: ({ attempt }) => attempts.push(attempt) });
  const types = [];
  for await (const { type } of await transport.reconnectToStream({ chatId: 'c' })) types.push(type);
  expect(types).toEqual(['start', 'finish']);
  expect(attempts).toEqual([1, 1, 1, 1]);
});
