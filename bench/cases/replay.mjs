// Readers who come late, and readers who want bytes.

const middle = (times) => times.sort((a, b) => a - b)[times.length >> 1];

/** The first reader of a process has Node load its streams: not what each costs. */
async function warmUp({ start, readBytes }) {
  start('warm', 'flood', 100, 8);
  await readBytes('warm');
}

/** The callbacks of a reader who comes after 100,000 events. */
export const replay = {
  id: 'replay',
  title: 'late subscriber, 100,000 events',
  figures: [{ key: 'time', label: 'late subscriber, 100,000 events replayed', unit: 'ms', digits: 2, bar: { ratio: { atMost: 2 } } }],
  async measure({ api, start, finish, sleep }) {
    start('s', 'flood', 100_000, 8);
    await finish('s');
    await sleep(200);
    // Once: that is what a late subscriber gets, and not what the compiler makes of the tenth.
    let events = 0;
    const begin = performance.now();
    api.subscribeToRun('s', () => events++);
    return { time: performance.now() - begin };
  },
};

/** The same reader as a route serves it. */
export const replayBytes = {
  id: 'replay-bytes',
  title: 'the same as SSE bytes (what a route does)',
  figures: [{ key: 'time', label: 'the same as SSE bytes (what a route does)', unit: 'ms', bar: { ratio: { atMost: 1 / 20 } } }],
  async measure({ start, finish, readBytes, sleep }) {
    await warmUp({ start, readBytes });
    start('s', 'flood', 100_000, 8);
    await finish('s');
    const times = [];
    for (let round = 0; round < 5; round++) {
      await sleep(20);
      const begin = performance.now();
      await readBytes('s');
      times.push(performance.now() - begin);
    }
    return { time: middle(times) };
  },
};

/** Many open tabs. */
export const readers = {
  id: 'readers',
  title: '100 SSE readers of one run of 10,000 deltas',
  figures: [{ key: 'loop', label: '100 SSE readers of one run of 10,000 deltas: loop time', unit: 'ms', bar: { ratio: { atMost: 1 / 50 } } }],
  async measure({ start, readBytes, busy }) {
    await warmUp({ start, readBytes });
    const { loopMs } = await busy(async () => {
      start('s', 'flood', 10_000, 8);
      await Promise.all(Array.from({ length: 100 }, () => readBytes('s')));
    });
    return { loop: loopMs };
  },
};
