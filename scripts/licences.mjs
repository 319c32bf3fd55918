// The licences of what is linked into the native binary: `node scripts/licences.mjs` checks that
// docs/licences.md lists them as Cargo.lock has them and that each may be used in an MIT package;
// `--write` writes the page.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const page = join(root, 'docs', 'licences.md');
const { napi } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

// Of each choice (`OR`) one must be among these, of each sum (`AND`) all.
const USABLE = ['MIT', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception', 'BSD-3-Clause', 'ISC', 'Unicode-3.0', 'Unlicense', 'Zlib', '0BSD', 'BSL-1.0'];
const isUsable = (licence) =>
  licence
    .replaceAll(/[()]/g, '')
    .split(' AND ')
    .every((part) => part.split(/ OR |\s*\/\s*/).some((choice) => USABLE.includes(choice)));

const crates = new Map();
for (const target of napi.targets) {
  // Macros run when it is built and leave nothing of their own.
  const { status, stdout, stderr } = spawnSync(
    'cargo',
    ['tree', '--locked', '-e', 'normal,no-proc-macro', '--prefix', 'none', '--target', target, '--format', '{p}|{l}|{r}'],
    { cwd: root, encoding: 'utf8' },
  );
  if (status !== 0) {
    console.error(stderr);
    process.exit(1);
  }
  for (const line of stdout.split('\n').filter(Boolean)) {
    const [id, licence, repository] = line.replace(' (*)', '').split('|');
    const [name, version] = id.split(' ');
    if (name !== 'active-runs') crates.set(`${name} ${version}`, { name, version, licence, repository });
  }
}
const sorted = [...crates.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
const rows = sorted.map(({ name, version, licence, repository }) => `| [${name}](${repository}) | ${version.slice(1)} | ${licence} |`);
const text = `# Licences

The package is under the [MIT licence](../LICENSE). It has no npm dependencies. These crates are linked into its native
binary; the list is written by \`node scripts/licences.mjs --write\` and checked by CI.

| crate | version | licence |
|---|---|---|
${rows.join('\n')}
`;

const unusable = sorted.filter(({ licence }) => !isUsable(licence));
for (const { name, licence } of unusable) console.error(`${name}: ${licence || 'no licence'} is none that this package may use`);
if (process.argv.includes('--write')) writeFileSync(page, text);
else if (!existsSync(page) || readFileSync(page, 'utf8') !== text) {
  console.error('docs/licences.md is not up to date: run `node scripts/licences.mjs --write`');
  process.exit(1);
}
process.exit(unusable.length > 0 ? 1 : 0);
