// What the server does when it starts.
import { abortRun, configure, listSessions } from 'active-runs';
import { storeDir } from './settings';

// Answers are stored as the messages of the AI SDK that they become in the browser.
configure({ storeDir, storeFormat: 'ui' });

// Told to end, Next.js waits for all responses, and a streamed answer ends with its agent.
async function endAgents() {
  for (const { id } of await listSessions()) abortRun(id);
}
process.once('SIGINT', endAgents);
process.once('SIGTERM', endAgents);
