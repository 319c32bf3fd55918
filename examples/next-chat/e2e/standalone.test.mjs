// The standalone output, away from the repository: what was not traced is not there.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { agentsOnStrings, cleanUp, isAlive, launchBrowser, newQuestion, openTab, serve, temporaryFolder, until, words } from './harness.mjs';

const cleaning = cleanUp();
let browser;

beforeAll(async () => {
  browser = await launchBrowser(cleaning);
});

afterAll(() => cleaning.now());

it('answers, goes on after a reload, and stops', async () => {
  const agents = await agentsOnStrings(cleaning);
  const server = await serve('standalone', cleaning, { ...agents.env, CHAT_STORE: temporaryFolder(cleaning) });
  const traced = readdirSync(join(server.cwd, 'next-chat/node_modules/active-runs'));
  expect(traced.filter((name) => name.endsWith('.node'))).toHaveLength(1);
  expect(existsSync(join(server.cwd, 'next-chat/node_modules/active-runs/src'))).toBe(false);

  const tab = await openTab(await browser.newContext(), server.url('/'));
  const question = newQuestion();
  await tab.ask(question);
  const agent = await agents.agent(question);
  agent.say(words(1, 10));
  await tab.reads('w10');
  await tab.page.reload();
  agent.say(words(11, 20));
  await tab.shows(words(1, 20));
  await tab.stop.click();
  await tab.isReady();
  await until(() => !isAlive(agent.pid), 'the agent ended');
  expect(server.stored(tab.id())[1].content).toBe(words(1, 20));
});
