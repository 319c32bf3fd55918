// Messages in the form of the AI SDK: as they are stored, and as they are read from either form.
import { safeValidateUIMessages } from 'ai';
import { describe, expect, it } from 'vitest';
import { listSessions, persistUserMessage, readMessages, upsertMessages } from '../index.js';
import { killIfThere, newSession, play, puppet, runs, server, sh, start, textLine, until, useStore } from './helpers/index.mjs';

const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
const tool = (id, phase, more) => line('tool', { phase, toolCallId: id, name: `do-${id}`, ...more });
const ui = (chunk) => line('ui', chunk);
const print = (lines) => sh('printf %s "$1"', lines);
const invalid = async (messages) => {
  const { success, error } = await safeValidateUIMessages({ messages });
  return success ? null : error.message;
};

const LINES = [
  line('lifecycle', { phase: 'start' }),
  line('thinking', { delta: 'Hm' }),
  line('thinking', { delta: '.' }),
  textLine('First I look.'),
  tool('a', 'start', { args: { path: '.' } }),
  tool('a', 'update', { partialResult: 'half' }),
  tool('a', 'result', { result: { content: [{ type: 'text', text: 'files' }, { type: 'image', data: 'iVBO', mimeType: 'image/png' }] } }),
  ui({ type: 'data-progress', id: 'p', data: { done: 1 } }),
  textLine('Now I read it.'),
  tool('b', 'start', { args: {} }),
  tool('b', 'result', { isError: true, result: { details: { error: { code: 5 } } } }),
  ui({ type: 'data-progress', id: 'p', data: { done: 2 } }),
  ui({ type: 'data-blink', data: 1, transient: true }),
  ui({ type: 'source-url', sourceId: 's', url: 'https://x/' }),
  ui({ type: 'message-metadata', messageMetadata: { usage: { in: 1 } } }),
  ui({ type: 'message-metadata', messageMetadata: { usage: { out: 2 } } }),
  tool('c', 'start', { args: { n: 1 } }),
  tool('d', 'start', { args: {} }),
  tool('d', 'update', { partialResult: 'half' }),
  line('thinking', { delta: 'Done?' }),
  textLine('Yes \\ud83d'.replace('\\\\', '\\')),
  `${JSON.stringify({ event: 'result', result: { payloads: [], meta: { agentMeta: { model: 'm', usage: { total: 3 } } } } })}\n`,
].join('');
const PARTS = [
  { type: 'reasoning', text: 'Hm.', state: 'done' },
  { type: 'text', text: 'First I look.', state: 'done' },
  { type: 'tool-do-a', toolCallId: 'a', state: 'output-available', input: { path: '.' }, output: { text: 'files' } },
  { type: 'file', mediaType: 'image/png', url: 'data:image/png;base64,iVBO' },
  { type: 'data-progress', id: 'p', data: { done: 2 } },
  { type: 'text', text: 'Now I read it.', state: 'done' },
  { type: 'tool-do-b', toolCallId: 'b', state: 'output-error', input: {}, errorText: '{"code":5}' },
  { type: 'source-url', sourceId: 's', url: 'https://x/' },
  { type: 'tool-do-c', toolCallId: 'c', state: 'output-error', input: { n: 1 }, errorText: 'interrupted' },
  { type: 'tool-do-d', toolCallId: 'd', state: 'output-error', input: {}, errorText: 'interrupted' },
  { type: 'reasoning', text: 'Done?', state: 'done' },
  { type: 'text', text: expect.stringMatching(/^Yes /), state: 'done' },
];

