import { abortRun } from 'active-runs';
import { isJson, notJson } from '@/lib/request';

export const runtime = 'nodejs';

/** Stops the agent. Whoever reads its answer gets the end of it. */
export async function POST(request: Request, { params }: RouteContext<'/api/chat/[id]/stop'>) {
  if (!isJson(request)) return notJson();
  return Response.json({ aborted: abortRun((await params).id) });
}
