// Puts the results into README.md and BENCH.md, between `<!-- bench:NAME -->` and `<!-- /bench -->`.
// Run by the benchmark; `npm run bench:pages` does only this.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { amount, barText, ratio } from './figures.mjs';
import { PICTURE, RESULTS, ROOT } from './places.mjs';
import { picture } from './picture.mjs';

/** The text of each named place. */
function texts({ machine, rows }) {
  const about =
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGB} GB, ${machine.os}, Node ${machine.node}, ` +
    `${machine.date}. Medians of ${machine.rounds} fresh processes each, in turns.`;
  const verdict = { true: 'yes', false: '**no** ([why](BENCH.md#bars-that-are-not-reached-and-why))', null: '' };
  const line = (row) =>
    `| ${row.label} | ${amount(row.module, row)} | ${amount(row.addon, row)} | ${ratio(row)} | ${barText(row)} | ${verdict[row.reached]} |`;
  const find = (id, key) => rows.find((row) => row.case === id && row.key === key);
  const [loop, histories] = [find('flood', 'loop'), find('histories', 'stall')];
  return {
    table: [
      "| | module's way | addon | ratio | bar | reached |",
      '|---|---|---|---|---|---|',
      ...rows.filter((row) => !row.curve).map(line),
      '',
      about,
    ].join('\n'),
    headline:
      `An event costs the event loop ${amount(loop.addon, loop)}, where the TypeScript module took ${amount(loop.module, loop)}; ` +
      `with 20 chats of 5 MB streaming, its longest stall is ${amount(histories.addon, histories)} instead of ${amount(histories.module, histories)}.`,
  };
}

/** Rewrites the marked places and the picture from `results.json`. */
export function updatePages() {
  const results = JSON.parse(readFileSync(RESULTS, 'utf8'));
  const contents = texts(results);
  for (const page of ['README.md', 'BENCH.md']) {
    const path = join(ROOT, page);
    const before = readFileSync(path, 'utf8');
    const after = before.replace(
      /(<!-- bench:(\w+) -->\n)[^]*?(<!-- \/bench -->)/g,
      (_, begin, name, end) => `${begin}${contents[name]}\n${end}`,
    );
    writeFileSync(path, after);
  }
  writeFileSync(PICTURE, picture(results));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) updatePages();
