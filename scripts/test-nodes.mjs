// The Vitest suite on other versions of Node: node scripts/test-nodes.mjs [version…]
//
// Without versions: the oldest that is supported, and each newer line.
import { spawnSync } from 'node:child_process';
import { install, runVitest } from './nodes.mjs';

const VERSIONS = ['20.17.0', '20', '22', '24', '26'];

const versions = process.argv.length > 2 ? process.argv.slice(2) : VERSIONS;
const failed = [];
for (const version of versions) {
  const node = install(version);
  console.log(`\n── ${spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()}`);
  const problem = runVitest(node, []);
  if (problem) failed.push(`${version}: ${problem}`);
}
for (const problem of failed) console.error(`✗ ${problem}`);
if (failed.length > 0) process.exit(1);