describe('stored with storeFormat "ui"', () => {
  it('an answer has its parts in the order in which they came, metadata, and what the module has', async () => {
    const store = useStore({ storeFormat: 'ui' });
    const { sessionId, run } = await play(print(LINES));
    const end = await run.whenEnded;
    const [message] = store.messages(sessionId);
    expect(message.parts).toEqual(PARTS);
    expect(message.metadata).toEqual({
      startedAt: run.startedAt,
      usage: { in: 1, out: 2 },
      endedAt: end.endedAt,
      durationMs: end.endedAt - run.startedAt,
      end: 'completed',
      agent: { model: 'm', usage: { total: 3 } },
    });
    expect(Object.keys(message)).toEqual(['id', 'role', 'content', 'parts', 'metadata', 'timestamp']);
    expect(message.content).toMatch(/^First I look\.Now I read it\.Yes /);
    expect(message.id).toMatch(/^assistant-/);
    expect(await invalid([message])).toBeNull();
  });

  it('a growing answer says what is open, and a final one of a run that failed how it ended', async () => {
    const store = useStore({ storeFormat: 'ui', persistIntervalMs: 0 });
    const told = await puppet();
    const { sessionId, run } = start(told.agent);
    await told.out(textLine('x') + tool('a', 'start', { args: {} }) + tool('a', 'update', { partialResult: 'half' }) + textLine('y'));
    await until(() => store.read(sessionId).includes('"y"'), 'it was written');
    const [growing] = store.messages(sessionId);
    expect(growing).toMatchObject({
      parts: [
        { type: 'text', text: 'x', state: 'done' },
        { type: 'tool-do-a', state: 'output-available', output: { text: 'half' }, preliminary: true },
        { type: 'text', text: 'y', state: 'streaming' },
      ],
      metadata: { startedAt: run.startedAt },
      _streaming: true,
    });
    expect(await invalid([growing])).toBeNull();
    expect(await readMessages(sessionId, { format: 'ui' })).toEqual([{ id: growing.id, role: 'assistant', metadata: growing.metadata, parts: growing.parts }]);
    await told.exit(3);
    await run.whenEnded;
    const [final] = store.messages(sessionId);
    expect(final.metadata).toMatchObject({ end: 'failed' });
    expect(final.parts.map(({ state }) => state)).toEqual(['done', 'output-error', 'done']);
    expect(final).not.toHaveProperty('_streaming');
  });

  it('has no half of a surrogate pair anywhere', async () => {
    const store = useStore({ storeFormat: 'ui' });
    const half = '\\ud83d';
    const raw = (stream, data) => `{"event":"agent","stream":"${stream}","data":${data}}\n`;
    const lines = [
      raw('thinking', `{"delta":"a${half}"}`),
      raw('assistant', `{"delta":"pair ${half}"}`),
      raw('assistant', `{"delta":"\\ude00 half \\udc00 \\\\ud83d"}`),
      raw('tool', `{"phase":"start","toolCallId":"t${half}","name":"n${half}","args":{"k${half}":"v${half}"}}`),
      raw('tool', `{"phase":"result","toolCallId":"t${half}","result":"r${half}"}`),
      raw('ui', `{"type":"data-x","data":"${half}"}`),
    ].join('');
    const { sessionId } = await play(print(lines));
    const text = store.read(sessionId);
    expect(text).not.toMatch(/[^\\]\\ud83d/);
    persistUserMessage('halves', { id: 'u\ud83d', content: '\ud83d', parts: [{ type: 'text', text: 'x\ude00' }] });
    persistUserMessage('halves', { id: 'u\ud83d', content: 'the same' });
    expect(store.messages('halves')).toMatchObject([{ id: 'u\ufffd', content: '\ufffd', parts: [{ text: 'x\ufffd' }] }]);
    const [{ parts, content }] = store.messages(sessionId);
    expect(content).toBe('pair 😀 half \ufffd \\ud83d');
    expect(parts).toEqual([
      { type: 'reasoning', text: 'a\ufffd', state: 'done' },
      { type: 'text', text: content, state: 'done' },
      { type: 'tool-n\ufffd', toolCallId: 't\ufffd', state: 'output-available', input: { 'k\ufffd': 'v\ufffd' }, output: { text: 'r\ufffd' } },
      { type: 'data-x', data: '\ufffd' },
    ]);
  });

  it('is what the file, the index and other messages go on with, in either form', async () => {
    const store = useStore({ storeFormat: 'ui' });
    const sessionId = newSession();
    store.writeIndex([{ id: sessionId, title: 'T', createdAt: 1, updatedAt: 1, messageCount: 0 }]);
    for (const [turn, storeFormat] of ['module', 'ui', 'module', 'ui'].entries()) {
      runs.configure({ storeFormat });
      persistUserMessage(sessionId, { id: `u${turn}`, content: 'q' });
      await play(print(textLine(`answer ${turn}`) + tool('a', 'start', { args: {} }) + tool('a', 'result', { result: 'r' })), { sessionId });
    }
    const messages = store.messages(sessionId);
    expect(messages.map(({ role, content }) => (role === 'user' ? 'q' : content))).toEqual(
      ['q', 'answer 0', 'q', 'answer 1', 'q', 'answer 2', 'q', 'answer 3'],
    );
    expect(messages.filter(({ role }) => role === 'assistant').map(({ parts }) => parts[0].type)).toEqual(
      ['tool-invocation', 'text', 'tool-invocation', 'text'],
    );
    expect((await listSessions())[0].messageCount).toBe(8);
    await upsertMessages(sessionId, [{ ...messages[3], content: 'changed' }]);
    expect((await readMessages(sessionId)).map(({ content }) => content)[3]).toBe('changed');
    const read = await readMessages(sessionId, { format: 'ui' });
    expect(read.map(({ parts }) => parts.map(({ type, text }) => text ?? type))).toEqual([
      ['q'], ['tool-do-a', 'answer 0'], ['q'], ['answer 1', 'tool-do-a'], ['q'], ['tool-do-a', 'answer 2'], ['q'], ['answer 3', 'tool-do-a'],
    ]);
    expect(await invalid(read)).toBeNull();
  });

  it('is finished for the reader when the server was killed in mid-answer', async () => {
    const store = useStore({ storeFormat: 'ui' });
    const lines = textLine('half') + tool('a', 'start', { args: {} }) + line('thinking', { delta: 'and' });
    const agent = sh('printf %s "$1"; exec sleep 1000', lines);
    const child = server(({ runs, data, tell }) => {
      runs.configure({ storeDir: data.dir, storeFormat: 'ui', persistIntervalMs: 0 });
      const run = runs.startRun({ sessionId: 's', message: 'x', agent: data.agent });
      const look = () => (run.childProcess.pid ? tell(run.childProcess.pid) : setTimeout(look, 5));
      look();
    }, { dir: store.dir, agent });
    const pid = await child.told();
    await until(() => store.read('s').includes('"and"'), 'it was written');
    child.child.kill('SIGKILL');
    await child.exited;
    killIfThere(pid);
    // Also while the file still says that it grows.
    expect(store.read('s')).toContain('_streaming');
    expect((await readMessages('s'))[0]).not.toHaveProperty('_streaming');
    const [message] = await readMessages('s', { format: 'ui' });
    persistUserMessage('s', { id: 'u', content: 'next' });
    await until(() => !store.read('s').includes('_streaming'), 'the mark was cleared');
    expect((await readMessages('s', { format: 'ui' }))[0]).toEqual(message);
    expect(message.parts).toEqual([
      { type: 'text', text: 'half', state: 'done' },
      { type: 'tool-do-a', toolCallId: 'a', state: 'output-error', input: {}, errorText: 'interrupted' },
      { type: 'reasoning', text: 'and', state: 'done' },
    ]);
  });
});

