//! What the engine is doing, in numbers: for health checks and metrics.
//!
//! Gathered when asked for, from the runs and the counts that they keep anyway; it changes nothing
//! and keeps nothing itself. It knows neither JavaScript nor who subscribes there.

use crate::{
    diagnostics,
    feed::LineCounts,
    input::process,
    persistence::{self, FlushCounts},
    registry,
};

/// A look at the engine. Of things that happen all the while, parts may be a moment older than
/// others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs that are running.
    pub running: usize,
    /// Runs that can still be found and ended well.
    pub completed: usize,
    /// Runs that can still be found and ended in an error.
    pub failed: usize,
    /// Events that all of these keep for replay.
    pub events: u64,
    /// The memory that these events take, in bytes, with what is kept of them as server-sent events.
    pub bytes: usize,
    /// Lines of all agents of this process.
    pub lines: LineCounts,
    /// Writes of all answers of this process.
    pub flushes: FlushCounts,
    /// Process ids of the agents that have not ended.
    pub pids: Vec<i32>,
    /// Process ids of what stopped agents have left and has not ended yet.
    pub remaining: Vec<i32>,
    /// Of the running run that has been silent for longest: when its last line came, or it began, in
    /// milliseconds since 1970.
    pub silent_since: Option<u64>,
    /// Bytes of agents' stderr that were dropped, because nobody read the server's own.
    pub dropped_stderr: u64,
}

/// Looks.
pub fn stats() -> Stats {
    let (runs, departed) = registry::all();
    let mut stats = Stats {
        lines: departed,
        flushes: persistence::flushes(),
        remaining: process::remaining(),
        dropped_stderr: diagnostics::dropped_stderr(),
        ..Default::default()
    };
    for run in runs {
        let feed = &run.feed;
        feed.with_log(|log, _| {
            stats.events += log.len();
            stats.bytes += log.bytes();
        });
        stats.bytes += feed.frame_bytes();
        let lines = feed.lines();
        match feed.end() {
            None => {
                stats.running += 1;
                let last = lines.last_at.unwrap_or(run.started_at);
                stats.silent_since = Some(stats.silent_since.map_or(last, |since| since.min(last)));
            }
            Some(end) if end.is_error() => stats.failed += 1,
            Some(_) => stats.completed += 1,
        }
        stats.lines += lines;
        stats.pids.extend(run.startup.living_pid());
    }
    stats.pids.sort_unstable();
    stats
}
