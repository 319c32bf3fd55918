// More than text: what tools have so far, their pictures, and chunks of the agent's or the app's own.
import { describe, expect, it } from 'vitest';
import { createRunStream, onWarning } from '../index.js';
import { listen, play, puppet, sh, start, textLine, until, useStore } from './helpers/index.mjs';

const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
const tool = (phase, more) => line('tool', { phase, toolCallId: 't', name: 'exec', ...more });
const content = (...blocks) => ({ content: blocks });
const text = (words) => ({ type: 'text', text: words });
const PICTURE = { type: 'image', data: 'iVBORw0KGgo=', mimeType: 'image/png' };
const print = (lines) => sh('printf %s "$1"', lines);

async function chunksOf(sessionId, options) {
  let all = '';
  const decoder = new TextDecoder();
  for await (const bytes of createRunStream(sessionId, options)) all += decoder.decode(bytes, { stream: true });
  const data = all.split('\n').filter((one) => one.startsWith('data: {'));
  return data.map((one) => JSON.parse(one.slice(6)));
}
const sdkChunksOf = (sessionId, options) => chunksOf(sessionId, { protocol: 'ai-sdk', ...options });

describe('what a tool has before it comes back', () => {
  const lines = [
    tool('update', { partialResult: content(text('before its call')) }),
    tool('start', { args: { command: 'ls' } }),
    tool('update', { partialResult: content(text('half')) }),
    tool('update', {}),
    tool('update', { partialResult: content(text('half and more')) }),
    tool('result', { result: content(text('all')) }),
    tool('update', { partialResult: content(text('too late')) }),
    textLine('done'),
  ].join('');
  const outputs = (chunks) => chunks.filter(({ type }) => type === 'tool-output-available');

  it('is told to readers of the AI SDK as preliminary, and to nobody else', async () => {
    const store = useStore();
    const { sessionId, events, run } = await play(print(lines));
    const all = outputs(await sdkChunksOf(sessionId));
    expect(all.map(({ output, preliminary }) => [output.text, preliminary])).toEqual([
      ['half', true],
      ['half and more', true],
      ['all', undefined],
    ]);
    expect(outputs(await sdkChunksOf(sessionId, { replay: 'compact' }))).toEqual(all);
    // The module's own stream, the subscribers and the file are the module's.
    const told = events.slice(0, -1);
    expect(outputs(told)).toHaveLength(1);
    expect(await chunksOf(sessionId)).toEqual(told);
    expect(run.eventBuffer).toEqual(told);
    const late = listen(sessionId);
    expect(late.events).toEqual([...told, null]);
    expect(store.read(sessionId)).not.toContain('half');
  });

  it('does not shift what subscribers are told, whenever they come', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const first = listen(sessionId);
    await told.out(tool('start', { args: {} }));
    for (let part = 0; part < 700; part++) await told.out(tool('update', { partialResult: `part ${part}` }));
    await told.say('a');
    await first.has('a');
    const second = listen(sessionId);
    const live = listen(sessionId, { replay: false });
    await told.out(tool('update', { partialResult: 'again' }) + tool('result', { result: 'r' }));
    await told.say('b');
    await told.exit();
    const events = await first.ended;
    expect(events.filter(Boolean).map(({ type }) => type)).toEqual([
      'tool-input-start', 'tool-input-available', 'text-start', 'text-delta', 'tool-output-available', 'text-delta', 'text-end',
    ]);
    expect(await second.ended).toEqual(events);
    expect(await live.ended).toEqual(events.slice(4));
    expect(run.eventBuffer).toEqual(events.slice(0, -1));
  });

  it('leaves the call open: it is interrupted when nothing else comes', async () => {
    useStore();
    const { sessionId } = await play(print(tool('start', { args: {} }) + tool('update', { partialResult: 'half' }) + textLine('x')));
    const [last] = (await sdkChunksOf(sessionId)).filter(({ type }) => type === 'tool-output-error');
    expect(last).toEqual({ type: 'tool-output-error', toolCallId: 't', errorText: 'interrupted' });
  });
});

