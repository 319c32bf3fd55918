// An app's own routes, and other programs, that write a store's files beside running runs: nothing is lost.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  agent,
  isRoot,
  listen,
  newSession,
  play,
  puppet,
  runs,
  seededRandom,
  server,
  start,
  temporaryFolder,
  until,
  useStore,
} from './helpers/index.mjs';
import { routesOf } from './helpers/routes.mjs';

const json = (message) => `${JSON.stringify(message)}\n`;
const SHORT = Array.from({ length: 50 }, (_, n) => ({ id: `h${n}`, role: 'user', content: 'history' }));
const LONG = SHORT.map((message) => ({ ...message, content: 'history '.repeat(5_000) }));
const HOLDS = [0, 5, 25, 60, 120, 400];

/** In a random order. */
const shuffled = (random, items) =>
  items.map((item) => [random(), item]).sort(([a], [b]) => a - b).map(([, item]) => item);

/** All of them, once, in order; and the answers, once, somewhere behind the history. */
function expectAll(messages, wanted, texts) {
  const isAnswer = ({ role }) => role === 'assistant';
  expect(messages.filter((message) => !isAnswer(message)).map(({ id }) => id)).toEqual(wanted.map(({ id }) => id));
  for (const { id, content } of wanted) expect(messages.find((message) => message.id === id).content === content).toBe(true);
  const answers = messages.filter(isAnswer);
  expect(answers.map(({ content }) => content).sort()).toEqual([...texts].sort());
  for (const answer of answers) expect(answer).not.toHaveProperty('_streaming');
}

describe('a route that has emptied the file, and writes it a little later', () => {
  /** Posts to each session with every hold. Returns what was posted, by session. */
  const onThisThread = (isSync) => async (store, sessions, holds) => {
    const routes = routesOf(store.dir, isSync);
    const posted = new Map(sessions.map((sessionId) => [sessionId, []]));
    const conversation = async (sessionId) => {
      for (const hold of holds) {
        const message = { id: `p${hold}`, role: 'user', content: `after ${hold} ms` };
        await routes.post(sessionId, message, hold);
        posted.get(sessionId).push(message);
        await new Promise(setImmediate);
      }
    };
    await Promise.all(sessions.map(conversation));
    return posted;
  };
  const inAnotherProcess = async (store, sessions, holds) => {
    const body = async ({ data, tell, routesOf }) => {
      const routes = routesOf(data.dir, true);
      for (const hold of data.holds) {
        for (const sessionId of data.sessions) {
          routes.post(sessionId, { id: `p${hold}`, role: 'user', content: `after ${hold} ms` }, hold);
        }
      }
      await tell('done');
      process.exit();
    };
    const other = server(body, { dir: store.dir, sessions, holds });
    expect(await other.told()).toBe('done');
    const messages = holds.map((hold) => ({ id: `p${hold}`, role: 'user', content: `after ${hold} ms` }));
    return new Map(sessions.map((sessionId) => [sessionId, messages]));
  };

  describe.each([
    ['of 50 messages', SHORT],
    ['of 2 MB', LONG],
  ])('loses nothing of a history %s', (_, history) => {
    it.each([
      ['on the thread of the server', onThisThread(true)],
      ['with promises', onThisThread(false)],
      ['in another process', inAnotherProcess],
    ])('%s', async (__, post) => {
      const random = seededRandom();
      const store = useStore();
      const sessions = [10, 100, 2_000].map((persistIntervalMs) => {
        const sessionId = newSession();
        store.write(sessionId, history.map(json).join(''));
        runs.configure({ persistIntervalMs });
        start(agent('goes-on-saying', 3), { sessionId });
        return sessionId;
      });
      const listeners = sessions.map((sessionId) => listen(sessionId));
      for (const listener of listeners) await listener.has('1 ');

      let isOver = false;
      const reader = async (sessionId) => {
        let fewest = Infinity;
        while (!isOver) {
          const messages = await runs.readMessages(sessionId);
          fewest = Math.min(fewest, messages.filter(({ id }) => /^h\d/.test(id)).length);
        }
        return fewest;
      };
      const readers = sessions.map(reader);
      const posted = await post(store, sessions, shuffled(random, HOLDS));
      isOver = true;
      expect(await Promise.all(readers)).toEqual(sessions.map(() => history.length));

      sessions.forEach((sessionId) => runs.abortRun(sessionId));
      await Promise.all(listeners.map(({ ended }) => ended));
      sessions.forEach((sessionId, n) => {
        expectAll(store.messages(sessionId), [...history, ...posted.get(sessionId)], [listeners[n].text()]);
      });
    });
  });
});

