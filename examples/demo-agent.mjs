// A small agent for the demo. It has no language model: it lists the folder that it was started in, looks for the words
// of the question in file names and contents, and says what it found. What it does on stdout is what any agent has to
// do: one JSON object a line, as the README's "Agents of your own" describes. It only reads.
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** The pause after each word, in milliseconds: it has no language model to wait for. */
const DELAY_MS = Number(process.env.DEMO_DELAY_MS ?? 14);
const MAX_FILES = 20_000;
const MAX_FILE_BYTES = 256 * 1024; // of a file that is searched
const MAX_SEARCHED_BYTES = 64 * 1024 * 1024; // of all of them
// Nor are folders that begin with a dot, and other file systems: reading a file of /proc may never end.
const NOT_ENTERED = new Set(['node_modules', 'target', 'dist']);
const STOP_WORDS = new Set(
  `a about all an and any are biggest changed contain contains contents could current directory does explain file files
  find folder folders for from give has have here how inside its largest last latest list look many most much newest not
  please project read recent recently say says show size sizes tell that the their them there these this those was were what
  when where which who why will with would you your`.split(/\s+/),
);

// ── The agent's side of the contract ──

const emit = (stream, data) => process.stdout.write(`${JSON.stringify({ event: 'agent', stream, data })}\n`);

/** Streams a text word by word. */
async function say(stream, text) {
  for (const delta of text.match(/\s*\S+/g) ?? []) {
    emit(stream, { delta });
    await pause(DELAY_MS);
  }
}

let calls = 0;

/** Uses a tool and reports the call and its result: what the tool returns, of which `text` is for all to read. */
async function call(name, args, tool) {
  const base = { name, toolCallId: `call-${++calls}` };
  emit('tool', { ...base, phase: 'start', args });
  const began = performance.now();
  try {
    const { text, ...found } = await tool();
    const details = { status: 'completed', durationMs: Math.round(performance.now() - began), cwd: process.cwd() };
    emit('tool', { ...base, phase: 'result', result: { content: [{ type: 'text', text }], details } });
    return found;
  } catch (error) {
    emit('tool', { ...base, phase: 'result', isError: true, result: { details: { error: error.message } } });
    return {};
  }
}

// ── Its tools: the first line of a result's text sums it up ──

async function listFiles(path) {
  const files = [];
  let folders = 0;
  const { dev } = await stat(path);
  const waiting = [path];
  while (waiting.length > 0 && files.length < MAX_FILES) {
    const folder = waiting.shift();
    // A folder that may not be read is passed over.
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    for (const entry of entries.slice(0, MAX_FILES - files.length)) {
      if (!entry.isDirectory() && !entry.isFile()) continue;
      const at = join(folder, entry.name);
      const found = await stat(at).catch(() => null);
      if (found?.dev !== dev) continue;
      if (entry.isFile()) {
        files.push({ path: at, bytes: found.size, modified: found.mtimeMs });
      } else {
        folders += 1;
        if (!entry.name.startsWith('.') && !NOT_ENTERED.has(entry.name)) waiting.push(at);
      }
    }
  }
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const complete = files.length < MAX_FILES;
  const first = complete ? '' : 'the first ';
  const summary = `${first}${count(files.length, 'file')} in ${count(folders, 'folder')}, ${size(bytes)}`;
  const shown = files.slice(0, 40).map((file) => `${file.path}  ${size(file.bytes)}`);
  return { text: [summary, ...shown, ...(files.length > 40 ? ['…'] : [])].join('\n'), files, folders, bytes, complete };
}

async function searchFiles(words, files) {
  const matches = [];
  let searched = 0;
  for (const { path, bytes } of files) {
    const inName = words.filter((word) => path.toLowerCase().includes(word));
    if (inName.length > 0) matches.push({ path, words: inName });
    if (bytes > MAX_FILE_BYTES || searched + bytes > MAX_SEARCHED_BYTES) continue;
    searched += bytes;
    const content = await readFile(path, 'utf8').catch(() => '');
    if (content.includes('\0')) continue; // not a text
    content.split('\n').forEach((line, index) => {
      const lower = line.toLowerCase();
      const inLine = words.filter((word) => lower.includes(word));
      if (inLine.length > 0) matches.push({ path, words: inLine, line: index + 1, text: line.trim().slice(0, 100) });
    });
  }
  // Where most of the words come together is the likeliest answer; the sort keeps the files' order otherwise.
  matches.sort((a, b) => b.words.length - a.words.length);
  const found = new Set(matches.map(({ path }) => path)).size;
  const summary = `${count(matches.length, 'match', 'matches')} in ${count(found, 'file')}`;
  const shown = matches.slice(0, 40).map(({ path, line, text }) => (line ? `${path}:${line}: ${text}` : path));
  return { text: [summary, ...shown].join('\n'), matches, found };
}

