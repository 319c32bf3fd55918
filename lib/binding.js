'use strict';

// Finds the native binary: one that was built here, else the platform's package; and, where another copy
// of this package has loaded its own before, that one.

const { createRequire } = require('node:module');

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

/** As `INTERFACE` in `src/copies.rs` has it: what this JavaScript expects of a native part. */
const INTERFACE = 1;

function incompatible(path, reason) {
  const message =
    `active-runs: ${path ?? 'the native part of this package'}, which this process has loaded before, ${reason}. ` +
    'A process has one set of runs, settings and stores, so all copies of the package in it must be of one version: ' +
    'install it once (`npm ls active-runs`), and restart the process after an update.';
  return Object.assign(new Error(message), { code: 'INCOMPATIBLE_COPY' });
}

/**
 * Of several copies of the package in a process, all use the native part that was loaded first, in
 * whatever thread: runs, settings and stores are in its memory.
 */
function firstLoaded(own) {
  const { path, interface: version } = own.firstCopy?.() ?? {};
  if (version !== INTERFACE) throw incompatible(path, 'is of another version');
  if (path === undefined || path === null) return own;
  try {
    // Not `require`, which a bundler would take for its own business.
    return createRequire(path)(path);
  } catch (error) {
    throw incompatible(path, `cannot be used by another copy (${error.message})`);
  }
}

module.exports = firstLoaded(load());
