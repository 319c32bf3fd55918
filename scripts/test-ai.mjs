// The tests with the AI SDK's real packages: node scripts/test-ai.mjs [major…] [file or option for Vitest…]
//
// Without majors: all that are supported. Those that need a newer Node than this one get it.
import { install, runVitest } from './nodes.mjs';

/** The majors of `ai`, and the Node that each needs at least. */
const OLDEST_NODE = { 5: 20, 6: 20, 7: 22 };
const NEW_NODE = '24';

const args = process.argv.slice(2);
const isMajor = (arg) => Object.hasOwn(OLDEST_NODE, arg);
const given = args.filter(isMajor);
const others = args.filter((arg) => !isMajor(arg));
const thisNode = Number(process.versions.node.split('.')[0]);
const failed = [];
for (const major of given.length > 0 ? given : Object.keys(OLDEST_NODE)) {
  const node = thisNode >= OLDEST_NODE[major] ? process.execPath : install(NEW_NODE);
  console.log(`\n── ai ${major}`);
  const problem = runVitest(node, ['--config', '__test__/ai/vitest.config.mjs', ...others], { AI_UNDER_TEST: major });
  if (problem) failed.push(`ai ${major}: ${problem}`);
}
for (const problem of failed) console.error(`✗ ${problem}`);
if (failed.length > 0) process.exit(1);
