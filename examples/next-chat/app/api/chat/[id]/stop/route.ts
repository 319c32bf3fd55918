import { abortRun, getActiveRun } from 'active-runs';
import { isJson, notJson } from '@/lib/request';

export const runtime = 'nodejs';

/** Stops the agent, and waits for its end, before which the next message would be refused. Who reads its answer gets all of it. */
export async function POST(request: Request, { params }: RouteContext<'/api/chat/[id]/stop'>) {
  if (!isJson(request)) return notJson();
  const { id } = await params;
  const aborted = abortRun(id);
  await getActiveRun(id)?.whenEnded;
  return Response.json({ aborted });
}
