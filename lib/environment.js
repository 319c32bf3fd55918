'use strict';

// The environment that an agent is given: the one of the caller at the call.

const { types } = require('node:util');
const { isMainThread } = require('node:worker_threads');
const { checkObject, checkString, shown } = require('./arguments.js');
const binding = require('./binding.js');
const { invalidArgument } = require('./errors.js');

/** As one text, `KEY=value` each ended by a NUL; undefined is that of the process. */
function environment(added) {
  const env = checkObject('process.env', process.env);
  const isAsInherited = added === undefined || added === null;
  if (isAsInherited && isOfProcess(env)) return undefined;
  const given = isAsInherited ? [] : Object.entries(checkObject('agent.env', added));
  const variables = inherited(env, new Set(given.map(([key]) => key)));
  for (const [key, value] of given) {
    if (key === '' || key.includes('=') || key.includes('\0')) {
      throw invalidArgument('agent.env', `${JSON.stringify(key)} is no name of a variable`);
    }
    if (value !== undefined) variables.set(key, checkString(`agent.env.${key}`, value, { nul: false }));
  }
  let text = '';
  for (const [key, value] of variables) text += `${key}=${value}\0`;
  return text;
}

/**
 * The variables of `process.env`, which may be any object: of a worker it is a copy, and a test may have
 * put another there. As `child_process` takes them, each value as a string. Without those that are `replaced`.
 */
function inherited(env, replaced) {
  const variables = new Map();
  for (const [key, value] of Object.entries(env)) {
    if (value === undefined || replaced.has(key)) continue;
    const text = asText(key, value);
    // What follows a NUL would be a variable of its own.
    if (key.includes('\0') || text.includes('\0')) {
      throw invalidArgument(nameOf(key), 'has a NUL character, which no program can be given');
    }
    variables.set(key, text);
  }
  return variables;
}

function asText(key, value) {
  try {
    return `${value}`;
  } catch (error) {
    throw invalidArgument(nameOf(key), `cannot be made a string: ${shown(error?.message ?? error)}`);
  }
}

const nameOf = (key) => `process.env[${JSON.stringify(key)}]`;

let lastSeen = { env: undefined, isOfProcess: false };

/**
 * Whether `env` shows the environment of the process itself, which the native part reads in a
 * twentieth of the time. Not so in a worker, or when somebody has put another object there.
 */
function isOfProcess(env) {
  if (env !== lastSeen.env) lastSeen = { env, isOfProcess: isMainThread && writesThrough(env) };
  return lastSeen.isOfProcess;
}

function writesThrough(env) {
  // A proxy may write there and show something else.
  if (types.isProxy(env)) return false;
  const probe = `ACTIVE_RUNS_PROBE_${process.pid}`;
  const isThere = Reflect.set(env, probe, '1') && Object.hasOwn(env, probe) && binding.hasVariable(probe);
  Reflect.deleteProperty(env, probe);
  return isThere;
}

module.exports = { environment };
