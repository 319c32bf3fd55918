// The pages: no link leads nowhere, and nothing public is left out.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { runs } from './helpers/index.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (page) => readFileSync(join(root, page), 'utf8');
const pages = ['README.md', ...readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];

/** The anchors that GitHub gives a page's headings. */
function anchors(page) {
  const headings = read(page).replace(/^```[^]*?^```/gm, '').matchAll(/^#+ (.*)$/gm);
  return Array.from(headings, ([, heading]) =>
    heading
      .trim()
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

/** The members of a union of string literals in the types. */
function codes(type) {
  const [, union] = new RegExp(`export type ${type} =([^;]*);`).exec(read('index.d.ts'));
  return Array.from(union.matchAll(/\| "(\w+)"/g), ([, code]) => code);
}

it.each(pages)('%s links to what is there', (page) => {
  for (const [, link] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(link)) continue;
    const [path, anchor] = link.split('#');
    const target = path ? join(dirname(page), path) : page;
    expect(existsSync(join(root, target)), `${link} in ${page}`).toBe(true);
    if (anchor) expect(anchors(target), `${link} in ${page}`).toContain(anchor);
  }
});

it('each page of docs is linked from the README', () => {
  for (const page of pages.slice(1)) expect(read('README.md')).toContain(`(${page}`);
});

it('each error and warning has its row', () => {
  for (const code of codes('ErrorCode')) expect(read('docs/errors.md')).toContain(`| \`${code}\` |`);
  for (const code of codes('WarningCode')) expect(read('docs/monitoring.md')).toContain(`| \`${code}\` |`);
});

it.runIf(runs.stats)('each setting has its row, and so has each number of stats', () => {
  const rows = read('docs/settings.md');
  for (const setting of Object.keys(runs.configure())) expect(rows).toContain(`| \`${setting}\` |`);
  for (const number of Object.keys(runs.stats())) expect(read('docs/monitoring.md')).toContain(`\`${number}\``);
});

it('each function has its place in the README', () => {
  for (const name of Object.keys(runs)) expect(read('README.md')).toContain(name);
});
