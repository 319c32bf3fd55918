//! Which run belongs to which session: one at a time, found until its grace period is over.
//!
//! It belongs to the process, so that hot reloads, second copies of the JavaScript and worker threads
//! share its runs. A session's place is claimed, and the claim can be refused; once the registry is
//! closing, every claim is. It knows nothing of what a run does.

use crate::{
    error::{Error, Result},
    feed::LineCounts,
    run::Run,
    session_id::SessionId,
};
use once_cell::sync::Lazy;
use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

#[derive(Default)]
struct Runs {
    by_session: HashMap<SessionId, Arc<Run>>,
    /// Those that are running, by id; also one whose session has another by now.
    running: HashMap<u32, Arc<Run>>,
    /// The process ends: no run is started any more.
    is_closing: bool,
    /// Lines of the runs that are no longer among these.
    departed: LineCounts,
}

static RUNS: Lazy<Mutex<Runs>> = Lazy::new(Mutex::default);
static ONE_LESS: Condvar = Condvar::new();

impl Runs {
    /// Makes sure that the session may have a new run. Returns its last one.
    fn check_free(&self, session: &SessionId) -> Result<Option<&Arc<Run>>> {
        if self.is_closing {
            return Err(Error::closing());
        }
        match self.by_session.get(session) {
            Some(run) if run.feed.is_running() => Err(Error::already_running()),
            before => Ok(before),
        }
    }
}

/// The earliest start time of the session's next run: message ids are made of it, and two runs of a
/// session must not share one.
///
/// # Errors
/// `RUN_ALREADY_ACTIVE` when the session's run is running; `CLOSING` when the process ends.
pub(crate) fn earliest_start(session: &SessionId) -> Result<u64> {
    let runs = lock();
    Ok(runs.check_free(session)?.map_or(0, |run| run.started_at + 1))
}

/// A number for a run that no other run of this process has.
pub(crate) fn new_id() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Gives the run its session's place, in which its last run was.
///
/// # Errors
/// As [`earliest_start`].
pub(crate) fn add(run: &Arc<Run>) -> Result<()> {
    let mut runs = lock();
    runs.check_free(&run.session)?;
    runs.running.insert(run.id, Arc::clone(run));
    let replaced = runs.by_session.insert(run.session.clone(), Arc::clone(run));
    if let Some(replaced) = &replaced {
        runs.departed += replaced.feed.lines();
    }
    drop(runs);
    if let Some(replaced) = replaced {
        replaced.feed.leave();
    }
    Ok(())
}

/// The run is over.
pub(crate) fn over(run: &Run) {
    lock().running.remove(&run.id);
    ONE_LESS.notify_all();
}

/// The run is no longer to be found by its session.
pub(crate) fn forget(run: &Arc<Run>) {
    let mut runs = lock();
    if runs.by_session.get(&run.session).is_some_and(|found| Arc::ptr_eq(found, run)) {
        runs.by_session.remove(&run.session);
        runs.departed += run.feed.lines();
        drop(runs);
        run.feed.leave();
    }
}

/// The session's run, running or over, until its grace period ends.
pub fn find(session: &SessionId) -> Option<Arc<Run>> {
    lock().by_session.get(session).cloned()
}

/// A running run by its number.
pub fn find_running(id: u32) -> Option<Arc<Run>> {
    lock().running.get(&id).cloned()
}

/// All runs that can be found, and what became of the lines of those that no longer can.
pub fn all() -> (Vec<Arc<Run>>, LineCounts) {
    let runs = lock();
    (runs.by_session.values().cloned().collect(), runs.departed)
}

/// How many runs are running.
pub fn running() -> usize {
    lock().running.len()
}

/// The runs that are running.
pub(crate) fn all_running() -> Vec<Arc<Run>> {
    lock().running.values().cloned().collect()
}

/// From now on no run is started.
pub(crate) fn close() {
    lock().is_closing = true;
}

/// Waits until no run is running; false when some are after `patience`.
pub(crate) fn wait_until_none_runs(patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let mut runs = lock();
    while !runs.running.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        runs = ONE_LESS.wait_timeout(runs, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

fn lock() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}
