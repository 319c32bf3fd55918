// The app out of the box, with the demo's agent, in light and in dark. UPDATE_SCREENSHOTS=1 renews the pictures in docs/.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { app, cleanUp, launchBrowser, openTab, serve, temporaryFolder } from './harness.mjs';

const repository = join(app, '../..');
const cleaning = cleanUp();
let server;
let browser;

beforeAll(async () => {
  const folder = join(temporaryFolder(cleaning), 'active-runs');
  mkdirSync(folder);
  const copy = `git -C '${repository}' archive HEAD | tar -x -C '${folder}'`;
  expect(spawnSync('sh', ['-c', copy]).status).toBe(0);
  server = await serve('start', cleaning, { CHAT_STORE: temporaryFolder(cleaning), CHAT_FOLDER: folder, DEMO_DELAY_MS: '5' });
  browser = await launchBrowser(cleaning);
});

afterAll(() => cleaning.now());

for (const colorScheme of ['light', 'dark']) {
  it(`answers about a folder, in ${colorScheme}`, async () => {
    const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 900 }, deviceScaleFactor: 1.5 });
    const tab = await openTab(context, server.url('/'));
    const background = await tab.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const lightness = Number(/oklch\(([\d.]+)/.exec(background)[1]);
    expect(lightness > 0.5).toBe(colorScheme === 'light');
    await tab.page.getByRole('button', { name: 'What is in this folder?' }).click();
    await tab.page.waitForURL('**/chat/*');
    await tab.answer.getByText('The biggest:').waitFor();
    await tab.isReady();
    await tab.tools.filter({ hasText: 'list_files' }).and(tab.page.locator('[data-state="done"]')).waitFor();
    expect(await tab.text()).toContain('active-runs holds');
    expect(await tab.answer.locator('[data-part="text"] li').count()).toBe(3);
    expect(tab.errors).toEqual([]);
    if (process.env.UPDATE_SCREENSHOTS) {
      await tab.page.screenshot({ path: join(repository, `docs/next-chat-${colorScheme}.png`), animations: 'disabled' });
    }
  });
}
