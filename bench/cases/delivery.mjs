// From the agent's pipe to the callbacks.

/** One agent that writes as fast as it can, one subscriber. */
export const flood = {
  id: 'flood',
  title: 'one agent, 500,000 deltas of 8 bytes, one subscriber',
  figures: [
    { key: 'loop', label: 'one agent, 500,000 deltas of 8 bytes, one subscriber: loop time an event', unit: 'ns', bar: { ratio: { atMost: 1 / 12 } } },
    { key: 'rate', label: 'the same: events/s', unit: '/s', bar: { ratio: { atLeast: 2.5 } } },
  ],
  async measure({ start, finish, busy }) {
    let events = 0;
    let first = 0;
    let last = 0;
    const { loopMs } = await busy(async () => {
      start('s', 'flood', 500_000, 8);
      await finish('s', () => {
        if (events++ === 0) first = performance.now();
        else if (events % 1_000 === 0) last = performance.now();
      });
    });
    // The rate is of the stream itself: without the agent's start and the last write to the disk.
    return { loop: (loopMs * 1e6) / events, rate: events / ((last - first) / 1e3) };
  },
};

/** The same, watched for stalls. */
export const floodStall = {
  id: 'flood-stall',
  title: 'one agent, 500,000 deltas of 8 bytes, one subscriber',
  figures: [{ key: 'stall', label: 'the same: longest stall', unit: 'ms', bar: { atMost: 8 } }],
  async measure({ start, finish, longestStall }) {
    const stall = await longestStall(() => {
      start('s', 'flood', 500_000, 8);
      return finish('s');
    });
    return { stall };
  },
};

/** Many who watch one run. */
export const fanout = {
  id: 'fanout',
  title: '50 subscribers, 100,000 deltas',
  figures: [{ key: 'loop', label: '50 subscribers, 100,000 deltas: loop time a call', unit: 'ns', bar: { ratio: { atMost: 1 } } }],
  async measure({ start, finish, busy }) {
    let calls = 0;
    const { loopMs } = await busy(async () => {
      start('s', 'flood', 100_000, 8);
      await Promise.all(Array.from({ length: 50 }, () => finish('s', () => calls++)));
    });
    return { loop: (loopMs * 1e6) / calls };
  },
};

/** What a run holds in memory for those who come later. */
export const memory = {
  id: 'memory',
  title: 'memory of 500,000 buffered deltas of 8 bytes',
  figures: [{ key: 'bytes', label: 'memory a buffered event', unit: 'B', bar: { atMost: 32 } }],
  async measure({ start, finish, settledRss }) {
    // What the first run of a process allocates once is not the events'.
    start('warm', 'flood', 50_000, 8);
    await finish('warm');
    const before = await settledRss();
    start('s', 'flood', 500_000, 8);
    let events = 0;
    await finish('s', () => events++);
    return { bytes: ((await settledRss()) - before) / events };
  },
};

/** What ended runs leave, when nobody collects the garbage. */
export const freed = {
  id: 'freed',
  title: 'memory after 60 runs of 10 MB',
  figures: [
    {
      key: 'left',
      label: '60 runs of 10 MB, 5 s after their grace period, garbage not collected: memory more than before',
      unit: 'MB',
      bar: { atMost: 60 },
    },
  ],
  async measure({ api, start, finish, sleep }) {
    api.configure({ cleanupGraceMs: 300 });
    start('warm', 'flood', 1_000, 1_000);
    await finish('warm');
    const before = process.memoryUsage.rss();
    for (let number = 0; number < 60; number++) {
      start(`s-${number}`, 'flood', 10_000, 1_000);
      await finish(`s-${number}`);
    }
    await sleep(5_300);
    return { left: Math.max(0, process.memoryUsage.rss() - before) / 1e6 };
  },
};

/** How soon the reader sees something. */
export const first = {
  id: 'first',
  title: 'from startRun to the first event',
  figures: [
    { key: 'later', label: '`startRun` to the first event', unit: 'ms', digits: 2, bar: { ratio: { atMost: 1 } } },
    { key: 'first', label: 'the same, first run of the process', unit: 'ms', digits: 2, bar: { ratio: { atMost: 1 } } },
  ],
  async measure({ start, finish, sleep }) {
    const times = [];
    for (let number = 0; number < 21; number++) {
      await sleep(5);
      const begin = performance.now();
      let seen;
      start(`s-${number}`, 'flood', 1, 8);
      await finish(`s-${number}`, () => (seen ??= performance.now() - begin));
      times.push(seen);
    }
    const [firstTime, ...rest] = times;
    return { first: firstTime, later: rest.sort((a, b) => a - b)[10] };
  },
};
