/** Runs once when the server starts, before any request. */
export async function register() {
  if (process.env.NEXT_RUNTIME !== 'nodejs') return;
  const { abortRun, configure, listSessions } = await import('active-runs');
  const { storeDir } = await import('./lib/settings');
  configure({ storeDir });

  // Next.js ends when all responses have ended, and a streamed answer ends with its agent.
  const endAgents = async () => {
    for (const { id } of await listSessions()) abortRun(id);
  };
  process.once('SIGINT', endAgents);
  process.once('SIGTERM', endAgents);
}
