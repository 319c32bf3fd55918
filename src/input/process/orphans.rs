//! Processes that have lost their parents: those of a server that died, and those that come to a
//! server which is the first process of its container.

use super::{
    family::signal_exactly,
    leader::is_leader,
    table::{self, Entry},
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, waitpid};
use std::{collections::HashMap, sync::Once, time::Duration};
use tokio::time::{Instant, sleep};

/// Ends the processes that bear one of the marks: politely, by force after `kill_after`. Returns their
/// numbers.
pub async fn end_marked(marks: &[String], kill_after: Duration) -> Vec<i32> {
    let mut ended: Vec<i32> = Vec::new();
    // A server that an agent has started is not its own orphan.
    let marks: Vec<_> = marks.iter().filter(|mark| !table::has_mark(own_pid(), mark)).collect();
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let table = table::all().await;
        let mut found: Vec<Entry> = Vec::new();
        for mark in &marks {
            found.extend(table::descendants(&table, &[], mark, 0).await);
        }
        found.retain(|entry| !entry.is_zombie);
        if found.is_empty() {
            return ended;
        }
        let by_force = started.elapsed() >= kill_after;
        for entry in found {
            let is_new = !ended.contains(&entry.pid);
            if is_new {
                ended.push(entry.pid);
            }
            if by_force || is_new {
                signal_exactly(&entry, if by_force { Signal::KILL } else { Signal::TERM });
            }
        }
        if started.elapsed() > kill_after + LAST_TRIES {
            return ended;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// How long SIGKILL is tried.
const LAST_TRIES: Duration = Duration::from_secs(2);

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

/// In the first process of a container, to which the system gives every orphan: reaps those that have
/// ended, from now on. Elsewhere it does nothing. Needs the runtime's context.
pub fn reap_orphans() {
    static ONCE: Once = Once::new();
    if own_pid() == 1 {
        let own_group = table::entry(1).map_or(0, |own| own.group);
        ONCE.call_once(|| {
            tokio::spawn(async move {
                // Children that were there in the last look.
                let mut known: HashMap<(i32, u64), Child> = HashMap::new();
                loop {
                    sleep(LOOKS).await;
                    let table = table::all().await;
                    let children = table
                        .iter()
                        .filter(|entry| entry.parent == own_pid() && !is_leader(entry.pid));
                    let mut now = HashMap::new();
                    for entry in children {
                        let key = (entry.pid, entry.start);
                        let mut child = known.get(&key).copied().unwrap_or_default();
                        child.is_marked |= table::is_marked(entry.pid);
                        child.looks_dead += u32::from(entry.is_zombie);
                        // One that has ended tells nothing of itself any more. Node.js reaps its
                        // own as soon as its loop turns, and they are in its group or lead one.
                        let is_stray = entry.group != own_group && entry.group != entry.pid;
                        let is_nobodys = child.looks_dead > LEFT_DEAD;
                        if entry.is_zombie && (child.is_marked || is_stray || is_nobodys) {
                            if let Some(pid) = Pid::from_raw(entry.pid) {
                                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                            }
                        } else {
                            now.insert(key, child);
                        }
                    }
                    known = now;
                }
            });
        });
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}
