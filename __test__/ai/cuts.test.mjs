// Streams that are cut off everywhere, in every way, and joined by the transport: the chat shows in the end what one shows
// that was never cut off.
//
// The runs are played once, by real agents, and kept; each cut is a POST of its own to the same run, and what is resumed is
// the server's own replay. A run that is still going on is cut in `live.test.mjs`.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { until } from '../helpers/index.mjs';
import { asking, counting, cutOnce, everyCut, keepRuns, none, someCuts, wrongCuts } from './helpers/cuts.mjs';
import { Chat, client } from './helpers/index.mjs';

const kept = keepRuns();

afterEach(() => vi.useRealTimers());

describe('RunChatTransport', () => {
  const joined =
    (headersOf, options) =>
    async ({ run, at }) => {
      const transport = new client.RunChatTransport({ api: kept.api, fetch: asking(headersOf(at)), ...options });
      const chat = new Chat({ id: run.id, transport });
      await chat.ask();
      return chat;
    };

  it('joins what was cut off by a lost connection', async () => {
    const cuts = everyCut(kept.runs);
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'lost')))).toEqual(none(cuts));
  });

  it('joins what was cut off inside a frame', async () => {
    const long = kept.runs.at(-1);
    const unicode = kept.runs.find(({ name }) => name.endsWith('gw-unicode3'));
    // Bytes that go on with a character; of other runs, every so many bytes.
    const isInside = ({ run, at }) => (run.bytes[at] & 0xc0) === 0x80;
    const bytesOf = (run, every) => Array.from({ length: Math.floor(run.bytes.length / every) }, (_, n) => ({ run, at: n * every }));
    const inCharacters = [long, unicode].flatMap((run) => bytesOf(run, 1).filter(isInside));
    const cuts = [...inCharacters.filter((_, n) => n % 4 === 0), ...kept.runs.slice(0, -1).flatMap((run) => bytesOf(run, 149))];
    expect(inCharacters.length).toBeGreaterThan(100);
    expect(await wrongCuts(cuts, joined((at) => cutOnce(at, 'lost')))).toEqual(none(cuts));
  });

  it('joins what was cut off by a connection that fell silent', async () => {
    const cuts = someCuts(kept.runs, 6);
    // The clock stands still, and jumps when some hundreds of chats hear nothing any more: no machine is too slow for that.
    vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] });
    const wrong = [];
    for (let first = 0; first < cuts.length; first += 300) {
      const some = cuts.slice(first, first + 300);
      const silent = new Set();
      const compared = wrongCuts(
        some,
        async (cut) => {
          const fetch = counting(asking(cutOnce(cut.at, 'silent')), (bytes) => bytes >= cut.at && silent.add(cut));
          const chat = new Chat({ id: cut.run.id, transport: new client.RunChatTransport({ api: kept.api, fetch }) });
          await chat.ask();
          // Of one that was cut behind the end, too.
          silent.add(cut);
          return chat;
        },
        some.length,
      );
      await until(() => silent.size === some.length, 'all connections were silent');
      vi.advanceTimersByTime(60_000);
      wrong.push(...(await compared).wrong);
    }
    expect({ cuts: cuts.length, wrong }).toEqual(none(cuts));
  });

  it('joins what comes a few frames a connection', async () => {
    const longest = ({ ends }) => Math.max(...ends.slice(1).map((end, n) => end - ends[n]));
    const cuts = kept.runs.map((run) => ({ run, at: longest(run) + Math.ceil(run.bytes.length / 7) }));
    expect(await wrongCuts(cuts, joined((at) => () => ({ 'x-cut': at, 'x-cut-how': 'lost' })))).toEqual(none(cuts));
  });

  it('joins a stream that was resumed after a reload', async () => {
    const cuts = someCuts(kept.runs, 6);
    const reloaded = async ({ run, at }) => {
      const transport = new client.RunChatTransport({ api: kept.api, fetch: asking(cutOnce(at, 'lost')) });
      const chat = new Chat({ id: run.id, messages: run.whole.messages.slice(0, 1), transport });
      await chat.resumeStream();
      return chat;
    };
    expect(await wrongCuts(cuts, reloaded)).toEqual(none(cuts));
  });
});
