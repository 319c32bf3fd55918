'use strict';

// Settings of the process: checks them; the native part holds them.

const { homedir } = require('node:os');
const { isAbsolute, join, resolve } = require('node:path');
const { checkInteger, checkKeys, checkObject, checkString, shown, workingDirectory } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');

/** The store until one is configured. */
const defaultStoreDir = join(homedir(), '.openclaw', 'web-chat');

// Node's own timers go no further.
const LONGEST_MS = 2 ** 31 - 1;

// The most that a setting may be; the least is 0 milliseconds and 1 byte.
const MILLISECONDS = {
  persistIntervalMs: LONGEST_MS,
  cleanupGraceMs: LONGEST_MS,
  killAfterMs: LONGEST_MS,
  pipeGraceMs: LONGEST_MS,
  maxSilenceMs: LONGEST_MS,
  maxRunMs: LONGEST_MS,
};
const BYTES = {
  // V8's strings are no longer.
  maxLineBytes: 2 ** 29 - 24,
  maxRunBytes: 2 ** 40,
  maxStderrBytes: 2 ** 30,
};
const ERRORS = ['auto', 'module', 'full'];
const STORE_FORMATS = ['module', 'ui'];
const KEYS = ['storeDir', 'errors', 'storeFormat', ...Object.keys(MILLISECONDS), ...Object.keys(BYTES)];

function checkErrors(name, value) {
  return checkOneOf(name, value, ERRORS);
}

function checkOneOf(name, value, allowed) {
  if (!allowed.includes(value)) {
    throw invalidArgument(name, `must be one of ${allowed.join(', ')}, not ${shown(value)}`);
  }
  return value;
}

function configure(settings = {}) {
  checkObject('settings', settings);
  checkKeys('settings', settings, KEYS);
  const change = {};
  for (const [key, value] of Object.entries(settings)) {
    if (value === undefined) continue;
    if (key === 'storeDir') {
      if (checkString(key, value, { nul: false }) === '') throw invalidArgument(key, 'is empty');
      change.storeDir = isAbsolute(value) ? resolve(value) : resolve(workingDirectory(key), value);
    } else if (key === 'errors') {
      change.errors = checkErrors(key, value);
    } else if (key === 'storeFormat') {
      change.storeFormat = checkOneOf(key, value, STORE_FORMATS);
    } else {
      if (key in MILLISECONDS) checkInteger(key, value, 0, MILLISECONDS[key]);
      else checkInteger(key, value, 1, BYTES[key]);
      change[key] = value;
    }
  }
  const { storeDir = defaultStoreDir, ...numbers } = callNative(() => binding.configure(change));
  return { storeDir, ...numbers };
}

module.exports = { LONGEST_MS, checkErrors, configure, defaultStoreDir };
