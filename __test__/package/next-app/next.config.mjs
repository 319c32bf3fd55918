// As the README tells users to write it.
export default {
  serverExternalPackages: ['active-runs'],
  output: 'standalone',
  distDir: process.env.DIST_DIR,
  outputFileTracingRoot: import.meta.dirname,
};
