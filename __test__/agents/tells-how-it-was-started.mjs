// Says, as JSON, how it was started: arguments, working directory, environment, stdin.
import { fstatSync, readFileSync } from 'node:fs';

let stdin;
try {
  stdin = { bytes: readFileSync(0).length, isPipe: fstatSync(0).isFIFO() };
} catch (error) {
  stdin = error.code;
}
const [program, script, ...args] = process.argv;
const delta = JSON.stringify({ program, script, args, cwd: process.cwd(), env: process.env, stdin });
process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
