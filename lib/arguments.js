'use strict';

// The checks of what callers pass: types and forms. What a value means is checked natively.

const { invalidArgument } = require('./errors.js');

function typeName(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}

/** A value as an error's message shows it, whatever it is. */
function shown(value) {
  try {
    return String(value);
  } catch {
    return typeName(value);
  }
}

/** A string, of which NUL may not be a part when it goes to a program. */
function checkString(name, value, { nul = true } = {}) {
  if (typeof value !== 'string') {
    throw invalidArgument(name, `must be a string, not ${typeName(value)}`);
  }
  if (!nul && value.includes('\0')) {
    throw invalidArgument(name, 'has a NUL character, which no program can be given');
  }
  return value;
}

function checkSessionId(value) {
  if (checkString('sessionId', value).isWellFormed()) return value;
  const message = `sessionId: ${JSON.stringify(value.slice(0, 60))} has half a surrogate pair, which no file name can have`;
  throw Object.assign(new Error(message), { code: 'INVALID_SESSION_ID' });
}

function checkOptionalString(name, value, options) {
  return value === undefined || value === null ? undefined : checkString(name, value, options);
}

function checkObject(name, value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidArgument(name, `must be an object, not ${typeName(value)}`);
  }
  return value;
}

function checkFunction(name, value) {
  if (typeof value !== 'function') {
    throw invalidArgument(name, `must be a function, not ${typeName(value)}`);
  }
  return value;
}

/** A whole number within these bounds. */
function checkInteger(name, value, least, most) {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw invalidArgument(name, `must be a whole number from ${least} to ${most}, not ${shown(value)}`);
  }
  return value;
}

function checkOptionalInteger(name, value, least, most) {
  return value === undefined || value === null ? undefined : checkInteger(name, value, least, most);
}

function checkStrings(name, value) {
  if (!Array.isArray(value)) throw invalidArgument(name, `must be an array, not ${typeName(value)}`);
  // By index, because `map` would pass over what is missing.
  const { length } = value;
  const strings = [];
  for (let index = 0; index < length; index++) {
    strings.push(checkString(`${name}[${index}]`, value[index], { nul: false }));
  }
  return strings;
}

/** Refuses members that have no meaning, so that a slip of the pen does not pass unseen. */
function checkKeys(name, value, allowed) {
  for (const key of Object.keys(value)) {
    if (!allowed.includes(key)) {
      throw invalidArgument(`${name}.${key}`, `is unknown; there are ${allowed.join(', ')}`);
    }
  }
}

/** The text of a value as JSON; `undefined` for one that JSON leaves out. */
function toOptionalJson(name, value) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw invalidArgument(name, `cannot be written as JSON: ${shown(error?.message ?? error)}`);
  }
}

/** The text of a value as JSON. */
function toJson(name, value) {
  const text = toOptionalJson(name, value);
  if (text === undefined) throw invalidArgument(name, 'gives nothing as JSON');
  return text;
}

/**
 * The working directory of this process, against which paths are resolved. `name` is the argument that
 * needs it.
 */
function workingDirectory(name) {
  try {
    return process.cwd();
  } catch (error) {
    throw invalidArgument(name, `needs a working directory, and that of this process is gone (${error.code})`);
  }
}

module.exports = {
  checkFunction,
  checkInteger,
  checkKeys,
  checkObject,
  checkOptionalInteger,
  checkOptionalString,
  checkSessionId,
  checkString,
  checkStrings,
  shown,
  toJson,
  toOptionalJson,
  workingDirectory,
};
