// `npm run example`: builds the chat app of examples/next-chat and serves it. PORT is respected (3000), and the demo's
// agent answers about the folder that one is in.
import { spawn, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const app = join(dirname(fileURLToPath(import.meta.url)), '..', 'examples', 'next-chat');
const port = process.env.PORT || '3000';
// npm starts scripts in the package's folder and says here where the user is.
const folder = process.env.CHAT_FOLDER ?? process.env.INIT_CWD ?? process.cwd();
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', CHAT_FOLDER: folder };

console.log('Building the app …');
const build = spawnSync('npm', ['run', '--silent', 'build'], { cwd: app, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
if (build.status !== 0) {
  console.error(build.error?.message ?? `${build.stdout}${build.stderr}`);
  process.exit(1);
}

// An agent acts for whoever reaches the server: it is not for others on the network.
const next = join(app, 'node_modules', 'next', 'dist', 'bin', 'next');
const server = spawn(process.execPath, [next, 'start', '--hostname', 'localhost', '--port', port], {
  cwd: app,
  env,
  stdio: ['ignore', 'pipe', 'inherit'],
});
let output = '';
server.stdout.setEncoding('utf8').on('data', (text) => {
  const wasReady = output.includes('Ready');
  output += text;
  if (wasReady) process.stdout.write(text);
  else if (output.includes('Ready')) console.log(`The chat is at http://localhost:${port} (Ctrl-C ends it)`);
});
// The terminal's Ctrl-C reaches the server as well; both end when it has ended its agents.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => server.kill('SIGTERM'));
server.on('exit', (code, signal) => {
  process.exitCode = signal ? 1 : code === 130 || code === 143 ? 0 : code;
});
