import { createRunResponse } from 'active-runs';

export const runtime = 'nodejs';

/**
 * Comes back to an answer. A page that has lost its connection gets what it has not had yet (`Last-Event-ID`), a new one
 * what there is in a few large pieces, and both the rest as it comes.
 */
export async function GET(request: Request, { params }: RouteContext<'/api/chat/[id]/stream'>) {
  const { id } = await params;
  return createRunResponse(id, { protocol: 'ai-sdk', replay: 'compact', request });
}
