// Every transcript through a real agent process, compared with what the module made of it.
//
// One server process plays them all, several at a time, so that what the agents write to stderr
// stays out of the test's own output.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { fork } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isAddon } from './helpers/under-test.mjs';

const files = ['named', 'random', 'recordings'].map((name) => ({
  name,
  transcripts: JSON.parse(gunzipSync(readFileSync(new URL(`conformance/${name}.json.gz`, import.meta.url)))),
}));

// The module shows lines of other chats; the expectations were made without them.
const SHOWN_TO_THE_WRONG_READER = new Set(
  isAddon ? [] : ['recording: gw-concurrent-b', 'recording: gw-sigterm-tool'],
);

let folder;
const played = new Map();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'active-runs-conformance-'));
  const jobs = files.flatMap(({ transcripts }) => transcripts);
  jobs.forEach((transcript, n) => {
    const home = join(folder, `${n}`);
    mkdirSync(home);
    const { stdout, stdoutBase64, stderr, exit } = transcript;
    writeFileSync(join(home, 'stdout'), stdoutBase64 === undefined ? stdout : Buffer.from(stdoutBase64, 'base64'));
    writeFileSync(join(home, 'stderr'), stderr);
    writeFileSync(join(home, 'exit'), `${exit}\n`);
  });
  const player = fork(fileURLToPath(new URL('helpers/plays-transcripts.mjs', import.meta.url)), [folder], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  let stderr = '';
  player.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  player.on('message', ([n, result]) => played.set(jobs[n].name, result));
  player.send(jobs.map(({ agentSessionId }) => agentSessionId));
  const code = await new Promise((resolve) => player.on('close', resolve));
  if (code !== 0) throw new Error(`the player ended with ${code}: ${stderr.slice(-2_000)}`);
  expect(stderr).toContain('[active-runs stderr] [openclaw] Error: no model');
});

afterAll(() => rm(folder, { recursive: true, force: true }));

for (const { name, transcripts } of files) {
  describe(name, () => {
    for (const transcript of transcripts) {
      const same = SHOWN_TO_THE_WRONG_READER.has(transcript.name) ? it.fails : it;
      same(transcript.name, () => {
        const { events, status, exitCode, stored } = transcript.expect;
        expect(played.get(transcript.name)).toBe(JSON.stringify({ events, status, exitCode, stored }));
      });
    }
  });
}