it('two servers, each with runs and routes of the same two sessions: nothing is lost', async () => {
  const random = seededRandom();
  const store = useStore();
  const sessions = [newSession(), newSession()];
  for (const sessionId of sessions) store.write(sessionId, SHORT.map(json).join(''));
  const body = async ({ runs, data, agent, said, ended, tell, hear, routesOf }) => {
    const { sessions, mine, holds, settings } = data;
    const begin = async (sessionId) => {
      runs.startRun({ sessionId, message: 'm', agent: agent('goes-on-saying', 3) });
      await said(sessionId, '1 ');
    };
    await Promise.all(sessions.map(begin));
    await tell('ready');
    await hear();
    const routes = [true, false].map((isSync) => routesOf(settings.storeDir, isSync));
    for (const [n, hold] of holds.entries()) {
      await routes[n % 2].post(mine, { id: `p${hold}`, role: 'user', content: 'x' }, hold);
      await new Promise(setImmediate);
    }
    await tell('posted');
    await hear();
    const stop = async (sessionId) => {
      const events = ended(sessionId);
      runs.abortRun(sessionId);
      return (await events).map((event) => event?.delta ?? '').join('');
    };
    await tell(await Promise.all(sessions.map(stop)));
    process.exit();
  };
  const holds = shuffled(random, HOLDS);
  const hosts = [10, 100].map((persistIntervalMs, n) =>
    server(body, { sessions, mine: sessions[n], holds, settings: { storeDir: store.dir, persistIntervalMs } }),
  );
  for (const word of ['ready', 'posted']) {
    for (const host of hosts) expect(await host.told()).toBe(word);
    for (const host of hosts) host.send('go on');
  }
  const texts = await Promise.all(hosts.map(({ told }) => told()));
  for (const host of hosts) expect(await host.exited).toEqual({ code: 0, signal: null });
  const posted = holds.map((hold) => ({ id: `p${hold}`, content: 'x' }));
  sessions.forEach((sessionId, n) => {
    expectAll(store.messages(sessionId), [...SHORT, ...posted], texts.map((ofHost) => ofHost[n]));
  });
});

