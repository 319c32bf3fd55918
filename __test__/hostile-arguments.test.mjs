// Every function with every kind of wrong argument in every place: it does its work, or it throws an Error
// with a code of ours that names the argument; it never leaves anything behind.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listen, newSession, runs, sh, temporaryFolder, textLine, until, useStore } from './helpers/index.mjs';

const throws = () => {
  throw new Error('asked for its text');
};
const HOSTILE = [
  ['nothing', () => undefined],
  ['null', () => null],
  ['true', () => true],
  ['0', () => 0],
  ['-1', () => -1],
  ['a fraction', () => 1.5],
  ['NaN', () => Number.NaN],
  ['Infinity', () => Number.POSITIVE_INFINITY],
  ['a huge number', () => 1e300],
  ['a BigInt', () => 10n],
  ['a symbol', () => Symbol('hostile')],
  ['an empty string', () => ''],
  ['a NUL', () => 'a\0b'],
  ['half a surrogate pair', () => '\ud800'],
  ['a path', () => '../../etc'],
  ['a long string', () => 'x'.repeat(300_000)],
  ['a String object', () => new String('text')],
  ['an empty array', () => []],
  ['a sparse array', () => [, 'a']],
  ['a huge sparse array', () => new Array(2 ** 32 - 1)],
  ['an array of anything', () => [{}, 5, null, Symbol('inner')]],
  ['an empty object', () => ({})],
  ['a frozen object', () => Object.freeze({ surplus: 1 })],
  ['an object without a prototype', () => Object.create(null)],
  ['an object that has no text', () => ({ toString: throws, valueOf: throws, [Symbol.toPrimitive]: throws })],
  ['an object whose JSON is nothing', () => ({ id: 'x', toJSON: () => undefined })],
  ['an object whose JSON is text', () => ({ id: 'x', toJSON: () => 'a\nb' })],
  ['an object whose JSON throws null', () => ({ id: 'x', toJSON: () => { throw null; } })],
  ['a circle', () => {
    const circle = { id: 'x' };
    circle.inner = circle;
    return circle;
  }],
  ['a function', () => () => {}],
  ['a class', () => class Hostile {}],
  ['a map', () => new Map([['id', 'x']])],
  ['a proxy', () => new Proxy({}, {})],
  ['a date that is none', () => new Date(Number.NaN)],
  ['a promise', () => Promise.resolve('x')],
];

const streamOptions = () => ({ replay: 'compact', protocol: 'ai-sdk', heartbeatMs: 1_000, lastEventId: '1-1' });
const responseOptions = () => ({
  ...streamOptions(),
  status: 201,
  headers: { 'x-a': 'a' },
  request: { headers: { 'last-event-id': '1-1' } },
});
/** As little of a response of `node:http` as will do. */
class SomeResponse {
  writeHead() {}
  write() {}
  end() {}
  on() {}
  destroy() {}
}

/** Good arguments of each function; a fresh set for each call. */
const GOOD = {
  startRun: () => [
    {
      sessionId: newSession(),
      message: 'm',
      agentSessionId: 'a',
      agent: { format: 'openclaw', command: 'true', args: ['a'], cwd: '/', env: { A: 'a' } },
      errors: 'full',
      maxSilenceMs: 60_000,
      maxRunMs: 60_000,
    },
  ],
  subscribeToRun: () => [newSession(), () => {}, { replay: true }],
  abortRun: () => [newSession()],
  hasActiveRun: () => [newSession()],
  getActiveRun: () => [newSession()],
  persistUserMessage: () => [newSession(), { id: 'u', content: 'x', parts: [{ type: 'text', text: 'x' }] }],
  configure: () => [{ ...runs.configure() }],
  onWarning: () => [() => {}],
  readMessages: () => [newSession()],
  upsertMessages: () => [newSession(), [{ id: 'u', content: 'x' }], { title: 'x' }],
  createSession: () => [{ title: 'x', filePath: '/x' }],
  deleteSession: () => [newSession()],
  createRunStream: () => [newSession(), streamOptions()],
  createRunResponse: () => [newSession(), responseOptions()],
  pipeRun: () => [newSession(), new SomeResponse(), responseOptions()],
};
const WITHOUT_ARGUMENTS = ['stats', 'listSessions'];

/** Every place in arguments at which there may be a wrong value. */
function placesIn(value, path = []) {
  const isInner = typeof value === 'object' && value !== null;
  const inner = isInner ? Object.keys(value).flatMap((key) => placesIn(value[key], [...path, key])) : [];
  return path.length === 0 ? inner : [path, ...inner];
}

function put(args, [key, ...rest], value) {
  if (rest.length > 0) put(args[key], rest, value);
  else args[key] = value;
}

/** What is left of calls that failed would show here. */
function traces() {
  const { runs: counts, subscribers, childPids } = runs.stats();
  return { running: counts.running, subscribers, childPids };
}

/** Undoes what a call with an odd, but good value has done. */
async function settle(value) {
  if (typeof value === 'function') value();
  await value?.whenEnded;
}

// Where no agent is given, this one is started.
const folder = mkdtempSync(join(tmpdir(), 'active-runs-test-'));
const { OPENCLAW_ROOT: root } = process.env;
beforeAll(() => {
  writeFileSync(join(folder, 'openclaw.mjs'), '');
  process.env.OPENCLAW_ROOT = folder;
});
afterAll(() => {
  if (root === undefined) delete process.env.OPENCLAW_ROOT;
  else process.env.OPENCLAW_ROOT = root;
  rmSync(folder, { recursive: true });
});

