// Everything a fresh clone needs before it can run: the npm packages and the release addon, and, with `--example`, the npm
// packages of the example app. Runs before `npm run demo`, `npm test` and the like; where nothing has changed it takes a second.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(cwd, command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: ['ignore', 2, 2] });
  if (error || status !== 0) {
    console.error(`\`${command} ${args.join(' ')}\` failed: ${error?.message ?? `exit code ${status}`}`);
    process.exit(1);
  }
}

const isNewer = (file, than) => statSync(file).mtimeMs > statSync(than).mtimeMs;

function install(folder) {
  // npm notes in this file what it last installed.
  const installed = join(folder, 'node_modules', '.package-lock.json');
  if (existsSync(installed) && !isNewer(join(folder, 'package-lock.json'), installed)) return;
  // Not `npm ci`: it refuses a lock file made where the registry has no packages for other
  // platforms (npm/cli#9846). `npm install` keeps to the locked versions as well.
  run(folder, 'npm', 'install', '--no-audit', '--no-fund');
}

install(root);
run(root, 'npm', 'run', '--silent', 'build');
if (process.argv.includes('--example')) install(join(root, 'examples', 'next-chat'));
