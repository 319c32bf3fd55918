//! The agent and all that it has started: how all of them are stopped.
//!
//! Agents put their tools into process groups and sessions of their own, where a signal to the
//! agent's group does not reach them. Before each signal the descendants are looked up: by their
//! parents, by the ones that were seen before, and by the mark in their environment. They are
//! remembered with the time at which they began, and checked against it before they are signalled, so
//! that nobody is who has been given such a number since.

use super::{
    leader::Leader,
    table::{self, Entry},
};
use crate::diagnostics::{self, Warning};
use rustix::process::Signal;
use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

/// How often it is looked whether those that were asked politely have gone: first and longest pause.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The same after SIGKILL, where somebody may be left whom the system does not let go.
const LATE_LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// Whoever is left so long after SIGKILL is told of in a warning.
const STUCK: Duration = Duration::from_secs(2);
/// Whoever is left then, the system will not let go.
const GIVE_UP: Duration = Duration::from_secs(600);

/// An agent's process and its descendants.
pub struct Family {
    pub leader: Leader,
    /// In the environment of all of them.
    mark: Box<str>,
    /// When the leader began; 0 when that could not be learnt.
    since: u64,
    /// The descendants that were seen so far and live.
    seen: Mutex<Vec<Entry>>,
    /// The server ends: who is left is killed at once.
    hurry: Notify,
    /// The leader has been asked to end.
    is_asked: AtomicBool,
    /// Says elsewhere that there may be somebody with this mark.
    _record: Record,
}

/// What is kept as long as somebody of a family may have to be stopped.
pub type Record = Box<dyn Any + Send + Sync>;

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.leader).finish()
    }
}

impl Family {
    /// Of a leader that was started with this mark in its environment.
    pub fn new(leader: Leader, mark: Box<str>, record: Record) -> Self {
        let since = table::entry(leader.pid()).map_or(0, |entry| entry.start);
        Self {
            leader,
            mark,
            since,
            seen: Mutex::default(),
            hurry: Notify::new(),
            is_asked: AtomicBool::new(false),
            _record: record,
        }
    }

