// An agent that says again what another one said: it writes the lines of a recorded transcript, with the pauses that
// their `ts` (ms) tells of, none longer than a quarter of a second.
import { open } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

try {
  const transcript = await open(process.argv[2]);
  let before;
  for await (const line of transcript.readLines()) {
    const ts = Number(/"ts":(\d+)\}?\s*$/.exec(line)?.[1] ?? before);
    if (ts > before) await pause(Math.min(ts - before, 250));
    before = ts;
    process.stdout.write(`${line}\n`);
  }
} catch (error) {
  console.error(`Error: the transcript cannot be read: ${error.message}`);
  process.exitCode = 1;
}
