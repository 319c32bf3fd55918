import { createSession } from 'active-runs';
import { isJson, notJson } from '@/lib/request';
import { startTurn } from '@/lib/turn';

export const runtime = 'nodejs';

/** Begins a session with its first message. The page that it leads to picks the answer up from the running run. */
export async function POST(request: Request) {
  if (!isJson(request)) return notJson();
  const { text } = (await request.json()) as { text: string };
  const { id } = await createSession({ title: title(text) });
  startTurn(id, { id: crypto.randomUUID(), parts: [{ type: 'text', text }] });
  return Response.json({ id }, { status: 201 });
}

function title(text: string) {
  const line = text.trim().replace(/\s+/g, ' ');
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}
