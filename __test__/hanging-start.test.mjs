// An agent whose start hangs, because its working directory is on a file system that does not answer: it
// holds up no other. The baseline cannot pass these.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { agentPath, isRoot, server, sh, temporaryFolder, textLine } from './helpers/index.mjs';

const reason =
  process.platform !== 'linux' ? 'it takes a file system of FUSE' : !isRoot || !existsSync('/dev/fuse') ? 'this user can mount no file system' : '';

/** A server that has `folder` as a file system which never answers, until the server ends. */
function serverWithDeadFolder(body, data) {
  const folder = join(temporaryFolder(), 'dead');
  mkdirSync(folder);
  // In a place of its own for mounts, which goes with it.
  const more = { execPath: 'unshare', execArgv: ['--mount', '--', agentPath('has-a-dead-folder.py'), folder, process.execPath] };
  return server(body, { settings: { storeDir: temporaryFolder(), killAfterMs: 200 }, folder, ...data }, more);
}

describe.skipIf(reason)(`a start that hangs${reason && ` (skipped: ${reason})`}`, () => {
  it('holds up no other, before it or after it, and can be stopped', async () => {
    const host = serverWithDeadFolder(
      async ({ runs, data, tell }) => {
        const start = (sessionId, agent) => runs.startRun({ sessionId, message: 'm', agent }).whenEnded;
        const hanging = [];
        for (let n = 0; n < 4; n += 1) {
          hanging.push(start(`dead${n}`, { ...data.agent, cwd: data.folder }));
          // One that was asked for when nobody knew yet that the other hangs.
          await tell((await start(`free${n}`, data.agent)).reason);
        }
        await tell(hanging.map((_, n) => runs.hasActiveRun(`dead${n}`)));
        hanging.forEach((_, n) => runs.abortRun(`dead${n}`));
        await tell((await Promise.all(hanging)).map(({ reason }) => reason));
        await tell((await start('free', data.agent)).reason);
      },
      { agent: sh('printf %s "$1"', textLine('word')) },
    );
    for (let n = 0; n < 4; n += 1) expect(await host.told()).toBe('completed');
    expect(await host.told()).toEqual(Array(4).fill(true));
    expect(await host.told()).toEqual(Array(4).fill('aborted'));
    expect(await host.told()).toBe('completed');
  });
});
