// The app as `next start` serves it, in a browser, with an agent that the tests hold on strings.
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import {
  agentsOnStrings,
  cleanUp,
  isAlive,
  launchBrowser,
  newQuestion,
  openTab,
  serve,
  temporaryFolder,
  until,
  words,
} from './harness.mjs';

const cleaning = cleanUp();
let agents;
let server;
let browser;
let context;
let tab;

beforeAll(async () => {
  agents = await agentsOnStrings(cleaning);
  server = await serve('start', cleaning, { ...agents.env, CHAT_STORE: temporaryFolder(cleaning) });
  browser = await launchBrowser(cleaning);
});

afterAll(() => cleaning.now());

beforeEach(async () => {
  context = await browser.newContext();
  tab = await openTab(context, server.url('/'));
});

afterEach(async () => {
  await context.close();
});

/** Asks a new question in `tab`. */
async function ask(about) {
  const question = newQuestion(about);
  await tab.ask(question);
  return { question, agent: await agents.agent(question) };
}

it('shows thoughts, tools and text as they come, and stores them', async () => {
  const { question, agent } = await ask('How many ducks?');
  agent.begin();
  await tab.answer.getByText('Preparing response...').waitFor();
  agent.think('I count them. ');
  await tab.reasoning.getByText('Thinking').waitFor();
  agent.call('call-1', 'count_ducks', { pond: 'east' });
  await tab.tools.and(tab.page.locator('[data-state="running"]')).waitFor();
  agent.result('call-1', 'count_ducks', 'seven ducks');
  await tab.tools.and(tab.page.locator('[data-state="done"]')).waitFor();
  agent.call('call-2', 'count_geese', {});
  agent.fail('call-2', 'count_geese', 'no geese here');
  await tab.tools.and(tab.page.locator('[data-state="failed"]')).getByText('no geese here').first().waitFor();
  agent.say('There are **sev');
  await tab.answer.locator('[data-part="text"] :is(strong, [data-streamdown="strong"])', { hasText: 'sev' }).waitFor();
  expect(await tab.text()).toBe('There are sev');
  agent.say('en** ducks.');
  await tab.reads('There are seven ducks.');

  await tab.reasoning.locator('summary').click();
  await tab.reasoning.locator('p', { hasText: 'I count them.' }).waitFor();
  await tab.tools.first().locator('summary').click();
  await tab.tools.first().locator('pre', { hasText: '"pond": "east"' }).waitFor();
  await tab.tools.first().locator('pre', { hasText: 'seven ducks' }).waitFor();

  agent.end();
  await tab.isReady();
  expect(await tab.answer.getByText('Preparing response...').count()).toBe(0);
  expect(server.stored(tab.id())).toMatchObject([
    { role: 'user', content: question },
    { role: 'assistant', content: 'There are **seven** ducks.', parts: [{ type: 'reasoning' }, { toolCallId: 'call-1' }, { toolCallId: 'call-2' }, { type: 'text' }] },
  ]);
  expect(tab.errors).toEqual([]);
});

it('asks again in the same chat', async () => {
  const first = await ask();
  first.agent.say('One.');
  first.agent.end();
  await tab.isReady();
  const second = newQuestion();
  await tab.ask(second);
  const agent = await agents.agent(second);
  agent.say('Two.');
  await tab.reads('Two.');
  agent.end();
  await tab.isReady();
  expect(await tab.said.allInnerTexts()).toEqual([first.question, second]);
  expect(server.stored(tab.id()).map(({ role, content }) => [role, content])).toEqual([
    ['user', first.question],
    ['assistant', 'One.'],
    ['user', second],
    ['assistant', 'Two.'],
  ]);
});

it('stops: the process ends, and what was said stays', async () => {
  const { agent } = await ask();
  agent.say('Half an ans');
  await tab.reads('Half an ans');
  expect(isAlive(agent.pid)).toBe(true);
  await tab.stop.click();
  await tab.isReady();
  await until(() => !isAlive(agent.pid), 'the agent ended');
  expect(await tab.text()).toBe('Half an ans');
  const [, stored] = server.stored(tab.id());
  expect(stored).toMatchObject({ content: 'Half an ans' });
  expect(stored).not.toHaveProperty('_streaming');
});

