'use strict';

// The environment that an agent is given: the one of the caller at the call.

const { types } = require('node:util');
const { isMainThread } = require('node:worker_threads');
const { checkObject, checkString } = require('./arguments.js');
const binding = require('./binding.js');
const { invalidArgument } = require('./errors.js');

/** As one text, `KEY=value` each ended by a NUL; undefined is that of the process. */
function environment(added) {
  const isAsInherited = added === undefined || added === null;
  if (isAsInherited && isOfProcess(process.env)) return undefined;
  if (!isAsInherited) checkAdded(added);
  const variables = { ...process.env, ...added };
  let text = '';
  for (const key in variables) {
    if (variables[key] !== undefined) text += `${key}=${variables[key]}\0`;
  }
  return text;
}

function checkAdded(added) {
  for (const [key, value] of Object.entries(checkObject('agent.env', added))) {
    if (key === '' || key.includes('=') || key.includes('\0')) {
      throw invalidArgument('agent.env', `${JSON.stringify(key)} is no name of a variable`);
    }
    if (value !== undefined) checkString(`agent.env.${key}`, value, { nul: false });
  }
}

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