describe('routes that read, change and write the index', () => {
  /** What the routes do, one after the other, and what must be in the index then. */
  function plan(random, sessions, deletable, count) {
    const pick = (from) => from[Math.floor(random() * from.length)];
    const wanted = new Map([...sessions, ...deletable].map((sessionId) => [sessionId, {}]));
    const [mine, gone] = [[...deletable], []];
    const steps = Array.from({ length: count }, (_, n) => {
      const hold = pick([0, 0, 0, 5, 25]);
      const kind = pick(['create', 'set', 'post', 'post', 'post', 'delete']);
      if (kind === 'create' || mine.length === 0) {
        const sessionId = newSession();
        mine.push(sessionId);
        wanted.set(sessionId, { title: 'theirs' });
        return ['create', sessionId, hold];
      }
      if (kind === 'delete') {
        const [sessionId] = mine.splice(Math.floor(random() * mine.length), 1);
        wanted.delete(sessionId);
        gone.push(sessionId);
        return [kind, sessionId, hold];
      }
      const sessionId = pick([...wanted.keys()]);
      if (kind === 'post') return [kind, sessionId, { id: `p${n}`, role: 'user', content: 'posted' }, hold];
      const fields = pick([{ title: `title ${n}` }, { [`own${n}`]: [n] }]);
      Object.assign(wanted.get(sessionId), fields);
      return [kind, sessionId, fields, hold];
    });
    return { steps, wanted, gone };
  }

  const onThisThread = (isSync) => async (store, steps) => {
    const routes = routesOf(store.dir, isSync);
    for (const [kind, ...args] of steps) {
      await routes[kind](...args);
      if (kind === 'post') await routes.count(args[0], args.at(-1));
      await new Promise(setImmediate);
    }
  };
  const inAnotherProcess = async (store, steps) => {
    const body = async ({ data, tell, routesOf }) => {
      const routes = routesOf(data.dir, true);
      for (const [kind, ...args] of data.steps) {
        await routes[kind](...args);
        if (kind === 'post') routes.count(args[0], args.at(-1));
      }
      await tell('done');
      process.exit();
    };
    expect(await server(body, { dir: store.dir, steps }).told()).toBe('done');
  };

  it.each([
    ['on the thread of the server', onThisThread(true)],
    ['with promises', onThisThread(false)],
    ['in another process', inAnotherProcess],
  ])('%s: no session, field or count is lost, and what they delete stays deleted', async (_, doAll) => {
    const random = seededRandom();
    const store = useStore({ persistIntervalMs: 10 });
    const made = async (title) => (await runs.createSession({ title })).id;
    const answered = await Promise.all(['a', 'b', 'c'].map(made));
    const asked = await Promise.all(['d', 'e', 'f'].map(made));
    const { steps, wanted, gone } = plan(random, answered, await Promise.all(['g', 'h'].map(made)), 80);
    for (const sessionId of asked) wanted.set(sessionId, {});
    answered.forEach((sessionId) => start(agent('goes-on-saying', 3), { sessionId }));
    const listeners = answered.map((sessionId) => listen(sessionId));
    for (const listener of listeners) await listener.has('1 ');

    let isOver = false;
    const done = doAll(store, steps).finally(() => {
      isOver = true;
    });
    for (let n = 0; !isOver; n += 1) {
      for (const sessionId of asked) runs.persistUserMessage(sessionId, { id: `u${n}`, content: 'asked' });
      if (n % 5 === 0) wanted.set(await made(`ours ${n}`), { title: `ours ${n}` });
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await done;
    answered.forEach((sessionId) => runs.abortRun(sessionId));
    await Promise.all(listeners.map(({ ended }) => ended));

    const state = () => {
      const index = Object.fromEntries(store.index().map((entry) => [entry.id, entry]));
      return Object.fromEntries(
        [...wanted].map(([sessionId, fields]) => [
          sessionId,
          index[sessionId] && { fields: { ...index[sessionId], ...fields }, entry: index[sessionId], count: store.messages(sessionId).length },
        ]),
      );
    };
    const isRight = () =>
      Object.values(state()).every((found) => found && found.entry.messageCount === found.count) &&
      Object.values(state()).every(({ fields, entry }) => JSON.stringify(fields) === JSON.stringify(entry));
    await until(isRight, 'the index was complete').catch(() => undefined);
    for (const [sessionId, found] of Object.entries(state())) {
      expect(found, `${sessionId} is in the index`).toBeTruthy();
      expect(found.entry).toEqual(found.fields);
      expect([sessionId, found.entry.messageCount]).toEqual([sessionId, found.count]);
    }
    const ids = store.index().map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.filter((id) => gone.includes(id))).toEqual([]);
    expect(ids.sort()).toEqual([...wanted.keys()].sort());
    for (const [kind, sessionId, message] of steps) {
      if (kind === 'post' && !gone.includes(sessionId)) expect(store.read(sessionId)).toContain(`"id":"${message.id}"`);
    }
  });
});

