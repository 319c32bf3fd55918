// The session's file and the index, to the byte.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  agent,
  better,
  listen,
  newSession,
  play,
  puppet,
  runs,
  start,
  temporaryFolder,
  until,
  useStore,
} from './helpers/index.mjs';

const isoTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
/** The file with the times taken out, which are checked. */
function withoutTimes(text) {
  return text
    .replace(/"timestamp":"([^"]*)"/g, (_, time) => {
      expect(time).toMatch(isoTime);
      expect(Math.abs(Date.now() - Date.parse(time))).toBeLessThan(120_000);
      return '"timestamp":"T"';
    })
    .replace(/"id":"(assistant-.*?)-\d+"/g, '"id":"$1-T"');
}
const event = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;

describe('the answer', () => {
  it('is one line: reasoning, tools in order of their calls, text', async () => {
    const store = useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId);
    await told.out(
      event('thinking', { delta: 'hm, ' }) +
        event('assistant', { delta: 'let me "see"\n' }) +
        event('tool', { phase: 'start', toolCallId: 'b', name: 'ls', args: { path: '/é' } }) +
        event('tool', { phase: 'start', toolCallId: 'a', name: 'rm' }) +
        event('tool', { phase: 'result', toolCallId: 'a', isError: true, result: 'denied' }) +
        event('tool', { phase: 'result', toolCallId: 'b', result: { details: { exitCode: 0 }, content: [] } }) +
        event('tool', { phase: 'start', toolCallId: 'c', name: 'wait' }) +
        event('thinking', { delta: 'so' }) +
        event('assistant', { delta: 'done \u2028' }),
    );
    await told.exit();
    await listener.ended;
    expect(withoutTimes(store.read(sessionId))).toBe(
      `{"id":"assistant-${sessionId}-T","role":"assistant","content":"let me \\"see\\"\\ndone \u2028","parts":[` +
        '{"type":"reasoning","text":"hm, so"},' +
        '{"type":"tool-invocation","toolCallId":"b","toolName":"ls","args":{"path":"/é"},"result":{"exitCode":0,"text":"{\\"exitCode\\":0}"}},' +
        '{"type":"tool-invocation","toolCallId":"a","toolName":"rm","args":{},"errorText":"denied"},' +
        '{"type":"tool-invocation","toolCallId":"c","toolName":"wait","args":{}},' +
        '{"type":"text","text":"let me \\"see\\"\\ndone \u2028"}],"timestamp":"T"}\n',
    );
  });

  it('has the id that the run shows', async () => {
    const store = useStore();
    const { sessionId, run } = await play(agent('says', 'x'));
    expect(store.messages(sessionId)[0].id).toBe(run.accumulated.id);
  });

  it('is there at once, marked as streaming, and waits for the interval after that', async () => {
    const store = useStore({ persistIntervalMs: 3_600_000 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId);
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    expect(withoutTimes(store.read(sessionId))).toBe(
      `{"id":"assistant-${sessionId}-T","role":"assistant","content":"one","parts":[{"type":"text","text":"one"}],"timestamp":"T","_streaming":true}\n`,
    );
    await told.say(' two');
    await listener.has('one two');
    expect(store.messages(sessionId)).toMatchObject([{ content: 'one' }]);
    await told.exit();
    await listener.ended;
    expect(withoutTimes(store.read(sessionId))).toBe(
      `{"id":"assistant-${sessionId}-T","role":"assistant","content":"one two","parts":[{"type":"text","text":"one two"}],"timestamp":"T"}\n`,
    );
  });

  it('grows while the run goes on', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    let all = '';
    for (const piece of ['a', 'b', 'c']) {
      all += piece;
      await told.say(piece);
      await until(() => store.messages(sessionId).at(-1)?.content === all, `${all} was on disk`);
      expect(store.messages(sessionId)).toMatchObject([{ _streaming: true }]);
    }
    await told.exit();
    await listen(sessionId).ended;
  });

  it('keeps its place when others add lines behind it', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('one');
    await until(() => store.read(sessionId).includes('"one"'), 'the first flush came');
    store.append(sessionId, '{"id":"later","role":"user","content":"next"}\n');
    await told.say(' two');
    await told.exit();
    await listen(sessionId).ended;
    expect(store.messages(sessionId)).toMatchObject([{ content: 'one two' }, { id: 'later' }]);
  });

  it('comes after what was there, which stays as it was to the byte', async () => {
    const store = useStore();
    const sessionId = newSession();
    const history = '{"id":"1",  "odd" : [1.0, "\\u00e9", "é"]}\nno json at all\n{"id":"2","content":"🙂"}\n';
    store.write(sessionId, history);
    await play(agent('says', 'x'), { sessionId });
    expect(store.read(sessionId).startsWith(history)).toBe(true);
    expect(JSON.parse(store.read(sessionId).slice(history.length))).toMatchObject({ content: 'x' });
  });

  it('starts a line of its own after a last line without an end', async () => {
    const store = useStore();
    const sessionId = newSession();
    store.write(sessionId, '{"id":"1"}\n{"id":"2"}');
    await play(agent('says', 'x'), { sessionId });
    expect(store.messages(sessionId)).toMatchObject([{ id: '1' }, { id: '2' }, { content: 'x' }]);
    expect(store.read(sessionId).endsWith('}\n')).toBe(true);
  });

  it('of several runs of a session is a line each', async () => {
    const store = useStore();
    const sessionId = newSession();
    for (const text of ['one', 'two', 'three']) await play(agent('says', text), { sessionId });
    expect(store.messages(sessionId).map(({ content }) => content)).toEqual(['one', 'two', 'three']);
    expect(new Set(store.messages(sessionId).map(({ id }) => id)).size).toBe(3);
  });

  it('is an error text where there was none', async () => {
    const store = useStore();
    const { sessionId } = await play(agent('says'));
    expect(store.messages(sessionId)).toMatchObject([
      { content: '[error] No response from agent.', parts: [{ type: 'text', text: '[error] No response from agent.' }] },
    ]);
  });

  it('creates the store with its parents', async () => {
    const storeDir = join(temporaryFolder(), 'not', 'there', 'yet');
    const store = useStore({ storeDir });
    const { sessionId } = await play(agent('says', 'x'));
    expect(store.messages(sessionId)).toHaveLength(1);
    expect(existsSync(store.indexPath)).toBe(false);
  });

  it('leaves nothing else in the store', async () => {
    const store = useStore({ persistIntervalMs: 1 });
    store.writeIndex([]);
    const { sessionId } = await play(agent('floods', 5_000));
    const visible = readdirSync(store.dir).filter((name) => !name.startsWith('.'));
    expect(visible.sort()).toEqual([`${sessionId}.jsonl`, 'index.json'].sort());
  });
});

