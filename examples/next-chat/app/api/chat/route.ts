import { createRunResponse } from 'active-runs';
import type { ChatMessage } from '@/lib/messages';
import { isJson, notJson } from '@/lib/request';
import { findSession } from '@/lib/sessions';
import { startTurn } from '@/lib/turn';

export const runtime = 'nodejs';

/** Sends a message; the response is the agent's answer as it comes. */
export async function POST(request: Request) {
  if (!isJson(request)) return notJson();
  const { id, messages } = (await request.json()) as { id: string; messages: ChatMessage[] };
  const session = await findSession(id);
  const message = messages.at(-1);
  if (!session || !message) return new Response('This chat has been deleted.', { status: 404 });
  try {
    // Of a message that comes once more because its response was lost, this is the run that there is.
    if (!startTurn(session.id, message)) return new Response(null, { status: 204 });
  } catch (error) {
    if ((error as { code?: string }).code !== 'RUN_ALREADY_ACTIVE') throw error;
    return new Response('This chat is being answered already.', { status: 409 });
  }
  return createRunResponse(session.id, { protocol: 'ai-sdk' });
}
