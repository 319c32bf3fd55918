// Finding the native binary, on this platform and on others, in a copy of the package without one.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
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