describe('read with format "ui"', () => {
  it('an answer of the module is a valid message', async () => {
    useStore();
    const { sessionId } = await play(print(LINES));
    const read = await readMessages(sessionId, { format: 'ui' });
    expect(await invalid(read)).toBeNull();
    expect(read[0].parts).toEqual([
      { type: 'reasoning', text: 'Hm.Done?' },
      { type: 'tool-do-a', toolCallId: 'a', state: 'output-available', input: { path: '.' }, output: { text: 'files' } },
      { type: 'tool-do-b', toolCallId: 'b', state: 'output-error', input: {}, errorText: '{"code":5}' },
      { type: 'tool-do-c', toolCallId: 'c', state: 'output-error', input: { n: 1 }, errorText: 'interrupted' },
      { type: 'tool-do-d', toolCallId: 'd', state: 'output-error', input: {}, errorText: 'interrupted' },
      { type: 'text', text: expect.stringMatching(/^First I look\.Now/) },
    ]);
  });

  it('whatever an app has stored comes out valid', async () => {
    const store = useStore();
    const parts = [
      { type: 'text', text: 'kept', state: 'done', extra: 1 },
      { type: 'text' },
      { type: 'text', text: 'odd', state: 'unknown', providerMetadata: 5 },
      { type: 'file', mediaType: 'image/png', url: 'data:,', filename: 'a.png' },
      { type: 'file', url: 'x' },
      { type: 'source-document', sourceId: 's', mediaType: 'text/plain', title: 'T' },
      { type: 'step-start' },
      { type: 'data-x', id: 'i', data: { a: [1] } },
      { type: 'data-x' },
      { type: 'dynamic-tool', toolName: 'n', toolCallId: 't', state: 'output-available', input: {}, output: 1, preliminary: false },
      { type: 'tool-n', toolCallId: 't2', state: 'output-error', errorText: { why: 1 }, input: {} },
      { type: 'tool-n', toolCallId: 't3', state: 'input-streaming' },
      { type: 'tool-n', state: 'output-available' },
      { type: 'tool-n', toolCallId: 't4', state: 'odd' },
      { type: 'tool-n', toolCallId: 't5', state: 'approval-responded', input: {}, approval: { id: 'a', approved: true } },
      { type: 'tool-n', toolCallId: 't6', state: 'approval-responded', input: {}, approval: { id: 5, approved: 'yes' } },
      { type: 'tool-n', toolCallId: 't7', state: 'output-denied', approval: { id: 'a', approved: false, reason: 'no', more: 1 }, output: 1 },
      { type: 'dynamic-tool', toolName: 'n', toolCallId: 't8', state: 'approval-requested', input: {}, approval: { id: 'a' } },
      { type: 'tool-invocation' },
      { type: 'image', url: 'x' },
      null, 5, 'text', [],
    ];
    const lines = [
      { id: 'm1', role: 'user', content: 'c', parts, metadata: { by: 'me' }, html: '<p>', timestamp: 'T' },
      { id: 'm2', role: 'assistant', content: 'only content' },
      { id: 'm3', role: 'user', content: 5, parts: 'odd', metadata: null },
      { id: 'm4', role: 'tool', content: 'no role of the SDK' },
      { id: 5, role: 'user', content: 'x' },
      { id: 'm6', role: 'system', content: 'half \ud83d', parts: [{ type: 'text', text: 'half \ud83d and 😀 \\ud83d' }] },
    ];
    store.write('s', `${lines.map((one) => JSON.stringify(one)).join('\n')}\nno json\n`);
    const read = await readMessages('s', { format: 'ui' });
    expect(await invalid(read)).toBeNull();
    expect(read.map(({ id }) => id)).toEqual(['m1', 'm2', 'm3', 'm6']);
    expect(read[0].metadata).toEqual({ by: 'me' });
    expect(read[0].parts).toEqual([
      { type: 'text', text: 'kept', state: 'done' },
      { type: 'text', text: 'odd' },
      parts[3],
      parts[5],
      parts[6],
      parts[7],
      { type: 'dynamic-tool', toolName: 'n', toolCallId: 't', state: 'output-available', input: {}, output: 1, preliminary: false },
      { type: 'tool-n', toolCallId: 't2', state: 'output-error', input: {}, errorText: '{"why":1}' },
      { type: 'tool-n', toolCallId: 't3', state: 'output-error', errorText: 'interrupted' },
      parts[14],
      { type: 'tool-n', toolCallId: 't7', state: 'output-denied', input: {}, approval: { id: 'a', approved: false, reason: 'no' } },
      { type: 'tool-', toolCallId: '', state: 'output-error', input: {}, errorText: 'interrupted' },
    ]);
    expect(read.slice(1, 3).map(({ parts: [part] }) => part)).toEqual([{ type: 'text', text: 'only content' }, { type: 'text', text: '' }]);
    expect(read[3].parts).toEqual([{ type: 'text', text: 'half \ufffd and 😀 \\ud83d' }]);
    expect(Object.keys(read[1])).toEqual(['id', 'role', 'parts']);
    // As they are stored they are as they were.
    expect((await readMessages('s'))[0]).toEqual(lines[0]);
  });

  it('nests as deep as an agent likes', async () => {
    const store = useStore();
    const deep = `${'['.repeat(20_000)}"\\ud83d"${']'.repeat(20_000)}`;
    store.write('s', `{"id":"m","role":"user","content":"c","parts":[{"type":"data-x","data":${deep}}]}\n`);
    const [{ parts }] = await readMessages('s', { format: 'ui' });
    let { data } = parts[0];
    while (Array.isArray(data)) [data] = data;
    expect(data).toBe('\ufffd');
  });

  it('what is odd in one part costs no other', async () => {
    const store = useStore();
    const tool = { toolCallId: 't', input: {}, output: 1 };
    const parts = [
      { type: 'tool-n', ...tool, state: 'output-available', preliminary: 'yes' },
      { type: 'tool-n', ...tool, state: 'output-available', callProviderMetadata: { google: { thoughtSignature: 's' } } },
      { type: 'tool-n', ...tool, state: 'output-available', callProviderMetadata: { google: 5 } },
    ];
    const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
    const odd = `{"type":"tool-invocation","toolCallId":"d","toolName":"n","args":{},"errorText":${deep}}`;
    const prototype = '{"type":"data-x","data":{"__proto__":{"a":1},"\\ud83d":2}}';
    const all = [...parts.map((part) => JSON.stringify(part)), odd, prototype];
    store.write('s', `{"id":"m","role":"assistant","content":"","parts":[${all}]}\n`);
    const read = await readMessages('s', { format: 'ui' });
    expect(await invalid(read)).toBeNull();
    expect(read[0].parts.slice(0, 4)).toEqual([
      { type: 'tool-n', ...tool, state: 'output-available' },
      parts[1],
      { type: 'tool-n', ...tool, state: 'output-available' },
      { type: 'tool-n', toolCallId: 'd', state: 'output-error', input: {}, errorText: expect.any(String) },
    ]);
    expect(JSON.stringify(read[0].parts[4].data)).toBe('{"__proto__":{"a":1},"\ufffd":2}');
  });

  it('no other format is known', async () => {
    const error = { code: 'INVALID_ARGUMENT', message: 'format: must be "stored" or "ui", not v4' };
    await expect(readMessages('s', { format: 'v4' })).rejects.toMatchObject(error);
    await expect(readMessages('s', 5)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(() => runs.configure({ storeFormat: 'v4' })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

it('a user message keeps what else it has', async () => {
  const store = useStore();
  const parts = [{ type: 'text', text: 'see' }, { type: 'file', mediaType: 'image/png', url: 'data:image/png;base64,iVBO' }];
  persistUserMessage('s', { id: 'u', content: 'see', parts, html: '<b>see</b>', metadata: { at: 1 }, call: () => {}, none: undefined });
  expect(store.messages('s')).toEqual([
    { id: 'u', role: 'user', content: 'see', parts, html: '<b>see</b>', metadata: { at: 1 }, timestamp: expect.any(String) },
  ]);
  expect(await readMessages('s', { format: 'ui' })).toEqual([{ id: 'u', role: 'user', metadata: { at: 1 }, parts }]);
});
