// Stored messages, of either form, as the SDK takes them.
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { temporaryFolder, until } from '../helpers/index.mjs';
import { ai, serverOfTest } from './helpers/index.mjs';
import { agentOf, keeping, linesOfALongRun, playAll } from './helpers/played.mjs';

/** The session's messages, once the answer's last form is on the disk. */
async function storedOf(server, id, count = 2) {
  await until(async () => {
    const stored = await server.stored(id);
    return stored.length === count && stored.every(({ _streaming }) => !_streaming);
  }, `${count} messages of ${id} were stored`);
  return server.messages(id);
}

/** What the SDK says against the messages, if it says something. */
async function faultsOf(messages) {
  const checked = await ai.validateUIMessages({ messages }).catch((error) => error);
  if (checked instanceof Error) return checked.message;
  const { success, data, error } = await ai.safeValidateUIMessages({ messages });
  if (!success) return error.message;
  return isDeepStrictEqual(data, messages) ? undefined : 'it changed them';
}

/** The names of tools that the parts have, by call. */
const toolsOf = (messages) =>
  messages.flatMap(({ parts }) =>
    parts.filter(({ type }) => type.startsWith('tool-')).map(({ type, toolCallId }) => `${toolCallId} ${type.slice(5)}`),
  );

/** The names of tools that the model is told of: in calls, and in results. */
async function toolsForTheModel(messages) {
  const content = (await ai.convertToModelMessages(messages)).flatMap((message) =>
    Array.isArray(message.content) ? message.content : [],
  );
  const named = (kind) =>
    content.filter(({ type }) => type === kind).map(({ toolCallId, toolName }) => `${toolCallId} ${toolName}`);
  return [named('tool-call'), named('tool-result')];
}

const isStatus = ({ type, id }) => type === 'reasoning' && id?.startsWith('status-');
const withoutIds = (parts) => parts.map(({ id, ...part }) => (part.type.startsWith('data-') ? { id, ...part } : part));

describe.each(['module', 'ui'])('stored in the form %s', (storeFormat) => {
  it('every recording is what the SDK validates, and the model is told of the right tools', async () => {
    const folder = temporaryFolder();
    const server = await serverOfTest({ settings: { ...keeping(join(folder, 'store')), storeFormat } });
    const runs = await playAll(server, folder);
    let tools = 0;
    for (const { name, id, whole } of runs) {
      // Of an agent that fails without a word, nothing is stored.
      const hasAnswer = whole.messages[1]?.parts.some((part) => !isStatus(part));
      const messages = await storedOf(server, id, hasAnswer ? 2 : 1);
      expect(await faultsOf(messages), name).toBeUndefined();
      const named = toolsOf(messages);
      expect(named.slice().sort(), name).toEqual(toolsOf(whole.messages).sort());
      expect(await toolsForTheModel(messages), name).toEqual([named, named]);
      tools += named.length;
      if (!hasAnswer) continue;
      const [, streamed] = whole.messages;
      expect(messages[1].id, name).toBe(streamed.id);
      if (storeFormat !== 'ui') continue;
      const shownParts = streamed.parts.filter((part) => !isStatus(part));
      expect(withoutIds(messages[1].parts), name).toEqual(withoutIds(shownParts));
      expect(messages[1].metadata, name).toEqual(streamed.metadata);
    }
    expect(tools).toBeGreaterThan(30);
  });
});

it('forms that are mixed in one file, and files of the user, are what the SDK validates', async () => {
  const folder = temporaryFolder();
  const server = await serverOfTest({ settings: keeping(join(folder, 'store')) });
  const stdout = linesOfALongRun().join('');
  const agent = agentOf({ stdout, stderr: '', exit: '0' }, join(folder, 'agent'));
  const picture = { type: 'file', mediaType: 'image/png', filename: 'a.png', url: 'data:image/png;base64,iVBORw0KGgo=' };
  const asked = [];
  for (const [number, storeFormat] of ['module', 'ui', 'module', 'ui'].entries()) {
    await server.configure({ ...keeping(join(folder, 'store')), storeFormat });
    const parts = [picture, { type: 'text', text: `question ${number}` }];
    asked.push({ id: `q${number}`, role: 'user', parts });
    const body = JSON.stringify({ id: 'mixed', messages: asked.slice(-1), agent });
    await (await fetch(server.api, { method: 'POST', body })).text();
    await storedOf(server, 'mixed', 2 * (number + 1));
  }
  const messages = await server.messages('mixed');
  expect(messages.filter(({ role }) => role === 'user')).toEqual(asked);
  expect(messages.map(({ role }) => role)).toEqual(asked.flatMap(() => ['user', 'assistant']));
  expect(await faultsOf(messages)).toBeUndefined();
  const [calls, results] = await toolsForTheModel(messages);
  expect(calls.map((call) => call.split(' ')[1]).slice(0, 4)).toEqual(['read', 'read', 'write', 'list']);
  expect(results).toEqual(calls);
  expect(calls).toEqual(toolsOf(messages));
  const content = (await ai.convertToModelMessages(messages)).filter(({ role }) => role === 'user').map((message) => message.content);
  expect(content).toHaveLength(4);
  for (const [file, text] of content) {
    expect(file).toMatchObject({ type: 'file', mediaType: 'image/png', filename: 'a.png' });
    expect(text).toMatchObject({ type: 'text' });
  }
});
