import { abortRun, createRunResponse, hasActiveRun } from 'active-runs';
import type { ChatMessage } from '@/lib/messages';
import { isJson, notJson } from '@/lib/request';
import { findSession } from '@/lib/sessions';
import { startTurn } from '@/lib/turn';

export const runtime = 'nodejs';

/** Sends a message; the response is the agent's answer as it comes. */
export async function POST(request: Request, { params }: RouteContext<'/api/chats/[id]/turn'>) {
  if (!isJson(request)) return notJson();
  const { message } = (await request.json()) as { message: ChatMessage };
  const session = await findSession((await params).id);
  if (!session) return new Response('This chat has been deleted.', { status: 404 });
  if (hasActiveRun(session.id)) return new Response('This chat is being answered already.', { status: 409 });
  startTurn(session.id, message);
  return createRunResponse(session.id, { protocol: 'ai-sdk' });
}

/** Comes back to an answer: what there is of it in a few large pieces, then the rest as it comes. */
export async function GET(request: Request, { params }: RouteContext<'/api/chats/[id]/turn'>) {
  const { id } = await params;
  return createRunResponse(id, { protocol: 'ai-sdk', replay: 'compact', request });
}

/** Stops the agent. Whoever reads its answer gets the end of it. */
export async function DELETE(_: Request, { params }: RouteContext<'/api/chats/[id]/turn'>) {
  return Response.json({ aborted: abortRun((await params).id) });
}
