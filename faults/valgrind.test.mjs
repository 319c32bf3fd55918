// The whole addon, in Node, under valgrind's memcheck. V8 runs without its compiler, whose code
// valgrind cannot follow; processes are started without sharing memory, because valgrind makes a
// fork of every vfork.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { program, temporaryFolder, tried } from './helpers.mjs';

const hasValgrind = spawnSync('valgrind', ['--version']).status === 0;

function check(times) {
  const args = ['--leak-check=full', '--trace-children=no', process.execPath, '--jitless', '--single-threaded'];
  const body = [program('some-of-everything.mjs'), `${times}`, join(temporaryFolder(), 'store')];
  const { status, stderr } = spawnSync('valgrind', [...args, ...body], { encoding: 'utf8', maxBuffer: 1 << 28 });
  const number = (pattern) => Number(pattern.exec(stderr)?.[1].replaceAll(',', '') ?? NaN);
  return {
    status,
    stderr,
    errors: number(/ERROR SUMMARY: ([\d,]+) errors/),
    lost: number(/definitely lost: ([\d,]+) bytes/),
  };
}

// Blocks that nobody points to count as errors of memcheck, too; those are looked at by themselves.
const accesses = (stderr) => stderr.match(/Invalid (read|write|free)|uninitialised|overlap in/g) ?? [];

it.runIf(hasValgrind)('valgrind finds no bad access, and nothing lost that grows with the runs', () => {
  const few = check(1);
  const many = check(8);
  for (const { status, stderr } of [few, many]) {
    expect(status, stderr.slice(-5_000)).toBe(0);
    expect(accesses(stderr), stderr).toEqual([]);
  }
  expect(many.lost, many.stderr).toBeLessThanOrEqual(few.lost);
  tried('Invalid memory accesses and lost blocks under valgrind', 8 * 3, `runs; ${few.lost} bytes lost by one round, ${many.lost} by eight, all at start`);
});
