// Errors that an agent does not report in its stream, told as the module does or in full; and the
// warnings of lines that cannot be read. The baseline cannot pass these.
import { mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { listen, play, puppet, runs, sh, start, temporaryFolder, textLine, until, useStore } from './helpers/index.mjs';

const resultLine = (...payloads) => `${JSON.stringify({ event: 'result', result: { payloads } })}\n`;

/** What an agent of one's own that prints this ends with: its text, and the error that the end has. */
async function told({ out = '', err = '', exit = 'exit 0', ...more }) {
  const { text, run } = await play(sh(`printf %s "$1"; printf %s "$2" >&2; ${exit}`, out, err), more);
  return { text, error: run.end.error };
}

const kept = process.env.OPENCLAW_ROOT;
afterEach(() => {
  if (kept === undefined) delete process.env.OPENCLAW_ROOT;
  else process.env.OPENCLAW_ROOT = kept;
});

/** The same of the contract's agent. */
async function toldByContract({ out = '', err = '', code = 0, ...more }) {
  const root = realpathSync(temporaryFolder());
  mkdirSync(root, { recursive: true });
  const script = `process.stdout.write(${JSON.stringify(out)}); process.stderr.write(${JSON.stringify(err)}); process.exitCode = ${code};`;
  writeFileSync(join(root, 'openclaw.mjs'), script);
  process.env.OPENCLAW_ROOT = root;
  const { text, run } = await play(undefined, more);
  return { text, error: run.end.error };
}

/** What programs print to stderr though all is well; the module takes any of these for an error. */
const NOISE = [
  'cache: 14 entries, 0 errors\n',
  'mirror 2 failed, using mirror 3\n',
  'fatal: not a git repository (going on without one)\n',
  '(node:7) [DEP0005] DeprecationWarning: Buffer() is deprecated\n(Use `node --trace-deprecation ...` to see where)\n',
  'Indexing… 100 %\n',
  '{"level":"info","error":{"code":null,"message":"none so far"}}\n',
];

describe('errors: "full", of an agent of one\'s own', () => {
  it.each(NOISE)('makes no error of %j beside an answer', async (err) => {
    useStore();
    expect(await told({ out: textLine('42'), err })).toEqual({ text: '42', error: undefined });
    expect((await told({ out: textLine('42'), err, errors: 'module' })).text).toMatch(/^42\[error\] ./);
  });

  it.each([
    ['an exit code', 'exit 2', 'the disk is full'],
    ['a signal', 'kill -KILL $$', 'the disk is full'],
  ])('explains the failure of %s by stderr, also beside an answer', async (_, exit, error) => {
    useStore();
    const err = 'loading\nError: the disk is full\n';
    expect(await told({ out: textLine('4'), err, exit })).toEqual({ text: `4[error] ${error}`, error });
    expect(await told({ err, exit })).toEqual({ text: `[error] ${error}`, error });
  });

  it('explains an end without an answer by stderr', async () => {
    useStore();
    const error = 'no account is set up';
    expect(await told({ err: `Error: ${error}\n` })).toEqual({ text: `[error] ${error}`, error });
  });

  it('explains an end without an answer by the texts of the result, before stderr', async () => {
    useStore();
    for (const err of ['', 'it failed\n']) {
      const out = resultLine({ text: 'HTTP 402: no funds' }, { text: '' }, null, { url: 'x' }, { text: 'Top up “at home” 🙂' });
      const error = 'HTTP 402: no funds\nTop up “at home” 🙂';
      expect(await told({ out, err })).toEqual({ text: `[error] ${error}`, error });
    }
  });

  it.each([
    ['where there is an answer', { out: textLine('42') + resultLine({ text: '42' }) }, '42'],
    ['where it has no text', { out: resultLine({ mediaUrl: 'x' }) }, '[error] No response from agent.'],
    [
      'after a failure',
      { out: resultLine({ text: 'x' }), exit: 'exit 3' },
      '[error] Agent exited with code 3. Check server logs for details.',
    ],
    [
      'after a failure that stderr explains',
      { out: resultLine({ text: 'x' }), err: 'Error: no such model', exit: 'exit 3' },
      '[error] no such model',
    ],
    ['where the stream had an error', { out: `{"event":"error","error":"quota"}\n${resultLine({ text: 'x' })}` }, '[error] quota'],
  ])('shows nothing of the result %s', async (_, how, text) => {
    useStore();
    expect((await told(how)).text).toBe(text);
  });

  it.each([
    ['by an abort', (run) => runs.abortRun(run.sessionId), 'a'],
    ['by a limit', () => {}, 'a[error] The agent ran for more than 300 ms (maxRunMs) and was stopped'],
  ])('makes no error of the stderr of an agent that was stopped %s', async (_, stop, text) => {
    useStore();
    const script = `trap 'echo "Error: interrupted by SIGTERM" >&2; exit 1' TERM; echo "lint: 0 errors" >&2; printf %s "$1"; sleep 9999 & wait`;
    const { sessionId, run } = start(sh(script, textLine('a')), { maxRunMs: 300 });
    await listen(sessionId).has('a');
    stop(run);
    expect((await run.whenEnded).exitCode).toBe(1);
    expect(listen(sessionId).text()).toBe(text);
  });
});

describe('errors', () => {
  const [noise] = NOISE;
  const isFull = ({ text }) => text === '42';
  const answered = (errors) => ({ out: textLine('42'), err: noise, errors });

  it('is "auto" by default: as the module for the contract\'s agent, in full for any other', async () => {
    useStore();
    expect(runs.configure().errors).toBe('auto');
    expect(isFull(await toldByContract(answered()))).toBe(false);
    expect(isFull(await told(answered()))).toBe(true);
    expect(isFull(await toldByContract(answered('auto')))).toBe(false);
    expect(isFull(await told(answered('auto')))).toBe(true);
  });

  it.each(['module', 'full'])('can be %s for all runs, and otherwise for one of them', async (errors) => {
    useStore({ errors });
    const other = errors === 'full' ? 'module' : 'full';
    for (const teller of [told, toldByContract]) {
      expect(isFull(await teller(answered()))).toBe(errors === 'full');
      expect(isFull(await teller(answered(other)))).toBe(other === 'full');
    }
    expect(isFull(await told(answered('auto')))).toBe(true);
    expect(isFull(await toldByContract(answered('auto')))).toBe(false);
  });

  it("shows the contract's agent's result in full only", async () => {
    useStore();
    const out = resultLine({ text: 'HTTP 401: who are you?' });
    expect((await toldByContract({ out, errors: 'full' })).text).toBe('[error] HTTP 401: who are you?');
    expect((await toldByContract({ out })).text).toBe('[error] No response from agent.');
  });
});

describe('a warning tells of', () => {
  /** The warnings of these codes, as they come. */
  function hear(...codes) {
    const heard = [];
    onTestFinished(runs.onWarning((warning) => codes.includes(warning.code) && heard.push(warning)));
    return heard;
  }

  it('lines that cannot be read: once a run, with the beginning of the first', async () => {
    useStore();
    const heard = hear('LINE_UNREADABLE');
    const long = `${'-'.repeat(40)} é🙂 \x1b[1m "quoted" \\ ${'x'.repeat(10_000)}`;
    const first = await play(sh('printf "%s\\n" "$1" "second" "$2"', long, textLine('a').trim()));
    const second = await play(sh('echo DEBUG; echo DEBUG'));
    await until(() => heard.length === 2, 'both were told of');
    expect(heard.map(({ sessionId }) => sessionId)).toEqual([first.sessionId, second.sessionId]);
    expect(heard[0].message).toContain(`${'-'.repeat(40)} é🙂 `);
    expect(heard[0].message).toContain(first.sessionId);
    expect(heard[0].message).not.toContain('second');
    // One line of a log, of a bearable length, and nothing that a terminal would obey.
    expect(heard[0].message).not.toMatch(/[\n\r\x1b]/);
    expect(heard[0].message.length).toBeLessThan(400);
    expect(heard[1].message).toContain('"DEBUG"');
    expect(first.text).toBe('a');
    await play(sh('printf "%s\\n" "$1"', textLine('a').trim()));
    expect(heard).toHaveLength(2);
  });

  it.each([
    ['bytes that are no text', 'printf "\\377\\376\\n"'],
    ['null', 'echo null'],
    ['a record without its beginning', `echo '"event":"agent"}'`],
    ['a record behind a progress bar', `printf '10%%\\r100%%\\r%s\\n' "$1"`],
  ])('a line that cannot be read: %s', async (_, script) => {
    useStore();
    const heard = hear('LINE_UNREADABLE', 'OUTPUT_CUT');
    const { sessionId } = await play(sh(script, textLine('a').trim()));
    await until(() => heard.length > 0, 'it was told of');
    expect(heard).toEqual([{ code: 'LINE_UNREADABLE', sessionId, message: expect.any(String) }]);
  });

  it.each([
    ['by its own exit', (text) => sh('printf %s "$1"; exit 0', text)],
    ['by a crash', (text) => sh('printf %s "$1"; kill -KILL $$', text)],
    ['inside a character', () => sh(`printf '{"event":"agent","text":"\\303'`)],
  ])('output that was cut: %s', async (_, spec) => {
    useStore();
    const heard = hear('LINE_UNREADABLE', 'OUTPUT_CUT');
    const { sessionId } = await play(spec(textLine('a') + textLine('cut').slice(0, -5)));
    await until(() => heard.length > 0, 'it was told of');
    expect(heard).toEqual([{ code: 'OUTPUT_CUT', sessionId, message: expect.stringContaining('{\\"event\\":\\"agent\\"') }]);
  });

  it('output that an abort cut', async () => {
    useStore();
    const heard = hear('OUTPUT_CUT');
    const agent = await puppet();
    const { sessionId, run } = start(agent.agent);
    await agent.out('{"event":');
    runs.abortRun(sessionId);
    await run.whenEnded;
    await until(() => heard.length > 0, 'it was told of');
    expect(heard[0].sessionId).toBe(sessionId);
  });

  it('neither, where the last line lacks nothing but its end, or is blank', async () => {
    useStore();
    const heard = hear('LINE_UNREADABLE', 'OUTPUT_CUT');
    expect((await play(sh('printf %s "$1"', textLine('a').trim()))).text).toBe('a');
    await play(sh('printf "%s\\n  " "$1"', textLine('a').trim()));
    await play(sh('printf "\\n\\n"'));
    // Whatever they were warned of would have come before this.
    const { sessionId } = await play(sh('echo witness'));
    await until(() => heard.length > 0, 'a later warning came');
    expect(heard.map((warning) => warning.sessionId)).toEqual([sessionId]);
  });
});
