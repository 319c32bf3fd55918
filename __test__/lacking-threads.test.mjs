// A system that has no thread to give (a container's limit of processes that an agent has filled): the
// server lives, calls say so, and all works when there are threads again. The baseline cannot pass these.
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { agent, isRoot, server, sh, storeAt, temporaryFolder, textLine } from './helpers/index.mjs';

// The limit is the user's: it takes a user without other processes, and one whom it holds.
const reason = process.platform !== 'linux' ? 'limits of threads are set as on Linux' : isRoot ? '' : 'only root can be another user';
const unlimited = () => /^Max processes +\S+ +(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))[1];

/** A server of a user of its own, the number of whose threads can be limited. */
function lonelyServer(body, data = {}) {
  const uid = 1_000_000 + Math.floor(Math.random() * 1e9);
  // Others may go through to what is theirs.
  if ((statSync(tmpdir()).mode & 1) === 0) chmodSync(tmpdir(), 0o711);
  const store = storeAt(temporaryFolder());
  chownSync(store.dir, uid, uid);
  const asUser = ['--reuid', uid, '--regid', uid, '--clear-groups'].map(String);
  const more = { execPath: 'setpriv', execArgv: [...asUser, process.execPath] };
  const host = server(body, { settings: { storeDir: store.dir, cleanupGraceMs: 1_000 }, ...data }, more);
  const threads = () => readdirSync(`/proc/${host.child.pid}/task`).length;
  const limit = (count) => execFileSync('setpriv', [...asUser, 'prlimit', '--pid', String(host.child.pid), `--nproc=${count}:`]);
  return { ...host, store, threads, limit };
}

describe.skipIf(reason)(`a system without threads to give${reason && ` (skipped: ${reason})`}`, () => {
  it.each([
    ['startRun', false],
    ['persistUserMessage', false],
    ['readMessages', true],
    ['upsertMessages', true],
    ['listSessions', true],
    ['createSession', true],
    ['deleteSession', true],
  ])('%s says NO_THREADS, and works when there are threads again', async (name, isAsync) => {
    const host = lonelyServer(
      async ({ runs, data, tell, hear }) => {
        const calls = {
          startRun: () => runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }).whenEnded.then(({ reason }) => reason),
          persistUserMessage: () => runs.persistUserMessage('s', { id: 'u', content: 'hello' }) ?? 'written',
          readMessages: () => runs.readMessages('s'),
          upsertMessages: () => runs.upsertMessages('s', [{ id: 'u', role: 'user' }]),
          listSessions: () => runs.listSessions(),
          createSession: async () => (await runs.createSession({ title: 'new' })).title,
          deleteSession: () => runs.deleteSession('s'),
        };
        const call = calls[data.name];
        await tell('here');
        for (;;) {
          await hear();
          let isThrown = true;
          try {
            const result = call();
            isThrown = false;
            await tell({ result: (await result) ?? null });
          } catch (error) {
            await tell({ code: error.code, isThrown, isError: error instanceof Error });
          }
        }
      },
      { name, agent: agent('says', 'word') },
    );
    expect(await host.told()).toBe('here');
    host.limit(1);
    const refused = { code: 'NO_THREADS', isThrown: !isAsync, isError: true };
    host.send('now');
    expect(await host.told()).toEqual(refused);
    host.send('again');
    expect(await host.told()).toEqual(refused);
    expect(host.store.read('s')).toBe('');
    host.limit(unlimited());
    host.send('again');
    expect(await host.told()).toEqual({
      result: {
        startRun: 'completed',
        persistUserMessage: 'written',
        readMessages: [],
        upsertMessages: null,
        listSessions: [],
        createSession: 'new',
        deleteSession: false,
      }[name],
    });
  });

  it('a first run is refused or ends, however many threads there are for it', async () => {
    const outcomes = new Set();
    for (let free = 0; free < 9; free += 1) {
      const host = lonelyServer(
        async ({ runs, data, tell, hear }) => {
          await tell('here');
          for (;;) {
            await hear();
            try {
              const { reason } = await runs.startRun({ sessionId: 's', message: 'm', agent: data.agent }).whenEnded;
              await tell(reason);
            } catch (error) {
              await tell(error.code);
            }
          }
        },
        { agent: sh('printf %s "$1"', textLine('word')) },
      );
      await host.told();
      host.limit(host.threads() + free);
      host.send('now');
      const outcome = await host.told();
      expect(['NO_THREADS', 'start-failed', 'completed']).toContain(outcome);
      outcomes.add(outcome);
      host.limit(unlimited());
      host.send('again');
      expect(await host.told()).toBe('completed');
      expect(host.store.read('s')).toContain('word');
      host.child.kill('SIGKILL');
      await host.exited;
    }
    expect(outcomes).toContain('NO_THREADS');
  });

  it('runs that are under way go on, are written and end', async () => {
    const host = lonelyServer(
      async ({ runs, data, tell, ended, said, path }) => {
        const { storeDir } = runs.configure();
        // It makes no processes of its own.
        const script = '$| = 1; print $ARGV[0]; until (-e $ARGV[2]) { select undef, undef, undef, 0.01 } print $ARGV[1]';
        const args = ['-e', script, ...data.lines, path.join(storeDir, 'go-on')];
        const all = Array.from({ length: 5 }, async (_, n) => {
          runs.startRun({ sessionId: `s${n}`, message: 'm', agent: { command: 'perl', args } });
          return { ended: ended(`s${n}`), said: await said(`s${n}`, 'before') };
        });
        const under = await Promise.all(all);
        await tell('all are under way');
        await Promise.all(under.map(({ ended }) => ended));
        await tell(all.map((_, n) => runs.getActiveRun(`s${n}`).status));
        await tell(runs.stats().flushes.failed);
      },
      { lines: [textLine('before '), textLine('after')] },
    );
    expect(await host.told()).toBe('all are under way');
    host.limit(1);
    writeFileSync(join(host.store.dir, 'go-on'), '');
    expect(await host.told()).toEqual(Array(5).fill('completed'));
    expect(await host.told()).toBe(0);
    for (let n = 0; n < 5; n += 1) {
      expect(host.store.messages(`s${n}`)).toMatchObject([{ content: 'before after' }]);
      expect(host.store.read(`s${n}`)).not.toContain('_streaming');
    }
  });

  it('an agent that takes all there are ends, and so does everybody else', async () => {
    const host = lonelyServer(
      async ({ runs, data, tell, ended, said }) => {
        runs.startRun({ sessionId: 'good', message: 'm', agent: data.good });
        const good = ended('good');
        await said('good', 'hello');
        runs.startRun({ sessionId: 'bad', message: 'm', agent: data.bad });
        await said('bad', 'full');
        runs.persistUserMessage('user', { id: 'u', content: 'still here' });
        const messages = await runs.readMessages('user');
        await tell(messages.map(({ content }) => content));
        runs.abortRun('bad');
        await good;
        await runs.getActiveRun('bad').whenEnded;
        await tell('both have ended');
      },
      {
        good: sh('printf %s "$1"; sleep 1; printf %s "$2"', textLine('hello '), textLine('bye')),
        bad: {
          command: 'perl',
          args: [
            '-e',
            '$| = 1; while (defined(my $pid = fork)) { if (!$pid) { sleep 1000; exit } } print $ARGV[0]; sleep 1000',
            textLine('full'),
          ],
        },
      },
    );
    host.limit(120);
    expect(await host.told()).toEqual(['still here']);
    expect(await host.told()).toBe('both have ended');
  });
});
