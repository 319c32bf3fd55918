'use strict';

// User messages: checks them and hands them to the store.

const { checkObject, checkSessionId, checkString, toJson } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');
const { getHub } = require('./hub.js');
const { defaultStoreDir } = require('./settings.js');

function persistUserMessage(sessionId, message) {
  checkSessionId(sessionId);
  const { id, content, parts } = checkObject('msg', message);
  checkString('msg.id', id);
  checkString('msg.content', content);
  if (parts && !Array.isArray(parts)) throw invalidArgument('msg.parts', 'must be an array');
  // The native part adds the time and the closing brace.
  let line = `{"id":${toJson('msg.id', id)},"role":"user","content":${toJson('msg.content', content)}`;
  if (parts) line += `,"parts":${toJson('msg.parts', parts)}`;
  // A message that has to wait is written by the end of the process at the latest, and the hub is what learns of that end.
  getHub();
  callNative(() => binding.persistUserMessage(sessionId, id, line, defaultStoreDir));
}

module.exports = { persistUserMessage };
