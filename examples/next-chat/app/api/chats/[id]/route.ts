import { deleteSession, readMessages } from 'active-runs';
import { toChatMessages } from '@/lib/messages';
import { findSession } from '@/lib/sessions';
import { endTurn } from '@/lib/turn';

export const runtime = 'nodejs';

export async function GET(_: Request, { params }: RouteContext<'/api/chats/[id]'>) {
  const session = await findSession((await params).id);
  if (!session) return new Response('No such chat', { status: 404 });
  return Response.json(toChatMessages(await readMessages(session.id)));
}

export async function DELETE(_: Request, { params }: RouteContext<'/api/chats/[id]'>) {
  const session = await findSession((await params).id);
  if (!session) return new Response('No such chat', { status: 404 });
  await endTurn(session.id);
  await deleteSession(session.id);
  return new Response(null, { status: 204 });
}
