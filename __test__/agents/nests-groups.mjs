// Starts a child in a group and session of its own, and so does that, as deep as the first argument
// says; the last one sleeps (second argument: seconds).
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [depth, seconds] = process.argv.slice(2);
const [command, ...args] =
  depth === '0' ? ['sleep', seconds] : [process.execPath, fileURLToPath(import.meta.url), Number(depth) - 1, seconds];
spawn(command, args, { detached: true, stdio: 'ignore' });
setInterval(() => {}, 1 << 30);
