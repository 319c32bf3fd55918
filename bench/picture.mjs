// The picture of the results: how much better than the module's way, and how the longest stall grows
// with the work. Plain SVG that follows the reader's light or dark colours.
import { amount, ratio } from './figures.mjs';

const WIDTH = 880;
const MARGIN = 24;

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .small { font-size: 11px; fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .bar, .module-dot { fill: #b1bac4 }
  .addon-bar, .addon-dot { fill: #0969da }
  .line { fill: none; stroke-width: 2 }
  .module-line { stroke: #b1bac4 }
  .addon-line { stroke: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .bar, .module-dot { fill: #656c76 }
    .addon-bar, .addon-dot { fill: #4493f8 }
    .module-line { stroke: #656c76 }
    .addon-line { stroke: #4493f8 }
  }`;

/** What the bars show: case, figure and how it is called here. */
const BARS = [
  ['flood', 'loop', 'event loop, for each event'],
  ['flood-stall', 'stall', 'longest stall, 500,000 deltas at once'],
  ['histories', 'stall', 'longest stall, 20 chats of 5 MB'],
  ['long-histories', 'stall', 'longest stall, 10 chats of 20 MB'],
  ['user-message', 'later', 'persistUserMessage, 10 MB chat'],
  ['start', 'later', 'startRun, 1 GB resident'],
  ['replay-bytes', 'time', 'SSE replay of 100,000 events'],
  ['readers', 'loop', '100 SSE readers, event loop'],
  ['memory', 'bytes', 'memory for each buffered event'],
];

const escape = (text) => text.replace(/[&<>]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[char]);

function text(x, y, content, { kind = '', anchor = 'start' } = {}) {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}" text-anchor="${anchor}">${escape(content)}</text>`;
}

/** A place on a logarithmic scale: 0 for `least`, 1 for `most`. */
const logarithmic = (least, most) => (value) =>
  (Math.log10(Math.max(value, least)) - Math.log10(least)) / (Math.log10(most) - Math.log10(least));

/** The whole picture. */
export function picture({ machine, rows }) {
  const parts = [];
  let top = MARGIN + 12;
  parts.push(text(MARGIN, top, 'The addon, with the module’s way as 1 (shorter is better, logarithmic)', { kind: 'title' }));
  top += 14;
  const left = 268;
  const right = WIDTH - 178;
  const place = logarithmic(1 / 1_000, 1);
  for (const [id, key, name] of BARS) {
    const row = rows.find((each) => each.case === id && each.key === key);
    if (!row) continue;
    const length = place(Math.min(1, row.addon / row.module)) * (right - left);
    parts.push(text(left - 10, top + 15, name, { anchor: 'end' }));
    parts.push(`<rect x="${left}" y="${top + 3}" width="${right - left}" height="15" rx="3" class="bar" opacity="0.35"/>`);
    parts.push(`<rect x="${left}" y="${top + 3}" width="${Math.max(2, length).toFixed(1)}" height="15" rx="3" class="addon-bar"/>`);
    parts.push(text(right + 8, top + 15, `${ratio(row)}  (${amount(row.module, row)} → ${amount(row.addon, row)})`, { kind: 'small' }));
    top += 25;
  }
  top += 34;
  parts.push(text(MARGIN, top, 'Longest stall of the event loop in ms (logarithmic)', { kind: 'title' }));
  const legend = WIDTH - MARGIN - 200;
  parts.push(`<circle cx="${legend}" cy="${top - 4}" r="4" class="module-dot"/>`, text(legend + 9, top, 'module’s way'));
  parts.push(`<circle cx="${legend + 120}" cy="${top - 4}" r="4" class="addon-dot"/>`, text(legend + 129, top, 'addon'));
  top += 18;
  const curves = byCurve(rows);
  const room = (WIDTH - 2 * MARGIN) / Math.max(1, curves.size);
  let index = 0;
  for (const points of curves.values()) {
    parts.push(panel(points, MARGIN + index * room, top, room - 24, 190));
    index++;
  }
  top += 190 + 52;
  const about = `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${machine.date}; medians of ${machine.rounds} processes each`;
  parts.push(text(MARGIN, top, about, { kind: 'small' }));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top + 14}" role="img" aria-label="Benchmark of the addon against the module’s way">
<style>${STYLE}
</style>
${parts.join('\n')}
</svg>
`;
}

/** The rows that are points of curves, by curve. */
function byCurve(rows) {
  const groups = new Map();
  for (const row of rows) {
    if (!row.curve) continue;
    const group = groups.get(row.curve.id) ?? [];
    groups.set(row.curve.id, [...group, row]);
  }
  return groups;
}

/** One curve: its points in equal steps, because they are chosen about logarithmically. */
function panel(points, x, y, width, height) {
  const { title, label } = points[0].curve;
  const inset = 34;
  const place = logarithmic(1, 10_000);
  const atX = (index) => x + inset + (index * (width - inset - 12)) / Math.max(1, points.length - 1);
  const atY = (value) => y + height - place(value) * height;
  const parts = [];
  for (const value of [1, 10, 100, 1_000, 10_000]) {
    parts.push(`<line x1="${(x + inset).toFixed(1)}" x2="${(x + width).toFixed(1)}" y1="${atY(value).toFixed(1)}" y2="${atY(value).toFixed(1)}" class="grid"/>`);
    parts.push(text(x + inset - 6, atY(value) + 4, value.toLocaleString('en-US'), { kind: 'small', anchor: 'end' }));
  }
  for (const who of ['module', 'addon']) {
    const path = points.map((point, index) => `${atX(index).toFixed(1)},${atY(point[who]).toFixed(1)}`);
    parts.push(`<polyline points="${path.join(' ')}" class="line ${who}-line"/>`);
    for (const pair of path) {
      const [cx, cy] = pair.split(',');
      parts.push(`<circle cx="${cx}" cy="${cy}" r="4" class="${who}-dot"/>`);
    }
  }
  points.forEach((point, index) => parts.push(text(atX(index), y + height + 16, String(point.curve.x), { kind: 'small', anchor: 'middle' })));
  parts.push(text(x + inset + (width - inset) / 2, y + height + 33, `${title} (${label})`, { kind: 'small', anchor: 'middle' }));
  return parts.join('\n');
}
