// Under Jest, where modules are loaded anew and built-in constructors are of another realm.
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

const modulePath = '../../index.js';
const agent = (name, ...args) => ({
  command: process.execPath,
  args: [join(__dirname, '..', 'agents', `${name}.mjs`), ...args],
});

let runs;
let storeDir;

beforeEach(() => {
  jest.resetModules();
  runs = require(modulePath);
  storeDir = mkdtempSync(join(tmpdir(), 'active-runs-jest-'));
  runs.configure({ storeDir });
});
afterEach(() => rmSync(storeDir, { recursive: true, force: true }));

function listen(sessionId, from = runs) {
  const events = [];
  const ended = new Promise((resolve) => {
    from.subscribeToRun(sessionId, (event) => {
      events.push(event);
      if (event === null) resolve(events);
    });
  });
  return { events, ended };
}
const textOf = (events) => events.map((event) => event?.delta ?? '').join('');

function thrownBy(call) {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

test('a run streams, is stored and is replayed', async () => {
  const run = runs.startRun({ sessionId: 's', message: 'm', agent: agent('says', 'a', 'b') });
  runs.persistUserMessage('s', { id: 'u', content: 'q', parts: [{ type: 'text', text: 'q' }] });
  const { ended } = listen('s');
  const events = await ended;
  expect(textOf(events)).toBe('ab');
  expect(run.status).toBe('completed');
  expect(run.exitCode).toBe(0);
  expect(listen('s').events).toEqual(events);
  const stored = readFileSync(join(storeDir, 's.jsonl'), 'utf8').trim().split('\n');
  expect(stored.map((line) => JSON.parse(line).content).sort()).toEqual(['ab', 'q']);
});

test('a matcher that fails shows what is in a run', async () => {
  const run = runs.startRun({ sessionId: 'm', message: 'm', agent: agent('says', 'words') });
  await run.whenEnded;
  expect(run).toEqual(expect.objectContaining({ sessionId: 'm', status: 'completed' }));
  expect(run.accumulated).toMatchObject({ role: 'assistant', textParts: ['words'] });
  expect(run.subscribers).toEqual(new Set());
  const { message } = thrownBy(() => expect(run).toEqual({}));
  for (const shown of ['"textParts": Array', '"words"', '"reason": "completed"', '"subscribers": Set {}']) {
    expect(message).toContain(shown);
  }
});

test('what it gives is of this realm', async () => {
  const run = runs.startRun({ sessionId: 'r', message: 'm', agent: agent('says', 'x') });
  expect(run).toBeInstanceOf(Object);
  const events = await listen('r').ended;
  for (const event of events.slice(0, -1)) expect(event).toBeInstanceOf(Object);
  expect(run.eventBuffer).toBeInstanceOf(Array);
  expect(run.accumulated).toBeInstanceOf(Object);
  expect(run.accumulated.textParts).toBeInstanceOf(Array);
  expect(run.accumulated.toolCalls).toBeInstanceOf(Map);
  expect(run.abortController).toBeInstanceOf(AbortController);
  expect(runs.configure({})).toBeInstanceOf(Object);
});

test('what it throws is of this realm', () => {
  const errors = [
    thrownBy(() => runs.startRun({ sessionId: 's', message: 5 })),
    thrownBy(() => runs.startRun({ sessionId: '../s', message: 'm' })),
    thrownBy(() => runs.persistUserMessage('..', { id: 'u', content: 'x' })),
    thrownBy(() => runs.configure({ nonsense: 1 })),
    thrownBy(() => runs.hasActiveRun(5)),
  ];
  for (const error of errors) {
    expect(error).toBeInstanceOf(Error);
    expect(Object.prototype.toString.call(error)).toBe('[object Error]');
    expect(error.code).toMatch(/^INVALID_/);
  }
});

test('a run outlives jest.resetModules', async () => {
  runs.startRun({ sessionId: 'kept', message: 'm', agent: agent('says-and-waits', 'x') });
  const before = listen('kept');
  jest.resetModules();
  const again = require(modulePath);
  expect(again).not.toBe(runs);
  expect(again.hasActiveRun('kept')).toBe(true);
  const error = thrownBy(() => again.startRun({ sessionId: 'kept', message: 'm' }));
  expect(error.message).toBe('Active run already exists for this session');
  const after = listen('kept', again);
  await new Promise((resolve) => {
    again.subscribeToRun('kept', (event) => {
      if (event?.type === 'text-delta') resolve();
    });
  });
  expect(again.abortRun('kept')).toBe(true);
  const [one, two] = await Promise.all([before.ended, after.ended]);
  expect(textOf(one)).toBe('x');
  expect(two).toEqual(one);
});
