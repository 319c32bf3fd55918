// Figures: their middle, their bars, and how they are written.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Whether the addon reaches its bar; null when there is none. */
export function isReached({ bar, addon, module }) {
  if (!bar) return null;
  const { atMost = Infinity, atLeast = -Infinity } = bar.ratio ?? bar;
  const value = bar.ratio ? addon / module : addon;
  return value <= atMost && value >= atLeast;
}

/** A figure in its unit, with three digits that mean something. */
export function amount(value, { unit, digits = 0 }) {
  if (Number.isInteger(value) && value < 1_000) return `${value} ${unit}`.trim();
  const places = Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
  const number = value.toLocaleString('en-US', {
    maximumFractionDigits: Math.min(places, Math.max(digits, 1)),
    minimumFractionDigits: 0,
  });
  return `${number} ${unit}`.trim();
}

/** How the addon's figure relates to the module's: `1/25` or `2.6 ×`. */
export function ratio({ addon, module }) {
  if (!module || !addon) return '';
  const value = addon / module;
  if (value > 0.67) return `${value.toFixed(value < 10 ? 2 : 0)} ×`;
  return `1/${(1 / value).toFixed(value > 0.1 ? 1 : 0)}`;
}

/** The bar as the table says it. */
export function barText({ bar, unit }) {
  if (!bar) return '';
  const { atMost, atLeast } = bar.ratio ?? bar;
  const limit = atMost ?? atLeast;
  const sign = atMost === undefined ? '≥' : '≤';
  if (!bar.ratio) return `${sign} ${limit} ${unit}`.trim();
  return limit < 1 ? `${sign} 1/${Math.round(1 / limit)}` : `${sign} ${limit} ×`;
}

/** The rows as a table for a terminal. */
export function textTable(rows) {
  const head = ['', "module's way", 'addon', 'ratio', 'bar', ''];
  const body = rows.map((row) => [
    `${row.case}: ${row.label}`,
    amount(row.module, row),
    amount(row.addon, row),
    ratio(row),
    barText(row),
    row.reached === null ? '' : row.reached ? 'ok' : 'MISSED',
  ]);
  const table = [head, ...body];
  const widths = head.map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
  return table
    .map((cells) => cells.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  ').trimEnd())
    .join('\n');
}
