/** Next.js calls it once when the server starts, before any request. */
export async function register() {
  if (process.env.NEXT_RUNTIME === 'nodejs') await import('./lib/start');
}
