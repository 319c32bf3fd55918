// Says the numbers from 0 to 99, ends, and leaves a file (first argument) as its last act.
import { writeFileSync } from 'node:fs';

const lines = Array.from(
  { length: 100 },
  (_, n) => `{"event":"agent","stream":"assistant","data":{"delta":"${n} "}}\n`,
);
process.stdout.write(lines.join(''), () => writeFileSync(process.argv[2], ''));
