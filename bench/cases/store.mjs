// The session's file: long histories under growing answers.

/** `agents` agents of 50 deltas/s for the time of some flushes, on histories of `bytes`. */
function paced({ start, finish, writeHistory }, agents, bytes) {
  const names = Array.from({ length: agents }, (_, number) => `s-${number}`);
  for (const name of names) writeHistory(name, bytes);
  return () =>
    Promise.all(
      names.map((name) => {
        start(name, 'pace', 250, 8, 50);
        return finish(name);
      }),
    );
}

export const manyHistories = {
  id: 'histories',
  title: '20 agents of 50 deltas/s on sessions with 5 MB of history',
  figures: [{ key: 'stall', label: '20 agents of 50 deltas/s on 5 MB histories: longest stall', unit: 'ms', bar: { atMost: 5 } }],
  measure: async (tools) => ({ stall: await tools.longestStall(paced(tools, 20, 5e6)) }),
};

export const longHistories = {
  id: 'long-histories',
  title: '10 agents on 20 MB histories',
  figures: [{ key: 'stall', label: '10 agents on 20 MB histories: longest stall', unit: 'ms', bar: { atMost: 5 } }],
  measure: async (tools) => ({ stall: await tools.longestStall(paced(tools, 10, 20e6)) }),
};

export const longHistoriesCpu = {
  id: 'long-histories-cpu',
  title: '10 agents on 20 MB histories',
  figures: [{ key: 'cpu', label: 'the same: CPU time of the server', unit: 's', digits: 2, bar: { ratio: { atMost: 1 / 5 } } }],
  measure: async (tools) => ({ cpu: (await tools.busy(paced(tools, 10, 20e6))).cpuS }),
};

/** The time of each of `count` calls of `persistUserMessage`, in ms; messages of `length` characters. */
async function timesOfMessages({ api, sleep }, { count, length, pause }) {
  const times = [];
  for (let number = 0; number < count; number++) {
    await sleep(pause);
    const content = 'And what is next? '.repeat(Math.ceil(length / 18)).slice(0, length);
    const begin = performance.now();
    api.persistUserMessage('s', { id: `u-${number}`, content });
    times.push(performance.now() - begin);
  }
  return times;
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

export const userMessage = {
  id: 'user-message',
  title: '`persistUserMessage`, history 10 MB',
  figures: [
    { key: 'first', label: '`persistUserMessage`, history 10 MB: first call', unit: 'ms', digits: 2, bar: { atMost: 5 } },
    { key: 'later', label: '`persistUserMessage`, history 10 MB: later calls', unit: 'ms', digits: 3, bar: { atMost: 0.3 } },
  ],
  async measure(tools) {
    tools.writeHistory('s', 10e6);
    const [first, ...rest] = await timesOfMessages(tools, { count: 12, length: 18, pause: 50 });
    return { first, later: median(rest) };
  },
};

/** A long message on a long history that was written before: the disk is quiet. */
export const longUserMessage = {
  id: 'long-user-message',
  title: '`persistUserMessage` of 6 kB, history 100 MB',
  figures: [
    { key: 'median', label: '`persistUserMessage` of 6 kB, history 100 MB: median', unit: 'ms', digits: 3, bar: { atMost: 0.5 } },
    { key: 'most', label: '`persistUserMessage` of 6 kB, history 100 MB: longest', unit: 'ms', digits: 2, bar: { atMost: 5 } },
  ],
  async measure(tools) {
    tools.writeHistory('s', 100e6, { isOnDisk: true });
    const times = await timesOfMessages(tools, { count: 20, length: 6_000, pause: 20 });
    return { median: median(times), most: Math.max(...times) };
  },
};

export const manySessions = {
  id: 'many-sessions',
  title: '`persistUserMessage`, 20,000 sessions in the index',
  figures: [
    { key: 'median', label: '`persistUserMessage`, 20,000 sessions in the index: median', unit: 'ms', digits: 3, bar: { atMost: 0.5 } },
    { key: 'most', label: '`persistUserMessage`, 20,000 sessions in the index: longest', unit: 'ms', digits: 2, bar: { atMost: 5 } },
  ],
  async measure(tools) {
    tools.writeHistory('s', 1e6);
    tools.writeIndex(['s', ...Array.from({ length: 20_000 }, (_, number) => `s-${number}`)]);
    const times = await timesOfMessages(tools, { count: 20, length: 100, pause: 20 });
    return { median: median(times), most: Math.max(...times) };
  },
};

/** What flushes of a long answer cost: five seconds of it, 50 deltas of 4 kB a second. */
export const flush = {
  id: 'flush',
  title: 'flushes of a 1 MB answer onto a 20 MB history',
  figures: [
    { key: 'loop', label: 'flushes of a 1 MB answer onto a 20 MB history, 5 s of it: loop time', unit: 'ms' },
    { key: 'user', label: 'the same: CPU time in user mode, all threads', unit: 'ms' },
  ],
  async measure({ start, finish, writeHistory, busy }) {
    writeHistory('s', 20e6);
    const { loopMs, userS } = await busy(() => {
      start('s', 'pace', 250, 4_000, 50);
      return finish('s');
    });
    return { loop: loopMs, user: userS * 1e3 };
  },
};
