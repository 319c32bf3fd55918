// Ignores SIGTERM, and so does its child, and its child's child.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const depth = Number(process.argv[2] ?? 2);
process.on('SIGTERM', () => {});
const delta = `pid ${process.pid};`;
process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
if (depth > 0) spawn(process.execPath, [fileURLToPath(import.meta.url), depth - 1], { stdio: 'inherit' });
setInterval(() => {}, 1 << 30);
