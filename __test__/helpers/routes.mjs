// An app's own routes: they read a file, change it and write it back where it stands, without locks. Each
// waits `hold` ms where it hurts most: when it has emptied the file and not written it yet.
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const cell = new Int32Array(new SharedArrayBuffer(4));

function rewriteSync(path, change, hold) {
  const text = change(existsSync(path) ? readFileSync(path, 'utf8') : '');
  const file = openSync(path, 'w');
  if (hold > 0) Atomics.wait(cell, 0, 0, hold);
  writeFileSync(file, text);
  closeSync(file);
}

async function rewriteLater(path, change, hold) {
  const text = change(existsSync(path) ? await readFile(path, 'utf8') : '');
  if (hold === 0) return writeFile(path, text);
  const file = await open(path, 'w');
  await sleep(hold);
  await file.writeFile(text);
  await file.close();
}

/** The routes of a store; `isSync`: on this thread, which does nothing else meanwhile. */
export function routesOf(dir, isSync) {
  const rewrite = isSync ? rewriteSync : rewriteLater;
  const remove = isSync ? rmSync : rm;
  const path = (sessionId) => join(dir, `${sessionId}.jsonl`);
  const editIndex = (edit, hold) => {
    const change = (text) => {
      const index = JSON.parse(text || '[]');
      return JSON.stringify(edit(index) ?? index, null, 2);
    };
    return rewrite(join(dir, 'index.json'), change, hold);
  };
  const editEntry = (sessionId, edit, hold) =>
    editIndex((index) => {
      const entry = index.find(({ id }) => id === sessionId);
      if (entry) edit(entry);
    }, hold);
  return {
    /** Adds a message to the session's file. */
    post: (sessionId, message, hold) =>
      rewrite(path(sessionId), (text) => `${text}${JSON.stringify(message)}\n`, hold),
    /** Counts a message in the index. */
    count: (sessionId, hold) =>
      editEntry(
        sessionId,
        (entry) => {
          entry.updatedAt = Date.now();
          entry.messageCount += 1;
        },
        hold,
      ),
    /** Sets fields of the session's entry. */
    set: (sessionId, fields, hold) => editEntry(sessionId, (entry) => void Object.assign(entry, fields), hold),
    /** Makes a session. */
    create: async (sessionId, hold) => {
      writeFileSync(path(sessionId), '');
      const entry = { id: sessionId, title: 'theirs', createdAt: 1, updatedAt: Date.now(), messageCount: 0 };
      await editIndex((index) => void index.unshift(entry), hold);
    },
    /** Deletes one. */
    delete: async (sessionId, hold) => {
      await remove(path(sessionId));
      await editIndex((index) => index.filter(({ id }) => id !== sessionId), hold);
    },
  };
}
