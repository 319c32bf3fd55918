'use strict';

// Starting, finding and stopping runs: checks arguments; the hub does the rest.

const { isAbsolute, resolve } = require('node:path');
const {
  checkFunction,
  checkKeys,
  checkObject,
  checkOptionalInteger,
  checkOptionalString,
  checkSessionId,
  checkString,
  checkStrings,
  workingDirectory,
} = require('./arguments.js');
const { environment } = require('./environment.js');
const { invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { userLine } = require('./messages.js');
const { LONGEST_MS, checkErrors, defaultStoreDir } = require('./settings.js');

function startRun(params) {
  // Each member is read once: what was checked is what is used.
  const { sessionId, message, userMessage, agentSessionId, agent, errors, maxSilenceMs, maxRunMs } = checkObject(
    'params',
    params,
  );
  checkSessionId(sessionId);
  const hub = getHub();
  const user = isAbsent(userMessage) ? undefined : userLine('userMessage', userMessage);
  const values = {
    sessionId,
    userMessageId: user?.id,
    userMessageLine: user?.line,
    ...readAgent(agent),
    message: checkString('message', message, { nul: false }),
    agentSessionId: checkOptionalString('agentSessionId', agentSessionId, { nul: false }),
    defaultStoreDir,
    errors: errors === undefined || errors === null ? undefined : checkErrors('errors', errors),
    maxSilenceMs: checkOptionalInteger('maxSilenceMs', maxSilenceMs, 0, LONGEST_MS),
    maxRunMs: checkOptionalInteger('maxRunMs', maxRunMs, 0, LONGEST_MS),
  };
  return hub.start(values)?.activeRun ?? null;
}

function subscribeToRun(sessionId, callback, options) {
  checkString('sessionId', sessionId);
  checkFunction('callback', callback);
  if (options !== undefined && options !== null) checkObject('options', options);
  const view = getHub().find(sessionId);
  return view ? view.subscribe(callback, options?.replay ?? true) : null;
}

function abortRun(sessionId) {
  checkString('sessionId', sessionId);
  const view = getHub().find(sessionId);
  if (!view?.isRunning) return false;
  view.abort();
  return true;
}

function hasActiveRun(sessionId) {
  checkString('sessionId', sessionId);
  return getHub().find(sessionId)?.isRunning ?? false;
}

function getActiveRun(sessionId) {
  checkString('sessionId', sessionId);
  return getHub().find(sessionId)?.activeRun;
}

/** The agent, its environment, and the directory in which it is started. */
function readAgent(agent) {
  if (isAbsent(agent)) return { env: environment(), cwd: workingDirectory('agent') };
  checkKeys('agent', checkObject('agent', agent), ['format', 'command', 'args', 'cwd', 'env']);
  const { format, command, args, cwd, env } = agent;
  checkOptionalString('agent.format', format);
  const variables = environment(env);
  if (!isAbsent(format) && isAbsent(command)) {
    for (const [name, value] of Object.entries({ args, cwd })) {
      if (!isAbsent(value)) throw invalidArgument(`agent.${name}`, 'needs an agent.command');
    }
    return { agent: { format, args: [] }, env: variables, cwd: workingDirectory('agent') };
  }
  if (checkString('agent.command', command, { nul: false }) === '') {
    throw invalidArgument('agent.command', 'is empty');
  }
  const given = checkOptionalString('agent.cwd', cwd, { nul: false }) ?? '';
  const custom = {
    format: format ?? undefined,
    command,
    args: checkStrings('agent.args', args ?? []),
    cwd: isAbsolute(given) ? resolve(given) : resolve(workingDirectory('agent.cwd'), given),
  };
  return { agent: custom, env: variables, cwd: custom.cwd };
}

const isAbsent = (value) => value === undefined || value === null;

module.exports = { startRun, subscribeToRun, abortRun, hasActiveRun, getActiveRun };
