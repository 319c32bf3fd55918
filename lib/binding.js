'use strict';

// Finds the native binary: one that was built here, else the platform's package.

// Each name is written out, so that tools which trace what a program needs (Next.js' standalone
// output) see it.
const BINARIES = {
  'linux-x64-gnu': [
    () => require('../active-runs.linux-x64-gnu.node'),
    () => require('active-runs-linux-x64-gnu'),
  ],
  'linux-x64-musl': [
    () => require('../active-runs.linux-x64-musl.node'),
    () => require('active-runs-linux-x64-musl'),
  ],
  'linux-arm64-gnu': [
    () => require('../active-runs.linux-arm64-gnu.node'),
    () => require('active-runs-linux-arm64-gnu'),
  ],
  'linux-arm64-musl': [
    () => require('../active-runs.linux-arm64-musl.node'),
    () => require('active-runs-linux-arm64-musl'),
  ],
  'darwin-x64': [
    () => require('../active-runs.darwin-x64.node'),
    () => require('active-runs-darwin-x64'),
  ],
  'darwin-arm64': [
    () => require('../active-runs.darwin-arm64.node'),
    () => require('active-runs-darwin-arm64'),
  ],
};

function isMusl() {
  // glibc names its version in the report; musl has none to name. The report would look up the
  // names of all peers, which takes seconds where the network is slow.
  const { excludeNetwork } = process.report;
  process.report.excludeNetwork = true;
  const { header } = process.report.getReport();
  process.report.excludeNetwork = excludeNetwork;
  return header.glibcVersionRuntime === undefined;
}

function platformName() {
  const name = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return name;
  return `${name}-${isMusl() ? 'musl' : 'gnu'}`;
}

/** The native part. Throws an error with the code `UNSUPPORTED_PLATFORM` when there is none. */
function load() {
  const platform = platformName();
  for (const attempt of BINARIES[platform] ?? []) {
    try {
      return attempt();
    } catch (error) {
      // A binary that is there and does not load says itself why.
      if (error?.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  const what = BINARIES[platform]
    ? `its package, active-runs-${platform}, was not installed. Install without --omit=optional, on the ` +
      'platform that it is to run on.'
    : `there are binaries for ${Object.keys(BINARIES).join(', ')}.`;
  const message =
    `active-runs has no binary for ${platform}: ${what} ` +
    'To build one: with Rust (https://rustup.rs), in a clone of the repository, run `npm run build`.';
  throw Object.assign(new Error(message), { code: 'UNSUPPORTED_PLATFORM' });
}

module.exports = load();
