// Servers are killed (SIGKILL) at random moments, alone or several on one store, some of them stopped
// before; the store is looked at after each.
import { fork } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import {
  chance,
  history,
  messagesWaitingIn,
  notesIn,
  play,
  processesWith,
  program,
  runs,
  shellAgent,
  temporaries,
  temporaryFolder,
  tried,
  until,
  useStore,
} from './helpers.mjs';

// A process that is killed while it notes a promise leaves half a line: that was no promise yet.
const promisesIn = (path) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));

/** A store with history, the servers that work on it, and what must be true of it. */
function scene(name) {
  const folder = temporaryFolder();
  const store = useStore({ cleanupGraceMs: 50, storeDir: join(folder, 'store') });
  const mark = `mark-${name}-${process.pid}`;
  // Runs of this process are told apart by their session, in whatever store.
  const [long, short, empty] = ['long', 'short', 'empty'].map((kind) => `${name}-${kind}`);
  const before = { [long]: history(400_000), [short]: history(3_000), [empty]: '' };
  const sessions = Object.keys(before);
  mkdirSync(store.dir);
  for (const session of sessions) store.write(session, before[session]);
  store.writeIndex(sessions.map((id) => ({ id, title: id, createdAt: 1, messageCount: 0, kept: [{}] })));
  const notes = [];

  function start() {
    const number = notes.length;
    notes.push(join(folder, `notes-${number}`));
    const setting = { storeDir: store.dir, sessions, notes: notes[number], name: `s${number}`, mark };
    const child = fork(program('busy-server.mjs'), [JSON.stringify(setting)], {
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const server = { child, answered: 0, errors: '' };
    child.on('message', () => {
      server.answered += 1;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      server.errors += text;
    });
    server.ended = new Promise((resolve) => {
      child.on('close', (code, signal) => resolve(signal ?? `${code}: ${server.errors}`));
    });
    return server;
  }

  /**
   * At any moment: nothing torn, nothing twice, history as it was, every promise kept. While servers
   * live, the last line may be under way, and a message that waits for another server be kept beside.
   */
  function check({ alive = false } = {}) {
    // In the order in which they go: from the promise to where it waits, and from there to the session.
    const promises = notes.filter(existsSync).flatMap(promisesIn);
    const waiting = messagesWaitingIn(store.dir);
    for (const session of sessions) {
      const text = store.read(session);
      expect(text.startsWith(before[session]), `${session} begins with its history`).toBe(true);
      const lines = text.split('\n');
      const last = lines.pop();
      if (!alive) expect(last, `${session} ends with a line end`).toBe('');
      const messages = lines.map((line) => JSON.parse(line));
      const byId = new Map(messages.map((message) => [message.id, message]));
      expect(byId.size, `${session} has no message twice`).toBe(messages.length);
      for (const message of waiting.filter((message) => message.session === session)) {
        if (!byId.has(message.id)) byId.set(message.id, JSON.parse(message.line));
      }
      for (const { id, content } of promises.filter((promise) => promise.session === session)) {
        expect(byId.get(id)?.content, `${session} has ${id}`).toBe(content);
        expect(byId.get(id)._streaming).toBeUndefined();
      }
    }
    expect(store.index().map(({ id, kept }) => [id, kept])).toEqual(sessions.map((id) => [id, [{}]]));
    return promises.length;
  }

  /** The next server works, and has put in order what the dead left. */
  async function expectOrder() {
    await until(() => processesWith(mark).length === 0, 'the agents of killed servers ended');
    for (const session of sessions) {
      // Another store may be in force by now.
      runs.configure({ storeDir: store.dir });
      const { text } = await play(shellAgent('says-numbers', 3), { sessionId: session });
      expect(text).toBe('1 2 3 ');
      expect(store.read(session).includes('_streaming'), `${session} has a stale mark`).toBe(false);
    }
    // A server looks for them when it starts, and every minute.
    const last = start();
    await until(() => last.answered >= sessions.length, 'a server worked on every session');
    last.child.kill('SIGTERM');
    await last.ended;
    expect(temporaries(store.dir)).toEqual([]);
    // This process has runs in the store, too, and keeps the notes of its own.
    expect(notesIn(store.dir).length).toBeLessThanOrEqual(1);
    expect(messagesWaitingIn(store.dir)).toEqual([]);
    return check();
  }

  return { store, start, check, expectOrder };
}

const KILLS = 210;
const LANES = 3;

it(`a server killed ${KILLS} times at random moments loses nothing that it had promised`, async () => {
  let kills = 0;
  let leftovers = 0;
  async function lane(number) {
    const random = chance(`crash-${number}`);
    const { store, start, check, expectOrder } = scene(`crash-${number}`);
    for (; kills < KILLS; kills += 1) {
      const server = start();
      const answers = random.below(4);
      await until(() => server.answered >= answers, `a server answered ${answers} times; ${server.errors}`);
      // Anywhere between two answers, before the first one, or before it has begun.
      await sleep(random.below(60));
      server.child.kill('SIGKILL');
      expect(await server.ended).toBe('SIGKILL');
      leftovers += temporaries(store.dir).length;
      check();
    }
    return expectOrder();
  }
  const promises = await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
  const total = promises.reduce((sum, count) => sum + count);
  tried('The server is killed (SIGKILL) at a random moment', kills, `${total} messages promised; ${leftovers} temporary files left and swept`);
});

const SERVERS = 4;
const ROUNDS = 30;
const STOPS = 5;

it(`${SERVERS} servers write the same sessions while some are stopped and killed`, async () => {
  const random = chance('several');
  const { start, check, expectOrder } = scene('several');
  const servers = Array.from({ length: SERVERS }, start);
  for (let round = 0; round < ROUNDS; round += 1) {
    const place = random.below(SERVERS);
    const victim = servers[place];
    const total = () => servers.reduce((sum, { answered }) => sum + answered, 0);
    const goal = total() + 5 + random.below(20);
    await until(() => total() >= goal, `the servers answered ${goal} times`);
    await sleep(random.below(20));
    if (round % (ROUNDS / STOPS) === 0) {
      // It may hold a lock: the others wait for it, and go on when it is killed.
      victim.child.kill('SIGSTOP');
      await sleep(random.below(200));
    }
    victim.child.kill('SIGKILL');
    expect(await victim.ended).toBe('SIGKILL');
    servers[place] = start();
    check({ alive: true });
  }
  for (const { child } of servers) child.kill('SIGKILL');
  await Promise.all(servers.map(({ ended }) => ended));
  const promises = await expectOrder();
  tried(
    `${SERVERS} servers on one store, one killed or stopped (SIGSTOP) and killed at a random moment, at times with a lock`,
    ROUNDS,
    `${promises} messages promised`,
  );
});
