// The demo, as a user runs it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const demo = fileURLToPath(new URL('../examples/demo.mjs', import.meta.url));
const sample = fileURLToPath(new URL('../examples/sample.ndjson', import.meta.url));

let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'active-runs-demo-test-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

/** Runs the demo in `folder`; `onOutput` is told all of stdout whenever there is more. */
async function run(args, onOutput = () => {}) {
  const env = { ...process.env, INIT_CWD: folder };
  delete env.OPENCLAW_ROOT;
  const child = spawn(process.execPath, [demo, '--store', 'store', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    output += chunk;
    onOutput(output, child);
  });
  child.stderr.resume();
  const code = await new Promise((resolve) => child.on('close', resolve));
  const path = /stored in (.+)/.exec(output)?.[1];
  const messages = path && readFileSync(path, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  return { code, output, path, messages };
}

it('answers a question about the folder from its files', async () => {
  writeFileSync(join(folder, 'README.md'), '# Pond\n\nKeeps ducks.\n');
  writeFileSync(join(folder, 'ducks.txt'), 'Mallard\nThe teal is small\n');
  const { code, output, path, messages } = await run(['What about the teal?']);
  expect(code).toBe(0);
  expect(output).toContain('⚙ search_files {"words":["teal"]}');
  expect(output).toContain('`ducks.txt:2`: The teal is small');
  expect(output).toContain('Keeps ducks.');
  expect(output).toContain('✓ a second reader that joined after 25 events got the same');
  expect(output).not.toContain('\x1b');
  expect(path.startsWith(join(folder, 'store'))).toBe(true);
  expect(messages).toMatchObject([
    { role: 'user', content: 'What about the teal?' },
    { role: 'assistant', content: expect.stringContaining('Keeps ducks.') },
  ]);
});

it('plays a transcript, and puts a character together that it cuts in two', async () => {
  const { code, output, messages } = await run(['--replay', sample]);
  expect(code).toBe(0);
  expect(output).toContain('With that all 42 tests pass. 🎉');
  expect(messages[1].content).toContain('🎉');
});

it('says so when the transcript cannot be read', async () => {
  const { code, output } = await run(['--replay', 'nowhere.ndjson']);
  expect(code).toBe(1);
  expect(output).toContain('[error] the transcript cannot be read: ENOENT');
});

it('stops the agent on Ctrl-C and keeps what it has said', async () => {
  // Minutes of talk, so that it is surely cut short.
  const says = (delta, ts) => JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta }, ts });
  const lines = Array.from({ length: 1000 }, (_, i) => says(`word ${i}, `, i * 250));
  writeFileSync(join(folder, 'long.ndjson'), lines.join('\n'));
  let isStopped = false;
  const { code, output, messages } = await run(['--replay', 'long.ndjson'], (soFar, child) => {
    if (isStopped || !soFar.includes('word 1, ')) return;
    isStopped = true;
    child.kill('SIGINT');
  });
  expect(code).toBe(130);
  expect(output).toContain('· Ctrl-C: stopping the agent');
  expect(output).toContain('✗ stopped after');
  expect(messages[1].content).toContain('word 0, word 1, ');
  expect(messages[1]).not.toHaveProperty('_streaming');
});
