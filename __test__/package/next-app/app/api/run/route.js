import { createRunResponse, startRun } from 'active-runs';

export const runtime = 'nodejs';
export const dynamic = 'force-dynamic';

const line = JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'hello' } });

export function GET() {
  const agent = { command: process.execPath, args: ['-e', `console.log(${JSON.stringify(line)})`] };
  startRun({ sessionId: 's', message: 'a question', agent });
  return createRunResponse('s');
}
