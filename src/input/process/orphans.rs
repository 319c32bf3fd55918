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

/// In the first process of a container, to which the system gives every orphan: reaps those that have
/// ended, from now on. Elsewhere it does nothing. Needs the runtime's context.
pub fn reap_orphans() {
    static ONCE: Once = Once::new();
    if own_pid() == 1 {
        let own_group = table::entry(1).map_or(0, |own| own.group);
        ONCE.call_once(|| {
            tokio::spawn(async move {
                // Children that were there in the last look, and whether they are surely orphans.
                let mut known: HashMap<(i32, u64), bool> = HashMap::new();
                loop {
                    sleep(LOOKS).await;
                    let table = table::all().await;
                    let children = table
                        .iter()
                        .filter(|entry| entry.parent == own_pid() && !is_leader(entry.pid));
                    let mut now = HashMap::new();
                    for child in children {
                        let key = (child.pid, child.start);
                        let is_orphan =
                            known.get(&key) == Some(&true) || table::is_marked(child.pid);
                        // One that has ended tells nothing of itself any more. Node.js reaps its
                        // own as soon as its loop turns, and its own are in its group or lead one.
                        let is_stray = child.group != own_group && child.group != child.pid;
                        if child.is_zombie && (is_orphan || is_stray) {
                            if let Some(pid) = Pid::from_raw(child.pid) {
                                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                            }
                        } else {
                            now.insert(key, is_orphan);
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
