'use strict';

const runs = require('./lib/runs.js');
const { configure } = require('./lib/settings.js');
const { onWarning, stats } = require('./lib/operation.js');
const { persistUserMessage } = require('./lib/messages.js');

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
