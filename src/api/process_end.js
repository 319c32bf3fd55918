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

  /**
   * How many listeners a signal has of the package signal-exit. They leave a signal to whoever else listens, and end the
   * process when nobody does.
   */
  function exitListeners() {
    const emitters = [globalThis[Symbol.for('signal-exit emitter')], process.__signal_exit_emitter__];
    return emitters.reduce((sum, emitter) => sum + (Number(emitter?.count) || 0), 0);
  }

  function onSignal(signal) {
    const others = process.listenerCount(signal) - 1;
    // Another listener decides what the signal means; if it ends the process, `exit` is heard.
    if (others > 0 && others !== exitListeners()) return;
    endRuns();
    stop();
    if (others > 0) return;
    process.kill(process.pid, signal);
    // To the first process of a container the system sends no signal that it does not listen for.
    if (process.pid === 1) process.exit(128 + numbers[signal]);
  }

  let stopping;

  function stop() {
    for (const signal of signals) process.removeListener(signal, onSignal);
  }

  function listen(on) {
    clearTimeout(stopping);
    if (!on) {
      stopping = setTimeout(stop, LINGER_MS);
      stopping.unref();
      return;
    }
    for (const signal of signals) {
      // It may have been removed, with all others. First, because a listener that is to be called once is gone when it has
      // been called.
      if (!process.listeners(signal).includes(onSignal)) process.prependListener(signal, onSignal);
    }
  }

  process.on('exit', endRuns);
  return listen;
});
