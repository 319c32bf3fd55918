// Writes to stderr: its second argument, as many MiB of noise as its first says, its third.
import { once } from 'node:events';

const [mib, first, last] = process.argv.slice(2);
const noise = 'the quick brown fox jumps over the lazy dog, and that is all\n'.repeat(17_500).slice(0, 1 << 20);
process.stderr.write(`${first}\n`);
for (let n = 0; n < Number(mib); n += 1) {
  if (!process.stderr.write(noise)) await once(process.stderr, 'drain');
}
process.stderr.write(`\n${last}\n`);
