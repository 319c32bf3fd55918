'use strict';

// Errors are made here and not natively: in a test runner's sandbox, a native error is of another
// realm, and `instanceof Error` would be false.

/** An argument cannot be used. `name` is its name in the public API. */
function invalidArgument(name, reason) {
  return Object.assign(new Error(`${name}: ${reason}`), { code: 'INVALID_ARGUMENT' });
}

/** The code of an error that is a fault of the native part, as Node-API has it. */
const FAULT = 'GenericFailure';

/** Calls the native part; what it throws is thrown on as an error of this realm. */
function callNative(call) {
  try {
    return call();
  } catch (error) {
    const code = error.code === FAULT ? 'INTERNAL' : error.code;
    throw Object.assign(new Error(error.message), { code });
  }
}

module.exports = { invalidArgument, callNative };
