// Runs that are kept to be read again and again, connections that are cut, and chats that are compared.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { browserFetch, inParallel, isSame, shown, startServer } from './index.mjs';
import { keeping, playAll } from './played.mjs';

/** Chats at once: most of their time they wait before they connect again. */
const AT_ONCE = 100;

/** The server of a test file, and its runs. */
export function keepRuns() {
  const kept = { api: undefined, runs: [] };
  let folder;
  let server;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'active-runs-kept-'));
    server = await startServer({ settings: keeping(join(folder, 'store')) });
    kept.api = server.api;
    kept.runs = await playAll(server, folder);
  });
  afterAll(async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return kept;
}

/** Every cut between two frames of these runs, before the first and behind the last included. */
export const everyCut = (runs) => runs.flatMap((run) => run.ends.map((at) => ({ run, at })));

/** The same; of the long runs, every so many cuts: each of those reads all of its run. */
export const someCuts = (runs, every) =>
  everyCut(runs).filter(({ run, at }) => run.ends.length < 80 || run.ends.indexOf(at) % every === 0);

/** `fetch` whose requests have more headers: those that `headersOf` has for the request of this number. */
export function asking(headersOf) {
  let number = 0;
  return (url, init) => {
    const headers = new Headers(init?.headers);
    for (const [name, value] of Object.entries(headersOf(++number))) headers.set(name, value);
    return browserFetch(url, { ...init, headers });
  };
}

/** `fetch` that tells how many bytes of the body were read so far. */
export function counting(fetch, onBytes) {
  return async (url, init) => {
    const response = await fetch(url, init);
    let bytes = 0;
    onBytes(bytes);
    if (response.body === null) return response;
    const counter = new TransformStream({
      transform(chunk, controller) {
        controller.enqueue(chunk);
        onBytes((bytes += chunk.length));
      },
    });
    const { status, headers } = response;
    return new Response(response.body.pipeThrough(counter), { status, headers });
  };
}

/** Headers for `asking` that have the first connection cut. */
export const cutOnce = (at, how, more) => (number) => ({ ...more, ...(number === 1 && { 'x-cut': at, 'x-cut-how': how }) });

/** Calls `chatOf` for each cut. The cuts whose chats show something else than they should. */
export async function wrongCuts(cuts, chatOf, atOnce = AT_ONCE) {
  const wrong = [];
  await inParallel(cuts, atOnce, async (cut) => {
    const seen = shown(await chatOf(cut));
    const { run, at } = cut;
    if (!isSame(seen, run.whole)) wrong.push({ run: run.name, at, seen, whole: run.whole });
  });
  return { cuts: cuts.length, wrong };
}

/** What `wrongCuts` gives when there are none. */
export const none = (cuts) => ({ cuts: cuts.length, wrong: [] });
