//! Which run belongs to which session: one at a time, found until its grace period is over.
//!
//! It belongs to the process, so that hot reloads, second copies of the JavaScript and worker threads
//! share its runs. A session's place is claimed, and the claim can be refused; once the registry is
//! closing, every claim is. Of runs that are forgotten it remembers what the session's next one must not
//! take for its own. It knows nothing of what a run does.

use crate::{
    error::{Error, Result},
    feed::LineCounts,
    json::JsonString,
    run::Run,
    session_id::SessionId,
};
use once_cell::sync::Lazy;
use std::{
    collections::{HashMap, HashSet},
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
    /// Those for which a run is being made.
    reserved: HashSet<SessionId>,
    /// The process ends: no run is started any more.
    is_closing: bool,
    /// Lines of the runs that are no longer among these.
    departed: LineCounts,
    pasts: Pasts,
}

/// What is remembered of sessions whose runs may be forgotten.
#[derive(Default)]
struct Pasts {
    by_session: HashMap<SessionId, Past>,
    /// No session that is not among these has had a run with a higher stamp.
    others: u64,
}

#[derive(Default)]
struct Past {
    /// The last run's.
    stamp: u64,
    /// The agent's runs that did not come to their end.
    unfinished: Vec<JsonString>,
}

/// How many sessions are remembered, and how many runs of the agent for each.
const MAX_PASTS: usize = 16 * 1024;
const MAX_UNFINISHED: usize = 32;

impl Pasts {
    fn last_stamp(&self, session: &SessionId) -> u64 {
        self.by_session.get(session).map_or(self.others, |past| past.stamp)
    }

    fn note_stamp(&mut self, session: &SessionId, stamp: u64) {
        if self.by_session.len() >= MAX_PASTS && !self.by_session.contains_key(session) {
            let highest = self.by_session.drain().map(|(_, past)| past.stamp).max();
            self.others = self.others.max(highest.unwrap_or(0));
        }
        self.by_session.entry(session.clone()).or_default().stamp = stamp;
    }

    fn note_unfinished(&mut self, session: &SessionId, runs: &[JsonString]) {
        let Some(past) = self.by_session.get_mut(session) else { return };
        past.unfinished.retain(|known| !runs.contains(known));
        past.unfinished.extend_from_slice(runs);
        let excess = past.unfinished.len().saturating_sub(MAX_UNFINISHED);
        past.unfinished.drain(..excess);
    }
}

static RUNS: Lazy<Mutex<Runs>> = Lazy::new(Mutex::default);
static ONE_LESS: Condvar = Condvar::new();

impl Runs {
    /// Makes sure that the session may have a new run.
    fn check_free(&self, session: &SessionId) -> Result<()> {
        if self.is_closing {
            return Err(Error::closing());
        }
        match self.by_session.get(session) {
            Some(run) if run.feed.is_running() => Err(Error::already_running()),
            _ => Ok(()),
        }
    }
}

/// A session's place, kept for a run that is being made: no other run is started in it meanwhile.
#[derive(Debug)]
pub(crate) struct Reservation {
    session: SessionId,
    /// The lowest stamp that the run may have: message ids are made of it, and two runs of a session must
    /// not share one, whatever the clock does.
    pub lowest_stamp: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock().reserved.remove(&self.session);
    }
}

/// Keeps the session's place for a run until the run is added or the reservation is dropped.
///
/// # Errors
/// `RUN_ALREADY_ACTIVE` when the session's run is running or being made; `CLOSING` when the process ends.
pub(crate) fn reserve(session: &SessionId) -> Result<Reservation> {
    let mut runs = lock();
    runs.check_free(session)?;
    if !runs.reserved.insert(session.clone()) {
        return Err(Error::already_running());
    }
    let lowest_stamp = runs.pasts.last_stamp(session) + 1;
    Ok(Reservation { session: session.clone(), lowest_stamp })
}

/// A number for a run that no other run of this process has.
pub(crate) fn new_id() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Gives the run its session's place, in which its last run was.
///
/// # Errors
/// `CLOSING` when the process ends.
pub(crate) fn add(run: &Arc<Run>, place: Reservation) -> Result<()> {
    debug_assert_eq!(place.session, run.session);
    // Its end takes the lock: an argument ends after all variables, and so after the guard.
    let mut runs = lock();
    runs.check_free(&run.session)?;
    runs.pasts.note_stamp(&run.session, run.stamp);
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

/// These runs of the agent did not come to their end when the session's run did.
pub(crate) fn note_unfinished(session: &SessionId, runs: &[JsonString]) {
    lock().pasts.note_unfinished(session, runs);
}

/// The runs of the agent in this session that did not come to their end, the latest ones.
pub(crate) fn unfinished(session: &SessionId) -> Vec<JsonString> {
    let runs = lock();
    runs.pasts.by_session.get(session).map_or_else(Vec::new, |past| past.unfinished.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stamp_is_below_one_that_was_forgotten() {
        let mut pasts = Pasts::default();
        let session = |number: usize| SessionId::new(&format!("s{number}")).unwrap();
        pasts.note_stamp(&session(0), 9_000_000);
        for number in 1..2 * MAX_PASTS {
            pasts.note_stamp(&session(number), number as u64);
        }
        assert!(pasts.by_session.len() <= MAX_PASTS);
        for number in 0..2 * MAX_PASTS {
            let had = if number == 0 { 9_000_000 } else { number as u64 };
            assert!(pasts.last_stamp(&session(number)) >= had, "session {number}");
        }
        let last = 2 * MAX_PASTS - 1;
        assert_eq!(pasts.last_stamp(&session(last)), last as u64);
    }

    #[test]
    fn of_runs_that_did_not_end_the_latest_are_remembered() {
        let mut pasts = Pasts::default();
        let session = SessionId::new("s").unwrap();
        let run = |number: usize| JsonString::from(&*number.to_string());
        pasts.note_unfinished(&session, &[run(1)]);
        assert!(pasts.by_session.is_empty(), "a session that was forgotten meanwhile");
        pasts.note_stamp(&session, 1);
        for number in 0..2 * MAX_UNFINISHED {
            pasts.note_unfinished(&session, &[run(number), run(0)]);
        }
        let past = &pasts.by_session[&session];
        assert_eq!((past.stamp, past.unfinished.len()), (1, MAX_UNFINISHED));
        assert_eq!(past.unfinished.iter().filter(|known| **known == run(0)).count(), 1);
        assert!(past.unfinished.contains(&run(2 * MAX_UNFINISHED - 1)));
    }
}
