// What every program of the package test does with the package: one run, heard and stored.
const { mkdtempSync, readFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'hello' } });

/** Resolves with what a subscriber heard; throws when the stored answer is another. */
module.exports = async function answer(runs) {
  const storeDir = mkdtempSync(join(tmpdir(), 'active-runs-package-'));
  runs.configure({ storeDir });
  runs.startRun({
    sessionId: 's',
    message: 'a question',
    agent: { command: process.execPath, args: ['-e', `console.log(${JSON.stringify(line)})`] },
  });
  const text = await new Promise((resolve) => {
    let heard = '';
    runs.subscribeToRun('s', (event) => {
      if (event === null) resolve(heard);
      else if (event.type === 'text-delta') heard += event.delta;
    });
  });
  const stored = JSON.parse(readFileSync(join(storeDir, 's.jsonl'), 'utf8')).content;
  if (stored !== text) throw new Error(`heard ${text}, but stored is ${stored}`);
  return text;
};
