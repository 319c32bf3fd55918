import { listSessions } from 'active-runs';

export async function findSession(id: string) {
  return (await listSessions()).find((session) => session.id === id);
}
