// What the tests share: the app's servers, agents on strings, a browser. Nothing here waits for a time.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

export const app = join(import.meta.dirname, '..');

export async function until(condition, what) {
  const deadline = Date.now() + 45_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`it never came to pass that ${what}`);
    await sleep(10);
  }
}

/** What is undone at the end, in reverse order. */
export function cleanUp() {
  const steps = [];
  return {
    later: (step) => void steps.push(step),
    now: async () => {
      for (const step of steps.splice(0).reverse()) await step();
    },
  };
}

export function temporaryFolder(cleaning) {
  const folder = mkdtempSync(join(tmpdir(), 'next-chat-e2e-'));
  const isRemoved = () => {
    try {
      rmSync(folder, { recursive: true, force: true });
      return true;
    } catch {
      return false; // Processes that are ending may still write there.
    }
  };
  cleaning.later(() => until(isRemoved, `${folder} could be removed`));
  return folder;
}

// ── Servers ──

const next = (...args) => [join(app, 'node_modules/next/dist/bin/next'), ...args];

/** How the app is served: a program for Node, and where. `copy` is a folder that goes at the end. */
const WAYS = {
  start: () => ({ args: next('start', '--hostname', '127.0.0.1'), cwd: app }),
  /** Out of the repository, where nothing can be found that was not traced. */
  standalone(cleaning) {
    const copy = temporaryFolder(cleaning);
    const built = join(app, '.next');
    cpSync(join(built, 'standalone'), copy, { recursive: true, verbatimSymlinks: true });
    cpSync(join(built, 'static'), join(copy, 'next-chat/.next/static'), { recursive: true });
    return { args: [join(copy, 'next-chat/server.js')], cwd: copy };
  },
  /** A copy of the sources, so that they can be edited; it is in the app's folder for its node_modules. */
  dev(cleaning) {
    const copy = join(app, '.e2e-dev');
    rmSync(copy, { recursive: true, force: true });
    cleaning.later(() => rmSync(copy, { recursive: true, force: true, maxRetries: 5 }));
    for (const name of ['app', 'components', 'lib', 'instrumentation.ts', 'next.config.ts', 'package.json', 'tsconfig.json']) {
      cpSync(join(app, name), join(copy, name), { recursive: true });
    }
    return { args: next('dev', '--hostname', '127.0.0.1'), cwd: copy };
  },
};

