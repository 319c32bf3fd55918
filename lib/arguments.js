'use strict';

// The checks of what callers pass: types and forms. What a value means is checked natively.

const { invalidArgument } = require('./errors.js');

function typeName(value) {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
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
    throw invalidArgument(name, `must be a whole number from ${least} to ${most}, not ${String(value)}`);
  }
  return value;
}

function checkOptionalInteger(name, value, least, most) {
  return value === undefined || value === null ? undefined : checkInteger(name, value, least, most);
}

function checkStrings(name, value) {
  if (!Array.isArray(value)) throw invalidArgument(name, `must be an array, not ${typeName(value)}`);
  return value.map((item, index) => checkString(`${name}[${index}]`, item, { nul: false }));
}

/** Refuses members that have no meaning, so that a slip of the pen does not pass unseen. */
function checkKeys(name, value, allowed) {
  for (const key of Object.keys(value)) {
    if (!allowed.includes(key)) {
      throw invalidArgument(`${name}.${key}`, `is unknown; there are ${allowed.join(', ')}`);
    }
  }
}

module.exports = {
  checkFunction,
  checkInteger,
  checkKeys,
  checkObject,
  checkOptionalInteger,
  checkOptionalString,
  checkString,
  checkStrings,
};
