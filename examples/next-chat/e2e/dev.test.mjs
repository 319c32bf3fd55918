// `next dev`, where a change to a route loads its module anew.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { agentsOnStrings, cleanUp, isAlive, launchBrowser, newQuestion, openTab, serve, temporaryFolder, until, words } from './harness.mjs';

const cleaning = cleanUp();
afterAll(() => cleaning.now());

it('keeps a run through a hot reload of its route in mid-answer', async () => {
  const agents = await agentsOnStrings(cleaning);
  const server = await serve('dev', cleaning, { ...agents.env, CHAT_STORE: temporaryFolder(cleaning) });
  const browser = await launchBrowser(cleaning);
  const tab = await openTab(await browser.newContext(), server.url('/'));
  const question = newQuestion();
  await tab.ask(question);
  const agent = await agents.agent(question);
  agent.say(words(1, 10));
  await tab.reads('w10');

  const route = join(server.cwd, 'app/api/chat/[id]/stream/route.ts');
  const source = readFileSync(route, 'utf8');
  const edited = source.replace("replay: 'compact',", "replay: 'compact', headers: { 'x-edited': 'yes' },");
  expect(edited).not.toBe(source);
  writeFileSync(route, edited);
  await until(async () => {
    const response = await fetch(server.url(`/api/chat/${tab.id()}/stream`));
    await response.body?.cancel();
    return response.headers.get('x-edited');
  }, 'the new route is in use');

  agent.say(words(11, 20));
  await tab.reads('w20');
  await tab.page.reload();
  await tab.reads('w20');
  agent.say(words(21, 30));
  await tab.shows(words(1, 30));
  expect(isAlive(agent.pid)).toBe(true);
  await tab.stop.click();
  await tab.isReady();
  await until(() => !isAlive(agent.pid), 'the agent ended');
  expect(server.stored(tab.id())[1].content).toBe(words(1, 30));
  expect(tab.errors).toEqual([]);
});