it('is used by keyboard: Shift+Enter begins a line, Enter sends, Escape stops', async () => {
  const question = newQuestion();
  expect(await tab.field.evaluate((field) => field === document.activeElement)).toBe(true);
  await tab.page.keyboard.type(question);
  await tab.page.keyboard.press('Shift+Enter');
  await tab.page.keyboard.type('in two lines');
  expect(await tab.field.inputValue()).toBe(`${question}\nin two lines`);
  await tab.page.keyboard.press('Enter');
  await tab.page.waitForURL('**/chat/*');
  const agent = await agents.agent(`${question}\nin two lines`);
  agent.say('Yes');
  await tab.reads('Yes');
  await tab.page.keyboard.press('Escape');
  await tab.isReady();
  await until(() => !isAlive(agent.pid), 'the agent ended');
});

it('lists chats by their titles, opens and deletes them', async () => {
  const older = await ask('An older question');
  const olderId = tab.id();
  older.agent.say('Older.');
  older.agent.end();
  await tab.isReady();
  await tab.chats.getByRole('link', { name: 'New chat' }).click();
  await tab.page.waitForURL(server.url('/'));
  const newer = await ask('A newer question that is far too long for a title in such a narrow list');
  const newerId = tab.id();
  newer.agent.say('Newer');
  await tab.reads('Newer');

  const list = tab.chats.getByRole('listitem');
  await until(async () => (await list.first().innerText()).startsWith('A newer question'), 'the newest chat is the first');
  expect((await list.first().getByRole('link').getAttribute('title')).length).toBeLessThanOrEqual(60);
  await tab.chats.getByRole('link', { name: older.question }).click();
  await tab.reads('Older.');
  expect(tab.id()).toBe(olderId);
  await tab.chats.getByRole('link', { name: 'A newer question' }).first().click();
  await tab.reads('Newer');

  tab.page.on('dialog', (dialog) => dialog.accept());
  await list.first().hover();
  await list.first().getByRole('button', { name: 'Delete' }).click();
  await tab.page.waitForURL(server.url('/'));
  await until(() => !isAlive(newer.agent.pid), 'the agent of the deleted chat ended');
  await until(async () => !(await tab.chats.innerText()).includes('A newer question'), 'the chat left the list');
  expect(server.stored(newerId)).toEqual([]);
  expect((await fetch(server.url(`/chat/${newerId}`))).status).toBe(404);
  expect(server.stored(olderId)).toHaveLength(2);
});

it('starts no agent for the page of another site, which can post text but no JSON', async () => {
  const before = await tab.chats.getByRole('listitem').count();
  const post = { method: 'POST', body: JSON.stringify({ text: 'do harm' }), headers: { 'content-type': 'text/plain' } };
  expect((await fetch(server.url('/api/chats'), post)).status).toBe(415);
  await tab.page.reload();
  expect(await tab.chats.getByRole('listitem').count()).toBe(before);
});

it('says what is wrong with an agent that fails', async () => {
  const { agent } = await ask();
  agent.complain('Error: the model is asleep\n');
  agent.end(1);
  await tab.alert.getByText('the model is asleep').waitFor();
  await tab.isReady();
});

it('has everything after a restart of the server, which ends its agents', async () => {
  const { question, agent } = await ask();
  agent.say('Said before the restart');
  await tab.reads('Said before the restart');
  await server.stop();
  await until(() => !isAlive(agent.pid), 'the agent ended with its server');
  await server.start();
  await tab.page.reload();
  await tab.reads('Said before the restart');
  await tab.isReady();
  expect(await tab.said.allInnerTexts()).toEqual([question]);
  await tab.chats.getByRole('link', { name: question }).waitFor();
  const second = newQuestion();
  await tab.ask(second);
  const next = await agents.agent(second);
  next.say('And after it');
  await tab.reads('And after it');
  next.end();
  await tab.isReady();
});

it('shows what there is of an answer whose server was killed', async () => {
  const { agent } = await ask();
  agent.say('Said before the crash');
  await tab.reads('Said before the crash');
  const stored = () => server.stored(tab.id())[1]?.content;
  await until(() => stored() === 'Said before the crash', 'the growing answer is stored');
  await server.stop('SIGKILL');
  await server.start();
  await tab.alert.getByText('can no longer be resumed').waitFor();
  await tab.alert.getByRole('button', { name: 'Reload the chat' }).click();
  await tab.answer.getByText('The answer ends here').waitFor();
  expect(await tab.text()).toBe('Said before the crash');
  await until(async () => (await tab.alert.count()) === 0, 'there is nothing to complain about');
  await tab.isReady();
});