describe('persistUserMessage', () => {
  it('writes one line', () => {
    const store = useStore();
    runs.persistUserMessage('s', { id: 'u1', content: 'héllo "you"\n🙂' });
    expect(withoutTimes(store.read('s'))).toBe(
      '{"id":"u1","role":"user","content":"héllo \\"you\\"\\n🙂","timestamp":"T"}\n',
    );
  });

  it('keeps parts as JSON.stringify gives them', () => {
    const store = useStore();
    const parts = [{ type: 'text', text: 'x', gone: undefined, when: new Date(0), n: 1e21, z: -0, list: [undefined] }, null];
    runs.persistUserMessage('s', { id: 'u1', content: 'x', parts });
    runs.persistUserMessage('s', { id: 'u2', content: 'x', parts: [] });
    runs.persistUserMessage('s', { id: 'u3', content: 'x', parts: undefined });
    expect(withoutTimes(store.read('s'))).toBe(
      `{"id":"u1","role":"user","content":"x","parts":${JSON.stringify(parts)},"timestamp":"T"}\n` +
        '{"id":"u2","role":"user","content":"x","parts":[],"timestamp":"T"}\n' +
        '{"id":"u3","role":"user","content":"x","timestamp":"T"}\n',
    );
  });

  it('keeps lone surrogates, escaped', () => {
    const store = useStore();
    runs.persistUserMessage('s', { id: 'u\udc00', content: '\ud83d and \ud83d\ude00' });
    expect(withoutTimes(store.read('s'))).toBe(
      '{"id":"u\\udc00","role":"user","content":"\\ud83d and 😀","timestamp":"T"}\n',
    );
    runs.persistUserMessage('s', { id: 'u\udc00', content: 'again' });
    expect(store.messages('s')).toHaveLength(1);
  });

  it('does not write a message twice', () => {
    const store = useStore();
    runs.persistUserMessage('s', { id: 'u1', content: 'first' });
    const before = store.read('s');
    runs.persistUserMessage('s', { id: 'u1', content: 'again' });
    expect(store.read('s')).toBe(before);
  });

  it.each([
    ['in a line with other spelling', '{ "role":"user", "\\u0069d" : "\\u00751" }'],
    // A plain id at the very front is believed without reading on: no writer puts a second one.
    ['as the last of equal keys', '{"role":"user","id":"other","id":"u1"}'],
    ['in an assistant message', '{"id":"u1","role":"assistant"}'],
    ['behind nested ids', '{"data":{"id":"x","list":[{"id":"y"}]},"id":"u1"}'],
  ])('knows the id %s', (_, line) => {
    const store = useStore();
    store.write('s', `{"id":"0"}\n${line}\n`);
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    expect(store.messages('s')).toHaveLength(2);
  });

  it.each([
    ['nested', '{"id":"other","data":{"id":"u1"}}'],
    ['in a text', '{"id":"other","content":"\\"id\\":\\"u1\\""}'],
    ['as the first of equal keys', '{"id":"u1","id":"other"}'],
    ['in an array', '["id","u1"]'],
    ['in a line that is cut', '{"id":"u1","content":"x'],
    ['as a longer id', '{"id":"u12"}'],
    ['as a part of an id', '{"id":"u"}'],
  ])('does not take for the message an id %s', (_, line) => {
    const store = useStore();
    store.write('s', `{"id":"0"}\n${line}\n`);
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    expect(store.read('s').split('\n').slice(0, 2)).toEqual(['{"id":"0"}', line]);
    expect(JSON.parse(store.read('s').trimEnd().split('\n').at(-1))).toMatchObject({ id: 'u1', content: 'x' });
  });

  better('writes behind a line that is null', () => {
    const store = useStore();
    store.write('s', 'null\n');
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    expect(store.messages('s')).toMatchObject([null, { id: 'u1' }]);
  });

  it('copes with blank lines and other line ends', () => {
    const store = useStore();
    store.write('s', '\n\n{"id":"1"}\r\n   \n{"id":"u1"}\r\n\n');
    runs.persistUserMessage('s', { id: 'u1', content: 'again' });
    runs.persistUserMessage('s', { id: 'u2', content: 'x' });
    const lines = store.read('s').split('\n').filter((line) => line.trim());
    expect(lines.map((line) => JSON.parse(line).id)).toEqual(['1', 'u1', 'u2']);
  });

  it('is seen by the run that follows, and keeps its place before the answer', async () => {
    const store = useStore();
    const sessionId = newSession();
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'q' });
    const { run } = await play(agent('says', 'a'), { sessionId });
    runs.persistUserMessage(sessionId, { id: 'u2', content: 'q2' });
    expect(store.messages(sessionId).map(({ id }) => id)).toEqual(['u1', run.accumulated.id, 'u2']);
  });

  it('can be called while the answer grows', async () => {
    const store = useStore({ persistIntervalMs: 1 });
    const { sessionId } = start(agent('floods', 20_000));
    const listener = listen(sessionId);
    const ids = [];
    while (runs.hasActiveRun(sessionId) && ids.length < 50) {
      ids.push(`u${ids.length}`);
      runs.persistUserMessage(sessionId, { id: ids.at(-1), content: 'x' });
      await new Promise(setImmediate);
    }
    await listener.ended;
    const messages = store.messages(sessionId);
    expect(messages.filter(({ role }) => role === 'user').map(({ id }) => id)).toEqual(ids);
    expect(messages.filter(({ role }) => role === 'assistant')).toMatchObject([{ content: listener.text() }]);
  });
});

