import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: import.meta.dirname,
  test: {
    include: ['*.test.mjs'],
    globalSetup: './build.mjs',
    // One browser and one server at a time.
    fileParallelism: false,
    // Generous: they only end what hangs. The tests wait for conditions and assert no durations.
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
