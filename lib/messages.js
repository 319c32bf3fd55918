'use strict';

const { checkObject, checkString } = require('./arguments.js');
const binding = require('./binding.js');
const { callNative, invalidArgument } = require('./errors.js');
const { defaultStoreDir } = require('./settings.js');

function persistUserMessage(sessionId, message) {
  checkString('sessionId', sessionId);
  const { id, content, parts } = checkObject('msg', message);
  checkString('msg.id', id);
  checkString('msg.content', content);
  if (parts && !Array.isArray(parts)) throw invalidArgument('msg.parts', 'must be an array');
  let line;
  try {
    line = JSON.stringify({ id, role: 'user', content, ...(parts ? { parts } : {}) });
  } catch (error) {
    throw invalidArgument('msg.parts', `cannot be written as JSON: ${error.message}`);
  }
  // The native part adds the time and the closing brace.
  const open = line.slice(0, -1);
  callNative(() => binding.persistUserMessage(sessionId, id, open, defaultStoreDir));
}

module.exports = { persistUserMessage };
