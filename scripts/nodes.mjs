// Other versions of Node: the npm packages `node-<platform>-<arch>` carry Node's own binaries; they are kept in
// target/nodes.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const PACKAGE = `node-${process.platform}-${process.arch}`;

/** Runs the command to its end. What went wrong, or `null`. */
export function run(command, args, options) {
  const { status, signal, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options });
  return error?.message ?? (status === 0 ? null : `${command} ended with ${signal ?? `exit code ${status}`}`);
}

/** The path of Node's binary in this version, which is downloaded if it is not there. */
export function install(version) {
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

/** Runs Vitest on this binary of Node. What went wrong, or `null`. */
export function runVitest(node, args, variables) {
  // First on PATH, for agents that are started as `node`.
  const env = { ...process.env, ...variables, PATH: `${dirname(node)}${delimiter}${process.env.PATH}` };
  return run(node, [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...args], { cwd: root, env });
}
