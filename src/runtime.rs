//! The tokio runtime in which runs live: two threads for pipes and events, a few for the disk.
//!
//! It starts with the first run, not when the addon is loaded, and lasts as long as the process.
//! Where cores are scarce, its threads let the event loop go first.

use once_cell::sync::OnceCell;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads on which pipes are read and lines are parsed.
const WORKERS: usize = 2;
/// Threads on which files are written; more runs wait for one another.
const DISK_THREADS: usize = 4;
/// After this long without work, a disk thread ends.
const DISK_THREAD_IDLE: Duration = Duration::from_secs(2);

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// The runtime, started if it was not. One that could not be started is tried again next time: the
/// server may have run out of files or threads for a moment only.
///
/// # Errors
/// When the system refuses its threads.
pub fn runtime() -> crate::error::Result<&'static Runtime> {
    let start = || {
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(DISK_THREADS)
            .thread_keep_alive(DISK_THREAD_IDLE)
            .thread_name("active-runs")
            .on_thread_start(step_back)
            .enable_all()
            .build()
    };
    RUNTIME.get_or_try_init(start).map_err(crate::error::Error::no_runtime)
}

/// Lowers the priority of the calling thread: by as much as background threads get elsewhere
/// (Chrome's have the same), which is about a tenth of a contended core, and all of a free one.
#[cfg(linux)]
fn step_back() {
    const NICE: i32 = 10;
    // On Linux the "process" 0 is the calling thread. A system that refuses loses nothing.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Elsewhere the call is for the whole process.
#[cfg(not(linux))]
fn step_back() {}
