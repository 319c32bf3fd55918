// Streams that are cut off everywhere, in every way, and resumed in every way: the chat shows in the end what one shows that
// was never cut off.
//
// The runs are played once, by real agents, and kept; each cut is a POST of its own to the same run, and what is resumed is
// the server's own replay. A run that is still going on is cut in `live.test.mjs`.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ai, browserFetch, Chat, client, inParallel, isSame, major, shown, startServer } from './helpers/index.mjs';
import { keeping, playAll } from './helpers/played.mjs';

/** Chats at once: most of their time they wait before they connect again. */
const AT_ONCE = 100;

let server;
let runs;

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'active-runs-cuts-'));
  server = await startServer({ settings: keeping(join(folder, 'store')) });
  runs = await playAll(server, folder);
});

afterAll(() => server.stop());

/** Every cut between two frames of these runs, before the first and behind the last included. */
const cutsOf = (some) => some.flatMap((run) => run.ends.slice(0, -1).map((at) => ({ run, at })));
const everyCut = () => cutsOf(runs);
/** Of the long runs, every so many cuts: where a cut takes long. */
const someCuts = (every) => everyCut().filter(({ run, at }) => run.ends.length < 80 || run.ends.indexOf(at) % every === 0);

/** `fetch` whose connections are cut, while `headersOf` has headers for the request of this number. */
function cutting(headersOf) {
  let number = 0;
  return (url, init) => {
    const headers = new Headers(init?.headers);
    for (const [name, value] of Object.entries(headersOf(++number) ?? {})) headers.set(name, value);
    return browserFetch(url, { ...init, headers });
  };
}

const cutOnce = (at, how, more) => (number) => ({ ...more, ...(number === 1 && { 'x-cut': at, 'x-cut-how': how }) });

/** Calls `chatOf` for each cut; the cuts whose chats show something else than they should. */
async function wrongCuts(cuts, chatOf, atOnce = AT_ONCE) {
  const wrong = [];
  await inParallel(cuts, atOnce, async (cut) => {
    const chat = await chatOf(cut);
    const { run, at } = cut;
    if (!isSame(shown(chat), run.whole)) wrong.push({ run: run.name, at, shown: shown(chat), not: run.whole });
  });
  return { cuts: cuts.length, wrong };
}

const none = (cuts) => ({ cuts: cuts.length, wrong: [] });

describe('RunChatTransport', () => {
  const joined =
    (headersOf, options) =>
    async ({ run, at }) => {
      const transport = new client.RunChatTransport({ api: server.api, fetch: cutting(headersOf(at)), ...options });
      const chat = new Chat({ id: run.id, transport });
      await chat.ask();
      return chat;
    };

  it('joins what was cut off by a lost connection', async () => {
    const cuts = everyCut();
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'lost')))).toEqual(none(cuts));
  });

  it('joins what was cut off inside a frame', async () => {
    const long = runs.at(-1);
    const unicode = runs.find(({ name }) => name.endsWith('gw-unicode3'));
    // Bytes that go on with a character; of other runs, every so many bytes.
    const isInside = ({ run, at }) => (run.bytes[at] & 0xc0) === 0x80;
    const bytesOf = (run, every) => Array.from({ length: Math.floor(run.bytes.length / every) }, (_, n) => ({ run, at: n * every }));
    const inCharacters = [long, unicode].flatMap((run) => bytesOf(run, 1).filter(isInside));
    const cuts = [...inCharacters.filter((_, n) => n % 4 === 0), ...runs.slice(0, -1).flatMap((run) => bytesOf(run, 149))];
    expect(inCharacters.length).toBeGreaterThan(100);
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'lost')))).toEqual(none(cuts));
  });

  it('joins what was cut off by a connection that fell silent', async () => {
    const cuts = someCuts(20);
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'silent'), { silenceMs: 2_000 }), 400)).toEqual(none(cuts));
  });

  it('joins what comes a few frames a connection', async () => {
    const cuts = runs.map((run) => ({ run, at: Math.ceil(run.bytes.length / 7) }));
    expect(await wrongCuts(cuts, joined((at) => () => ({ 'x-cut': at, 'x-cut-how': 'lost' })))).toEqual(none(cuts));
  });

  it.each([
    ['frame by frame', { replay: true }],
    ['compactly', { replay: 'compact' }],
  ])('leaves out what a server tells again that knows no cursor, %s', async (_how, options) => {
    const cuts = someCuts(3);
    // The cursor of this server is none of a run.
    const headers = { 'x-options': JSON.stringify({ ...options, lastEventId: 'none' }), 'x-through': 'response' };
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'lost', headers)))).toEqual(none(cuts));
  });

  it('joins a stream that was resumed after a reload', async () => {
    const cuts = someCuts(3);
    const reloaded = async ({ run, at }) => {
      const transport = new client.RunChatTransport({ api: server.api, fetch: cutting(cutOnce(at, 'lost')) });
      const chat = new Chat({ id: run.id, messages: run.whole.messages.slice(0, 1), transport });
      await chat.resumeStream();
      return chat;
    };
    expect(await wrongCuts(cuts, reloaded)).toEqual(none(cuts));
  });
});

describe("the SDK's own transport", () => {
  /** Resumes by hand, as an app does that hears of the network's return. */
  const resumed =
    ({ isByCursor, isThroughResponse }) =>
    async ({ run, at }) => {
      const through = isThroughResponse ? { 'x-through': 'response' } : {};
      let frames = '';
      const request = cutting((number) => {
        if (number === 1) return { 'x-cut': at, 'x-cut-how': 'lost' };
        const cursor = isByCursor && frames.match(/^id: .*$/gm)?.at(-1).slice('id: '.length);
        return { 'x-options': '{"replay":"compact"}', ...through, ...(cursor && { 'last-event-id': cursor }) };
      });
      frames = run.bytes.subarray(0, at).toString();
      const transport = new ai.DefaultChatTransport({ api: server.api, fetch: request });
      const chat = new Chat({ id: run.id, transport });
      await chat.ask();
      if (chat.finished.at(-1).isDisconnect) await chat.resumeStream();
      return chat;
    };

  it('goes on by Last-Event-ID', async () => {
    const cuts = everyCut();
    expect(await wrongCuts(cuts, resumed({ isByCursor: true }))).toEqual(none(cuts));
  });

  // After a lost connection, version 5 adds what is told again to what it has.
  it.skipIf(major === 5)('goes on by a replay', async () => {
    const cuts = everyCut();
    expect(await wrongCuts(cuts, resumed({ isThroughResponse: true }))).toEqual(none(cuts));
  });
});
