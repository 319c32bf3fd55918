// The package as its users get it: released as the workflow releases it, with the binary that was
// built here, installed from a registry into a fresh folder without Rust, and used from everywhere.
//
//   node scripts/test-package.mjs [step…]      steps: lint node types jest vitest next (default: all)
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const programs = join(root, '__test__', 'package');
const bin = (name, path) => join(root, 'node_modules', name, path);
const { napi, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const NEXT = ['next@16', 'react@19', 'react-dom@19'];

/** The longest that one command may take, in ms. */
const PATIENCE_MS = 240_000;

/** Without cargo and without what npm tells its scripts. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_OPTIONS$|NODE_PATH$|INIT_CWD$)/i.test(name)),
);
env.PATH = [dirname(process.execPath), '/usr/local/bin', '/usr/bin', '/bin'].join(':');
env.NEXT_TELEMETRY_DISABLED = '1';
// For servers that are to be reached at their address.
env.HOSTNAME = '127.0.0.1';

function fail(message) {
  console.error(`\n✗ ${message}`);
  process.exit(1);
}

/** Runs a command to its end; what it printed. A failure ends the test. */
function run(cwd, command, args, more = {}) {
  const options = { cwd, env: { ...env, ...more }, encoding: 'utf8', timeout: PATIENCE_MS, killSignal: 'SIGKILL' };
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, options);
  if (error || status !== 0) {
    fail(`${command} ${args.join(' ')} (in ${cwd}): ${error?.message ?? signal ?? `exit code ${status}`}\n${stdout}${stderr}`);
  }
  return stdout;
}
const node = (cwd, args, more) => run(cwd, process.execPath, args, more);
const npm = (cwd, ...args) => run(cwd, 'npm', [...args, '--no-audit', '--no-fund', '--loglevel=error']);
/** As `run`, with this process free to answer: the registry is in it. */
async function npmInstall(cwd, registry, ...args) {
  const command = ['install', ...args, '--no-audit', '--no-fund', '--loglevel=error', `--registry=${registry}`];
  const child = spawn('npm', command, { cwd, env, stdio: ['ignore', 'inherit', 'inherit'], timeout: PATIENCE_MS });
  const [code] = await once(child, 'close');
  if (code !== 0) fail(`npm ${command.join(' ')} (in ${cwd}): exit code ${code}`);
}

// ── Release ──

/** The tarballs of the package and of its platform packages, made with napi-rs' own tools. */
function release(into) {
  const stage = join(into, 'stage');
  const artifacts = join(stage, 'artifacts');
  mkdirSync(artifacts, { recursive: true });
  const [{ filename }] = JSON.parse(npm(root, 'pack', '--json', '--pack-destination', into));
  run(stage, 'tar', ['-xzf', join(into, filename), '--strip-components=1']);
  rmSync(join(into, filename));

  const napiCli = (...args) => node(stage, [bin('@napi-rs/cli', 'dist/cli.js'), ...args]);
  napiCli('create-npm-dirs');
  const platforms = readdirSync(join(stage, 'npm'));
  if (platforms.length !== napi.targets.length) fail(`${platforms.length} platform packages for ${napi.targets.length} targets`);
  let built = 0;
  for (const platform of platforms) {
    const name = `${napi.binaryName}.${platform}.node`;
    if (existsSync(join(root, name))) {
      cpSync(join(root, name), join(artifacts, name));
      built += 1;
    } else {
      // Never installed here: npm picks the packages of this platform.
      writeFileSync(join(artifacts, name), 'of another platform');
    }
  }
  if (built === 0) fail('no binary was built: npm run build');
  napiCli('artifacts', '--output-dir', 'artifacts');
  napiCli('pre-publish', '--tag-style', 'npm', '--no-gh-release', '--skip-optional-publish');
  rmSync(artifacts, { recursive: true });
  // The copies at the top are not part of `files`; neither may the loader find them.
  const folders = [stage, ...platforms.map((platform) => join(stage, 'npm', platform))];
  return folders.map((folder) => {
    const [{ name, filename: file, files }] = JSON.parse(npm(folder, 'pack', '--json', '--pack-destination', into));
    const binaries = files.filter(({ path }) => path.endsWith('.node')).length;
    if (binaries !== (folder === stage ? 0 : 1)) fail(`${name} has ${binaries} binaries`);
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return { name, manifest, file: join(into, file) };
  });
}

