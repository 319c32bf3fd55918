// The tests with the AI SDK: scripts/test-ai.mjs says which major of it they are given.
import { fileURLToPath } from 'node:url';
import ofAllTests from '../../vitest.config.mjs';

export default {
  ...ofAllTests,
  root: fileURLToPath(new URL('../..', import.meta.url)),
  // Some of these tests are a thousand chats.
  test: { ...ofAllTests.test, include: ['__test__/ai/*.test.mjs'], testTimeout: 240_000 },
};
