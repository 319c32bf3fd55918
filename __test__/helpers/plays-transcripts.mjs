// Plays the transcripts that lie in a folder (first argument), eight at a time, and sends for each
// what came of it, as JSON text, with times and the session's id replaced.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isAddon, runs } from './under-test.mjs';

const AT_ONCE = 8;
const [folder] = process.argv.slice(2);
const script = fileURLToPath(new URL('../agents/replays-transcript.sh', import.meta.url));
const storeDir = join(folder, 'store');
runs.configure({ storeDir });

const partId = /^(text|reasoning|status)-\d+-(\d+)$/;
const isoTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function withoutTime(event) {
  if (event === null || event.id === undefined) return event;
  return { ...event, id: event.id.replace(partId, '$1-T-$2') };
}

function stored(sessionId) {
  const path = join(storeDir, `${sessionId}.jsonl`);
  if (!existsSync(path)) return null;
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
  return lines.map((line) => {
    const message = JSON.parse(line);
    if (message.id.startsWith(`assistant-${sessionId}-`)) {
      message.id = message.id.replace(sessionId, 'SID').replace(/\d+$/, 'T');
    }
    message.timestamp = message.timestamp.replace(isoTime, 'T');
    return message;
  });
}

function play(n, agentSessionId) {
  const sessionId = `transcript-${n}`;
  runs.startRun({
    sessionId,
    message: 'a question',
    agentSessionId,
    // The baseline knows no other way.
    errors: isAddon ? 'module' : undefined,
    agent: { command: '/bin/sh', args: [script, join(folder, `${n}`)] },
  });
  const events = [];
  return new Promise((resolve) => {
    runs.subscribeToRun(
      sessionId,
      (event) => {
        events.push(withoutTime(event));
        if (event !== null) return;
        const { status, exitCode } = runs.getActiveRun(sessionId);
        resolve(JSON.stringify({ events, status, exitCode, stored: stored(sessionId) }));
      },
      { replay: false },
    );
  });
}

process.once('message', async (agentSessionIds) => {
  const waiting = agentSessionIds.entries();
  const worker = async () => {
    for (const [n, agentSessionId] of waiting) {
      const result = await play(n, agentSessionId);
      await new Promise((resolve) => process.send([n, result], resolve));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  process.exit(0);
});
