// The whole addon, in Node, under valgrind's memcheck. V8 runs without its compiler, whose code
// valgrind cannot follow; processes are started without sharing memory, because valgrind makes a
// fork of every vfork. (Nothing is said of that child, which ends as the agent or at once.)
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { program, temporaryFolder, tried } from './helpers.mjs';

const hasValgrind = spawnSync('valgrind', ['--version']).status === 0;

function check(times) {
  const args = ['--leak-check=full', '--child-silent-after-fork=yes', process.execPath, '--jitless', '--single-threaded'];
  const body = [program('some-of-everything.mjs'), `${times}`, join(temporaryFolder(), 'store')];
  const { status, stderr } = spawnSync('valgrind', [...args, ...body], { encoding: 'utf8', maxBuffer: 1 << 28 });
  // Records are told apart by a line that is empty but for the number of the process.
  const records = stderr.split(/^==\d+== *$/m);
  const isOurs = (record) => /active-runs[^\n]*\.node/.test(record);
  const ours = records.filter(isOurs);
  return {
    status,
    stderr,
    // V8 has a few that are its own.
    accesses: ours.filter((record) => /Invalid (read|write|free)|uninitialised|overlap in/.test(record)),
    lost: ours
      .map((record) => /([\d,]+)(?: \([^)]*\))? bytes in [\d,]+ blocks are definitely lost/.exec(record)?.[1])
      .filter(Boolean)
      .reduce((sum, bytes) => sum + Number(bytes.replaceAll(',', '')), 0),
  };
}

const ROUNDS = 8;

it.runIf(hasValgrind)('valgrind finds no bad access, and nothing lost that grows with the runs', () => {
  const few = check(1);
  const many = check(ROUNDS);
  for (const { status, stderr, accesses } of [few, many]) {
    expect(status, stderr.slice(-5_000)).toBe(0);
    expect(stderr).toContain('ERROR SUMMARY');
    expect(accesses).toEqual([]);
  }
  expect(many.lost, many.stderr).toBeLessThanOrEqual(few.lost);
  const what = `runs; the addon's own blocks lost: ${few.lost} bytes after 3 of them, ${many.lost} after ${ROUNDS * 3}`;
  tried('Invalid memory accesses and lost blocks (valgrind)', ROUNDS * 3, what);
});
