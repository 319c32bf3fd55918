// A server at work on the sessions of a store, until it is killed: questions, answers, and lines
// that other programs would write. What it was promised to be kept, it notes in a file of its own
// (JSON lines, written before anything else happens): `{session, id, content}`.
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runs } from '../../__test__/helpers/under-test.mjs';

const { storeDir, sessions, notes, name, mark } = JSON.parse(process.argv[2]);
const agentScript = fileURLToPath(new URL('./says-numbers.sh', import.meta.url));
runs.configure({ storeDir, persistIntervalMs: 1, cleanupGraceMs: 50 });

const keep = (note) => appendFileSync(notes, `${JSON.stringify(note)}\n`);
const answer = (count) => Array.from({ length: count }, (_, n) => `${n + 1} `).join('');

function ask(session, id) {
  const content = `${id} `.repeat(1 + (id.length * 7) % 40);
  for (;;) {
    try {
      runs.persistUserMessage(session, { id, content });
      break;
    } catch (error) {
      // Another server holds the file's lock, and is stopped.
      if (error.code !== 'STORE_FAILED') throw error;
    }
  }
  keep({ session, id, content });
}

function hear(session, count) {
  const run = runs.startRun({
    sessionId: session,
    message: 'a question',
    agent: { command: '/bin/sh', args: [agentScript, `${count}`, mark] },
  });
  return new Promise((resolve) => {
    runs.subscribeToRun(session, (event) => {
      if (event !== null) return;
      if (runs.getActiveRun(session).status !== 'completed') throw new Error('a run failed');
      keep({ session, id: run.accumulated.id, content: answer(count) });
      resolve();
    });
  });
}

async function converse(session) {
  for (let n = 0; ; n += 1) {
    ask(session, `${name}-${session}-${n}`);
    await hear(session, 1 + ((n * 13) % 60));
    process.send?.('answered');
  }
}

process.on('disconnect', () => process.exit());
await Promise.all(sessions.map(converse));
