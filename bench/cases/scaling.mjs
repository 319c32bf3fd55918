// The curves: what happens to the event loop when there is more of everything.

const MB = 1e6;

/** A curve is a case for each of its points. Runs last 2.6 seconds: they are flushed three times. */
function curve(id, title, label, points, measure) {
  return points.map(([x, ...values]) => ({
    id: `${id}-${x}`,
    title: `${title}: ${x}`,
    curve: { id, title, label, x },
    figures: [{ key: 'stall', label: `${title}: ${x}: longest stall`, unit: 'ms' }],
    measure: async (tools) => ({ stall: await measure(tools, ...values) }),
  }));
}

/** Runs of 50 deltas a second, started one after the other, without a history. */
export const runs = curve(
  'runs',
  'concurrent runs',
  'runs',
  [1, 10, 100, 400].map((count) => [count, count]),
  ({ start, finish, longestStall }, count) =>
    longestStall(async () => {
      const ends = [];
      for (let number = 0; number < count; number++) {
        start(`s-${number}`, 'pace', 130, 8, 50);
        ends.push(finish(`s-${number}`));
        // Users do not all press the key in one tick of the loop.
        await new Promise(setImmediate);
      }
      await Promise.all(ends);
    }),
);

export const histories = curve(
  'history',
  'history of the session',
  'MB',
  [0, 1, 10, 50, 100].map((megabytes) => [megabytes, megabytes * MB]),
  ({ start, finish, writeHistory, longestStall }, bytes) => {
    writeHistory('s', bytes);
    return longestStall(async () => {
      start('s', 'pace', 130, 8, 50);
      await finish('s');
    });
  },
);

export const answers = curve(
  'answer',
  'length of the answer',
  'MB',
  [0.1, 1, 10, 50].map((megabytes) => [megabytes, megabytes * MB]),
  ({ start, finish, longestStall }, bytes) => {
    // So that it is flushed while it grows; the deltas grow with it.
    const length = bytes / 1_250;
    return longestStall(async () => {
      start('s', 'pace', 1_250, length, 500);
      await finish('s');
    });
  },
);
