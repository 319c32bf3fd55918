// Run by Jest and by Vitest, which both bring `test` and `expect`.
/* global expect, test */
const answer = require('./answer.cjs');
const runs = require('active-runs');

test('the installed package runs an agent', async () => {
  expect(await answer(runs)).toBe('hello');
  expect(() => runs.startRun({})).toThrow(Error);
});
