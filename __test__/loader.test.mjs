// Finding the native binary, on this platform and on others, in a copy of the package without one.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from './helpers/index.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const PLATFORMS = ['linux-x64-gnu', 'linux-x64-musl', 'linux-arm64-gnu', 'linux-arm64-musl', 'darwin-x64', 'darwin-arm64'];

function installWithoutBinary() {
  const folder = join(temporaryFolder(), 'node_modules', 'active-runs');
  mkdirSync(folder, { recursive: true });
  for (const item of ['package.json', 'index.js', 'lib']) {
    cpSync(join(root, item), join(folder, item), { recursive: true });
  }
  return folder;
}

/** The package's answer in a process that takes itself for another platform. */
function load(folder, { platform = 'linux', arch = 'x64', isMusl = false } = {}) {
  const program = `
    const header = ${isMusl} ? {} : { glibcVersionRuntime: '2.36' };
    Object.defineProperties(process, { platform: { value: '${platform}' }, arch: { value: '${arch}' } });
    process.report.getReport = () => ({ header });
    try {
      require(${JSON.stringify(folder)});
      console.log(JSON.stringify({ loaded: true }));
    } catch (error) {
      console.log(JSON.stringify({ isError: error instanceof Error, code: error.code, message: error.message }));
    }`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

/** Puts a platform's package beside, with a binary that says so when it is loaded, instead of a library. */
function addPackage(folder, platform) {
  const beside = join(folder, '..', `active-runs-${platform}`);
  mkdirSync(beside);
  writeFileSync(join(beside, 'package.json'), JSON.stringify({ name: `active-runs-${platform}`, main: 'binary.js' }));
  writeFileSync(join(beside, 'binary.js'), `throw Object.assign(new Error('${platform}'), { code: 'FOUND' });`);
}

describe('the loader', () => {
  it('says, on a platform that there is no binary for, which ones there are, and how to build', () => {
    const answer = load(installWithoutBinary(), { platform: 'win32' });
    expect(answer).toMatchObject({ isError: true, code: 'UNSUPPORTED_PLATFORM' });
    expect(answer.message).toContain('win32-x64');
    for (const platform of PLATFORMS) expect(answer.message).toContain(platform);
    expect(answer.message).toContain('npm run build');
  });

  it.each([
    [{ platform: 'linux' }, 'linux-x64-gnu'],
    [{ platform: 'linux', isMusl: true }, 'linux-x64-musl'],
    [{ platform: 'linux', arch: 'arm64' }, 'linux-arm64-gnu'],
    [{ platform: 'linux', arch: 'arm64', isMusl: true }, 'linux-arm64-musl'],
    [{ platform: 'darwin' }, 'darwin-x64'],
    [{ platform: 'darwin', arch: 'arm64' }, 'darwin-arm64'],
  ])('on %o takes the package of %s, and names it where it is missing', (system, platform) => {
    const folder = installWithoutBinary();
    // The packages of all others are no help.
    for (const other of PLATFORMS) if (other !== platform) addPackage(folder, other);
    const missing = load(folder, system);
    expect(missing).toMatchObject({ isError: true, code: 'UNSUPPORTED_PLATFORM' });
    expect(missing.message).toContain(`active-runs-${platform}`);
    expect(missing.message).toContain('--omit=optional');
    addPackage(folder, platform);
    expect(load(folder, system)).toMatchObject({ code: 'FOUND', message: platform });
  });

  it('prefers a binary that was built in place', () => {
    const folder = installWithoutBinary();
    addPackage(folder, 'linux-x64-gnu');
    // Not a library: the system's own words say what is wrong with it.
    writeFileSync(join(folder, 'active-runs.linux-x64-gnu.node'), 'no library');
    expect(load(folder)).toMatchObject({ isError: true, code: 'ERR_DLOPEN_FAILED' });
  });

  it('leaves the report of this process as it was', () => {
    const folder = installWithoutBinary();
    for (const file of readdirSync(root).filter((name) => name.endsWith('.node'))) cpSync(join(root, file), join(folder, file));
    const program = `
      const before = process.report.excludeNetwork;
      require(${JSON.stringify(folder)});
      console.log(process.report.excludeNetwork === before);`;
    const { stdout } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect(stdout.trim()).toBe('true');
  });
});

describe('two copies of the package in one process', () => {
  function installWithBinary() {
    const folder = installWithoutBinary();
    for (const file of readdirSync(root).filter((name) => name.endsWith('.node'))) cpSync(join(root, file), join(folder, file));
    return folder;
  }

  /** Runs a program that has the folders of two copies, and a temporary one; what it prints, as JSON. */
  function runWith(copies, body) {
    const program = `
      const { Worker } = require('node:worker_threads');
      const { existsSync, readdirSync } = require('node:fs');
      const [one, other, folder] = ${JSON.stringify([...copies, temporaryFolder()])};
      process.env.HOME = folder + '/home';
      /** Resolves with what \`body\` gives in a worker thread, where \`copy\` is that copy. */
      const inWorker = (copy, body) => new Promise((resolve, reject) => {
        const program = 'const copy = require(' + JSON.stringify(copy) + ');' +
          'Promise.resolve((' + body + ')(copy)).then((value) => require("node:worker_threads").parentPort.postMessage(value));';
        new Worker(program, { eval: true }).on('error', reject).on('message', resolve);
      });
      (async () => { ${body} })().then((value) => {
        console.log(JSON.stringify(value ?? null));
        process.exit();
      });`;
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect(stderr).toBe('');
    return JSON.parse(stdout);
  }

  const LINE = JSON.stringify(JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta: 'an answer' } }));

  it('share settings, store, runs and numbers', () => {
    const seen = runWith([installWithBinary(), installWithBinary()], `
      const [a, b] = [require(one), require(other)];
      b.configure({ storeDir: folder + '/store' });
      b.persistUserMessage('s', { id: 'u', content: 'a question' });
      const run = b.startRun({ sessionId: 's', message: 'm', agent: { command: 'echo', args: [${LINE}] } });
      const stats = [a.stats().runs, b.stats().runs];
      await run.whenEnded;
      return {
        storeDir: a.configure().storeDir === folder + '/store',
        stats,
        isSame: a.getActiveRun('s') === run,
        roles: (await a.readMessages('s')).map(({ role }) => role),
        hasDefaultStore: existsSync(process.env.HOME),
      };`);
    const running = { running: 1, completed: 0, error: 0 };
    expect(seen).toEqual({
      storeDir: true,
      stats: [running, running],
      isSame: true,
      roles: ['user', 'assistant'],
      hasDefaultStore: false,
    });
  });

  it('share them between the main thread and workers, whichever was first', () => {
    const look = `
      const a = require(one);
      a.configure({ storeDir: folder });
      const run = a.startRun({ sessionId: 's', message: 'm', agent: { command: 'sleep', args: ['1000'] } });
      const seen = await inWorker(other, '(copy) => [copy.configure().storeDir, copy.hasActiveRun("s"), copy.abortRun("s")]');
      await run.whenEnded;
      return [seen[0] === folder, ...seen.slice(1), run.end.reason];`;
    const copies = [installWithBinary(), installWithBinary()];
    expect(runWith(copies, look)).toEqual([true, true, true, 'aborted']);
    expect(runWith(copies, `await inWorker(other, '() => 0'); ${look}`)).toEqual([true, true, true, 'aborted']);
  });

  it('do not load where they are of different versions, and say so', () => {
    const [newer, older] = [installWithBinary(), installWithBinary()];
    const path = join(newer, 'lib', 'binding.js');
    const source = readFileSync(path, 'utf8');
    const changed = source.replace(/const INTERFACE = \d+;/, 'const INTERFACE = 1_000_000;');
    expect(changed).not.toBe(source);
    writeFileSync(path, changed);
    const error = runWith([newer, older], `
      require(other);
      try { require(one); } catch (error) { return { isError: error instanceof Error, code: error.code, message: error.message }; }`);
    expect(error).toMatchObject({ isError: true, code: 'INCOMPATIBLE_COPY' });
    expect(error.message).toContain(older);
  });
});
