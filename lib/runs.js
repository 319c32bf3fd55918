'use strict';

const { resolve } = require('node:path');
const {
  checkFunction,
  checkKeys,
  checkObject,
  checkOptionalInteger,
  checkOptionalString,
  checkString,
  checkStrings,
} = require('./arguments.js');
const { environment } = require('./environment.js');
const { invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { LONGEST_MS, checkErrors, defaultStoreDir } = require('./settings.js');

function startRun(params) {
  checkObject('params', params);
  const hub = getHub();
  const sessionId = checkString('sessionId', params.sessionId);
  const { agent, env } = readAgent(params.agent);
  const values = {
    sessionId,
    message: checkString('message', params.message, { nul: false }),
    agentSessionId: checkOptionalString('agentSessionId', params.agentSessionId, { nul: false }),
    agent,
    env,
    cwd: process.cwd(),
    defaultStoreDir,
    errors: params.errors === undefined || params.errors === null ? undefined : checkErrors('errors', params.errors),
    maxSilenceMs: checkOptionalInteger('maxSilenceMs', params.maxSilenceMs, 0, LONGEST_MS),
    maxRunMs: checkOptionalInteger('maxRunMs', params.maxRunMs, 0, LONGEST_MS),
  };
  return hub.start(values).activeRun;
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

function readAgent(agent) {
  if (agent === undefined || agent === null) return { env: environment() };
  checkObject('agent', agent);
  checkKeys('agent', agent, ['format', 'command', 'args', 'cwd', 'env']);
  const format = checkOptionalString('agent.format', agent.format);
  const env = environment(agent.env);
  if (format !== undefined && (agent.command === undefined || agent.command === null)) {
    for (const name of ['args', 'cwd']) {
      if (agent[name] !== undefined && agent[name] !== null) throw invalidArgument(`agent.${name}`, 'needs an agent.command');
    }
    return { agent: { format, args: [] }, env };
  }
  if (checkString('agent.command', agent.command, { nul: false }) === '') {
    throw invalidArgument('agent.command', 'is empty');
  }
  const cwd = checkOptionalString('agent.cwd', agent.cwd, { nul: false });
  const own = {
    format,
    command: agent.command,
    args: checkStrings('agent.args', agent.args ?? []),
    cwd: cwd === undefined ? undefined : resolve(cwd),
  };
  return { agent: own, env };
}

module.exports = { startRun, subscribeToRun, abortRun, hasActiveRun, getActiveRun };
