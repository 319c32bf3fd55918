'use strict';

// For browsers: nothing native, nothing of Node.

const OPEN = new Set(['streaming', 'input-streaming', 'input-available']);

exports.dropOpenParts = function dropOpenParts(message) {
  const firstOpen = message.parts.findIndex((part) => OPEN.has(part.state));
  return firstOpen === -1 ? message : { ...message, parts: message.parts.slice(0, firstOpen) };
};
