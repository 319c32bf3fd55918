// The app out of the box, with the demo's agent. UPDATE_SCREENSHOTS=1 renews the pictures in docs/.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { app, cleanUp, launchBrowser, openTab, serve, temporaryFolder } from './harness.mjs';

const repository = join(app, '../..');
const cleaning = cleanUp();
afterAll(() => cleaning.now());

it('answers about a folder, in light and in dark', async () => {
  const folder = join(temporaryFolder(cleaning), 'active-runs');
  mkdirSync(folder);
  const copy = `git -C '${repository}' archive HEAD | tar -x -C '${folder}'`;
  expect(spawnSync('sh', ['-c', copy]).status).toBe(0);
  const server = await serve('start', cleaning, {
    CHAT_STORE: temporaryFolder(cleaning),
    CHAT_FOLDER: folder,
    DEMO_DELAY_MS: '5',
  });
  const browser = await launchBrowser(cleaning);
  const context = await browser.newContext({ viewport: { width: 1200, height: 860 }, deviceScaleFactor: 1.5 });
  const tab = await openTab(context, server.url('/'));
  for (const question of ['Which files have changed most recently?', 'Where is the store explained?']) {
    await tab.ask(question);
    await tab.isReady();
    await tab.chats.getByRole('link', { name: 'New chat' }).click();
    await tab.page.waitForURL(server.url('/'));
  }
  await tab.page.getByRole('button', { name: 'What is in this folder?' }).click();
  await tab.page.waitForURL('**/chat/*');
  await tab.answer.getByText('The biggest:').waitFor();
  await tab.isReady();
  expect(await tab.text()).toContain('active-runs holds');
  expect(await tab.answer.locator('[data-part="text"] li').count()).toBe(3);
  const tool = tab.tools.filter({ hasText: 'read_file' });
  await tool.and(tab.page.locator('[data-state="done"]')).locator('summary').click();
  await tool.locator('pre', { hasText: '"path": "README.md"' }).waitFor();

  for (const colorScheme of ['light', 'dark']) {
    await tab.page.emulateMedia({ colorScheme });
    expect(await tab.page.evaluate(lightness) > 127).toBe(colorScheme === 'light');
    if (!process.env.UPDATE_SCREENSHOTS) continue;
    await tab.page.getByRole('log').evaluate((log) => log.parentElement.scrollTo({ top: 0 }));
    await tab.page.screenshot({ path: join(repository, `docs/next-chat-${colorScheme}.png`), animations: 'disabled' });
  }
  expect(tab.errors).toEqual([]);
});

/** Of the page's background, from 0 to 255. Runs in the page. */
function lightness() {
  const canvas = document.createElement('canvas').getContext('2d');
  canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data[1];
}
