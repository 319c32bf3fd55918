import { join } from 'node:path';
import type { NextConfig } from 'next';

// The demo's agent lies beside the app, and the standalone output has to hold it.
const examples = join(import.meta.dirname, '..');

const config: NextConfig = {
  // A native module cannot be bundled.
  serverExternalPackages: ['active-runs'],
  turbopack: { root: examples },
  outputFileTracingRoot: examples,
  // No import leads to the demo's agent: it is started as a program.
  outputFileTracingIncludes: { '/*': ['../demo-agent.mjs'] },
  output: process.env.NEXT_OUTPUT === 'standalone' ? 'standalone' : undefined,
  distDir: process.env.NEXT_DIST_DIR,
  poweredByHeader: false,
  devIndicators: false,
};

export default config;
