import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

// Settings and runs belong to the process. Test files in forks have one each; as threads they
// share it, so they take turns.
const asThreads = /--pool[= ]threads\b/.test(process.argv.join(' '));

export default defineConfig({
  test: {
    include: ['__test__/*.test.mjs'],
    globalSetup: '__test__/helpers/one-temporary-folder.mjs',
    fileParallelism: !asThreads,
    // Most of a test's time is waiting: also where there are two processors, for which Vitest takes one.
    maxWorkers: asThreads ? 1 : Math.max(2, availableParallelism() - 1),
    // Generous: they only end what hangs. The tests wait for conditions and assert no durations.
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