/** Another program: perl, with a script that says a word when it is ready and ends when it is told to. */
async function program(script, ...paths) {
  const child = spawn('perl', ['-e', `$| = 1; ${script}; print "ready"; <STDIN>`, ...paths], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  onTestFinished(() => void child.kill('SIGKILL'));
  await Promise.race([once(child.stdout, 'data'), exited]);
  expect(child.exitCode).toBe(null);
  return {
    /** It ends by itself. */
    ends: () => {
      child.stdin.end();
      return exited;
    },
    dies: () => {
      child.kill('SIGKILL');
      return exited;
    },
  };
}
/** It holds the locks of these files. */
const holder = (...paths) =>
  program('use Fcntl ":flock"; for (@ARGV) { open($f, "<", $_) or die; flock($f, LOCK_EX) or die; push @held, $f; undef $f }', ...paths);

describe('a program', () => {
  it('that dies when it has emptied the file: what comes then is kept', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const sessionId = newSession();
    store.write(sessionId, SHORT.map(json).join(''));
    start(told.agent, { sessionId });
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    const route = await program('open(F, ">", $ARGV[0]) or die', store.path(sessionId));
    await told.say(' two');
    await route.dies();
    await told.say(' three');
    await told.exit();
    await listen(sessionId).ended;
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'next' });
    await until(() => store.read(sessionId).includes('"u1"'), 'the next message was there');
    expect(store.messages(sessionId).slice(-2)).toMatchObject([{ content: 'one two three' }, { id: 'u1' }]);
    expect(await runs.readMessages(sessionId)).toEqual(store.messages(sessionId));
  });

  it('that keeps the file open for ever: the answer gets there, and what it has appended when it closes', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const sessionId = newSession();
    store.write(sessionId, SHORT.map(json).join(''));
    const log = openSync(store.path(sessionId), 'a');
    let isOpen = true;
    onTestFinished(() => isOpen && closeSync(log));
    await play(agent('says', 'the answer'), { sessionId });
    expectAll(store.messages(sessionId), SHORT, ['the answer']);
    writeSync(log, json({ id: 'late', role: 'user', content: 'x' }));
    closeSync(log);
    isOpen = false;
    await until(() => store.read(sessionId).includes('"late"'), 'what was appended was taken over');
    expectAll(store.messages(sessionId), [...SHORT, { id: 'late', content: 'x' }], ['the answer']);
  });

  it('that has a second name for the file: that one stays as it was, and nothing is lost', async () => {
    const store = useStore();
    const sessionId = newSession();
    const history = SHORT.map(json).join('');
    store.write(sessionId, history);
    const copy = join(store.dir, 'copy');
    linkSync(store.path(sessionId), copy);
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'x' });
    runs.persistUserMessage(sessionId, { id: 'u2', content: 'x' });
    await play(agent('says', 'the answer'), { sessionId });
    expectAll(store.messages(sessionId), [...SHORT, { id: 'u1', content: 'x' }, { id: 'u2', content: 'x' }], ['the answer']);
    expect(readFileSync(copy, 'utf8')).toBe(history);
  });

  it('that has put a symbolic link in its place: what it leads to is not touched', async () => {
    const store = useStore({ cleanupGraceMs: 50 });
    const sessionId = newSession();
    const elsewhere = join(temporaryFolder(), 'elsewhere');
    writeFileSync(elsewhere, SHORT.map(json).join(''));
    symlinkSync(elsewhere, store.path(sessionId));
    const message = { id: 'u1', content: 'x' };
    expect(() => runs.persistUserMessage(sessionId, message)).toThrow(expect.objectContaining({ code: 'STORE_FAILED' }));
    await expect(runs.readMessages(sessionId)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect((await play(agent('says', 'the answer'), { sessionId })).text).toBe('the answer');
    expect(readFileSync(elsewhere, 'utf8')).toBe(SHORT.map(json).join(''));
  });

  // Root may write everything, unless it gives that up.
  const rights = 'dac_override,-dac_read_search';
  const asOthers = isRoot
    ? { execPath: 'setpriv', execArgv: [`--bounding-set=-${rights}`, `--inh-caps=-${rights}`, process.execPath] }
    : {};
  const noSetpriv = isRoot && spawnSync('setpriv', ['true']).status !== 0 ? ' (skipped: there is no setpriv)' : '';
  it.skipIf(noSetpriv)(`that has made the file read-only: it can be read, and the answer comes when it may be written${noSetpriv}`, async () => {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    chmodSync(store.path('s'), 0o444);
    const body = async ({ runs, agent, ended, hear, tell }) => {
      const codes = [];
      runs.onWarning(({ code }) => codes.push(code));
      let thrown;
      try {
        runs.persistUserMessage('s', { id: 'u1', content: 'x' });
      } catch (error) {
        thrown = error.code;
      }
      runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'the answer') });
      await ended('s');
      await tell({ thrown, codes, count: (await runs.readMessages('s')).length });
      await hear();
      process.exit();
    };
    const host = server(body, { settings: { storeDir: store.dir } }, asOthers);
    expect(await host.told()).toEqual({ thrown: 'STORE_FAILED', codes: ['STORE_FAILED'], count: SHORT.length });
    chmodSync(store.path('s'), 0o644);
    await until(() => store.read('s').includes('the answer'), 'the answer was written after all');
    host.send('end');
    await host.exited;
    expectAll(store.messages('s'), SHORT, ['the answer']);
  });
});

