// Runs that a chat server has played to their end and keeps: those of the recordings, and a long one.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { agentPath } from '../../helpers/index.mjs';
import { ai, browserFetch, Chat, shown } from './index.mjs';

const file = new URL('../../conformance/recordings.json.gz', import.meta.url);
export const recordings = JSON.parse(gunzipSync(readFileSync(file)));

const line = (stream, data) => `${JSON.stringify({ event: 'agent', stream, data })}\n`;

/** A run with everything in it: so many lines that no reader reads it in one go. */
export function linesOfALongRun() {
  const lines = [line('lifecycle', { phase: 'start' })];
  const thinking = (text) => lines.push(...text.split(/(?<= )/).map((delta) => line('thinking', { delta })));
  const text = (words) => lines.push(...words.split(/(?<= )/).map((delta) => line('assistant', { delta })));
  const tool = (phase, toolCallId, more) => lines.push(line('tool', { phase, toolCallId, ...more }));
  const chunk = (data) => lines.push(line('ui', data));
  for (let round = 0; round < 6; round++) {
    thinking(`Round ${round}: so many things – "quoted", naïve, 漢字 and 🙂 – are to be thought of before a word is said. `);
    text(`Now I look at file ${round}, and say meanwhile what I see in it, line by line: äöü, €, 🏳️‍🌈, done. `);
    tool('start', `read-${round}`, { name: 'read', args: { path: `file-${round}`, lines: [1, 2, 3] } });
    tool('update', `read-${round}`, { name: 'read', partialResult: { content: [{ type: 'text', text: 'the first' }] } });
    tool('update', `read-${round}`, { name: 'read', partialResult: { content: [{ type: 'text', text: 'the first half' }] } });
    const content = [{ type: 'text', text: `all of file ${round}` }];
    if (round === 2) content.push({ type: 'image', mimeType: 'image/png', data: 'iVBORw0KGgo=' });
    tool('result', `read-${round}`, { name: 'read', result: { content, details: { exitCode: 0 } } });
    if (round % 2 === 1) {
      tool('start', `write-${round}`, { name: 'write', args: {} });
      tool('start', `beside-${round}`, { name: 'list', args: { all: true } });
      tool('result', `write-${round}`, { name: 'write', isError: true, result: 'no space left' });
      tool('result', `beside-${round}`, { name: 'list', result: { content: [{ type: 'text', text: 'a\nb' }] } });
    }
    chunk({ type: 'data-progress', id: 'p', data: { done: round } });
    chunk({ type: 'data-note', data: { round }, transient: true });
    if (round === 3) {
      chunk({ type: 'source-url', sourceId: 's1', url: 'https://example.org/a', title: 'A page' });
      chunk({ type: 'file', mediaType: 'text/plain', url: 'data:text/plain;base64,aGk=' });
      chunk({ type: 'message-metadata', messageMetadata: { model: 'm-1' } });
      lines.push(line('compaction', { phase: 'start' }), line('compaction', { phase: 'end' }));
      lines.push(line('assistant', { mediaUrls: ['https://example.org/picture.png'] }));
    }
  }
  // It is never told what came of this one.
  tool('start', 'open', { name: 'sleep', args: { seconds: 9 } });
  text('And that is all that I have to say about it. ');
  lines.push(line('lifecycle', { phase: 'end' }));
  return lines;
}

/** The settings of a server whose runs stay. */
export const keeping = (storeDir) => ({ storeDir, cleanupGraceMs: 3_600_000 });

/** What a recording's agent is, with its files in `folder`. */
export function agentOf({ stdout, stdoutBase64, stderr, exit }, folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'stdout'), stdoutBase64 === undefined ? stdout : Buffer.from(stdoutBase64, 'base64'));
  writeFileSync(join(folder, 'stderr'), stderr);
  writeFileSync(join(folder, 'exit'), `${exit}\n`);
  return { command: '/bin/sh', args: [agentPath('replays-transcript.sh'), folder] };
}

/** Each byte at which a frame ends, and 0. */
function frameEnds(bytes) {
  const ends = [0];
  for (let at = bytes.indexOf('\n\n'); at !== -1; at = bytes.indexOf('\n\n', at + 2)) ends.push(at + 2);
  return ends;
}

/** A run that the server keeps: its bytes, and what a chat shows of it that was never cut off. */
async function kept(server, name, id) {
  const body = { id, messages: [{ id: 'question', role: 'user', parts: [{ type: 'text', text: 'a question' }] }] };
  const response = await fetch(server.api, { method: 'POST', body: JSON.stringify(body) });
  const bytes = Buffer.from(await response.arrayBuffer());
  const chat = new Chat({ id, transport: new ai.DefaultChatTransport({ api: server.api, fetch: browserFetch }) });
  await chat.ask();
  const ends = frameEnds(bytes);
  return { name, id, bytes, ends, whole: shown(chat) };
}

/** Plays a transcript to its end. */
export async function play(server, name, agent, agentSessionId) {
  const id = name.replace(/[^\w-]+/g, '-');
  const message = { id: 'question', role: 'user', parts: [{ type: 'text', text: 'a question' }] };
  const body = JSON.stringify({ id, messages: [message], agent, agentSessionId });
  const response = await fetch(server.api, { method: 'POST', body });
  await response.arrayBuffer();
  return kept(server, name, id);
}

/** Plays all recordings, and the long run as well. */
export async function playAll(server, folder) {
  const stdout = linesOfALongRun().join('');
  const all = [...recordings, { name: 'the long run', stdout, stderr: '', exit: '0' }];
  const played = [];
  for (const [number, recording] of all.entries()) {
    played.push(await play(server, recording.name, agentOf(recording, join(folder, `${number}`)), recording.agentSessionId));
  }
  return played;
}
