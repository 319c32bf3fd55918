// Browsers, in a process of their own: `node http-readers.mjs PORT READERS RUNS` opens so many connections, each to the
// stream of one of the runs `s-0`, `s-1`, …, says "open" when all have been answered, and ends when all are at their end.
import { request } from 'node:http';

const [port, readers, runs] = process.argv.slice(2).map(Number);
let opening = readers;
for (let reader = 0; reader < readers; reader++) {
  const options = { port, host: '127.0.0.1', path: `/s-${reader % runs}`, agent: false };
  request(options, (response) => {
    if (--opening === 0) process.send('open');
    response.resume();
  }).end();
}
process.once('beforeExit', () => process.disconnect());
process.channel.unref();
