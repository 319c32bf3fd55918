// Ready server-sent events, read as a browser reads them: over HTTP, and by the AI SDK itself.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { DefaultChatTransport, parseJsonEventStream, readUIMessageStream, uiMessageChunkSchema } from 'ai';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { dropOpenParts } from '../client.js';
import { createRunResponse, createRunStream, pipeRun, stats } from '../index.js';
import { agent, agentPath, listen, newSession, puppet, runs, start, temporaryFolder, textLine, until, useStore } from './helpers/index.mjs';

const decoder = new TextDecoder();

/** A route as an app has it: `/SESSION?options as JSON`. */
let server;
let origin;
/** What the promises of `/piped/SESSION?options` were fulfilled with. */
const piped = [];

beforeAll(async () => {
  server = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url, origin);
    const options = JSON.parse(url.searchParams.get('options') ?? '{}');
    const request = new Request(url, { headers: new Headers(Object.entries(incoming.headers)) });
    const sessionId = url.pathname.split('/').at(-1);
    if (url.pathname.startsWith('/piped/')) return pipeRun(sessionId, outgoing, options).then((all) => piped.push(all));
    const response = createRunResponse(sessionId, { ...options, request });
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.flushHeaders();
    if (response.body === null) return outgoing.end();
    const body = Readable.fromWeb(response.body);
    outgoing.on('close', () => body.destroy());
    body.on('error', () => {});
    return body.pipe(outgoing);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${server.address().port}`;
});

afterAll(() => new Promise((resolve) => server.close(resolve)));

const address = (sessionId, options = {}) =>
  `${origin}/${sessionId}?options=${encodeURIComponent(JSON.stringify(options))}`;
const get = (sessionId, options, headers) => fetch(address(sessionId, options), { headers });
/** How many read the session's run as bytes: `stats` counts those of other tests' runs, too. */
const readersOf = (sessionId) => globalThis[Symbol.for('active-runs.hub.2')].find(sessionId).readers.size;
const getPiped = (sessionId, options, more) => fetch(address(`piped/${sessionId}`, options), more);

/** The frames of a body, each with its id, if it has one, and its data. */
function framesOf(text) {
  const frames = text.split('\n\n').filter((frame) => frame && !frame.startsWith(':'));
  return frames.map((frame) => Object.fromEntries(frame.split('\n').map((line) => /^(\w+): (.*)$/s.exec(line).slice(1))));
}

/** Of frames with data: one may have an id alone. */
const chunksOf = (frames) => frames.filter(({ data }) => data && data !== '[DONE]').map(({ data }) => JSON.parse(data));

/** The message that the AI SDK builds of chunks; what it refuses is thrown, but not that the agent failed. */
async function messageOf(chunks, message) {
  const stream = ReadableStream.from(chunks.filter(({ type }) => type !== 'error'));
  let last = message;
  const errors = [];
  for await (const snapshot of readUIMessageStream({ message, stream, onError: (error) => errors.push(error) })) last = snapshot;
  if (errors.length > 0) throw errors[0];
  return last;
}

/** Starts a run whose agent plays a transcript; resolves when it is over. */
async function replay({ stdout, stderr, exit, agentSessionId }) {
  const folder = temporaryFolder();
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries({ stdout, stderr, exit: `${exit}\n` })) writeFileSync(join(folder, name), text);
  const command = { command: '/bin/sh', args: [agentPath('replays-transcript.sh'), folder] };
  const { sessionId } = start(command, { agentSessionId });
  const events = [];
  await new Promise((done) => {
    runs.subscribeToRun(sessionId, (event) => (event === null ? done() : events.push(event)), { replay: false });
  });
  return { sessionId, events };
}

const recordings = JSON.parse(gunzipSync(readFileSync(new URL('conformance/recordings.json.gz', import.meta.url))));

describe('the AI SDK reads every recording', () => {
  it.each(recordings.map((recording) => [recording.name, recording]))('%s', async (_, recording) => {
    useStore();
    const { sessionId, events } = await replay(recording);

    const module = await (await get(sessionId)).text();
    expect(module).toBe(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));

    const full = framesOf(await (await get(sessionId, { protocol: 'ai-sdk' })).text());
    expect(full.at(-1).data).toBe('[DONE]');
    const message = await messageOf(chunksOf(full));

    const compact = framesOf(await (await get(sessionId, { protocol: 'ai-sdk', replay: 'compact' })).text());
    expect(await messageOf(chunksOf(compact))).toEqual(message);
    expect(compact.length).toBeLessThanOrEqual(full.length);

    // Every place at which a connection can be cut.
    const cuts = full.filter(({ id }) => id).map(({ id }) => id);
    for (const cut of cuts) {
      const seen = full.slice(0, full.findIndex(({ id }) => id === cut) + 1);
      const exact = await get(sessionId, { protocol: 'ai-sdk' }, { 'last-event-id': cut });
      expect(exact.headers.get('x-run-resumed')).toBe('true');
      expect([...seen, ...framesOf(await exact.text())]).toEqual(full);

      // A reader that goes on with a message of which it knows no open parts any more.
      const rewound = await get(sessionId, { protocol: 'ai-sdk', resume: 'rewind' }, { 'last-event-id': cut });
      expect(rewound.headers.get('x-run-resumed')).toBe('true');
      const before = await messageOf(chunksOf(seen));
      const going = await messageOf(chunksOf(framesOf(await rewound.text())), dropOpenParts(before));
      expect(going).toEqual(message);
    }
    expect(cuts).toHaveLength(full.length - 1);
  });

  it('through its own transport', async () => {
    useStore();
    const recording = recordings.find(({ name }) => name.endsWith('gwfull-tool'));
    const { sessionId } = await replay(recording);
    const transport = new DefaultChatTransport({
      prepareReconnectToStreamRequest: ({ id }) => ({ api: address(id, { protocol: 'ai-sdk' }) }),
    });
    const chunks = [];
    for await (const chunk of await transport.reconnectToStream({ chatId: sessionId })) chunks.push(chunk);
    expect(chunks.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop', messageMetadata: { end: 'completed' } });
    expect((await messageOf(chunks)).parts.map(({ type }) => type)).toContain('tool-exec');
    expect(await transport.reconnectToStream({ chatId: newSession() })).toBeNull();
  });

  it('also what the module says beyond its schema', async () => {
    useStore();
    const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
    const stdout = [
      line('tool', { phase: 'result', toolCallId: 'never-called', result: 'x' }),
      line('tool', { phase: 'start', toolCallId: 't', name: 'x', args: { a: '🙂' } }),
      line('tool', { phase: 'result', toolCallId: 't', isError: true, result: { content: [], details: { error: { code: 5 } } } }),
      line('tool', { phase: 'start', toolCallId: 't', name: 'x', args: { again: true } }),
      textLine('answer'),
    ].join('');
    const { sessionId } = await replay({ stdout, stderr: '', exit: '0' });
    const response = await get(sessionId, { protocol: 'ai-sdk' });
    const chunks = [];
    for await (const part of parseJsonEventStream({ stream: response.body, schema: uiMessageChunkSchema })) {
      expect(part.success, JSON.stringify(part)).toBe(true);
      chunks.push(part.value);
    }
    expect(chunks.find(({ type }) => type === 'tool-output-error').errorText).toBe('{"code":5}');
    expect((await messageOf(chunks)).parts.map(({ type }) => type)).toEqual(['tool-x', 'text']);
  });
});

describe('live', () => {
  it('sends events as they come, to each reader all, and ends when the run has ended', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const early = get(sessionId);
    await told.say('one ', 'two ');
    const listener = listen(sessionId);
    await until(() => listener.text() === 'one two ', 'the first words came');
    const late = [get(sessionId), get(sessionId, { replay: 'compact' }), get(sessionId, { replay: false })];
    const responses = await Promise.all([early, ...late]);
    expect(responses.map(({ headers }) => headers.get('x-run-active'))).toEqual(Array(4).fill('true'));
    await told.say('three');
    await told.exit();
    const bodies = await Promise.all(responses.map((response) => response.text()));
    const texts = bodies.map((body) => chunksOf(framesOf(body)).map(({ delta }) => delta ?? '').join(''));
    expect(texts).toEqual(['one two three', 'one two three', 'one two three', 'three']);
    expect(bodies[1]).toBe(bodies[0]);
    expect(chunksOf(framesOf(bodies[2])).map(({ delta }) => delta)).toEqual([undefined, 'one two ', 'three', undefined]);
  });

  it('begins a live stream so that the AI SDK can read it in mid-part', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;
    await told.out(line('tool', { phase: 'start', toolCallId: 't', name: 'x', args: { a: 1 } }));
    await told.say('before ');
    const listener = listen(sessionId);
    await until(() => listener.text() === 'before ', 'the first word came');
    const response = await get(sessionId, { protocol: 'ai-sdk', replay: false });
    await told.out(line('tool', { phase: 'result', toolCallId: 't', result: 'done' }));
    await told.say('after');
    await told.exit();
    const message = await messageOf(chunksOf(framesOf(await response.text())));
    expect(message.parts).toMatchObject([
      { type: 'tool-x', state: 'output-available', input: { a: 1 }, output: { text: 'done' } },
      { type: 'text', text: 'after' },
    ]);
  });

  it('keeps an idle connection alive', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const reader = createRunStream(sessionId, { heartbeatMs: 1 }).getReader();
    for (let beats = 0; beats < 3; beats++) {
      expect(decoder.decode((await reader.read()).value)).toBe(': keepalive\n\n');
    }
    await told.say('word');
    let text = '';
    while (!text.includes('word')) text += decoder.decode((await reader.read()).value);
    await told.exit();
    for (let end = await reader.read(); !end.done; end = await reader.read()) text += decoder.decode(end.value);
    expect(framesOf(text)).toHaveLength(3);
  });
});

describe('live readers', () => {
  it('get heartbeats of their own', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const [first, second] = [0, 1].map(() => createRunStream(sessionId, { heartbeatMs: 1 }).getReader());
    for (let beats = 0; beats < 3; beats++) {
      const { value } = await first.read();
      expect(decoder.decode(value)).toBe(': keepalive\n\n');
      // All that lies behind it, too.
      new Uint8Array(value.buffer).fill(0x58);
      expect(decoder.decode((await second.read()).value)).toBe(': keepalive\n\n');
    }
    await Promise.all([first.cancel(), second.cancel()]);
    await told.exit();
  });

  it('get live events in memory of their own', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const readers = Array.from({ length: 40 }, () => createRunStream(sessionId).getReader());
    const texts = readers.map(() => '');
    const reading = readers.map(async (reader, index) => {
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        texts[index] += decoder.decode(chunk.value);
        new Uint8Array(chunk.value.buffer).fill(0x58);
      }
    });
    const words = Array.from({ length: 30 }, (_, index) => `word ${index} `);
    for (const word of words) await told.say(word);
    await told.exit();
    await Promise.all(reading);
    expect(new Set(texts).size).toBe(1);
    expect(chunksOf(framesOf(texts[0])).map(({ delta }) => delta ?? '').join('')).toBe(words.join(''));
  });

  it('that stop have one live chunk in their queue at most', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const listener = listen(sessionId);
    const reader = createRunStream(sessionId).getReader();
    await told.say('first ');
    await reader.read();
    const words = Array.from({ length: 20 }, (_, index) => `word ${index} `);
    for (const word of words) {
      await told.say(word);
      await listener.has(word);
    }
    // What was enqueued ahead, and then all the rest in one.
    const chunks = [];
    await told.exit();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) chunks.push(decoder.decode(chunk.value));
    expect(chunks.length).toBeLessThanOrEqual(4);
    expect(chunksOf(framesOf(chunks.join(''))).map(({ delta }) => delta ?? '').join('')).toBe(words.join(''));
  });
});

describe('the event loop', () => {
  it('turns while many readers read all of a long run', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('x'.repeat(1_000)).repeat(5_000), stderr: '', exit: '0' });
    let turns = 0;
    const read = async () => {
      const began = turns;
      let bytes = 0;
      for await (const chunk of createRunStream(sessionId)) bytes += chunk.length;
      return { bytes, turns: turns - began };
    };
    let isOver = false;
    const count = () => {
      turns += 1;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    const results = await Promise.all(Array.from({ length: 100 }, read));
    isOver = true;
    const [{ bytes }] = results;
    expect(bytes).toBeGreaterThan(5_000_000);
    expect(results.every((result) => result.bytes === bytes)).toBe(true);
    // 500 MB in one turn, without a budget.
    expect(turns).toBeGreaterThan(10);
  });
});

describe('many readers', () => {
  it('of whom some are slow and some vanish, get the same, encoded once', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const slow = createRunStream(sessionId).getReader();
    const vanishing = Array.from({ length: 50 }, () => createRunStream(sessionId).getReader());
    const readers = Array.from({ length: 200 }, () => get(sessionId).then((response) => response.text()));
    const words = Array.from({ length: 5_000 }, (_, index) => `word ${index}, é\n`);
    await told.say(...words.slice(0, 2_500));
    await Promise.all(vanishing.map((reader) => reader.read()));
    await Promise.all(vanishing.map((reader) => reader.cancel()));
    await told.say(...words.slice(2_500));
    await told.exit();
    const bodies = await Promise.all(readers);
    const texts = new Set(bodies);
    expect(texts.size).toBe(1);
    const [text] = texts;
    const frames = framesOf(text);
    expect(chunksOf(frames).map(({ delta }) => delta ?? '').join('')).toBe(words.join(''));

    let slowly = '';
    for (let chunk = await slow.read(); !chunk.done; chunk = await slow.read()) {
      expect(chunk.value.length).toBeLessThanOrEqual(64 * 1024);
      slowly += decoder.decode(chunk.value, { stream: true });
    }
    expect(slowly).toBe(text);
    expect(globalThis[Symbol.for('active-runs.hub.2')].find(sessionId).framesEncoded).toBe(frames.length);
    expect(readersOf(sessionId)).toBe(0);
  });

  it('have bytes of their own, to write to and to give away', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('abcdefgh').repeat(10_000), stderr: '', exit: '0' });
    const text = await (await get(sessionId)).text();
    expect(framesOf(text)).toHaveLength(10_002);
    const [patient, reckless] = [0, 1].map(() => createRunStream(sessionId).getReader());
    const kept = [];
    for (;;) {
      const { done, value } = await patient.read();
      if (done) break;
      kept.push(value);
      const other = (await reckless.read()).value;
      expect(other.length).toBe(value.length);
      other.fill(0);
      // A stream of bytes takes what it is given away from the giver.
      const taken = new ReadableStream({ type: 'bytes', start: (controller) => controller.enqueue(other) });
      expect(other.length).toBe(0);
      expect((await taken.getReader().read()).value.every((byte) => byte === 0)).toBe(true);
    }
    expect(Buffer.concat(kept).toString()).toBe(text);
    expect(await (await get(sessionId)).text()).toBe(text);
  });

  it('gives a late one the same in a handful of frames', async () => {
    useStore();
    const stdout = textLine('abcdefgh').repeat(100_000);
    const { sessionId } = await replay({ stdout, stderr: '', exit: '0' });
    const frames = framesOf(await (await get(sessionId, { replay: 'compact' })).text());
    expect(frames.length).toBeLessThan(40);
    expect(chunksOf(frames).map(({ delta }) => delta ?? '').join('')).toBe('abcdefgh'.repeat(100_000));
  });
});

describe('a run whose frames are longer than it may keep', () => {
  it('counts and bounds all that it keeps, and tells every reader all', async () => {
    const limit = 4_000_000;
    useStore({ maxRunBytes: limit });
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const before = stats().bufferedBytes;
    const options = { protocol: 'ai-sdk' };
    const live = createRunResponse(sessionId, options).text();
    const listener = listen(sessionId);
    // A delta of a byte is a frame of a hundred.
    for (let part = 0; part < 10; part++) await told.out(textLine('a').repeat(10_000));
    await told.say('half');
    await listener.has('half');
    const fromHalf = createRunResponse(sessionId, { ...options, replay: false }).text();
    for (let part = 0; part < 10; part++) await told.out(textLine('b').repeat(10_000));
    await told.exit();
    const text = await live;
    expect(text.length).toBeGreaterThan(4 * limit);
    const frames = framesOf(text);
    expect(chunksOf(frames).map(({ delta }) => delta ?? '').join('')).toBe(listener.text());

    const slow = createRunStream(sessionId, options).getReader();
    await slow.read();
    const late = await Promise.all(Array.from({ length: 5 }, () => createRunResponse(sessionId, options).text()));
    for (const body of late) expect(body === text).toBe(true);
    const { id } = frames[50_000];
    const resumed = framesOf(await createRunResponse(sessionId, { ...options, lastEventId: id }).text());
    expect(resumed.at(-3)).toEqual(frames.at(-3));
    expect(framesOf(await fromHalf).at(-3)).toEqual(frames.at(-3));
    const module = await createRunResponse(sessionId).text();
    expect(module).toBe(listener.events.slice(0, -1).map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
    // Both protocols and the log; what is freed is freed in pieces.
    const kept = stats().bufferedBytes - before;
    expect(kept).toBeGreaterThan(400_000);
    expect(kept).toBeLessThan(2 * limit);
    await slow.cancel();
  });
});

describe('piped into a response of node:http', () => {
  it.each(['module', 'ai-sdk'])('a live run has the bytes of its stream, in the protocol %s', async (protocol) => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    // Answered before the agent says anything.
    const responses = await Promise.all(Array.from({ length: 20 }, () => getPiped(sessionId, { protocol })));
    const expected = createRunResponse(sessionId, { protocol });
    const words = Array.from({ length: 50 }, (_, index) => `word ${index}, é `);
    for (const word of words) await told.say(word);
    await told.exit();
    const text = await expected.text();
    expect(text).toContain('word 49, é');
    for (const response of responses) {
      expect(response.status).toBe(200);
      expect(Object.fromEntries(response.headers)).toMatchObject(Object.fromEntries(expected.headers));
      expect(await response.text()).toBe(text);
    }
    await until(() => readersOf(sessionId) === 0, 'nobody was counted as a reader');
  });

  it('goes on after the Last-Event-ID of its request, or of the one that it is given', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('x').repeat(50), stderr: '', exit: '0' });
    const full = framesOf(await (await getPiped(sessionId, { protocol: 'ai-sdk' })).text());
    const lastEventId = full[30].id;
    const header = { headers: { 'last-event-id': lastEventId } };
    const bodies = [
      await getPiped(sessionId, { protocol: 'ai-sdk' }, header),
      await getPiped(sessionId, { protocol: 'ai-sdk', lastEventId }),
      // As an IncomingMessage has it.
      await getPiped(sessionId, { protocol: 'ai-sdk', request: header }),
      createRunResponse(sessionId, { protocol: 'ai-sdk', request: header }),
    ];
    const expected = await createRunResponse(sessionId, { protocol: 'ai-sdk', lastEventId }).text();
    for (const response of bodies) {
      expect(response.headers.get('x-run-resumed')).toBe('true');
      expect(await response.text()).toBe(expected);
    }
  });

  it('waits for a client that reads slowly, and tells it all', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('x'.repeat(1_000)).repeat(20_000), stderr: '', exit: '0' });
    const expected = await createRunResponse(sessionId).text();
    const count = piped.length;
    const response = await new Promise((resolve) => {
      request(address(`piped/${sessionId}`), resolve).end();
    });
    // What the system's buffers do not take stays with the run: 20 MB are not in this process.
    response.pause();
    await until(() => readersOf(sessionId) === 1, 'it was read');
    expect(piped).toHaveLength(count);
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    expect(text).toBe(expected);
    await until(() => piped.length > count, 'the response was over');
    expect(piped.at(-1)).toBe(true);
    expect(readersOf(sessionId)).toBe(0);
  });

  it('forgets a client that goes away, in mid-chunk or while the run is silent', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    await told.say('x'.repeat(30_000_000));
    const count = piped.length;
    const open = Array.from({ length: 2 }, () => connect(server.address().port, '127.0.0.1'));
    for (const socket of open) socket.on('error', () => {}).write(`GET /piped/${sessionId} HTTP/1.1\r\nHost: x\r\n\r\n`);
    // One reads all that there is, the other nothing.
    open[0].resume();
    await until(() => readersOf(sessionId) === 2, 'both were read for');
    for (const socket of open) socket.destroy();
    await until(() => readersOf(sessionId) === 0, 'both were forgotten');
    await until(() => piped.length === count + 2, 'both promises were fulfilled');
    expect(piped.slice(count)).toEqual([false, false]);
    await told.exit();
  });

  it('does without a run, a body or a client', async () => {
    useStore();
    const none = await getPiped(newSession());
    expect([none.status, await none.json()]).toEqual([404, { active: false }]);
    const nothing = await getPiped(newSession(), { protocol: 'ai-sdk' });
    expect([nothing.status, await nothing.text()]).toEqual([204, '']);

    const told = await puppet();
    const { sessionId } = start(told.agent);
    const head = await getPiped(sessionId, {}, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-type'), await head.text()]).toEqual([200, 'text/event-stream', '']);
    await until(() => readersOf(sessionId) === 0, 'a request for headers was no reader');

    const other = createServer();
    onTestFinished(() => void other.close());
    await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve));
    const destroyed = await new Promise((resolve) => {
      other.on('request', (_, outgoing) => resolve(outgoing));
      request({ port: other.address().port }).on('error', () => {}).end();
    });
    destroyed.destroy();
    expect(await pipeRun(sessionId, destroyed)).toBe(false);
    expect(readersOf(sessionId)).toBe(0);
    await told.exit();
  });

  it('ends for every request of a connection that were sent at once (pipelining), when the client goes', async () => {
    useStore();
    const told = await puppet();
    const { sessionId } = start(told.agent);
    const outcomes = [];
    const pipelined = createServer((_, outgoing) => {
      pipeRun(sessionId, outgoing).then((all) => outcomes.push(all));
    });
    onTestFinished(() => void pipelined.close());
    await new Promise((resolve) => pipelined.listen(0, '127.0.0.1', resolve));
    const client = connect(pipelined.address().port, '127.0.0.1');
    client.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(15));
    await until(() => readersOf(sessionId) === 15, 'all read');
    client.destroy();
    await until(() => outcomes.length === 15, 'all ended');
    expect(outcomes).toEqual(Array(15).fill(false));
    expect(readersOf(sessionId)).toBe(0);
    await told.exit();
  });

  it('sends the headers and the status that it is given, with those that are set', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('x'), stderr: '', exit: '0' });
    const headers = [['set-cookie', 'a=1'], ['set-cookie', 'b=2'], ['X-Run-Active', 'no']];
    const response = await getPiped(sessionId, { headers, status: 201 });
    expect(response.status).toBe(201);
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
    expect(response.headers.get('x-run-active')).toBe('no');
    expect(createRunResponse(sessionId, { headers }).headers.getSetCookie()).toEqual(['a=1', 'b=2']);
  });
});

describe('a response', () => {
  it('has the headers of a stream, and those it is given', async () => {
    useStore();
    const { sessionId } = await replay({ stdout: textLine('x'), stderr: '', exit: '0' });
    const response = createRunResponse(sessionId, { headers: { 'x-own': '1', 'X-Run-Active': 'no' }, status: 201 });
    expect(response.status).toBe(201);
    expect(Object.fromEntries(response.headers)).toEqual({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-run-active': 'no',
      'x-own': '1',
    });
    const { headers } = createRunResponse(sessionId, { protocol: 'ai-sdk' });
    expect(headers.get('x-vercel-ai-ui-message-stream')).toBe('v1');
    expect(headers.get('x-run-active')).toBe('false');
    expect(headers.get('x-run-id')).toMatch(/^\d+$/);
    expect(headers.has('x-run-user-message')).toBe(false);
  });

  it('says that there is no run', async () => {
    const none = createRunResponse(newSession());
    expect([none.status, await none.json()]).toEqual([404, { active: false }]);
    const nothing = createRunResponse(newSession(), { protocol: 'ai-sdk' });
    expect([nothing.status, nothing.body]).toEqual([204, null]);
    expect(createRunStream(newSession())).toBeNull();
    expect(createRunResponse('../x').status).toBe(404);
  });

  it.each(['', 'x', '5', '1-', '-1', '1-99', '1771000000000-1', '99999999999999999999-1'])(
    'tells everything after the cursor %j, and says so',
    async (lastEventId) => {
      useStore();
      const { sessionId } = await replay({ stdout: textLine('x'), stderr: '', exit: '0' });
      const response = createRunResponse(sessionId, { lastEventId });
      expect(response.headers.get('x-run-resumed')).toBe('false');
      expect(framesOf(await response.text())).toHaveLength(3);
    },
  );

  it('refuses options that it does not know what to make of', () => {
    for (const [name, value] of [
      ['replay', 'all'],
      ['replay', 1],
      ['protocol', 'sse'],
      ['resume', 'again'],
      ['heartbeatMs', -1],
      ['heartbeatMs', '5'],
      ['lastEventId', 5],
    ]) {
      const error = { code: 'INVALID_ARGUMENT', message: expect.stringMatching(`^${name}: must be`) };
      expect(() => createRunStream('s', { [name]: value })).toThrow(expect.objectContaining(error));
    }
    const { sessionId } = start(agent('says-and-waits', 'x'));
    const response = { writeHead() {}, write() {}, end() {}, on() {}, destroy() {} };
    for (const [name, value] of [
      ['headers', 5],
      ['headers', { 'not a name': 'x' }],
      ['headers', [['x', 'a\nb']]],
      ['headers', { x: '\x01' }],
      ['status', '200'],
      ['status', 199],
      ['status', 204],
      ['status', 600],
      ['request', 5],
      ['request', {}],
      ['replay', 'all'],
    ]) {
      const error = { code: 'INVALID_ARGUMENT', message: expect.stringMatching(`^${name}`) };
      expect(() => createRunResponse(sessionId, { [name]: value })).toThrow(expect.objectContaining(error));
      expect(() => pipeRun(sessionId, response, { [name]: value })).toThrow(expect.objectContaining(error));
    }
    for (const wrong of [undefined, 5, {}, { ...response, write: 1 }, { ...response, headersSent: true }]) {
      const error = { code: 'INVALID_ARGUMENT', message: expect.stringMatching('^response: ') };
      expect(() => pipeRun(sessionId, wrong)).toThrow(expect.objectContaining(error));
    }
    // Nothing was opened for any of them.
    expect(readersOf(sessionId)).toBe(0);
    expect(() => createRunStream(5)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => createRunResponse('s', 5)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});
