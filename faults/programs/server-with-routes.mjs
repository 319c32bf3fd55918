// A server that runs turn after turn of one session, and has routes that post to it meanwhile, until it is
// killed. What is to be kept it notes in a file of its own, before anything else happens (JSON lines, as in
// the session's file). Between two posts it waits until it is told to go on.
import { appendFileSync } from 'node:fs';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { routesOf } from '../../__test__/helpers/routes.mjs';
import { runs } from '../../__test__/helpers/under-test.mjs';

const { storeDir, session, notes, mark, name, interval, holds, isSync } = JSON.parse(process.argv[2]);
runs.configure({ storeDir, persistIntervalMs: interval, cleanupGraceMs: 5_000 });
process.on('disconnect', () => process.exit());

const keep = (message) => appendFileSync(notes, `${JSON.stringify(message)}\n`);
const agent = {
  command: '/bin/sh',
  args: [fileURLToPath(new URL('./says-numbers-slowly.sh', import.meta.url)), '40', mark],
};

async function answerForEver() {
  for (;;) {
    const run = runs.startRun({ sessionId: session, message: 'a question', agent });
    let content = '';
    await new Promise((resolve) => {
      runs.subscribeToRun(session, (event) => {
        content += event?.type === 'text-delta' ? event.delta : '';
        if (event === null) resolve();
      });
    });
    keep({ id: run.accumulated.id, role: 'assistant', content });
    process.send('answered');
  }
}

async function postForEver() {
  const routes = routesOf(storeDir, isSync);
  for (let n = 0; holds.length > 0; n += 1) {
    const message = { id: `${name}-${n}`, role: 'user', content: 'posted' };
    await routes.post(session, message, holds[n % holds.length]);
    keep(message);
    process.send('posted');
    await once(process, 'message');
  }
}

await Promise.all([answerForEver(), postForEver()]);