describe('a program that holds the locks of sessions', () => {
  it('holds up nothing but their answers; their messages are there at once, in order', async () => {
    const store = useStore();
    const held = Array.from({ length: 12 }, newSession);
    for (const sessionId of held) store.write(sessionId, SHORT.map(json).join(''));
    store.writeIndex(held.map((id) => ({ id, title: 'x', messageCount: SHORT.length })));
    const locks = await holder(...held.map(store.path));
    const asked = [1, 2, 3].map((n) => ({ id: `u${n}`, content: `question ${n}` }));
    for (const message of asked) {
      for (const sessionId of held) runs.persistUserMessage(sessionId, message);
    }
    for (const sessionId of held) start(agent('says', 'the answer'), { sessionId });
    const listeners = held.map((sessionId) => listen(sessionId));
    const free = await play(agent('says', 'free'));
    expect(store.messages(free.sessionId)).toMatchObject([{ content: 'free' }]);
    expect(await runs.readMessages(free.sessionId)).toHaveLength(1);
    expect(await runs.listSessions()).toHaveLength(12);
    for (const sessionId of held) expectAll(store.messages(sessionId), [...SHORT, ...asked], []);
    await locks.ends();
    await Promise.all(listeners.map(({ ended }) => ended));
    for (const sessionId of held) {
      await until(() => store.read(sessionId).includes('the answer'), 'the answer was written');
      expectAll(store.messages(sessionId), [...SHORT, ...asked], ['the answer']);
      expect(await runs.readMessages(sessionId)).toEqual(store.messages(sessionId));
    }
    await until(() => store.index().every(({ messageCount }) => messageCount === SHORT.length + 4), 'all were counted');
  });

  it('does not hold up who only reads', async () => {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    const lock = await holder(store.path('s'));
    expect(await runs.readMessages('s')).toEqual(SHORT);
    await lock.ends();
  });
});

