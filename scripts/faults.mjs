// `npm run test:faults [-- --seed N] [--write]`: everything that production may do to a server, on real
// processes and files, in about six minutes. Prints what was tried; `--write` puts it into
// docs/reliability.md.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const record = join(root, 'target', 'faults.jsonl');
const PROPERTY_CASES = 2_000;
const FUZZ_SECONDS = 12;

const { values } = parseArgs({ options: { seed: { type: 'string' }, write: { type: 'boolean', default: false } } });
const seed = values.seed ?? `${Math.floor(Math.random() * 2 ** 32)}`;
console.log(`The seed of this run: npm run test:faults -- --seed ${seed}`);

mkdirSync(join(root, 'target'), { recursive: true });
rmSync(record, { force: true });

function run(command, args, env) {
  const { status, error, stdout } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  process.stdout.write(stdout ?? '');
  if (error || status !== 0) {
    console.error(`\`${command} ${args.join(' ')}\` failed: ${error?.message ?? `exit code ${status}`}; the seed was ${seed}`);
    process.exit(1);
  }
  return stdout;
}

const tried = (fault, times, what) => writeFileSync(record, `${JSON.stringify({ fault, times, what })}\n`, { flag: 'a' });

run('npx', ['vitest', 'run', '--config', 'faults/vitest.config.mjs'], { FAULTS_SEED: seed, FAULTS_RECORD: record });

run('cargo', ['test', '--quiet', '--test', 'properties'], { PROPTEST_CASES: `${PROPERTY_CASES}`, PROPTEST_RNG_SEED: seed });
const properties = readFileSync(join(root, 'tests/properties.rs'), 'utf8').match(/^ {4}fn /gm).length;
tried('Random input to lines, JSON, strings and the translator (property tests)', properties * PROPERTY_CASES);

const fuzzed = run(process.execPath, ['scripts/fuzz.mjs', '--seconds', `${FUZZ_SECONDS}`, '--seed', seed]);
const subjects = {
  lines: 'Line splitting',
  json: 'JSON, number and string forms',
  translator: 'From the agent’s bytes to events and message',
  store: 'Damaged session files',
};
for (const [, name, inputs] of fuzzed.matchAll(/^(\w+): (\d+) inputs/gm)) {
  tried(`${subjects[name]}: input found by coverage-guided fuzzing`, Number(inputs));
}

// ── The table ──

const byFault = new Map();
for (const line of readFileSync(record, 'utf8').split('\n').filter(Boolean)) {
  const { fault, times, what } = JSON.parse(line);
  const known = byFault.get(fault) ?? { times: 0, notes: new Set() };
  known.times += times;
  if (what) known.notes.add(what);
  byFault.set(fault, known);
}
const cell = (text) => text.replaceAll('|', '\\|').replaceAll(/\/tmp\/active-runs-test-\w+/g, '…');
const rows = [...byFault].map(([fault, { times, notes }]) => {
  const note = cell([...notes].join('; ').replaceAll('[active-runs] ', ''));
  return `| ${fault} | ${times.toLocaleString('en')} | ${times > 0 ? 'nothing' : '–'} | ${note} |`;
});
const table = ['| fault | tried | lost | what was seen |', '|---|---:|---|---|', ...rows].join('\n');
console.log(`\n${table}\n`);

const page = join(root, 'docs', 'reliability.md');
if (values.write && existsSync(page)) {
  const text = readFileSync(page, 'utf8');
  const [begin, end] = ['<!-- table: written by npm run test:faults -- --write -->', '<!-- end of the table -->'];
  const [head, rest] = text.split(begin);
  const made = `Seed ${seed}, Node ${process.version}, ${process.platform} ${process.arch}, ${new Date().toISOString().slice(0, 10)}.`;
  writeFileSync(page, `${head}${begin}\n${made}\n\n${table}\n${end}${rest.split(end)[1]}`);
}
