// The demo: asks an agent a question, shows its run live, and checks that a reader who joins late gets all of it.
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual, parseArgs, styleText } from 'node:util';
import { abortRun, configure, persistUserMessage, startRun, subscribeToRun } from 'active-runs';

const HELP = `Usage: npm run demo -- [options] ["a question about the folder you are in"]

An agent looks at your current folder and answers. It is a small program without a language
model (examples/demo-agent.mjs); with OPENCLAW_ROOT set, it is the OpenClaw agent found there.
Ctrl-C stops it.

  --replay FILE   play a recorded transcript instead, such as examples/sample.ndjson
  --store DIR     keep the session there instead of in the system's folder for temporary files
  -h, --help      show this`;

/** When the second reader joins: early in an answer, but in the middle of it. */
const JOINS_AFTER = 25;

// npm starts scripts in the package's folder and says here where the user is.
const here = process.env.INIT_CWD ?? process.cwd();
const program = (name) => fileURLToPath(new URL(name, import.meta.url));

const options = readCommandLine();
const screen = createScreen(process.stdout);
process.exitCode = await demo(options);

/** @returns the exit code */
async function demo({ question, replay, store }) {
  const sessionId = `demo-${new Date().toISOString().replace(/\D/g, '')}`;
  const { storeDir } = configure({ storeDir: store });
  screen.heading(replay ? `Replay of ${replay}` : question);

  let stopped = false;
  process.on('SIGINT', () => {
    if (stopped || !abortRun(sessionId)) return;
    stopped = true;
    screen.note('Ctrl-C: stopping the agent');
  });

  persistUserMessage(sessionId, { id: `user-${sessionId}`, content: question, parts: [{ type: 'text', text: question }] });
  const run = startRun({ sessionId, message: question, agent: chooseAgent(replay) });
  let second;
  const events = await read(sessionId, (event, number) => {
    screen.show(event);
    if (number === JOINS_AFTER) second = read(sessionId);
  });
  const joined = second ? `after ${JOINS_AFTER} events` : 'after the end';
  const same = isDeepStrictEqual(await (second ?? read(sessionId)), events);

  const ending = stopped ? 'stopped' : run.status === 'completed' ? 'completed' : `ended with exit code ${run.exitCode}`;
  const seconds = ((Date.now() - run.startedAt) / 1000).toFixed(1);
  screen.result(run.status === 'completed' && !stopped, `${ending} after ${seconds} s and ${events.length} events`);
  screen.result(same, `a second reader that joined ${joined} got ${same ? 'the same' : 'something else'}`);
  screen.note(`the session is stored in ${join(storeDir, `${sessionId}.jsonl`)}`);
  if (stopped) return 130;
  return run.status === 'completed' && same ? 0 : 1;
}

/** Reads the run from its first event to its end, and gives all of its events. */
function read(sessionId, onEvent = () => {}) {
  const events = [];
  return new Promise((done) => {
    subscribeToRun(sessionId, (event) => {
      if (event === null) return done(events);
      onEvent(event, events.push(event));
    });
  });
}

/** `undefined` is the OpenClaw agent. */
function chooseAgent(replay) {
  if (replay) return { command: process.execPath, args: [program('replay-agent.mjs'), replay] };
  if (process.env.OPENCLAW_ROOT) return undefined;
  return { command: process.execPath, args: [program('demo-agent.mjs'), '{message}'], cwd: here };
}

function readCommandLine() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { replay: { type: 'string' }, store: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    });
    if (values.help) {
      console.log(HELP);
      process.exit(0);
    }
    return {
      question: positionals.join(' ') || 'What is in this folder?',
      replay: values.replay && resolve(here, values.replay),
      store: values.store ? resolve(here, values.store) : join(tmpdir(), 'active-runs-demo'),
    };
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exit(2);
  }
}

/** Writes events as they come: text as it is, reasoning dim, a tool and its result on a line each. */
function createScreen(out) {
  const colourful = out.isTTY && !process.env.NO_COLOR;
  let lineIsOpen = false;
  let half = '';
  out.on('error', () => process.exit(1)); // whoever was reading has gone, as `head` does

  function write(text, style) {
    const whole = half + text;
    // An agent may cut its text inside a character; its first half waits for the second.
    half = /[\ud800-\udbff]$/.exec(whole)?.[0] ?? '';
    // What an agent says must not steer the terminal.
    const shown = whole.slice(0, whole.length - half.length).replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, '');
    if (shown === '') return;
    out.write(colourful && style ? styleText(style, shown) : shown);
    lineIsOpen = !shown.endsWith('\n');
  }
  const line = (text, style) => write(`${lineIsOpen ? '\n' : ''}${text}\n`, style);
  const paragraph = () => write(lineIsOpen ? '\n\n' : '\n');
  const brief = (value, max = 100) => {
    const [first, ...rest] = (typeof value === 'string' ? value : JSON.stringify(value)).split('\n');
    const more = rest.length > 0 ? ` (+${rest.length} lines)` : '';
    return `${first.length > max ? `${first.slice(0, max)}…` : first}${more}`;
  };

  return {
    heading: (text) => line(`❯ ${text}`, 'bold'),
    note: (text) => line(`· ${text}`, 'dim'),
    result: (good, text) => line(`${good ? '✓' : '✗'} ${text}`, good ? 'green' : 'red'),
    show(event) {
      switch (event.type) {
        case 'text-start':
        case 'reasoning-start':
          return paragraph();
        case 'text-delta':
          return write(event.delta, event.delta.startsWith('[error]') ? 'red' : undefined);
        case 'reasoning-delta':
          return write(event.delta, 'dim');
        case 'text-end':
          return line('');
        case 'tool-input-available':
          paragraph();
          return line(`⚙ ${event.toolName} ${brief(event.input)}`, 'cyan');
        case 'tool-output-available':
          return line(`  ↳ ${brief(event.output.text ?? event.output)}`, 'dim');
        case 'tool-output-error':
          return line(`  ✗ ${brief(event.errorText)}`, 'red');
      }
    },
  };
}
