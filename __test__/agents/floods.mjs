// Says the numbers from 0 up to its first argument, as fast as the pipe takes them.
import { once } from 'node:events';

const count = Number(process.argv[2]);
let batch = '';
for (let n = 0; n < count; n += 1) {
  batch += `{"event":"agent","stream":"assistant","data":{"delta":"${n} "}}\n`;
  if (batch.length > 60_000 || n === count - 1) {
    if (!process.stdout.write(batch)) await once(process.stdout, 'drain');
    batch = '';
  }
}
