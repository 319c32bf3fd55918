// What becomes of an answer when connections get lost, pages go and tabs come in the midst of it: no word is lost, none is
// doubled. The agents say numbered words.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  agentsOnStrings,
  cleanUp,
  freeze,
  isAlive,
  launchBrowser,
  launchSleepyBrowser,
  newQuestion,
  openTab,
  serve,
  temporaryFolder,
  unreliableWay,
  until,
  words,
} from './harness.mjs';

const cleaning = cleanUp();
let agents;
let server;
let way;
let browser;
let context;
let sleepy;
let tab;

beforeAll(async () => {
  agents = await agentsOnStrings(cleaning);
  server = await serve('start', cleaning, { ...agents.env, CHAT_STORE: temporaryFolder(cleaning) });
  way = await unreliableWay(server, cleaning);
  browser = await launchBrowser(cleaning);
  sleepy = await launchSleepyBrowser(cleaning);
});

afterAll(() => cleaning.now());

beforeEach(async () => {
  context = await browser.newContext();
  tab = await openTab(context, way.url('/'));
});

afterEach(async () => {
  await context.close();
});

/** Asks a question in `tab` and returns its agent. */
async function ask() {
  const question = newQuestion();
  await tab.ask(question);
  return agents.agent(question);
}

/** The first answer of a chat comes on a connection that resumes the run, later ones on that of the question. */
const CONNECTIONS = {
  'of the question': async () => {
    const first = await ask();
    first.say('One.');
    first.end();
    await tab.isReady();
    return ask();
  },
  'that resumes': ask,
};

/** The agent says what follows `w<from - 1>`, a line for each word. */
function say(agent, from, to) {
  for (let n = from; n <= to; n += 1) agent.say(words(n, n));
}

/** The whole answer is in these tabs and on the disk: word for word what the agent has said. */
async function isWhole(agent, ...tabs) {
  const said = agent.said();
  for (const each of tabs) {
    await each.isReady();
    await each.shows(said);
    expect(await each.alert.count()).toBe(0);
    expect(each.errors).toEqual([]);
  }
  const last = server.stored(tabs[0].id()).at(-1);
  expect(last).toMatchObject({ role: 'assistant', content: said });
  expect(last).not.toHaveProperty('_streaming');
}

describe.each(Object.keys(CONNECTIONS))('a connection %s', (name) => {
  const askOn = CONNECTIONS[name];

  it('that is offline for five seconds is gone on with', async () => {
    const agent = await askOn();
    say(agent, 1, 50);
    await tab.reads('w50');
    const resumptions = tab.resumptions();
    const devTools = await context.newCDPSession(tab.page);
    const network = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
    await devTools.send('Network.enable');
    await devTools.send('Network.emulateNetworkConditions', { ...network, offline: true });
    // As a network that is away does in the end: the browser may not cut what is open.
    way.destroyAll();
    say(agent, 51, 100);
    await sleep(5_000);
    expect(await tab.text()).toBe(words(1, 50).trim());
    expect(await tab.stop.count()).toBe(1);
    await devTools.send('Network.emulateNetworkConditions', { ...network, offline: false });
    await tab.reads('w100');
    expect(resumptions).not.toEqual([]);
    say(agent, 101, 150);
    await tab.reads('w150');
    agent.end();
    await isWhole(agent, tab);
  });

  it('on which nothing passes any more is given up, and gone on with', async () => {
    // From here on the page's clock can be put forward.
    await tab.page.clock.install();
    await tab.page.reload();
    const agent = await askOn();
    say(agent, 1, 50);
    await tab.reads('w50');
    const resumptions = tab.resumptions();
    expect(way.silenceAnswers()).toBeGreaterThan(0);
    say(agent, 51, 100);
    // Neither the browser nor the server is told: only the time says it.
    await tab.page.clock.fastForward(45_000);
    await tab.reads('w100');
    expect(resumptions).not.toEqual([]);
    say(agent, 101, 150);
    await tab.reads('w150');
    agent.end();
    await isWhole(agent, tab);
  });

  it('that is lost while the laptop sleeps is gone on with when it wakes', async () => {
    tab = await openTab(sleepy, way.url('/'));
    const agent = await askOn();
    say(agent, 1, 50);
    await tab.reads('w50');
    const resumptions = tab.resumptions();
    const wake = await freeze(tab.page);
    way.destroyAll();
    say(agent, 51, 100);
    await wake();
    await tab.reads('w100');
    expect(resumptions).not.toEqual([]);
    say(agent, 101, 150);
    await tab.reads('w150');
    agent.end();
    await isWhole(agent, tab);
  });

  it('that is cut again and again is gone on with each time', async () => {
    const agent = await askOn();
    const resumptions = tab.resumptions();
    for (let said = 0; said < 500; said += 100) {
      say(agent, said + 1, said + 50);
      way.destroyAll();
      say(agent, said + 51, said + 100);
      await tab.shows(agent.said());
    }
    expect(resumptions).not.toEqual([]);
    agent.end();
    await isWhole(agent, tab);
  });
});

