// Takes a processor, until it is killed or its parent is gone.
process.on('disconnect', () => process.exit());
(function work() {
  for (const end = Date.now() + 20; Date.now() < end; );
  setImmediate(work);
})();
