// Where the benchmark finds and puts things.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const BENCH = dirname(fileURLToPath(import.meta.url));
export const ROOT = dirname(BENCH);
/** Stores of measurements under way, on the disk that the project is on: not a RAM disk. */
export const TEMP = join(BENCH, 'tmp');
/** The built `agent.rs`. */
export const AGENT = join(ROOT, 'target', 'bench-agent');
export const RESULTS = join(BENCH, 'results.json');
export const PICTURE = join(ROOT, 'docs', 'bench.svg');
