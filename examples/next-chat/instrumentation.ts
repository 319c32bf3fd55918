/** Runs once when the server starts, before any request. */
export async function register() {
  if (process.env.NEXT_RUNTIME !== 'nodejs') return;
  const { configure } = await import('active-runs');
  const { storeDir } = await import('./lib/settings');
  configure({ storeDir });
}
