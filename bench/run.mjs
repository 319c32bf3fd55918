// `npm run bench`: every case with the addon and with the module's way in turns, each time in a
// fresh process; prints the medians, their ratios and whether the bars are reached.
//
//   --only CASE   only this case, or this curve's; nothing is written (may be repeated)
//   --quick       one turn each instead of five; nothing is written
//   --rounds N    turns
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { cases } from './cases/index.mjs';
import { isReached, median, textTable } from './figures.mjs';
import { AGENT, BENCH, RESULTS, ROOT, TEMP } from './places.mjs';
import { updatePages } from './pages.mjs';

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
  },
});
const rounds = options.quick ? 1 : Number(options.rounds);
const chosen = options.only ? cases.filter(({ id, curve }) => options.only.some((name) => name === id || name === curve?.id)) : cases;
if (chosen.length === 0) {
  const names = new Set(cases.map(({ id, curve }) => curve?.id ?? id));
  console.error(`No such case. There are ${[...names].join(', ')}.`);
  process.exit(2);
}

mkdirSync(dirname(AGENT), { recursive: true });
execFileSync('rustc', ['-O', '--edition', '2024', '-o', AGENT, join(BENCH, 'agent.rs')], { stdio: 'inherit' });

const loadBefore = loadavg()[0];
if (loadBefore > 0.5) {
  console.error(`The machine is busy (load ${loadBefore.toFixed(1)}): stalls will be those of the machine.`);
}

const rows = [];
for (const each of chosen) {
  process.stderr.write(`${each.id} `);
  const figures = { addon: [], module: [] };
  for (let round = 0; round < rounds; round++) {
    // Who goes first changes, too.
    const order = round % 2 ? ['module', 'addon'] : ['addon', 'module'];
    for (const implementation of order) figures[implementation].push(measure(each.id, implementation));
    process.stderr.write('.');
  }
  process.stderr.write('\n');
  for (const figure of each.figures) {
    const of = (implementation) => figures[implementation].map((values) => values[figure.key]);
    const row = {
      case: each.id,
      ...figure,
      ...(each.curve ? { curve: each.curve } : {}),
      module: median(of('module')),
      addon: median(of('addon')),
      all: { module: of('module'), addon: of('addon') },
    };
    row.reached = isReached(row);
    rows.push(row);
  }
}
rmSync(TEMP, { recursive: true, force: true });

console.log(textTable(rows));
if (!options.only && !options.quick) {
  const machine = {
    cpu: cpus()[0].model,
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 2 ** 30),
    os: `${process.platform} ${process.arch}`,
    node: process.version,
    date: new Date().toISOString().slice(0, 10),
    rounds,
    loadBefore,
  };
  writeFileSync(RESULTS, `${JSON.stringify({ machine, rows }, null, 1)}\n`);
  updatePages();
}

function measure(id, implementation) {
  const args = ['--expose-gc', join(BENCH, 'measure.mjs'), id, implementation];
  const output = execFileSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(output);
}
