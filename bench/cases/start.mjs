// Starting agents, and agents that say nothing.

/** `startRun` in a server that has grown. */
export const startup = {
  id: 'start',
  title: '`startRun` with 1 GB resident',
  figures: [
    { key: 'later', label: '`startRun` with 1 GB resident: time on the loop', unit: 'ms', digits: 3, bar: { atMost: 0.3 } },
    { key: 'first', label: 'the same, first call of the process', unit: 'ms', digits: 3 },
  ],
  async measure({ start, finish, sleep }) {
    const resident = Buffer.alloc(2 ** 30, 1);
    const times = [];
    for (let number = 0; number < 41; number++) {
      await sleep(20);
      const begin = performance.now();
      start(`s-${number}`, 'flood', 1, 8);
      times.push(performance.now() - begin);
      await finish(`s-${number}`);
    }
    resident.fill(0, 0, 1);
    const [firstTime, ...rest] = times;
    return { first: firstTime, later: rest.sort((a, b) => a - b)[20] };
  },
};

/** Stopping: in the tick of the start, and in the middle. */
export const stop = {
  id: 'stop',
  title: 'stopping',
  figures: [
    { key: 'printed', label: '200 runs aborted in the tick of their start: agents that printed something', unit: '', bar: { ratio: { atMost: 1 } } },
    { key: 'stopped', label: '`abortRun` of an agent that waits: time to the end of the run', unit: 'ms', digits: 1 },
  ],
  async measure({ api, start, finish }) {
    let printed = 0;
    for (let number = 0; number < 200; number++) {
      const name = `tick-${number}`;
      start(name, 'wait');
      api.abortRun(name);
      let isPrinted = false;
      await finish(name, ({ type, delta }) => {
        // What the run itself says of it is no word of the agent.
        if (type === 'text-delta' && !delta.startsWith('[error]')) isPrinted = true;
      });
      if (isPrinted) printed += 1;
    }
    const times = [];
    for (let number = 0; number < 41; number++) {
      const name = `middle-${number}`;
      let begin;
      start(name, 'wait');
      await finish(name, ({ type }) => {
        if (type !== 'text-delta' || begin !== undefined) return;
        begin = performance.now();
        api.abortRun(name);
      });
      times.push(performance.now() - begin);
    }
    return { printed, stopped: times.sort((a, b) => a - b)[20] };
  },
};

/** What the measuring itself, and the machine, do to a stall. */
export const quiet = {
  id: 'quiet',
  title: 'a process that does nothing',
  figures: [{ key: 'stall', label: 'for comparison, a process that does nothing for 5 s: longest stall', unit: 'ms' }],
  measure: async ({ longestStall, sleep }) => ({ stall: await longestStall(() => sleep(5_000)) }),
};

/** Agents that think for a long time. */
export const idle = {
  id: 'idle',
  title: '100 idle runs',
  figures: [
    { key: 'memory', label: '100 idle runs: memory a run', unit: 'kB', bar: { ratio: { atMost: 1 } } },
    { key: 'threads', label: '100 idle runs: threads in all', unit: '', bar: { ratio: { atMost: 1 } } },
    { key: 'perRun', label: '100 idle runs: threads more than with 10', unit: '', bar: { atMost: 0 } },
  ],
  async measure({ api, start, settledRss, threads, until, sleep }) {
    const names = [];
    const heard = new Set();
    const add = async (count) => {
      for (let number = 0; number < count; number++) {
        const name = `s-${names.length}`;
        names.push(name);
        start(name, 'wait');
        api.subscribeToRun(name, (event) => event?.type === 'text-delta' && heard.add(name));
      }
      await until(() => heard.size === names.length);
      // Until the disk threads, which wait two seconds for more work, have ended.
      await sleep(6_000);
    };
    await add(10);
    const [rss, few] = [await settledRss(), threads()];
    await add(100);
    const memory = ((await settledRss()) - rss) / 100 / 1e3;
    const all = threads();
    for (const name of names) api.abortRun(name);
    await until(() => !names.some(api.hasActiveRun));
    return { memory, threads: all, perRun: all - few };
  },
};
