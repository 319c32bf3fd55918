// An agent that says what the test tells it to, when the test says so. It dies with the test.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const socket = connect(process.env.E2E_STRINGS);
socket.write(`${JSON.stringify({ pid: process.pid, message: process.argv[2] })}\n`);
socket.on('error', () => process.exit()).on('close', () => process.exit());

createInterface({ input: socket })
  .on('error', () => {})
  .on('line', (line) => {
    const { out, err, exit } = JSON.parse(line);
    if (out !== undefined) process.stdout.write(out);
    if (err !== undefined) process.stderr.write(err);
    if (exit !== undefined) process.exit(exit);
  });
