'use strict';

// User messages: checks them and hands them to the store.

const { checkObject, checkSessionId, checkString, toJson, toOptionalJson } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { defaultStoreDir } = require('./settings.js');

/** Members that are this package's to write. */
const OWN_MEMBERS = new Set(['role', 'timestamp', '_streaming']);

/** A user's message as it is stored: its id, and its JSON up to the time and the closing brace, which the native part adds. */
function userLine(name, message) {
  const { id, content, parts, ...others } = checkObject(name, message);
  checkString(`${name}.id`, id);
  checkString(`${name}.content`, content);
  if (parts && !Array.isArray(parts)) throw invalidArgument(`${name}.parts`, 'must be an array');
  let line = `{"id":${toJson(`${name}.id`, id)},"role":"user","content":${toJson(`${name}.content`, content)}`;
  if (parts) line += `,"parts":${toJson(`${name}.parts`, parts)}`;
  for (const [key, value] of Object.entries(others)) {
    const json = OWN_MEMBERS.has(key) ? undefined : toOptionalJson(`${name}.${key}`, value);
    if (json !== undefined) line += `,${JSON.stringify(key)}:${json}`;
  }
  return { id, line };
}

function persistUserMessage(sessionId, message) {
  checkSessionId(sessionId);
  const { id, line } = userLine('msg', message);
  // A message that has to wait is written by the end of the process at the latest, and the hub is what learns of that end.
  getHub();
  callNative(() => binding.persistUserMessage(sessionId, id, line, defaultStoreDir));
}

module.exports = { persistUserMessage, userLine };
