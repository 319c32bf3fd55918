import { defineConfig } from 'vitest/config';

// Settings and runs belong to the process. Test files in forks have one each; as threads they
// share it, so they take turns.
const asThreads = process.argv.some((arg, i, all) => arg === '--pool=threads' || (arg === 'threads' && all[i - 1] === '--pool'));

export default defineConfig({
  test: {
    include: ['__test__/*.test.mjs'],
    fileParallelism: !asThreads,
    // Generous: they only end what hangs. The tests wait for conditions and assert no durations.
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
