import { abortRun, persistUserMessage, startRun, subscribeToRun } from 'active-runs';
import type { UIMessage } from 'ai';
import { textOf } from './messages';
import { agent } from './settings';

/** Stores what the user said and starts the agent on it. The session must have no running run. */
export function startTurn(sessionId: string, message: Pick<UIMessage, 'id' | 'parts'>) {
  const content = textOf(message);
  persistUserMessage(sessionId, { id: message.id, content, parts: message.parts });
  startRun({ sessionId, message: content, agentSessionId: sessionId, agent });
}

/** Stops the agent, if there is one, and waits until it is gone and its answer stored. */
export async function endTurn(sessionId: string) {
  if (!abortRun(sessionId)) return;
  await new Promise<void>((done) => {
    subscribeToRun(sessionId, (event) => event === null && done(), { replay: false });
  });
}
