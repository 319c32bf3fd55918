'use strict';

const runs = require('./lib/runs.js');
const { configure } = require('./lib/settings.js');
const { persistUserMessage } = require('./lib/messages.js');
const { onWarning, stats } = require('./lib/operation.js');
const sessions = require('./lib/sessions.js');
const streams = require('./lib/streams.js');

// Plain assignments, so that `import { startRun } from 'active-runs'` finds the names.
exports.startRun = runs.startRun;
exports.subscribeToRun = runs.subscribeToRun;
exports.abortRun = runs.abortRun;
exports.hasActiveRun = runs.hasActiveRun;
exports.getActiveRun = runs.getActiveRun;
exports.persistUserMessage = persistUserMessage;
exports.configure = configure;
exports.stats = stats;
exports.onWarning = onWarning;
exports.createRunStream = streams.createRunStream;
exports.createRunResponse = streams.createRunResponse;
exports.pipeRun = streams.pipeRun;
exports.readMessages = sessions.readMessages;
exports.upsertMessages = sessions.upsertMessages;
exports.listSessions = sessions.listSessions;
exports.createSession = sessions.createSession;
exports.deleteSession = sessions.deleteSession;