describe('pictures in the result of a tool', () => {
  it('are files for readers of the AI SDK, and nothing to others', async () => {
    const store = useStore();
    const result = content(text('look'), PICTURE, { ...PICTURE, mimeType: 'text/html' }, { ...PICTURE, data: '' });
    const { sessionId, events } = await play(print(tool('start', { args: {} }) + tool('result', { result }) + textLine('x')));
    const url = `data:image/png;base64,${PICTURE.data}`;
    const files = (await sdkChunksOf(sessionId)).filter(({ type }) => type === 'file');
    expect(files).toEqual([{ type: 'file', mediaType: 'image/png', url }]);
    expect(JSON.stringify([events, await chunksOf(sessionId), store.read(sessionId)])).not.toContain(PICTURE.data);
  });
});

const CHUNKS = [
  { type: 'data-weather', id: 'w', data: { degrees: 5, '\u2028': '\ud83d' } },
  { type: 'data-note', data: null, transient: true },
  { type: 'file', url: 'https://x/y.pdf', mediaType: 'application/pdf' },
  { type: 'source-url', sourceId: 's1', url: 'https://x/', title: 'X' },
  { type: 'message-metadata', messageMetadata: { model: 'm' } },
];
const WRONG = [
  [{ type: 'text-delta', id: 'x', delta: 'y' }, 'type: "text-delta" is none'],
  [{ type: 'finish' }, 'type: "finish" is none'],
  [{ type: 'data-' }, 'data: is missing'],
  [{ type: 'data-x', data: 1, extra: 2 }, 'extra: is unknown'],
  [{ type: 'file', url: 'x' }, 'mediaType: is missing'],
  [{ type: 'source-url', url: 5, sourceId: 's' }, 'url: must be a string'],
  [{ type: 'message-metadata', messageMetadata: 'x' }, 'messageMetadata: must be an object'],
];

describe('a chunk that the agent prints', () => {
  it('is passed on to every reader, in its place', async () => {
    useStore();
    const lines = [textLine('before '), ...CHUNKS.map((chunk) => line('ui', chunk)), textLine('after')].join('');
    const { sessionId, events } = await play(print(lines));
    const kinds = events.slice(0, -1).map(({ type }) => type);
    expect(kinds).toEqual(['text-start', 'text-delta', ...CHUNKS.map(({ type }) => type), 'text-delta', 'text-end']);
    expect(events.slice(2, -3)).toEqual(CHUNKS);
    expect(await chunksOf(sessionId)).toEqual(events.slice(0, -1));
    expect((await sdkChunksOf(sessionId)).filter(({ type }) => CHUNKS.some((chunk) => chunk.type === type))).toEqual(CHUNKS);
  });

  it('is left out when readers would refuse it, with one warning a run that says why', async () => {
    useStore();
    const warnings = [];
    const off = onWarning((warning) => warnings.push(warning));
    const lines = [...WRONG.map(([chunk]) => line('ui', chunk)), textLine('x')].join('');
    const { sessionId, events } = await play(print(lines));
    await until(() => warnings.some((warning) => warning.sessionId === sessionId), 'it was told');
    off();
    expect(events.map((event) => event?.type)).toEqual(['text-start', 'text-delta', 'text-end', undefined]);
    const own = warnings.filter((warning) => warning.sessionId === sessionId);
    expect(own.map(({ code }) => code)).toEqual(['CHUNK_REFUSED']);
    expect(own[0].message).toContain(WRONG[0][1]);
    expect(own[0].message).toContain(sessionId);
  });

  it('is an answer, if it is a part of the message', async () => {
    useStore();
    const { events } = await play(print(line('ui', CHUNKS[0])));
    expect(events.map((event) => event?.type)).toEqual(['data-weather', undefined]);
    const without = await play(print(line('ui', CHUNKS[1]) + line('ui', CHUNKS[4])));
    expect(without.text).toBe('[error] No response from agent.');
  });
});