    /// Sends the leader and its group a signal, by number.
    pub fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.leader.signal(signal);
        }
    }

    /// Asks the leader alone to end. It is asked once: to many programs a second time means "at
    /// once".
    pub fn ask_leader(&self) {
        if !self.is_asked.swap(true, Ordering::Relaxed) {
            self.leader.signal_alone(Signal::TERM);
        }
    }

    /// Asks a leader without children to end: nobody can be lost by that, so it need not wait until
    /// the descendants are looked up.
    pub fn ask_childless_leader(&self) {
        if !self.leader.is_reaped() && table::has_no_children(self.leader.pid()) {
            self.ask_leader();
        }
    }

    /// Stops all of them: politely now, by force at the time that `kill_at` says, which may change.
    /// Returns when nobody is left, or those that are left cannot be ended.
    pub async fn stop(self: Arc<Self>, mut kill_at: watch::Receiver<Instant>) {
        let _listed = Stopping::list(&self);
        self.signal_all(Signal::TERM).await;
        let mut pause = LOOKS.0;
        loop {
            // Who is found now was not there before, and has not been asked.
            if self.is_gone() && self.signal_all(Signal::TERM).await == 0 {
                return;
            }
            let until = *kill_at.borrow_and_update();
            if Instant::now() >= until {
                break;
            }
            let next = until.min(Instant::now() + pause);
            tokio::select! {
                // An error, when the run is over: the time that it said last holds.
                Ok(()) = kill_at.changed() => {}
                () = self.hurry.notified() => break,
                () = sleep_until(next) => {}
            }
            pause = (pause * 2).min(LOOKS.1);
        }
        let killed = Instant::now();
        let (mut pause, mut is_told) = (LATE_LOOKS.0, false);
        while killed.elapsed() < GIVE_UP {
            // Again and again: what is killed may just have started another.
            if self.signal_all(Signal::KILL).await == 0 && self.is_gone() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LATE_LOOKS.1);
            if killed.elapsed() > STUCK && !self.is_gone() && !is_told {
                is_told = true;
                self.tell();
            }
        }
    }

    fn tell(&self) {
        let left: Vec<_> = self.left().iter().map(i32::to_string).collect();
        diagnostics::warn(&Warning {
            code: "PROCESS_LEFT",
            message: format!("SIGKILL has not ended process {}", left.join(", ")),
            session: None,
        });
    }

    /// Looks the descendants up and signals them and the leader with its group. Returns how many
    /// descendants were found alive.
    async fn signal_all(&self, signal: Signal) -> usize {
        let found = self.look().await;
        let is_led = !self.leader.is_reaped();
        let is_leaders_turn =
            signal != Signal::TERM || !self.is_asked.swap(true, Ordering::Relaxed);
        if is_leaders_turn {
            self.leader.signal(signal);
        }
        for entry in &found {
            // Members of the group have been signalled with it.
            let is_signalled = is_leaders_turn && is_led && entry.group == self.leader.pid();
            if !is_signalled {
                signal_exactly(entry, signal);
            }
        }
        found.len()
    }

    /// The descendants that live, all that can be found.
    async fn look(&self) -> Vec<Entry> {
        let table = table::all().await;
        let is_there = |entry: &Entry| {
            table.iter().any(|now| (now.pid, now.start) == (entry.pid, entry.start))
        };
        let mut roots: Vec<i32> =
            self.seen().iter().filter(|entry| is_there(entry)).map(|entry| entry.pid).collect();
        let leader = self.leader.pid();
        let is_led = !self.leader.is_reaped();
        if is_led {
            roots.push(leader);
        }
        let mut found = table::descendants(&table, &roots, &self.mark, self.since).await;
        let known = table.iter().filter(|entry| {
            // The leader's number means its group as long as it is not reaped.
            let is_member = is_led && entry.group == leader && entry.start >= self.since;
            is_member || roots.contains(&entry.pid)
        });
        found.extend(known);
        found.retain(|entry| entry.pid != leader && !entry.is_zombie);
        found.sort_unstable_by_key(|entry| entry.pid);
        found.dedup_by_key(|entry| entry.pid);
        *self.seen() = found.clone();
        found
    }

    /// Whether the leader has ended and so have all descendants that were seen.
    fn is_gone(&self) -> bool {
        self.leader.try_reap().is_some() && self.left().is_empty()
    }

    /// The numbers of those that were seen and live still, the leader's among them.
    fn left(&self) -> Vec<i32> {
        let mut left: Vec<i32> =
            self.seen().iter().filter(|entry| lives(entry)).map(|entry| entry.pid).collect();
        if !self.leader.is_reaped() {
            left.push(self.leader.pid());
        }
        left
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is the very process that the entry was made of, and has not ended.
fn lives(entry: &Entry) -> bool {
    table::entry(entry.pid).is_some_and(|now| now.start == entry.start && !now.is_zombie)
}

/// Signals the process that the entry was made of, and no other that has its number now.
pub fn signal_exactly(entry: &Entry, signal: Signal) {
    let Some(pid) = rustix::process::Pid::from_raw(entry.pid) else { return };
    #[cfg(linux)]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        // Opened first and looked at then: what is looked at is what is signalled.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            if lives(entry) {
                let _ = pidfd_send_signal(pidfd, signal);
            }
            return;
        }
    }
    if lives(entry) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The families that are being stopped, also when their runs are over.
static STOPPING: Mutex<Vec<Arc<Family>>> = Mutex::new(Vec::new());
static ONE_LESS: Condvar = Condvar::new();

/// Lists a family among them while this exists.
struct Stopping(Arc<Family>);

impl Stopping {
    fn list(family: &Arc<Family>) -> Self {
        stopping().push(Arc::clone(family));
        Self(Arc::clone(family))
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        stopping().retain(|family| !Arc::ptr_eq(family, &self.0));
        ONE_LESS.notify_all();
    }
}

fn stopping() -> MutexGuard<'static, Vec<Arc<Family>>> {
    STOPPING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of the processes that stopped agents have left and that have not ended.
pub fn remaining() -> Vec<i32> {
    let families = stopping().clone();
    let mut left: Vec<i32> = families.iter().flat_map(|family| family.left()).collect();
    left.sort_unstable();
    left
}

/// The server ends: whoever is left of agents whose runs are over is killed at once.
pub fn hurry() {
    for family in stopping().iter().filter(|family| family.leader.is_reaped()) {
        family.hurry.notify_one();
    }
}

/// Waits until all that were to be stopped are gone; false when they are not within `patience`.
pub fn wait_until_gone(patience: Duration) -> bool {
    let until = std::time::Instant::now() + patience;
    let mut families = stopping();
    while !families.is_empty() {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return false;
        }
        families = ONE_LESS.wait_timeout(families, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}
