import { join, resolve } from 'node:path';
import type { AgentCommand } from 'active-runs';

const { CHAT_AGENT, CHAT_FOLDER, CHAT_STORE, OPENCLAW_ROOT } = process.env;

/** The folder of the app. The comment keeps the tracer from taking all that lies in it for a part of the app. */
const here = process.cwd(/* turbopackIgnore: true */);

/** `undefined` is OpenClaw, and then the sessions are where OpenClaw's own app keeps them. */
const usesOpenClaw = Boolean(OPENCLAW_ROOT) && !CHAT_AGENT;

/** The agent that answers: OpenClaw, another program that prints the same lines, or the demo's. */
export const agent: AgentCommand | undefined = usesOpenClaw
  ? undefined
  : {
      command: process.execPath,
      args: [CHAT_AGENT || join(here, '../demo-agent.mjs'), '{message}'],
      // The demo's agent answers questions about the folder that it is started in.
      cwd: CHAT_FOLDER ? resolve(CHAT_FOLDER) : join(here, '../..'),
      // It has no language model to wait for; at this pace one can read along, or stop it.
      env: { DEMO_DELAY_MS: process.env.DEMO_DELAY_MS ?? '45' },
    };

/** `undefined` leaves the setting as it is. */
export const storeDir = CHAT_STORE ? resolve(CHAT_STORE) : usesOpenClaw ? undefined : join(here, '.sessions');

export const agentName = usesOpenClaw ? 'OpenClaw' : CHAT_AGENT ? 'The agent' : 'The demo’s agent';