it('has good arguments for every function', () => {
  expect([...Object.keys(GOOD), ...WITHOUT_ARGUMENTS].sort()).toEqual(Object.keys(runs).sort());
});

describe.each(Object.entries(GOOD))('%s', (name, goodArguments) => {
  it('works with good arguments', async () => {
    useStore();
    await settle(await runs[name](...goodArguments()));
  });

  const places = placesIn(goodArguments().map((value) => (name === 'configure' ? { ...value } : value)));
  it.each(places.map((path) => [path.join('.'), path]))('is not harmed by what is wrong at %s', async (_, path) => {
    const store = useStore();
    const before = traces();
    const settings = runs.configure();
    for (const [what, make] of HOSTILE) {
      const args = goodArguments();
      put(args, path, make());
      let value;
      try {
        value = await runs[name](...args);
      } catch (error) {
        expect(error, what).toBeInstanceOf(Error);
        expect({ what, code: error.code }).toEqual({
          what,
          code: expect.stringMatching(/^(INVALID_ARGUMENT|INVALID_SESSION_ID)$/),
        });
        // It begins with the name of what is wrong.
        expect(error.message, what).toMatch(/^[a-zA-Z]+[\w.()[\]"=-]*: ./);
        expect(runs.configure(), what).toEqual(settings);
        continue;
      }
      await settle(value);
      if (name === 'configure') runs.configure(settings);
    }
    await until(() => JSON.stringify(traces()) === JSON.stringify(before), 'nothing was left');
    // Nothing half-written, nothing outside of the store.
    for (const file of readdirSync(store.dir)) expect(file).toMatch(/^(index\.json|[^/]+\.jsonl|\..+\.active-runs\.marks)$/);
  });

  it('reads each member of its arguments once', async () => {
    useStore();
    const reads = new Map();
    const counted = (value, path) =>
      typeof value !== 'object' || value === null || value instanceof SomeResponse
        ? value
        : new Proxy(value, {
            get(target, key) {
              const place = `${path}.${String(key)}`;
              reads.set(place, (reads.get(place) ?? 0) + 1);
              return counted(Reflect.get(target, key), place);
            },
          });
    await settle(await runs[name](...goodArguments().map((value, index) => counted(value, String(index)))));
    for (const [place, count] of reads) expect({ place, count }).toEqual({ place, count: 1 });
  });
});

const noChdir = isMainThread ? '' : ' (skipped: a worker cannot change it)';
describe.skipIf(noChdir)(`a server whose working directory was deleted${noChdir}`, () => {
  /** Calls `call` in a working directory that is gone. */
  function inDeletedFolder(call) {
    const folder = join(temporaryFolder(), 'gone');
    mkdirSync(folder);
    const before = process.cwd();
    process.chdir(folder);
    try {
      rmdirSync(folder);
      return call();
    } finally {
      process.chdir(before);
    }
  }
  const refused = (call, argument) =>
    expect(() => inDeletedFolder(call)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(new RegExp(`^${argument}: .*ENOENT`)) }),
    );

  it('starts an agent that has a directory of its own', async () => {
    useStore();
    const sessionId = newSession();
    const agent = { ...sh('printf %s "$1"', textLine('here')), cwd: '/' };
    inDeletedFolder(() => runs.startRun({ sessionId, message: 'm', agent }));
    const listener = listen(sessionId);
    await listener.ended;
    expect(listener.text()).toBe('here');
  });

  it('says which argument needs one', () => {
    useStore();
    const params = { sessionId: newSession(), message: 'm' };
    refused(() => runs.startRun({ ...params, agent: { command: 'true' } }), 'agent\\.cwd');
    refused(() => runs.startRun({ ...params, agent: { command: 'true', cwd: 'relative' } }), 'agent\\.cwd');
    refused(() => runs.startRun(params), 'agent');
    refused(() => runs.configure({ storeDir: 'relative' }), 'storeDir');
    expect(runs.getActiveRun(params.sessionId)).toBe(undefined);
  });

  it('still keeps messages', async () => {
    const store = useStore();
    inDeletedFolder(() => runs.persistUserMessage('s', { id: 'u', content: 'x' }));
    expect(store.messages('s')).toMatchObject([{ id: 'u' }]);
  });
});

describe('upsertMessages', () => {
  it('files a message under the id that is written', async () => {
    useStore();
    let reads = 0;
    const changing = { get id() { return `id-${++reads}`; }, content: 'x' };
    await runs.upsertMessages('s', [changing, { id: 'mine', toJSON: () => ({ id: 'written', content: 'y' }) }]);
    expect(await runs.readMessages('s')).toEqual([{ id: 'id-1', content: 'x' }, { id: 'written', content: 'y' }]);
    await runs.upsertMessages('s', [{ id: 'written', content: 'z' }]);
    expect(await runs.readMessages('s')).toMatchObject([{ id: 'id-1' }, { id: 'written', content: 'z' }]);
  });

  it('writes none of them when one cannot be written', async () => {
    const store = useStore();
    const messages = [{ id: 'a' }, { id: 'b', value: 1n }];
    await expect(runs.upsertMessages('s', messages)).rejects.toEqual(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/^messages\[1\]: /) }),
    );
    expect(store.read('s')).toBe('');
  });
});