describe('a process that ends while a route is in the middle of writing the file', () => {
  const waiting = (store) => readdirSync(store.dir).filter((name) => name.endsWith('.waiting'));
  const nothingWaits = (store) => until(() => waiting(store).length === 0, 'nothing waits any more');

  /** A store with a message that waits for a route, given by a process that was killed. */
  async function killedWithAMessage() {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    const route = openSync(store.path('s'), 'w');
    const body = async ({ runs }) => {
      runs.persistUserMessage('s', { id: 'u1', content: 'x' });
      process.kill(process.pid, 'SIGKILL');
    };
    await server(body, { settings: { storeDir: store.dir } }).exited;
    return { store, route };
  }

  it.each(['process.exit', 'SIGKILL', 'itself'])('by %s: its messages come after what the route has written', async (way) => {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    const route = openSync(store.path('s'), 'w');
    const body = async ({ runs, data, tell, fs }) => {
      for (const id of ['u1', 'u2', 'u3']) runs.persistUserMessage('s', { id, content: 'x' });
      await tell({ text: fs.readFileSync(`${data.settings.storeDir}/s.jsonl`, 'utf8') });
      if (data.way === 'SIGKILL') process.kill(process.pid, 'SIGKILL');
      if (data.way === 'process.exit') process.exit();
      process.disconnect();
    };
    const host = server(body, { way, settings: { storeDir: store.dir } });
    expect(await host.told()).toEqual({ text: '' });
    // Who ends in order waits for the route, for a while.
    if (way !== 'itself') await host.exited;
    writeSync(route, SHORT.map(json).join(''));
    closeSync(route);
    await host.exited;
    // The next process that uses the store.
    await runs.listSessions();
    await until(() => store.messages('s').length === SHORT.length + 3, 'they were added');
    expectAll(store.messages('s'), [...SHORT, ...['u1', 'u2', 'u3'].map((id) => ({ id, content: 'x' }))], []);
    await nothingWaits(store);
  });

  it('and whose session is deleted by the next one: they go with it', async () => {
    const { store, route } = await killedWithAMessage();
    expect(waiting(store)).toHaveLength(1);
    closeSync(route);
    expect(await runs.deleteSession('s')).toBe(true);
    await runs.listSessions();
    expect(readdirSync(store.dir).filter((name) => !name.startsWith('.'))).toEqual([]);
    expect(waiting(store)).toEqual([]);
  });

  it('while it lives: what waits for a session that is deleted does not bring it back', async () => {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    const route = openSync(store.path('s'), 'w');
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    closeSync(route);
    unlinkSync(store.path('s'));
    await nothingWaits(store);
    expect(readdirSync(store.dir).filter((name) => name.endsWith('.jsonl'))).toEqual([]);
  });

  it('and whose session is deleted before the next one starts: they do not come back', async () => {
    const { store, route } = await killedWithAMessage();
    closeSync(route);
    unlinkSync(store.path('s'));
    await runs.listSessions();
    await nothingWaits(store);
    const { id } = await runs.createSession();
    expect(readdirSync(store.dir).filter((name) => name.endsWith('.jsonl'))).toEqual([`${id}.jsonl`]);
  });
});

describe('a message that is there already, in a long history that the process has not read', () => {
  const content = 'x'.repeat(10_000);
  const history = Array.from({ length: 3_000 }, (_, n) => ({ id: `h${n}`, role: 'user', content }));
  it.each([
    ['last', 2_999],
    ['near the end', 2_996],
    ['in the middle', 1_500],
    ['first', 0],
  ])('%s: is there once in the end', async (_, place) => {
    const store = useStore();
    const before = history.map(json).join('');
    store.write('s', before);
    runs.persistUserMessage('s', { id: `h${place}`, content: 'sent again' });
    runs.persistUserMessage('s', { id: 'new', content: 'x' });
    await until(() => !store.read('s').includes('sent again'), 'it was there once');
    expect(store.read('s').startsWith(before)).toBe(true);
    expectAll(store.messages('s'), [...history, { id: 'new', content: 'x' }], []);
  });
});

it('after servers are killed in mid-run, the next turn counts the messages that there are', async () => {
  const random = seededRandom();
  const store = useStore();
  const body = async ({ runs, data, agent, ended, said, tell }) => {
    const { id, name } = data;
    runs.persistUserMessage(id, { id: `${name}-1`, content: 'x' });
    runs.startRun({ sessionId: id, message: 'm', agent: agent('says', 'a whole turn') });
    await ended(id);
    const entry = (await runs.listSessions()).find((one) => one.id === id);
    await tell({ counted: entry.messageCount, messages: (await runs.readMessages(id)).length });
    runs.persistUserMessage(id, { id: `${name}-2`, content: 'x' });
    runs.startRun({ sessionId: id, message: 'm', agent: agent('goes-on-saying', 1) });
    await said(id, '1 ');
    await tell('in mid-run');
  };
  const lane = async () => {
    const { id } = await runs.createSession();
    const settings = { storeDir: store.dir, persistIntervalMs: 10, cleanupGraceMs: 0 };
    for (let kill = 0; kill < 6; kill += 1) {
      const host = server(body, { id, name: `${kill}`, settings });
      const { counted, messages } = await host.told();
      expect(counted).toBe(messages);
      await host.told();
      await new Promise((resolve) => setTimeout(resolve, random() * 60));
      host.child.kill('SIGKILL');
      await host.exited;
    }
  };
  await Promise.all(Array.from({ length: 4 }, lane));
});

