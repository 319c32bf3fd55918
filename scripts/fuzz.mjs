// Fuzzes what reads input, guided by coverage: libFuzzer on the stable toolchain, whose compiler can
// do all of it but the address sanitizer. `node scripts/fuzz.mjs [--seconds N] [--seed N] [target…]`.
// The corpus grows in target/fuzz; `--keep` makes it small and keeps it in fuzz/corpus, a file for each
// target: gzip of inputs, each behind its length (32 bits, little-endian).
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';

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

function unpack(file, folder) {
  mkdirSync(folder, { recursive: true });
  if (!existsSync(file)) return;
  const bytes = gunzipSync(readFileSync(file));
  for (let at = 0; at < bytes.length; ) {
    const end = at + 4 + bytes.readUInt32LE(at);
    const input = bytes.subarray(at + 4, end);
    writeFileSync(join(folder, createHash('sha1').update(input).digest('hex')), input);
    at = end;
  }
}

function pack(folder, file) {
  const inputs = readdirSync(folder).map((name) => readFileSync(join(folder, name)));
  inputs.sort(Buffer.compare);
  const packed = inputs.flatMap((input) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(input.length);
    return [length, input];
  });
  writeFileSync(file, gzipSync(Buffer.concat(packed), { level: 9 }));
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
  const kept = join(root, 'fuzz/corpus', `${name}.gz`);
  const findings = join(root, 'fuzz/findings', name);
  mkdirSync(findings, { recursive: true });
  unpack(kept, grown);
  // What once was a finding must not become one again.
  const past = readdirSync(findings).map((file) => join(findings, file));
  if (past.length > 0) run(program, past);
  const said = run(program, [
    grown,
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
  if (!values.keep) continue;
  const small = join(root, 'target/fuzz/small', name);
  rmSync(small, { recursive: true, force: true });
  for (const folder of [small, join(root, 'fuzz/corpus')]) mkdirSync(folder, { recursive: true });
  run(program, ['-merge=1', '-max_len=512', small, grown]);
  pack(small, kept);
}
