// Starts a child that shares none of its pipes; both wait to be stopped.
import { spawn } from 'node:child_process';

const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1 << 30)'], { stdio: 'ignore' });
const delta = `pid ${process.pid};pid ${child.pid};`;
process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
setInterval(() => {}, 1 << 30);