it('a page that is reloaded in mid-answer goes on with it', async () => {
  const agent = await ask();
  agent.begin();
  say(agent, 1, 100);
  await tab.reads('w100');
  // While the page is gone, more is said: that is before, between and after the store and the stream are read.
  for (let said = 100; said < 500; said += 100) {
    const reloading = tab.page.reload();
    say(agent, said + 1, said + 100);
    await reloading;
    await tab.shows(agent.said());
  }
  say(agent, 501, 510);
  agent.end();
  await isWhole(agent, tab);
  await tab.page.reload();
  await isWhole(agent, tab);
  expect(await tab.page.locator('[data-role="assistant"]').count()).toBe(1);
});

it('a tab that is opened in mid-answer shows all of it', async () => {
  const agent = await ask();
  say(agent, 1, 50);
  await tab.reads('w50');
  const opening = openTab(context, tab.page.url());
  say(agent, 51, 100);
  const other = await opening;
  for (const each of [tab, other]) await each.shows(agent.said());
  say(agent, 101, 150);
  for (const each of [tab, other]) await each.shows(agent.said());
  agent.end();
  await isWhole(agent, tab, other);
});

it('what is asked in one tab is answered in the other, where it can be stopped for both', async () => {
  const first = await ask();
  say(first, 1, 10);
  const other = await openTab(context, tab.page.url());
  await other.reads('w10');
  first.end();
  await isWhole(first, tab, other);

  const second = await ask();
  say(second, 1, 50);
  for (const each of [tab, other]) await each.reads('w50');
  expect(isAlive(second.pid)).toBe(true);
  await other.stop.click();
  await isWhole(second, tab, other);
  await until(() => !isAlive(second.pid), 'the agent ended');
  expect(await other.said.count()).toBe(2);

  // Both are free for the next question.
  const third = await ask();
  say(third, 1, 10);
  third.end();
  await isWhole(third, tab, other);
});

it('a page that is left in mid-answer stops nothing, and shows all of it to whom comes back', async () => {
  const stops = [];
  tab.page.on('request', (request) => request.url().endsWith('/stop') && stops.push(request.url()));
  const chats = [];
  for (let n = 0; n < 2; n += 1) {
    await tab.chats.getByRole('link', { name: 'New chat' }).click();
    await tab.page.waitForURL(way.url('/'));
    const question = newQuestion();
    await tab.ask(question);
    const agent = await agents.agent(question);
    say(agent, 1, 50);
    await tab.reads('w50');
    chats.push({ question, agent });
  }

  // More often than a browser has connections for a server.
  for (let said = 50; said < 450; said += 50) {
    const next = said % 100 === 50 ? chats[0] : chats[1];
    for (const { agent } of chats) say(agent, said + 1, said + 50);
    await tab.chats.getByRole('link', { name: next.question }).click();
    await tab.page.getByText(next.question).and(tab.said).waitFor();
    await tab.shows(next.agent.said());
  }

  const [left, shown] = chats;
  await tab.page.goBack();
  await tab.page.getByText(left.question).and(tab.said).waitFor();
  shown.agent.end();
  say(left.agent, 451, 500);
  await tab.reads('w500');
  left.agent.end();
  await isWhole(left.agent, tab);
  await tab.page.goForward();
  await tab.page.getByText(shown.question).and(tab.said).waitFor();
  await isWhole(shown.agent, tab);
  expect(stops).toEqual([]);
});