describe('emit', () => {
  it('puts a chunk into the stream, numbered and replayed', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    const listener = listen(sessionId);
    const live = sdkChunksOf(sessionId);
    await told.say('before ');
    await listener.has('before ');
    for (const chunk of CHUNKS) expect(run.emit(chunk)).toBe(true);
    // Nothing is told within the tick.
    expect(listener.events).toHaveLength(2);
    await until(() => listener.events.length === 2 + CHUNKS.length, 'the chunks came');
    await told.say('after');
    await told.exit();
    const events = await listener.ended;
    expect(events.slice(2, 2 + CHUNKS.length)).toEqual(CHUNKS);
    expect(events.at(-2)).toMatchObject({ type: 'text-end', id: events[0].id });
    const kinds = (chunks) => chunks.map(({ type }) => type);
    expect(kinds(await live)).toEqual(kinds(await sdkChunksOf(sessionId)));
    expect(kinds(await sdkChunksOf(sessionId)).slice(3, 3 + CHUNKS.length)).toEqual(kinds(CHUNKS));
    expect(run.emit(CHUNKS[0])).toBe(false);
    expect(listen(sessionId).events).toEqual(events);
  });

  it('works before the agent has been started', async () => {
    useStore();
    const { sessionId, run } = start(print(textLine('x')));
    expect(run.emit(CHUNKS[0])).toBe(true);
    const events = await listen(sessionId).ended;
    expect(events.map((event) => event?.type)).toEqual(['data-weather', 'text-start', 'text-delta', 'text-end', undefined]);
    const failed = start({ command: '/no/such/agent' });
    expect(failed.run.emit(CHUNKS[0])).toBe(true);
    expect((await listen(failed.sessionId).ended)[0]).toEqual(CHUNKS[0]);
  });

  it('takes all that it says it has taken, up to the last moment', async () => {
    useStore();
    const { sessionId, run } = start(print(textLine('x')));
    let taken = 0;
    const emit = () => {
      if (!run.emit({ type: 'data-n', data: taken })) return;
      taken += 1;
      setImmediate(emit);
    };
    emit();
    const events = await listen(sessionId).ended;
    await until(() => !run.emit({ type: 'data-n', data: -1 }), 'no more was taken');
    const numbers = listen(sessionId).events.filter((event) => event?.type === 'data-n').map(({ data }) => data);
    expect(numbers).toEqual(Array.from({ length: taken }, (_, number) => number));
    expect(events.filter((event) => event?.type === 'data-n')).toHaveLength(taken);
  });

  it('refuses what readers would refuse, and says why', async () => {
    useStore();
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    for (const [chunk, reason] of [...WRONG, [undefined, 'gives nothing as JSON'], [5, 'must be an object'], [{ type: 'data-x', data: 5n }, 'cannot be written']]) {
      const error = { code: 'INVALID_ARGUMENT', message: expect.stringContaining(`chunk: ${reason}`) };
      expect(() => run.emit(chunk), JSON.stringify(reason)).toThrow(expect.objectContaining(error));
    }
    await told.say('x');
    await told.exit();
    expect((await listen(sessionId).ended).map((event) => event?.type)).toEqual(['text-start', 'text-delta', 'text-end', undefined]);
  });

  it('counts towards what a run may keep', async () => {
    useStore({ maxRunBytes: 100_000 });
    const told = await puppet();
    const { run } = start(told.agent);
    await told.say('x');
    run.emit({ type: 'data-x', data: 'x'.repeat(200_000) });
    expect((await run.whenEnded).reason).toBe('too-large');
    // Also before the agent has been started, and if it never prints anything.
    const { run: silent } = start(sh('exec sleep 1000'));
    silent.emit({ type: 'data-x', data: 'x'.repeat(200_000) });
    expect((await silent.whenEnded).reason).toBe('too-large');
  });

  it('is no member of the object: a copy of the run has what the module has', async () => {
    useStore();
    const { run } = start(print(textLine('x')));
    expect(Object.keys(run)).not.toContain('emit');
    expect({ ...run }).not.toHaveProperty('emit');
    await run.whenEnded;
  });
});
