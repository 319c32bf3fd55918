// Everything a fresh clone needs before it can run: the npm packages and the release addon.
// Runs before `npm run demo` and `npm test`; where nothing has changed it takes a second.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error || status !== 0) {
    console.error(`\`${command} ${args.join(' ')}\` failed: ${error?.message ?? `exit code ${status}`}`);
    process.exit(1);
  }
}

// npm notes in this file what it last installed.
const installed = join(root, 'node_modules', '.package-lock.json');
const isNewer = (file, than) => statSync(file).mtimeMs > statSync(than).mtimeMs;
if (!existsSync(installed) || isNewer(join(root, 'package-lock.json'), installed)) {
  // Not `npm ci`: it refuses a lock file made where the registry has no packages for other
  // platforms (npm/cli#9846). `npm install` keeps to the locked versions as well.
  run('npm', 'install', '--no-audit', '--no-fund');
}
run('npm', 'run', '--silent', 'build');
