//! The agent and all that it has started: how all of them are stopped.
//!
//! Agents put their tools into process groups and sessions of their own, where a signal to the
//! agent's group does not reach them. Before each signal the descendants are looked up: by their
//! parents, by the ones that were seen before, and by the mark in their environment. They are
//! remembered with the time at which they began, and checked against it before they are signalled:
//! a process that has got the number of one of them since is left alone.

use super::{
    leader::Leader,
    orphans::expect_orphans,
    table::{self, Entry, Table, in_background},
};
use crate::diagnostics::{self, Warning};
use rustix::process::Signal;
use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
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
/// So many looks in a row must find nobody after SIGKILL.
const EMPTY_LOOKS: u32 = 3;
/// Whoever is left so long after SIGKILL is told of in a warning.
const STUCK: Duration = Duration::from_secs(2);
/// Whoever is left then, the system will not let go.
const GIVE_UP: Duration = Duration::from_secs(600);

/// An agent's process and its descendants.
pub struct Family {
    /// The agent's own process.
    pub leader: Leader,
    /// In the environment of all of them.
    mark: Box<str>,
    /// When the leader began; 0 when that could not be learnt.
    since: u64,
    /// The descendants that the last look has found.
    seen: Mutex<Vec<Entry>>,
    /// Those that were asked to end, by number and start.
    asked: Mutex<BTreeSet<(i32, u64)>>,
    /// The server ends: who is left is killed at once.
    hurry: Notify,
    /// The leader has been asked to end.
    is_asked: AtomicBool,
    /// When it was asked before the others were looked up, in the unit of [`Entry::start`].
    asked_early_at: OnceLock<u64>,
    /// When SIGKILL was first sent.
    killed_at: OnceLock<Instant>,
    /// Says elsewhere that there may be somebody with this mark.
    _record: Option<Record>,
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
    pub fn new(leader: Leader, mark: Box<str>, record: Option<Record>) -> Self {
        let since = table::start_of_child(leader.pid());
        Self {
            leader,
            mark,
            since,
            seen: Mutex::default(),
            asked: Mutex::default(),
            hurry: Notify::new(),
            is_asked: AtomicBool::new(false),
            asked_early_at: OnceLock::new(),
            killed_at: OnceLock::new(),
            _record: record,
        }
    }

    /// When SIGKILL was first sent.
    pub fn killed_at(&self) -> Option<Instant> {
        self.killed_at.get().copied()
    }