describe('what a route has read before, and writes back', () => {
  it('an answer that was half there: the whole one is put back', async () => {
    const store = useStore({ cleanupGraceMs: 2_000 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    const before = store.read(sessionId);
    await told.say(' two');
    await told.exit();
    await listen(sessionId).ended;
    store.write(sessionId, before + json({ id: 'u2' }));
    await until(() => store.read(sessionId).includes('"one two"'), 'the answer was put back');
    expect(store.messages(sessionId)).toMatchObject([{ content: 'one two' }, { id: 'u2' }]);
    expect(store.read(sessionId)).not.toContain('_streaming');
  });

  it('an index that lacks several changes, while one more comes: all are counted', async () => {
    const store = useStore();
    const { id } = await runs.createSession();
    const ask = async (n) => {
      runs.persistUserMessage(id, { id: `u${n}`, content: 'x' });
      await until(() => store.index()[0].messageCount === n, `${n} were counted`);
    };
    await ask(1);
    const before = readFileSync(store.indexPath, 'utf8');
    await ask(2);
    await ask(3);
    writeFileSync(store.indexPath, before);
    await ask(4);
  });

  // With a message of the server's own in the same tick, and without.
  it.each([true, false])('in every tick, on the thread of the server: nothing is lost (%s)', async (asks) => {
    const store = useStore({ persistIntervalMs: 1 });
    const sessionId = newSession();
    store.write(sessionId, LONG.map(json).join(''));
    start(agent('goes-on-saying', 1), { sessionId });
    const listener = listen(sessionId);
    await listener.has('1 ');
    const routes = routesOf(store.dir, true);
    const wanted = [];
    for (let n = 0; n < 500; n += 1) {
      const [asked, posted] = [{ id: `u${n}`, content: 'asked' }, { id: `p${n}`, content: 'posted' }];
      if (asks) runs.persistUserMessage(sessionId, asked);
      await routes.post(sessionId, posted, 0);
      wanted.push(...(asks ? [asked] : []), posted);
      await new Promise(setImmediate);
    }
    runs.abortRun(sessionId);
    await listener.ended;
    const ids = () => new Set(store.messages(sessionId).map(({ id }) => id));
    const lost = () => wanted.map(({ id }) => id).filter((id) => !ids().has(id));
    await until(() => lost().length === 0, 'all were there').catch(() => expect(lost()).toEqual([]));
  });
});

it('what a program appends that keeps the file open for ever is taken over', async () => {
  const store = useStore();
  store.write('s', SHORT.map(json).join(''));
  const log = openSync(store.path('s'), 'a');
  onTestFinished(() => closeSync(log));
  await play(agent('says', 'the answer'), { sessionId: 's' });
  writeSync(log, json({ id: 'late', content: 'x' }));
  await until(() => store.read('s').includes('"late"'), 'what was appended was taken over');
});

describe('while another program holds a lock', () => {
  it.each([
    ['ends, and had no run', async ({ process }) => process.disconnect()],
    ['exits, and had no run', async ({ process }) => process.exit()],
    ['gets SIGTERM', async ({ process }) => process.kill(process.pid, 'SIGTERM')],
  ])('a process that %s keeps the messages that wait', async (_, end) => {
    const store = useStore();
    store.write('s', SHORT.map(json).join(''));
    const lock = await holder(store.path('s'));
    const body = async ({ runs, data, tell }) => {
      runs.persistUserMessage('s', { id: 'u1', content: 'x' });
      await tell('asked');
      await (0, eval)(data.end)({ process });
    };
    const host = server(body, { end: `(${end})`, settings: { storeDir: store.dir } });
    expect(await host.told()).toBe('asked');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await lock.ends();
    await host.exited;
    expect(store.read('s')).toContain('"u1"');
  });

  it('of the index for long, changes to it are kept', async () => {
    const store = useStore();
    const { id } = await runs.createSession();
    const lock = await holder(store.indexPath);
    runs.persistUserMessage(id, { id: 'u1', content: 'x' });
    await new Promise((resolve) => setTimeout(resolve, 7_000));
    await lock.ends();
    await until(() => store.index()[0].messageCount === 1, 'the message was counted');
  });
});