/** A registry that has these packages and nothing else. Resolves with its address. */
async function serve(packages) {
  const server = createServer(({ url }, response) => {
    const path = decodeURIComponent(url.slice(1));
    const found = packages.find(({ name }) => path === name || path === `${name}.tgz`);
    if (!found) return response.writeHead(404).end('{}');
    const tarball = readFileSync(found.file);
    if (path.endsWith('.tgz')) return response.end(tarball);
    const dist = {
      tarball: `http://${server.address().address}:${server.address().port}/${found.name}.tgz`,
      integrity: `sha512-${createHash('sha512').update(tarball).digest('base64')}`,
    };
    const versions = { [version]: { ...found.manifest, dist } };
    return response.end(JSON.stringify({ name: found.name, 'dist-tags': { latest: version }, versions }));
  });
  server.listen(0, '127.0.0.1').unref();
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}/`;
}

// ── Use ──

const steps = {
  lint({ main }) {
    node(root, [bin('publint', 'src/cli.js'), main, '--strict']);
    node(root, [bin('@arethetypeswrong/cli', 'dist/index.js'), main, '--no-color']);
  },

  node({ fresh }) {
    const installed = readdirSync(join(fresh, 'node_modules')).filter((name) => name.startsWith('active-runs'));
    if (installed.length !== 2) fail(`installed: ${installed.join(', ')}, not the package and that of this platform`);
    for (const program of ['required.cjs', 'imported.mjs']) {
      const said = node(fresh, [program]);
      if (said !== 'hello\n') fail(`${program} said ${said}`);
    }
  },

  types({ fresh }) {
    const roots = ['--typeRoots', bin('@types', ''), '--types', 'node'];
    const common = ['--noEmit', '--strict', '--target', 'es2022', '--skipLibCheck', 'false', ...roots];
    for (const [module, resolution] of [['node16', 'node16'], ['esnext', 'bundler']]) {
      node(fresh, [bin('typescript', 'bin/tsc'), ...common, '--module', module, '--moduleResolution', resolution, 'typed.ts']);
    }
  },

  jest({ fresh }) {
    node(fresh, [bin('jest', 'bin/jest.js'), '--rootDir', fresh, '--testMatch', '**/*.test.cjs']);
  },

  vitest({ fresh }) {
    for (const pool of ['forks', 'threads', 'vmThreads']) {
      node(fresh, [bin('vitest', 'vitest.mjs'), 'run', '--root', fresh, '--globals', `--pool=${pool}`, 'answers']);
    }
  },

  async next({ into, registry }) {
    const app = join(into, 'next-app');
    cpSync(join(programs, 'next-app'), app, { recursive: true });
    npm(app, 'install', ...NEXT);
    await npmInstall(app, registry, 'active-runs');
    for (const bundler of ['webpack', 'turbopack']) {
      node(app, [join(app, 'node_modules/next/dist/bin/next'), 'build', `--${bundler}`], { DIST_DIR: bundler });
      // Elsewhere, so that it has nothing but what was traced into it.
      const standalone = join(mkdtempSync(join(tmpdir(), 'active-runs-next-')), 'app');
      cpSync(join(app, bundler, 'standalone'), standalone, { recursive: true, verbatimSymlinks: true });
      const body = await ask(standalone);
      rmSync(dirname(standalone), { recursive: true, force: true });
      if (!body.includes('"delta":"hello"')) fail(`the standalone server built by ${bundler} answered ${body}`);
    }
  },
};

async function freePort() {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts a standalone server, asks its route and ends it. */
async function ask(folder) {
  const port = await freePort();
  const child = spawn(process.execPath, ['server.js'], {
    cwd: folder,
    env: { ...env, PORT: String(port), HOME: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = once(child, 'close');
  const ready = new Promise((resolve) => {
    const hear = (text) => {
      output += text;
      if (/Ready in/.test(output)) resolve();
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
  });
  const deadline = AbortSignal.timeout(60_000);
  try {
    await Promise.race([ready, exited, once(deadline, 'abort')]);
    const response = await fetch(`http://127.0.0.1:${port}/api/run`, { signal: deadline });
    return `${await response.text()}\n${output}`;
  } catch (error) {
    return fail(`the standalone server in ${folder}: ${error.message}\n${output}`);
  } finally {
    child.kill();
    await exited;
  }
}

const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(steps);
const unknown = chosen.find((name) => !(name in steps));
if (unknown) fail(`no step ${unknown}; there are ${Object.keys(steps).join(', ')}`);

const into = mkdtempSync(join(tmpdir(), 'active-runs-package-'));
process.on('exit', () => rmSync(into, { recursive: true, force: true, maxRetries: 5 }));
const packages = release(into);
const registry = await serve(packages);
const fresh = join(into, 'fresh');
cpSync(programs, fresh, { recursive: true, filter: (path) => !path.endsWith('next-app') });
writeFileSync(join(fresh, 'package.json'), '{ "private": true }');
await npmInstall(fresh, registry, 'active-runs');
console.log(`✓ installed ${packages[0].name} ${version} from a registry`);
for (const name of chosen) {
  const started = Date.now();
  await steps[name]({ into, fresh, registry, main: packages[0].file });
  console.log(`✓ ${name} (${Math.round((Date.now() - started) / 1_000)} s)`);
}
