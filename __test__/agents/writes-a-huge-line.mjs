// Writes one line of as many MiB as its first argument says, then an ordinary one.
import { once } from 'node:events';

const MIB = 'x'.repeat(1 << 20);
const line = (delta) => `{"event":"agent","stream":"assistant","data":{"delta":"${delta}"}}\n`;
const [head, tail] = line('|').split('|');
process.stdout.write(line('before '));
process.stdout.write(head);
for (let n = 0; n < Number(process.argv[2]); n += 1) {
  if (!process.stdout.write(MIB)) await once(process.stdout, 'drain');
}
process.stdout.write(tail);
process.stdout.write(line('after'));
