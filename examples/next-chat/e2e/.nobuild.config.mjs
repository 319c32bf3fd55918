import base from '/work/wt-app/examples/next-chat/e2e/vitest.config.mjs';
delete base.test.globalSetup; export default base;
