import { fileURLToPath } from 'node:url';
import { defineConfig, mergeConfig } from 'vitest/config';
import ofAllTests from '../../vitest.config.mjs';

const merged = mergeConfig(ofAllTests, defineConfig({ root: fileURLToPath(new URL('../..', import.meta.url)) }));
export default { ...merged, test: { ...merged.test, include: ['__test__/ai/*.test.mjs'] } };