    /// Sends the leader and its group a signal, by number.
    pub fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.leader.signal(signal);
        }
    }

    /// Sends the leader and its group SIGKILL, without looking for anybody else.
    pub fn kill_leader(&self) {
        self.killed_at.get_or_init(Instant::now);
        self.leader.signal(Signal::KILL);
    }

    /// Asks the leader alone to end. It is asked once: to many programs a second time means "at
    /// once". It is not reaped before [`Family::stop`] is done, because its number is the group's.
    pub fn ask_leader(&self) {
        if !self.is_asked.swap(true, Ordering::Relaxed) {
            self.leader.keep();
            if let Some(now) = table::now() {
                self.asked_early_at.get_or_init(|| now);
            }
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
    /// The future ends when nobody is left, or those that are left cannot be ended.
    pub fn stop(
        self: &Arc<Self>,
        kill_at: watch::Receiver<Instant>,
    ) -> impl Future<Output = ()> + use<> {
        // Before it is polled: who waits until all are gone must wait for this one.
        Stopping::list(self).run(kill_at)
    }

    /// As [`Family::stop`], with no time between the polite signal and SIGKILL.
    pub fn stop_at_once(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let (_, kill_at) = watch::channel(Instant::now());
        self.stop(kill_at)
    }

    fn tell(&self) {
        diagnostics::warn(&Warning {
            code: "PROCESS_LEFT",
            message: format!("SIGKILL has not ended process {}", listed(&self.living())),
            session: None,
        });
    }

    /// Looks the descendants up and signals them and the leader with its group. Returns how many
    /// descendants were found alive. Blocks.
    fn signal_all(&self, signal: Signal, table: &Table) -> usize {
        let found = self.look(table);
        let is_leaders_turn = match signal {
            Signal::TERM => !self.is_asked.swap(true, Ordering::Relaxed),
            _ => true,
        };
        // Members of the group are signalled with it.
        let has_group = is_leaders_turn && self.leader.signal(signal);
        // Whom the leader has started since it was asked helps it to end, and is asked when it has. So is
        // who began just before: their times are as coarse as the clock's ticks.
        let helps = |entry: &Entry| {
            let since = self.asked_early_at.get().filter(|_| self.leader.exit().is_none());
            since.is_some_and(|&since| entry.start >= since)
        };
        for entry in &found {
            let key = (entry.pid, entry.start);
            let is_in_group = has_group && entry.group == self.leader.pid();
            let is_spared = signal == Signal::TERM && (helps(entry) || self.asked().contains(&key));
            if is_in_group || !is_spared {
                self.asked().insert(key);
            }
            if !is_in_group && !is_spared {
                signal_exactly(entry, signal);
            }
        }
        if signal == Signal::KILL {
            self.killed_at.get_or_init(Instant::now);
        }
        found.len()
    }

    /// The descendants that live, all that can be found. Blocks.
    fn look(&self, table: &Table) -> Vec<Entry> {
        let entries = table.entries();
        let at = |pid: i32| entries.iter().find(|now| now.pid == pid);
        let seen = self.seen().clone();
        let there = seen.iter().filter(|seen| at(seen.pid).is_some_and(|now| now.is_of(seen)));
        let mut roots: Vec<i32> = there.map(|entry| entry.pid).collect();
        let leader = self.leader.pid();
        // As long as it is not reaped, be it as a zombie, its number means it and its group.
        let is_led = !self.leader.is_reaped()
            && at(leader).is_some_and(|now| self.since == 0 || now.start == self.since);
        if is_led {
            roots.push(leader);
        }
        let mut found = table.descendants(&roots, &self.mark, self.since);
        let known = entries.iter().filter(|entry| {
            let is_member = is_led && entry.group == leader && entry.start >= self.since;
            is_member || roots.contains(&entry.pid)
        });
        found.extend(known);
        found.retain(|entry| entry.pid != leader && !entry.is_zombie);
        found.sort_unstable_by_key(|entry| entry.pid);
        found.dedup_by_key(|entry| entry.pid);
        expect_orphans(&found);
        *self.seen() = found.clone();
        found
    }

    /// Whether the leader has ended and so have all descendants that were seen. Blocks.
    fn is_gone(&self) -> bool {
        let mut seen = self.seen().clone();
        seen.retain(lives);
        let is_gone = self.leader.exit().is_some() && seen.is_empty();
        *self.seen() = seen;
        is_gone
    }

    /// Whether the leader has ended, and somebody who helped it to end was not asked yet.
    fn has_unasked(&self) -> bool {
        let is_asked = |entry: &Entry| self.asked().contains(&(entry.pid, entry.start));
        self.leader.exit().is_some() && !self.seen().iter().all(is_asked)
    }

    /// The numbers of those that lived at the last look, the leader's among them.
    fn living(&self) -> Vec<i32> {
        let mut living: Vec<i32> = self.seen().iter().map(|entry| entry.pid).collect();
        if self.leader.exit().is_none() {
            living.push(self.leader.pid());
        }
        living
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<(i32, u64)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is the very process that the entry was made of, and has not ended.
fn lives(entry: &Entry) -> bool {
    table::entry(entry.pid).is_some_and(|now| now.is_of(entry) && !now.is_zombie)
}

/// Signals the process that the entry was made of, and no other that has its number now. Blocks.
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

/// Process numbers, for a sentence.
pub fn listed(pids: &[i32]) -> String {
    let pids: Vec<_> = pids.iter().map(i32::to_string).collect();
    pids.join(", ")
}

/// The families that are being stopped, also when their runs are over.
static STOPPING: Mutex<Vec<Arc<Family>>> = Mutex::new(Vec::new());
static ONE_LESS: Condvar = Condvar::new();
/// The same for tasks.
static ONE_LESS_ASYNC: Notify = Notify::const_new();

/// A family that is being stopped, listed among the others while this exists.
struct Stopping(Arc<Family>);

impl Stopping {
    fn list(family: &Arc<Family>) -> Self {
        stopping().push(Arc::clone(family));
        Self(Arc::clone(family))
    }

    async fn run(self, mut kill_at: watch::Receiver<Instant>) {
        let family = &self.0;
        // Its number stays its group's until nobody of that is left.
        family.leader.keep();
        self.signal_all(Signal::TERM).await;
        let mut pause = LOOKS.0;
        loop {
            // Who is found now was not there before, or helped, and has not been asked.
            let is_gone = self.is_gone().await;
            if is_gone || family.has_unasked() {
                let found = self.signal_all(Signal::TERM).await;
                if is_gone && found == 0 {
                    return;
                }
            }
            let until = *kill_at.borrow_and_update();
            if Instant::now() >= until {
                break;
            }
            let next = until.min(Instant::now() + pause);
            tokio::select! {
                // An error, when the run is over: the time that it said last holds.
                Ok(()) = kill_at.changed() => {}
                () = family.hurry.notified() => break,
                () = sleep_until(next) => {}
            }
            pause = (pause * 2).min(LOOKS.1);
        }
        let began = Instant::now();
        let (mut pause, mut is_told, mut empty) = (LATE_LOOKS.0, false, 0);
        while began.elapsed() < GIVE_UP {
            // Again and again: what is killed may just have started another, which no look has met.
            if self.signal_all(Signal::KILL).await == 0 && self.is_gone().await {
                empty += 1;
                if empty == EMPTY_LOOKS {
                    return;
                }
                sleep(LATE_LOOKS.0).await;
                continue;
            }
            empty = 0;
            sleep(pause).await;
            pause = (pause * 2).min(LATE_LOOKS.1);
            if began.elapsed() > STUCK && !is_told && !self.is_gone().await {
                is_told = true;
                family.tell();
            }
        }
        let family = Arc::clone(family);
        drop(self);
        // Should it end after all, it must not stay a zombie.
        family.leader.wait(&family.leader.watch()).await;
    }

    async fn signal_all(&self, signal: Signal) -> usize {
        let family = Arc::clone(&self.0);
        in_background(move |table| family.signal_all(signal, table)).await
    }

    async fn is_gone(&self) -> bool {
        let family = Arc::clone(&self.0);
        in_background(move |_| family.is_gone()).await
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.leader.release();
        stopping().retain(|family| !Arc::ptr_eq(family, &self.0));
        ONE_LESS.notify_all();
        ONE_LESS_ASYNC.notify_waiters();
    }
}

fn stopping() -> MutexGuard<'static, Vec<Arc<Family>>> {
    STOPPING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of the processes that stopped agents have left and that had not ended at the last look.
pub fn remaining() -> Vec<i32> {
    let families = stopping().clone();
    let mut living: Vec<i32> = families.iter().flat_map(|family| family.living()).collect();
    living.sort_unstable();
    living
}

/// The server ends: whoever is left of agents whose runs are over is killed at once.
pub fn hurry() {
    for family in stopping().iter().filter(|family| family.leader.exit().is_some()) {
        family.hurry.notify_one();
    }
}

/// Waits until the agent with this process number, if it is being stopped, is gone with all that it has
/// started.
pub async fn until_gone(leader: i32) {
    loop {
        // Before looking: whoever goes from now on wakes it.
        let one_less = ONE_LESS_ASYNC.notified();
        if stopping().iter().all(|family| family.leader.pid() != leader) {
            return;
        }
        one_less.await;
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
