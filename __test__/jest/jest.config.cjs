// The suite runs in Jest's own realm and must end by itself: a handle left open would hang it.
module.exports = {
  rootDir: __dirname,
  testEnvironment: 'node',
  testMatch: ['<rootDir>/*.test.cjs'],
  testTimeout: 60_000,
};
