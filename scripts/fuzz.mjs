// Fuzzes what reads input, guided by coverage: libFuzzer on the stable toolchain, whose compiler can
// do all of it but the address sanitizer. `node scripts/fuzz.mjs [--seconds N] [--seed N] [target…]`.
// The corpus grows in target/fuzz; `--keep` adds what is new in it to fuzz/corpus, made small.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const TARGETS = ['lines', 'json', 'translator', 'store'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '30' },
    seed: { type: 'string', default: '1' },
    keep: { type: 'boolean', default: false },
  },
});

function run(command, args, env = {}) {
  const { status, signal, error, stderr } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) {
    process.stderr.write(stderr ?? '');
    console.error(`\`${command}\` failed: ${error?.message ?? signal ?? `exit code ${status}`}`);
    process.exit(1);
  }
  return stderr;
}

const host = /host: (\S+)/.exec(spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout)[1];
const flags = [
  '-Cpasses=sancov-module',
  '-Cllvm-args=-sanitizer-coverage-level=4',
  '-Cllvm-args=-sanitizer-coverage-inline-8bit-counters',
  '-Cllvm-args=-sanitizer-coverage-pc-table',
  '-Cllvm-args=-sanitizer-coverage-trace-compares',
];
// A target triple keeps the flags from build scripts and macros.
const build = ['build', '--quiet', '--release', '--locked', '--manifest-path', 'fuzz/Cargo.toml'];
run('cargo', [...build, '--target', host, '--target-dir', 'target/fuzz'], { RUSTFLAGS: flags.join(' ') });

for (const name of positionals.length > 0 ? positionals : TARGETS) {
  const program = join(root, 'target/fuzz', host, 'release', name);
  const grown = join(root, 'target/fuzz/corpus', name);
  const kept = join(root, 'fuzz/corpus', name);
  const findings = join(root, 'fuzz/findings', name);
  for (const folder of [grown, kept, findings]) mkdirSync(folder, { recursive: true });
  // What once was a finding must not become one again.
  const past = readdirSync(findings).map((file) => join(findings, file));
  if (past.length > 0) run(program, past);
  const said = run(program, [
    grown,
    kept,
    `-max_total_time=${values.seconds}`,
    `-seed=${values.seed}`,
    '-max_len=4096',
    '-timeout=10',
    '-rss_limit_mb=2048',
    '-print_final_stats=1',
    `-artifact_prefix=${findings}/`,
    `-dict=${join(root, 'fuzz/words.dict')}`,
  ]);
  const tries = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(said)[1]);
  const covered = [...said.matchAll(/cov: (\d+)/g)].at(-1)?.[1];
  console.log(`${name}: ${tries} inputs, ${covered} places covered, nothing found`);
  if (values.keep) run(program, ['-merge=1', '-max_len=512', kept, grown]);
}
