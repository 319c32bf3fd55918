// An app's own routes rewrite the session files beside running runs, on a machine that is busy, while
// servers are killed (SIGKILL): what was said is there.
import { fork } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { routesOf } from '../__test__/helpers/routes.mjs';
import { chance, history, inLanes, play, processesWith, program, runs, shellAgent, storeAt, temporaryFolder, tried, until } from './helpers.mjs';

const HOLDS = [0, 0, 1, 5, 15, 25, 40, 60, 120, 400];
const SESSIONS = 6;
const KILLS = 36;
const MANNERS = ['on the thread of the run’s server', 'with promises in that', 'in another process'];

/** Processes that do nothing but take the processors. */
function keepBusy() {
  for (let n = 0; n < 2 * availableParallelism(); n += 1) {
    const busy = fork(program('is-busy.mjs'), { stdio: 'ignore' });
    onTestFinished(() => void busy.kill('SIGKILL'));
  }
}

it(`of ${SESSIONS} sessions, beside runs and ${KILLS} kills, lose nothing`, async () => {
  keepBusy();
  const folder = temporaryFolder();
  const store = storeAt(join(folder, 'store'));
  mkdirSync(store.dir);
  const mark = `mark-routes-${process.pid}`;
  const total = { posts: 0, answers: 0, kills: 0 };
  const lanes = Array.from({ length: SESSIONS }, (_, n) => ({
    session: `s${n}`,
    manner: MANNERS[n % MANNERS.length],
    before: history(n < MANNERS.length ? 5_000 : 1_000_000),
    random: chance(`routes-${n}`),
  }));
  await inLanes(SESSIONS, lanes, async ({ session, manner, before, random }) => {
    store.write(session, before);
    const notes = join(folder, `${session}.notes`);
    const promises = () =>
      existsSync(notes) ? readFileSync(notes, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line)) : [];
    const check = (what) => {
      const text = store.read(session);
      expect(text.startsWith(before), `${session} begins with its history, ${what}`).toBe(true);
      const messages = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
      const byId = new Map(messages.map((message) => [message.id, message]));
      expect(byId.size, `${session} has no message twice, ${what}`).toBe(messages.length);
      for (const { id, content } of promises()) expect(byId.get(id)?.content, `${session} has ${id}, ${what}`).toBe(content);
    };
    const isThere = (id, content) =>
      store.messages(session).some((message) => message.id === id && message.content === content);
    for (let kill = 0; kill < KILLS / SESSIONS; kill += 1) {
      const isElsewhere = manner === MANNERS[2];
      const setting = {
        storeDir: store.dir,
        session,
        notes,
        mark,
        name: `k${kill}`,
        interval: random.pick([1, 10, 100, 2_000]),
        holds: isElsewhere ? [] : Array.from({ length: 100 }, () => random.pick(HOLDS)),
        isSync: manner === MANNERS[0],
      };
      const child = fork(program('server-with-routes.mjs'), [JSON.stringify(setting)], { stdio: ['pipe', 'inherit', 'inherit', 'ipc'] });
      onTestFinished(() => void child.kill('SIGKILL'));
      const goal = 1 + random.below(3);
      let answers = 0;
      let isWaiting = isElsewhere;
      child.on('message', (message) => {
        if (message === 'answered') answers += 1;
        else isWaiting = true;
      });
      const ended = new Promise((resolve) => {
        child.on('close', (code, signal) => resolve(signal ?? code));
      });
      const routes = routesOf(store.dir, false);
      for (let n = 0; ; n += 1) {
        await until(() => isWaiting || child.exitCode !== null, 'a route was done');
        if (answers >= goal) break;
        await sleep(random.below(100));
        if (isElsewhere) {
          const message = { id: `k${kill}-${n}`, role: 'user', content: 'posted' };
          await routes.post(session, message, random.pick(HOLDS));
          appendFileSync(notes, `${JSON.stringify(message)}\n`);
        } else {
          isWaiting = false;
          child.send('go on');
        }
      }
      // A route that is killed when it has emptied the file has lost it itself, so they rest now; and what one
      // took out that had read the file before is put back.
      const lost = () => promises().filter(({ id, content }) => !isThere(id, content));
      await until(() => lost().length === 0, `${session} had all (${manner})`).catch((error) => {
        throw new Error(`${error.message}: it lacks ${JSON.stringify(lost())}`);
      });
      await sleep(random.below(100));
      child.kill('SIGKILL');
      expect(await ended).toBe('SIGKILL');
      total.kills += 1;
      check(`after kill ${kill} (${manner})`);
    }
    total.posts += promises().filter(({ role }) => role === 'user').length;
    total.answers += promises().filter(({ role }) => role !== 'user').length;
  });
  await until(() => processesWith(mark).length === 0, 'the agents of killed servers ended');
  runs.configure({ storeDir: store.dir, cleanupGraceMs: 50 });
  for (const { session } of lanes) {
    await play(shellAgent('says-numbers', 3), { sessionId: session });
    expect(store.read(session)).not.toContain('_streaming');
  }
  expect(total.answers).toBeGreaterThan(0);
  tried(
    'An app’s own routes that rewrite files beside runs, on a busy machine, servers killed (SIGKILL) in between',
    total.posts,
    `messages posted ${MANNERS.join(', ')}, up to 400 ms between emptying and writing; ${total.answers} answers, ${total.kills} kills`,
  );
});
