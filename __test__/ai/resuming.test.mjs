// Streams that are cut off everywhere and resumed by the SDK's own transport, when the app asks for it: the chat shows in the
// end what one shows that was never cut off. A connection that falls silent is nothing that this transport notices.
import { expect, it } from 'vitest';
import { asking, keepRuns, none, someCuts, wrongCuts } from './helpers/cuts.mjs';
import { ai, Chat, major } from './helpers/index.mjs';

const kept = keepRuns();

/** Resumes by hand, as an app does that hears of the network's return. */
const resumed =
  (isByCursor, more) =>
  async ({ run, at }) => {
    const cursor = run.bytes.subarray(0, at).toString().match(/^id: .*$/gm)?.at(-1).slice('id: '.length);
    const fetch = asking((number) => {
      if (number === 1) return { 'x-cut': at, 'x-cut-how': 'lost' };
      return { 'x-options': '{"replay":"compact"}', ...more, ...(isByCursor && cursor && { 'last-event-id': cursor }) };
    });
    const chat = new Chat({ id: run.id, transport: new ai.DefaultChatTransport({ api: kept.api, fetch }) });
    await chat.ask();
    if (chat.finished.at(-1).isDisconnect) await chat.resumeStream();
    return chat;
  };

it('goes on by Last-Event-ID', async () => {
  const cuts = someCuts(kept.runs, 3);
  expect(await wrongCuts(cuts, resumed(true))).toEqual(none(cuts));
});

// After a lost connection, version 5 adds what is told again to what it has.
it.skipIf(major === 5)('goes on by a replay', async () => {
  const cuts = someCuts(kept.runs, 3);
  expect(await wrongCuts(cuts, resumed(false, { 'x-through': 'response' }))).toEqual(none(cuts));
});
