//! Processes that have lost their parents: those of a server that died, and those that come to a
//! server which is the first process of its container.

use super::{
    family::signal_exactly,
    leader::is_leader,
    table::{self, Entry, in_background},
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, waitpid};
use std::{collections::HashMap, sync::Once, time::Duration};
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
        let found = in_background(move || signal_marked(&marks, &known, by_force)).await;
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
fn signal_marked(marks: &[String], asked: &[Entry], by_force: bool) -> Vec<Entry> {
    let table = table::all();
    let spared = with_ancestors(own_pid(), &table);
    let mut found: Vec<Entry> = Vec::new();
    // A server that an agent has started is not its own orphan, nor are its agents.
    for mark in marks.iter().filter(|mark| !table::has_mark(own_pid(), mark)) {
        found.extend(table::descendants(&table, &[], mark, 0));
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
const LOOKS: Duration = Duration::from_secs(1);
/// A child that is dead for so many looks is nobody else's to reap.
const LEFT_DEAD: u32 = 60;

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
                    known = in_background(move || look_after_children(&before)).await;
                }
            });
        });
    }
}

/// Reaps the children that have ended and are nobody else's; returns the others.
fn look_after_children(known: &Children) -> Children {
    let table = table::all();
    let own_group = table.iter().find(|entry| entry.pid == own_pid()).map_or(0, |own| own.group);
    let mut left = Children::new();
    for entry in table.iter().filter(|entry| entry.parent == own_pid() && !is_leader(entry.pid)) {
        let key = (entry.pid, entry.start);
        let mut child = known.get(&key).copied().unwrap_or_default();
        child.is_marked |= table::is_marked(entry.pid);
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
    left
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}
