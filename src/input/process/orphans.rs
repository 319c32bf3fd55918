//! Processes that have lost their parents: those of a server that died, and those that come to a
//! server which is the first process of its container.

use super::{
    family::signal_exactly,
    leader::is_leader,
    table::{self, Entry, Table, in_background},
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, waitpid};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long SIGKILL is tried.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// What became of processes that were to be ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Those that are gone.
    pub gone: Vec<i32>,
    /// Those that live still.
    pub living: Vec<i32>,
}

/// Ends the processes that bear one of the marks: politely, by force after `kill_after`. This process
/// and its ancestors are spared.
pub async fn end_marked(marks: Vec<String>, kill_after: Duration) -> Ended {
    let started = Instant::now();
    let mut asked: Vec<Entry> = Vec::new();
    let mut pause = Duration::from_millis(10);
    loop {
        let by_force = started.elapsed() >= kill_after;
        let (marks, known) = (marks.clone(), asked.clone());
        let found =
            in_background(move |table| signal_marked(table, &marks, &known, by_force)).await;
        let living: Vec<i32> = found.iter().map(|entry| entry.pid).collect();
        asked.extend(
            found
                .into_iter()
                .filter(|new| !asked.iter().any(|known| known.is_of(new)))
                .collect::<Vec<_>>(),
        );
        if living.is_empty() || started.elapsed() > kill_after + LAST_TRIES {
            let gone = asked.iter().map(|entry| entry.pid).filter(|pid| !living.contains(pid));
            return Ended { gone: gone.collect(), living };
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// Signals those that bear a mark: all of them by force, or politely those that are not `asked` yet.
/// Returns all of them.
fn signal_marked(table: &Table, marks: &[String], asked: &[Entry], by_force: bool) -> Vec<Entry> {
    let spared = with_ancestors(own_pid(), table.entries());
    let mut found: Vec<Entry> = Vec::new();
    // A server that an agent has started is not its own orphan, nor are its agents.
    let own = table::marks_of(own_pid());
    for mark in marks.iter().filter(|mark| !own.iter().any(|own| own == mark.as_bytes())) {
        found.extend(table.descendants(&[], mark, 0));
    }
    found.retain(|entry| !entry.is_zombie && !spared.contains(&entry.pid));
    for entry in &found {
        if by_force {
            signal_exactly(entry, Signal::KILL);
        } else if !asked.iter().any(|known| known.is_of(entry)) {
            signal_exactly(entry, Signal::TERM);
        }
    }
    found
}

fn with_ancestors(pid: i32, table: &[Entry]) -> Vec<i32> {
    let mut line = vec![pid];
    while let Some(entry) = table.iter().find(|entry| line.last() == Some(&entry.pid)) {
        if line.contains(&entry.parent) {
            break;
        }
        line.push(entry.parent);
    }
    line
}

/// How often the first process looks for orphans that have ended.
const LOOKS: Duration = Duration::from_millis(250);
/// A child that is dead for so many looks is nobody else's to reap.
const LEFT_DEAD: u32 = 240;

/// What the first process knows of one of its children.
#[derive(Clone, Copy, Default)]
struct Child {
    /// It was seen alive with a mark.
    is_marked: bool,
    /// Looks in which it was dead.
    looks_dead: u32,
}

/// The children that were there in the last look, by number and start.
type Children = HashMap<(i32, u64), Child>;

/// In the first process of a container, to which the system gives every orphan: reaps those that have
/// ended, from now on. Elsewhere it does nothing. Needs the runtime's context.
pub fn reap_orphans() {
    static ONCE: Once = Once::new();
    if own_pid() == 1 {
        ONCE.call_once(|| {
            tokio::spawn(async {
                let mut known = Children::new();
                loop {
                    sleep(LOOKS).await;
                    let before = known;
                    known = in_background(move |table| look_after_children(table, &before)).await;
                }
            });
        });
    }
}

/// Descendants of agents that were seen, by number and start: in the first process of a container,
/// where they come to it when their parents end.
static EXPECTED: Mutex<BTreeSet<(i32, u64)>> = Mutex::new(BTreeSet::new());

fn expected() -> MutexGuard<'static, BTreeSet<(i32, u64)>> {
    EXPECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// These may come to this process, if it is the first of its container: then they are its own to reap.
pub fn expect_orphans(descendants: &[Entry]) {
    if own_pid() == 1 {
        expected().extend(descendants.iter().map(|entry| (entry.pid, entry.start)));
    }
}

/// Reaps the children that have ended and are nobody else's; returns the others.
fn look_after_children(table: &Table, known: &Children) -> Children {
    let entries = table.entries();
    let own_group = entries.iter().find(|entry| entry.pid == own_pid()).map_or(0, |own| own.group);
    let own_marks = table::marks_of(own_pid());
    let is_marked = |pid| table::marks_of(pid).iter().any(|mark| !own_marks.contains(mark));
    let mut left = Children::new();
    for entry in entries.iter().filter(|entry| entry.parent == own_pid() && !is_leader(entry.pid)) {
        let key = (entry.pid, entry.start);
        let mut child = known.get(&key).copied().unwrap_or_default();
        child.is_marked |= expected().contains(&key);
        child.is_marked = child.is_marked || is_marked(entry.pid);
        child.looks_dead += u32::from(entry.is_zombie);
        // One that has ended tells nothing of itself any more. Node.js reaps its own as soon as its
        // loop turns, and they are in its group or lead one.
        let is_stray = entry.group != own_group && entry.group != entry.pid;
        let is_nobodys = child.looks_dead > LEFT_DEAD;
        if entry.is_zombie && (child.is_marked || is_stray || is_nobodys) {
            if let Some(pid) = Pid::from_raw(entry.pid) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        } else {
            left.insert(key, child);
        }
    }
    // Those that are nowhere any more have been reaped.
    expected().retain(|key| entries.iter().any(|entry| (entry.pid, entry.start) == *key));
    left
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}
