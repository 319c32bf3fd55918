// The module that the tests hold to its promises: the addon, or what ACTIVE_RUNS_UNDER_TEST names
// (a path from the project's top), which is how the JavaScript baseline is proven faithful.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export const modulePath = resolve(root, process.env.ACTIVE_RUNS_UNDER_TEST || 'index.js');
export const isAddon = !process.env.ACTIVE_RUNS_UNDER_TEST;
export const runs = createRequire(import.meta.url)(modulePath);
