// Run once on the main thread, in the program's own realm (a test runner's sandbox has another
// `process`, which hears no signals). Returns a function that begins or ends listening for signals:
// a listener takes the default effect away, so there is one only while runs are running.
(function (endRuns) {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];

  function onSignal(signal) {
    // Another listener decides what the signal means; if it ends the process, `exit` is heard.
    if (process.listenerCount(signal) > 1) return;
    endRuns();
    listen(false);
    process.kill(process.pid, signal);
  }

  function listen(on) {
    for (const signal of signals) {
      process.removeListener(signal, onSignal);
      // First, because a listener that is to be called once is gone when it has been called.
      if (on) process.prependListener(signal, onSignal);
    }
  }

  process.on('exit', endRuns);
  return listen;
});
