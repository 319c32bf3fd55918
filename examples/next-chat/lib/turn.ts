import { startRun } from 'active-runs';
import { type ChatMessage, textOf } from './messages';
import { agent } from './settings';

/**
 * Stores what the user said and starts the agent on it.
 *
 * @returns the run, also when it was started for this message before; `null` when that run is gone.
 * @throws `RUN_ALREADY_ACTIVE` while another message is being answered; then nothing is stored.
 */
export function startTurn(sessionId: string, { id, parts }: Pick<ChatMessage, 'id' | 'parts'>) {
  const content = textOf({ parts });
  return startRun({
    sessionId,
    message: content,
    userMessage: { id, content, parts },
    agentSessionId: sessionId,
    agent,
  });
}