describe('the index', () => {
  const other = { id: 'other', title: 'Ü "x" \u2028', createdAt: 1, updatedAt: 2, messageCount: 5, filePath: null, 7: [1.5, {}] };

  it('counts messages of an entry that exists, two spaces deep, other fields and their order kept', async () => {
    const store = useStore();
    const sessionId = newSession();
    const entry = { zebra: 1, id: sessionId, title: 'T', updatedAt: 3, nested: { b: 1, a: [] }, messageCount: 0, createdAt: 4 };
    store.writeIndex([other, entry]);
    const before = Date.now();
    runs.persistUserMessage(sessionId, { id: 'u1', content: 'x' });
    await play(agent('says', 'a'), { sessionId });
    const [, { updatedAt }] = store.index();
    expect(updatedAt).toBeGreaterThanOrEqual(before);
    expect(updatedAt).toBeLessThanOrEqual(Date.now());
    expect(readFileSync(store.indexPath, 'utf8')).toBe(
      JSON.stringify([other, { ...entry, updatedAt, messageCount: 2 }], null, 2),
    );
  });

  it('counts a message once, however often it is flushed', async () => {
    const store = useStore({ persistIntervalMs: 10 });
    const told = await puppet();
    const sessionId = newSession();
    store.writeIndex([{ id: sessionId, messageCount: 7 }]);
    start(told.agent, { sessionId });
    for (const piece of ['a', 'b', 'c']) {
      await told.say(piece);
      await until(() => store.messages(sessionId).at(-1)?.content.endsWith(piece), `${piece} was on disk`);
    }
    await told.exit();
    await listen(sessionId).ended;
    expect(store.index()).toMatchObject([{ id: sessionId, messageCount: 8 }]);
  });

  it('does not count a message that was there', async () => {
    const store = useStore();
    store.writeIndex([{ id: 's' }, { id: 'later' }]);
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    runs.persistUserMessage('later', { id: 'u1', content: 'x' });
    await until(() => store.index()[1].messageCount === 1, 'the last message was counted');
    expect(store.index()[0].messageCount).toBe(1);
  });

  it.each([
    ['absent', undefined, 1],
    ['null', null, 1],
    ['zero', 0, 1],
    ['not whole', 2.5, 3.5],
  ])('counts on from a count that is %s', async (_, count, next) => {
    const store = useStore();
    store.writeIndex([{ id: 's', messageCount: count }]);
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    await until(() => store.index()[0].messageCount === next, `${next} messages were counted`);
  });

  it.each([
    ['broken', '[{"id":"s",'],
    ['no array', '{"id":"s"}'],
    ['empty', ''],
    ['without the entry', JSON.stringify([other])],
  ])('is left alone when %s', async (_, text) => {
    const store = useStore();
    writeFileSync(store.indexPath, text);
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    await play(agent('says', 'a'), { sessionId: 's' });
    expect(readFileSync(store.indexPath, 'utf8')).toBe(text);
    expect(store.messages('s')).toHaveLength(2);
  });

  it('is not made where there is none', async () => {
    const store = useStore();
    runs.persistUserMessage('s', { id: 'u1', content: 'x' });
    await play(agent('says', 'a'), { sessionId: 's' });
    expect(existsSync(store.indexPath)).toBe(false);
  });
});
