// Builds the app once, for all the tests. The same build serves `next start` and the standalone server.
import { spawnSync } from 'node:child_process';
import { app } from './harness.mjs';

export default function build() {
  const env = { ...process.env, NEXT_OUTPUT: 'standalone', NEXT_TELEMETRY_DISABLED: '1' };
  // Vitest's own would make it a build for tests.
  delete env.NODE_ENV;
  const { status, stdout, error } = spawnSync('npm', ['run', 'build'], { cwd: app, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 2] });
  if (status !== 0) throw new Error(`The app could not be built: ${error?.message ?? stdout}`);
}