async function readStart(path, lines) {
  const file = await open(path);
  try {
    const head = [];
    for await (const line of file.readLines()) if (head.push(line.slice(0, 200)) === lines) break;
    return { text: [`the first ${count(head.length, 'line')} of ${path}`, ...head].join('\n'), head };
  } finally {
    await file.close();
  }
}

// ── Words ──

const count = (number, one, many = `${one}s`) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;

function size(bytes) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

const listed = (items) => new Intl.ListFormat('en').format(items);
const bullets = (items) => items.map((item) => `\n- ${item}`).join('');

/** The commonest kinds of file, as "`.rs` (12)". */
function kinds(files) {
  const tally = new Map();
  for (const { path } of files) {
    const kind = extname(path) || basename(path);
    tally.set(kind, (tally.get(kind) ?? 0) + 1);
  }
  const commonest = [...tally].sort(([, a], [, b]) => b - a).slice(0, 4);
  return listed(commonest.map(([kind, number]) => `\`${kind}\` (${number})`));
}

/** The first paragraph that is no heading, badge or markup. */
const opening = (lines) =>
  lines
    .join('\n')
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.replace(/\s+/g, ' ').trim())
    .find((paragraph) => /^[\p{L}\p{N}*_`"“]/u.test(paragraph));

// ── The turn ──

const question = process.argv[2] ?? '';
const asks = (pattern) => pattern.test(question.toLowerCase());
const words = [...new Set(question.toLowerCase().match(/[\p{L}\p{N}_][\p{L}\p{N}_.-]+[\p{L}\p{N}_]/gu) ?? [])]
  .filter((word) => !STOP_WORDS.has(word))
  .slice(0, 5);

emit('lifecycle', { phase: 'start' });
await say('thinking', `The question is “${question}”. First I look at what there is in ${process.cwd()}.`);
const { files = [], folders = 0, bytes = 0, complete } = await call('list_files', { path: '.' }, () => listFiles('.'));

const paragraphs = [];
const name = `\`${basename(process.cwd()) || process.cwd()}\``;
if (files.length === 0) {
  paragraphs.push(`I found no files in ${name}.`);
} else {
  const holds = complete ? 'holds' : 'is large. I looked at';
  const amount = `${count(files.length, 'file')} in ${count(folders, 'folder')}, ${size(bytes)} together`;
  paragraphs.push(`${name} ${holds} ${amount}. The most common kinds are ${kinds(files)}.`);
}

if (words.length > 0 && files.length > 0) {
  const quoted = listed(words.map((word) => `“${word}”`));
  await say('thinking', `I look for ${quoted} in names and contents.`);
  const { matches = [], found = 0 } = await call('search_files', { words }, () => searchFiles(words, files));
  if (matches.length === 0) {
    paragraphs.push(`Nothing in it mentions ${quoted}.`);
  } else {
    const best = matches.slice(0, 5).map(({ path, line, text }) => (line ? `\`${path}:${line}\`: ${text}` : `\`${path}\``));
    paragraphs.push(`I found ${quoted} ${count(matches.length, 'time')}, in ${count(found, 'file')}:${bullets(best)}`);
  }
}

const readme = files.find(({ path }) => /^readme(\.|$)/i.test(path));
if (readme && (words.length === 0 || asks(/\b(what|about|explain|why|readme|project)\b/))) {
  await say('thinking', `${readme.path} may say what this is about.`);
  const { head = [] } = await call('read_file', { path: readme.path, lines: 30 }, () => readStart(readme.path, 30));
  const text = opening(head);
  if (text) paragraphs.push(`\`${readme.path}\` introduces it so: ${text}`);
}

const top = (by, describe) => bullets([...files].sort(by).slice(0, 3).map(describe));
if (files.length > 0 && asks(/new|recent|latest|last|chang/)) {
  const describe = (file) => `\`${file.path}\`, ${new Date(file.modified).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
  paragraphs.push(`Changed last:${top((a, b) => b.modified - a.modified, describe)}`);
}
if (files.length > 0 && (words.length === 0 || asks(/big|larg|size|space/))) {
  paragraphs.push(`The biggest:${top((a, b) => b.bytes - a.bytes, (file) => `\`${file.path}\`, ${size(file.bytes)}`)}`);
}

await say('assistant', paragraphs.join('\n\n'));
emit('lifecycle', { phase: 'end' });
