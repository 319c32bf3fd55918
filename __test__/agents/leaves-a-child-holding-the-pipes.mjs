// Ends well, but its child keeps stdout and stderr open. `detached` gives the child a group of its own.
import { spawn } from 'node:child_process';

const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1 << 30)'], {
  stdio: ['ignore', 'inherit', 'inherit'],
  detached: process.argv[2] === 'detached',
});
const delta = `pid ${child.pid};`;
process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`, () => process.exit());
