// What is too big for a string of JavaScript: nothing that an agent prints may throw in the event loop.
import { describe, expect } from 'vitest';
import { better, server, temporaryFolder } from './helpers/index.mjs';

/** A tool's arguments or result of numbers that are longer when they are printed again: 40 MiB become 176. */
const grows = (data) => `
  const numbers = '1e20,'.repeat(1 << 20);
  const [head, tail] = JSON.stringify({ event: 'agent', stream: 'tool', data: ${data} }).split('"HERE"');
  const write = (n) => n < 8 ? process.stdout.write(numbers, () => write(n + 1)) : process.stdout.write('0]' + tail + '\\n');
  process.stdout.write(head + '[', () => write(0));`;

describe('a tool', () => {
  const left = expect.stringMatching(/^\[left out: longer than 134217728 bytes\]$/);
  const id = 'toolCallId';
  for (const [what, data, type, event, stored] of [
    [
      'called with more than an event may hold',
      `{ phase: 'start', ${id}: 't', name: 'x', args: { a: 'HERE' } }`,
      'tool-input-available',
      { input: { input: left } },
      { args: { input: left } },
    ],
    [
      'that comes back with more than an event may hold',
      `{ phase: 'result', ${id}: 't', result: { content: [], details: { results: 'HERE' } } }`,
      'tool-output-available',
      { output: { text: left } },
      { result: { text: left } },
    ],
    [
      'that fails with more than an event may hold',
      `{ phase: 'result', ${id}: 't', isError: true, result: { error: 'HERE' } }`,
      'tool-output-error',
      { errorText: left },
      { errorText: left },
    ],
  ]) {
    better(`${what} is told without it`, async () => {
      const host = server(
        async ({ runs, data: { agent, storeDir, type }, tell }) => {
          process.on('uncaughtException', (error) => tell({ uncaught: `${error}` }));
          runs.configure({ storeDir });
          const { command, args } = agent;
          const events = [];
          runs.startRun({ sessionId: 's', message: 'm', agent: { command, args } });
          await new Promise((done) => runs.subscribeToRun('s', (event) => (event === null ? done() : events.push(event))));
          const sse = await new Response(runs.createRunStream('s', { protocol: 'ai-sdk' })).text();
          const [{ parts }] = await runs.readMessages('s');
          await tell({ event: events.findLast((event) => event.type === type), parts, has: sse.includes('[left out: longer than'), last: events.at(-1) });
          process.exit();
        },
        {
          storeDir: temporaryFolder(),
          type,
          agent: {
            command: '/bin/sh',
            args: [
              '-c',
              `printf '%s\\n' '${JSON.stringify({ event: 'agent', stream: 'tool', data: { phase: 'start', toolCallId: 't', name: 'x' } })}'; "$1" -e "$2"; printf '%s\\n' '${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'and on' } })}'`,
              'sh',
              process.execPath,
              grows(data),
            ],
          },
        },
      );
      const told = await host.told();
      expect(told.uncaught).toBeUndefined();
      // Of two calls with one id, the last counts.
      expect(told.parts).toMatchObject([{ type: 'tool-invocation', toolCallId: 't', ...stored }, { type: 'text', text: 'and on' }]);
      expect(told.last).toMatchObject({ type: 'text-end' });
      expect(told.has).toBe(true);
      expect(told.event).toMatchObject(event);
    });
  }
});
