// Puts the package as it is built in the repository into node_modules: the files that are published, and the binary, which
// users get from the package of their platform. Runs before `npm run dev` and `npm run build`.
import { spawnSync } from 'node:child_process';
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const repository = join(import.meta.dirname, '../../..');
const installed = join(import.meta.dirname, '../node_modules/active-runs');

const pack = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: repository, encoding: 'utf8' });
if (pack.status !== 0) throw new Error(`npm pack failed: ${pack.error?.message ?? pack.stderr}`);
const published = JSON.parse(pack.stdout)[0].files.map((file) => file.path);
const binaries = readdirSync(repository).filter((name) => name.endsWith('.node'));
if (binaries.length === 0) throw new Error(`There is no binary. Run \`npm run build\` in ${repository}.`);

rmSync(installed, { recursive: true, force: true });
for (const path of new Set([...published, ...binaries])) cpSync(join(repository, path), join(installed, path));