/** Serves the app in one of the `WAYS`. `env`: `CHAT_STORE` and what else the app is to be told. */
export async function serve(way, cleaning, env) {
  const { args, cwd } = WAYS[way](cleaning);
  let child;
  let port = 0;
  let output = '';

  async function start() {
    output = '';
    const inherited = { ...process.env };
    // What Vitest has set for itself would make it another kind of server.
    for (const name of ['NODE_ENV', 'NODE_OPTIONS', 'OPENCLAW_ROOT', 'NEXT_OUTPUT']) delete inherited[name];
    child = spawn(process.execPath, args, {
      cwd,
      env: { ...inherited, NEXT_TELEMETRY_DISABLED: '1', HOSTNAME: '127.0.0.1', PORT: String(port), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
    const says = () => /127\.0\.0\.1:(\d+)/.exec(output)?.[1];
    port = await until(() => {
      if (child.exitCode !== null) throw new Error(`the server ended: ${output}`);
      return says();
    }, `the server told its port: ${output}`);
    await until(() => fetch(`http://127.0.0.1:${port}/api/ready`).catch(() => null), `the server answered: ${output}`);
  }

  async function stop(signal = 'SIGTERM') {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  // `next dev` is two processes, and only one that is asked to end takes the other along.
  cleaning.later(() => stop(way === 'dev' ? 'SIGTERM' : 'SIGKILL'));
  await start();
  const { CHAT_STORE: store } = env;
  return {
    cwd,
    stop,
    start,
    port: () => port,
    url: (path) => `http://127.0.0.1:${port}${path}`,
    output: () => output,
    /** The messages of a session, as they are on the disk. */
    stored(id) {
      const path = join(store, `${id}.jsonl`);
      if (!existsSync(path)) return [];
      return readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
    },
  };
}

/** A way to the server on which connections get lost, other than the server would end them. */
export async function unreliableWay(server, cleaning) {
  const connections = new Set();
  const proxy = createServer((client) => {
    const upstream = connect(server.port(), '127.0.0.1');
    const connection = {
      isStream: false,
      destroy() {
        connections.delete(connection);
        client.destroy();
        upstream.destroy();
      },
      /** Nothing passes any more, and nobody is told. */
      silence() {
        for (const socket of [client, upstream]) socket.unpipe().resume();
      },
    };
    connections.add(connection);
    for (const socket of [client, upstream]) socket.on('error', () => {}).on('close', connection.destroy);
    upstream.on('data', (bytes) => (connection.isStream ||= bytes.includes('text/event-stream')));
    client.pipe(upstream).pipe(client);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const destroyAll = () => connections.forEach((connection) => connection.destroy());
  cleaning.later(() => {
    destroyAll();
    proxy.close();
  });
  return {
    url: (path) => `http://127.0.0.1:${proxy.address().port}${path}`,
    destroyAll,
    /** Silences the connections on which answers come. Returns how many these are. */
    silenceAnswers() {
      const streams = [...connections].filter(({ isStream }) => isStream);
      streams.forEach((connection) => connection.silence());
      return streams.length;
    },
  };
}

// ── Agents ──

/** Agents on strings: `env` is for the server, `agent(message)` is the one that was asked that. */
export async function agentsOnStrings(cleaning) {
  const path = join(temporaryFolder(cleaning), 'strings');
  const agents = new Map();
  const server = createServer((socket) => {
    socket.on('error', () => {});
    createInterface({ input: socket })
      .on('error', () => {})
      .on('line', (line) => {
        const { pid, message } = JSON.parse(line);
        agents.set(message, { pid, ...strings((command) => socket.write(`${JSON.stringify(command)}\n`)) });
      });
    cleaning.later(() => socket.destroy());
  });
  await new Promise((resolve) => server.listen(path, resolve));
  cleaning.later(() => server.close());
  return {
    env: { CHAT_AGENT: join(import.meta.dirname, 'on-strings.mjs'), E2E_STRINGS: path },
    agent: (message) => until(() => agents.get(message), `an agent was asked ${message}`),
  };
}

function strings(pull) {
  let said = '';
  const tell = (stream, data) => pull({ out: `${JSON.stringify({ event: 'agent', stream, data })}\n` });
  return {
    begin: () => tell('lifecycle', { phase: 'start' }),
    think: (delta) => tell('thinking', { delta }),
    say(delta) {
      said += delta;
      tell('assistant', { delta });
    },
    /** All text that it was told to print. */
    said: () => said,
    call: (toolCallId, name, args) => tell('tool', { phase: 'start', toolCallId, name, args }),
    result: (toolCallId, name, result) => tell('tool', { phase: 'result', toolCallId, name, result }),
    fail: (toolCallId, name, error) => tell('tool', { phase: 'result', toolCallId, name, isError: true, result: error }),
    complain: (err) => pull({ err }),
    end: (code = 0) => pull({ exit: code }),
  };
}

/** Numbered words, so that a lost or doubled one shows: `words(1, 3)` is "w1 w2 w3 ". */
export function words(from, to) {
  let text = '';
  for (let n = from; n <= to; n += 1) text += `w${n} `;
  return text;
}

export const newQuestion = (about = 'a question') => `${about} ${randomUUID().slice(0, 8)}`;

/** Whether a process of that number runs; one that has ended and waits for its parent does not. */
export function isAlive(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !'ZX'.includes(stat[stat.lastIndexOf(')') + 2]);
  } catch {
    return false;
  }
}

// ── The browser ──

function findBrowser() {
  const folders = process.env.PATH.split(delimiter);
  const places = ['chromium', 'google-chrome'].flatMap((name) => folders.map((folder) => join(folder, name)));
  const found = process.env.CHROMIUM ?? places.find((path) => existsSync(path));
  if (!found) throw new Error('There is no Chromium on the PATH. Debian has one: apt-get install chromium');
  return found;
}

const BROWSER_ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export async function launchBrowser(cleaning) {
  const browser = await chromium.launch({ executablePath: findBrowser(), args: BROWSER_ARGS });
  cleaning.later(() => browser.close());
  return browser;
}

/**
 * The context of a browser whose pages can be frozen, as a laptop's are that sleeps. Those of `launchBrowser` cannot:
 * Playwright has them count as visible whatever happens.
 */
export async function launchSleepyBrowser(cleaning) {
  const args = [...BROWSER_ARGS, '--remote-debugging-port=0', `--user-data-dir=${temporaryFolder(cleaning)}`];
  const child = spawn(findBrowser(), args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (output += text));
  cleaning.later(() => {
    child.kill('SIGKILL');
    return exited;
  });
  const address = await until(() => /DevTools listening on (ws:\S+)/.exec(output)?.[1], 'the browser told its address');
  const browser = await chromium.connectOverCDP(address, { noDefaults: true });
  cleaning.later(() => browser.close());
  return browser.contexts()[0];
}

/** Freezes a page of a sleepy browser. Returns how to wake it. */
export async function freeze(page) {
  const devTools = await page.context().newCDPSession(page);
  await page.evaluate(() => {
    const seen = (window.lifecycle = []);
    for (const event of ['freeze', 'resume']) document.addEventListener(event, () => seen.push(event));
  });
  const isSeen = (event) => until(() => page.evaluate((name) => window.lifecycle.includes(name), event), `the page saw ${event}`);
  await devTools.send('Page.setWebLifecycleState', { state: 'frozen' });
  await isSeen('freeze');
  return async () => {
    await devTools.send('Page.setWebLifecycleState', { state: 'active' });
    // Freezing has hidden it.
    await devTools.send('Emulation.setFocusEmulationEnabled', { enabled: true });
    await isSeen('resume');
  };
}

/** A tab, and what one does and sees there. */
export async function openTab(context, url) {
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(url);
  const field = page.getByRole('textbox', { name: 'Message' });
  const answer = page.locator('[data-role="assistant"]').last();
  const tab = {
    page,
    errors,
    field,
    answer,
    send: page.getByRole('button', { name: 'Send' }),
    stop: page.getByRole('button', { name: 'Stop' }),
    alert: page.locator('main [role="alert"]'),
    chats: page.getByRole('navigation', { name: 'Chats' }),
    said: page.locator('[data-role="user"]'),
    reasoning: answer.locator('[data-part="reasoning"]'),
    tools: answer.locator('[data-part="tool"]'),
    id: () => /\/chat\/([^/]+)$/.exec(page.url())?.[1],
    /** Those of its requests for the rest of an answer, from now on, that the server has answered with just that. */
    resumptions() {
      const resumed = [];
      page.on('response', (response) => response.headers()['x-run-resumed'] === 'true' && resumed.push(response));
      return resumed;
    },
    /** Asks, in a new chat or in the one that is open. */
    async ask(question) {
      await field.fill(question);
      await field.press('Enter');
      await page.waitForURL('**/chat/*');
    },
    /** The text of the last answer. */
    async text() {
      return (await answer.locator('[data-part="text"]').allInnerTexts()).join('').trim();
    },
    reads: (text) => until(async () => (await tab.text()).endsWith(text), `the page shows ${JSON.stringify(text)}`),
    /** As `reads`, but of the whole answer. A page that resumes one shows what is stored, then the run from its beginning. */
    shows: (text) => until(async () => (await tab.text()) === text.trim(), `the page shows no more and no less than ${text}`),
    /** Resolves when nothing more is expected. */
    isReady: () => until(async () => (await tab.stop.count()) === 0 && (await tab.send.count()) === 1, 'the answer ended'),
  };
  return tab;
}
