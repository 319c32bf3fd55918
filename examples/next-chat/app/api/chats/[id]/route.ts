import { deleteSession } from 'active-runs';
import { findSession, readChat } from '@/lib/sessions';

export const runtime = 'nodejs';

export async function GET(_: Request, { params }: RouteContext<'/api/chats/[id]'>) {
  const session = await findSession((await params).id);
  if (!session) return new Response('No such chat', { status: 404 });
  return Response.json(await readChat(session.id));
}

/** Deletes a chat. Its agent, if there is one, is stopped first. */
export async function DELETE(_: Request, { params }: RouteContext<'/api/chats/[id]'>) {
  const session = await findSession((await params).id);
  if (!session) return new Response('No such chat', { status: 404 });
  await deleteSession(session.id);
  return new Response(null, { status: 204 });
}
