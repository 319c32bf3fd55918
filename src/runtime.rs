//! The tokio runtime in which runs live: two threads for pipes and events.
//!
//! It starts with the first run, not when the addon is loaded, and lasts as long as the process. It
//! waits for no disk: that is `disk`'s. Where cores are scarce, its threads let the event loop go first.

use crate::{
    error::{Error, Result},
    panics,
};
use once_cell::sync::OnceCell;
use std::{
    fs, io,
    path::Path,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

/// Threads on which pipes are read and lines are parsed.
const WORKERS: usize = 2;

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// The runtime, started if it was not. One that could not be started is tried again next time: the
/// server may have run out of files or threads for a moment only.
///
/// # Errors
/// `NO_THREADS` when the system refuses its threads or its descriptors.
pub fn runtime() -> Result<&'static Runtime> {
    RUNTIME.get_or_try_init(|| {
        // Tokio panics when it gets no thread, and what it has started until then stays: it is built
        // only when it will get them, unless others take them in that very moment.
        check_threads().map_err(Error::no_threads)?;
        let build = || {
            Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .thread_name("active-runs")
                .on_thread_start(lower_priority)
                .enable_all()
                .build()
        };
        let refused = |error: Error| Error::no_threads(io::Error::other(error.to_string()));
        panics::caught("tokio", build).map_err(refused)?.map_err(Error::no_threads)
    })
}

/// Whether the system gives as many threads as the runtime needs, all at the same time. They are gone
/// when this returns.
fn check_threads() -> io::Result<()> {
    let mut threads = Vec::with_capacity(WORKERS);
    for _ in 0..WORKERS {
        let (until_dropped, wait) = sync_channel::<()>(0);
        let thread = thread::Builder::new().spawn(move || {
            let _ = wait.recv();
            fs::read_link("/proc/thread-self").ok()
        })?;
        threads.push((until_dropped, thread));
    }
    for (until_dropped, thread) in threads {
        drop(until_dropped);
        if let Ok(Some(task)) = thread.join() {
            wait_until_uncounted(&Path::new("/proc").join(task));
        }
    }
    Ok(())
}

/// On Linux a thread that was joined counts for a moment longer. `task` is its folder in `/proc`.
fn wait_until_uncounted(task: &Path) {
    let until = Instant::now() + Duration::from_millis(20);
    while task.exists() && Instant::now() < until {
        thread::yield_now();
    }
}

/// Lowers the priority of the calling thread: by as much as background threads get elsewhere
/// (Chrome's have the same), which is about a tenth of a contended core, and all of a free one.
#[cfg(linux)]
pub(crate) fn lower_priority() {
    const NICE: i32 = 10;
    // On Linux the "process" 0 is the calling thread. A system that refuses loses nothing.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Elsewhere the call is for the whole process.
#[cfg(not(linux))]
pub(crate) fn lower_priority() {}
