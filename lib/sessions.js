'use strict';

// The session files, for an app's routes: on the same store, locks and atomic commits as the runs.

const { randomUUID } = require('node:crypto');
const { checkObject, checkOptionalString, checkSessionId, checkString, shown, toJson } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { defaultStoreDir } = require('./settings.js');
const { toUiMessage } = require('./ui-messages.js');

const DEFAULT_TITLE = 'New Chat';

async function callStore(call) {
  const { json, code, message } = await callNative(call);
  if (code !== undefined) throw Object.assign(new Error(message), { code });
  return json === undefined ? undefined : JSON.parse(json);
}

async function readMessages(sessionId, options = {}) {
  checkSessionId(sessionId);
  const { format = 'stored' } = checkObject('options', options);
  if (format !== 'stored' && format !== 'ui') {
    throw invalidArgument('format', `must be "stored" or "ui", not ${shown(format)}`);
  }
  const messages = await callStore(() => binding.readMessages(sessionId, defaultStoreDir));
  return format === 'ui' ? messages.map(toUiMessage).filter((message) => message !== undefined) : messages;
}

async function upsertMessages(sessionId, messages, options = {}) {
  checkSessionId(sessionId);
  if (!Array.isArray(messages)) throw invalidArgument('messages', 'must be an array');
  const { title } = checkObject('options', options);
  checkOptionalString('title', title);
  const ids = [];
  const lines = [];
  // By index, because `map` would pass over what is missing.
  const { length } = messages;
  for (let index = 0; index < length; index++) {
    const name = `messages[${index}]`;
    const message = asWritten(name, messages[index]);
    ids.push(checkString(`${name}.id`, message.id));
    lines.push(toJson(name, message));
  }
  await callStore(() =>
    binding.upsertMessages(sessionId, ids, lines, title ?? undefined, defaultStoreDir),
  );
}

/** The message as JSON has it, each member read once: its id must be the one that is written. */
function asWritten(name, message) {
  const { toJSON } = checkObject(name, message);
  if (typeof toJSON !== 'function') return { ...message };
  let json;
  try {
    json = toJSON.call(message, '');
  } catch (error) {
    throw invalidArgument(name, `cannot be written as JSON: ${shown(error?.message ?? error)}`);
  }
  return { ...checkObject(`${name}.toJSON()`, json) };
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
  checkSessionId(sessionId);
  const view = getHub().find(sessionId);
  const wasThere = await callStore(() => binding.deleteSession(sessionId, defaultStoreDir));
  // Its run has ended, unless it is one of another store: its readers are told of that first.
  if (view?.isRunning && view.isOver) await view.whenEnded();
  return wasThere;
}

module.exports = { readMessages, upsertMessages, listSessions, createSession, deleteSession };
