// Run once on the main thread, in the program's own realm (a test runner's sandbox has another
// `process`, which hears no signals). Returns a function that begins or ends listening for signals:
// a listener takes the default effect away, so there is one only while runs are running, and a moment
// longer.
(function (endRuns) {
  // The numbers are the same on every system.
  const numbers = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 };
  const signals = Object.keys(numbers);
  // Putting listeners up takes longer than all the rest of starting a run.
  const LINGER_MS = 1_000;

  function onSignal(signal) {
    // Another listener decides what the signal means; if it ends the process, `exit` is heard.
    if (process.listenerCount(signal) > 1) return;
    endRuns();
    stop();
    process.kill(process.pid, signal);
    // To the first process of a container the system sends no signal that it does not listen for.
    if (process.pid === 1) process.exit(128 + numbers[signal]);
  }

  let isListening = false;
  let stopping;

  function stop() {
    for (const signal of signals) process.removeListener(signal, onSignal);
    isListening = false;
  }

  function listen(on) {
    clearTimeout(stopping);
    if (!on) {
      stopping = setTimeout(stop, LINGER_MS);
      stopping.unref();
    } else if (!isListening) {
      // First, because a listener that is to be called once is gone when it has been called.
      for (const signal of signals) process.prependListener(signal, onSignal);
      isListening = true;
    }
  }

  process.on('exit', endRuns);
  return listen;
});
