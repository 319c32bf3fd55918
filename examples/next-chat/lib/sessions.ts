import { listSessions, readMessages } from 'active-runs';
import type { ChatMessage } from './messages';

export async function findSession(id: string) {
  return (await listSessions()).find((session) => session.id === id);
}

/** The messages of a session as `useChat` takes them. */
export function readChat(id: string) {
  return readMessages<ChatMessage>(id, { format: 'ui' });
}
