'use strict';

// The session files, for an app's routes: on the same store, locks and atomic commits as the runs.

const { randomUUID } = require('node:crypto');
const { checkObject, checkOptionalString, checkString } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { defaultStoreDir } = require('./settings.js');

const DEFAULT_TITLE = 'New Chat';

async function callStore(call) {
  const { json, code, message } = await callNative(call);
  if (code !== undefined) throw Object.assign(new Error(message), { code });
  return json === undefined ? undefined : JSON.parse(json);
}

async function readMessages(sessionId) {
  checkString('sessionId', sessionId);
  return callStore(() => binding.readMessages(sessionId, defaultStoreDir));
}

async function upsertMessages(sessionId, messages, options = {}) {
  checkString('sessionId', sessionId);
  if (!Array.isArray(messages)) throw invalidArgument('messages', 'must be an array');
  const { title } = checkObject('options', options);
  checkOptionalString('title', title);
  const ids = messages.map((message, index) => {
    const { id } = checkObject(`messages[${index}]`, message);
    return checkString(`messages[${index}].id`, id);
  });
  const lines = messages.map((message, index) => {
    try {
      return JSON.stringify(message);
    } catch (error) {
      throw invalidArgument(`messages[${index}]`, `cannot be written as JSON: ${error.message}`);
    }
  });
  await callStore(() =>
    binding.upsertMessages(sessionId, ids, lines, title ?? undefined, defaultStoreDir),
  );
}

async function listSessions() {
  return callStore(() => binding.listSessions(defaultStoreDir));
}

async function createSession(options = {}) {
  const { title, filePath } = checkObject('options', options);
  const given = checkOptionalString('title', title) ?? DEFAULT_TITLE;
  const path = checkOptionalString('filePath', filePath);
  return callStore(() => binding.createSession(randomUUID(), given, path, defaultStoreDir));
}

async function deleteSession(sessionId) {
  checkString('sessionId', sessionId);
  const view = getHub().find(sessionId);
  const wasThere = await callStore(() => binding.deleteSession(sessionId, defaultStoreDir));
  // Its run has ended, unless it is one of another store: its readers are told of that first.
  if (view?.isRunning && view.isOver) await view.whenEnded();
  return wasThere;
}

module.exports = { readMessages, upsertMessages, listSessions, createSession, deleteSession };
