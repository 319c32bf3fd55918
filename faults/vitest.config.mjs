import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['faults/*.test.mjs'],
    // They count processes, threads and memory, and fill the machine: one after the other.
    fileParallelism: false,
    // Generous: they only end what hangs.
    testTimeout: 240_000,
    hookTimeout: 60_000,
  },
});
