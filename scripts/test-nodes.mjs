// The Vitest suite on other versions of Node: node scripts/test-nodes.mjs [version…]
//
// Without versions: the oldest that is supported, and each newer line. The npm packages
// `node-<platform>-<arch>` carry Node's own binaries; they are kept in target/nodes.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const VERSIONS = ['20.17.0', '20', '22', '24', '26'];
const PACKAGE = `node-${process.platform}-${process.arch}`;

function run(command, args, options) {
  const { status, signal, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options });
  return error?.message ?? (status === 0 ? null : `${command} ended with ${signal ?? `exit code ${status}`}`);
}

/** The path of Node's binary in this version, which is downloaded if it is not there. */
function install(version) {
  const folder = join(root, 'target', 'nodes', version);
  const node = join(folder, 'node_modules', PACKAGE, 'bin', 'node');
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "private": true }');
    const problem = run('npm', ['install', `${PACKAGE}@${version}`, '--no-audit', '--no-fund', '--loglevel=error'], { cwd: folder });
    if (problem) throw new Error(problem);
  }
  return node;
}

const versions = process.argv.length > 2 ? process.argv.slice(2) : VERSIONS;
const failed = [];
for (const version of versions) {
  const node = install(version);
  console.log(`\n── ${spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()}`);
  // First on PATH, for agents that are started as `node`.
  const env = { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH}` };
  const problem = run(node, [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run'], { cwd: root, env });
  if (problem) failed.push(`${version}: ${problem}`);
}
for (const problem of failed) console.error(`✗ ${problem}`);
if (failed.length > 0) process.exit(1);
