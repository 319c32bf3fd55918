// Does what the test at the other end of the socket (first argument) says, one command a line.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const strings = connect(process.argv[2]);
const reply = (message) => strings.write(`${JSON.stringify(message)}\n`);

strings.on('connect', () => reply({ hello: { pid: process.pid } }));
strings.on('error', () => process.exit());
createInterface({ input: strings })
  .on('line', (line) => {
    const { out, err, exit, die, ignore } = JSON.parse(line);
    if (out !== undefined) process.stdout.write(out, () => reply({ done: true }));
    if (err !== undefined) process.stderr.write(err, () => reply({ done: true }));
    if (exit !== undefined) process.exit(Number(exit));
    if (die !== undefined) process.kill(process.pid, die);
    if (ignore !== undefined) {
      process.on(ignore, () => reply({ signal: ignore }));
      reply({ done: true });
    }
  })
  .on('close', () => process.exit());
