'use strict';

// Finds the native binary: one that was built here, else the platform's package.

const { join } = require('node:path');

const PLATFORMS = [
  'linux-x64-gnu',
  'linux-x64-musl',
  'linux-arm64-gnu',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
];

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

function isMissing(error, request) {
  return error?.code === 'MODULE_NOT_FOUND' && error.message.includes(request);
}

/** The native part. Throws an error with the code `UNSUPPORTED_PLATFORM` when there is none. */
function load() {
  const platform = platformName();
  const places = [join(__dirname, '..', `active-runs.${platform}.node`), `active-runs-${platform}`];
  for (const place of places) {
    try {
      return require(place);
    } catch (error) {
      if (!isMissing(error, place)) throw error;
    }
  }
  const message =
    `active-runs has no binary for ${platform}. There are binaries for ${PLATFORMS.join(', ')}. ` +
    'If yours is among them, its package was not installed: install without --omit=optional. ' +
    'To build it: with Rust (https://rustup.rs), in a clone of the repository, run `npm run build`.';
  throw Object.assign(new Error(message), { code: 'UNSUPPORTED_PLATFORM' });
}

module.exports = load();
