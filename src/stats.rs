//! What the engine is doing, in numbers: for health checks and metrics.
//!
//! Gathered when asked for, from the runs and the counts that they keep anyway; it changes nothing
//! and keeps nothing itself. It knows neither JavaScript nor who subscribes there.

use crate::{
    persistence::{self, FlushCounts},
    registry,
    run::{LineCounts, Outcome},
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
    /// The memory that these events take, in bytes.
    pub bytes: usize,
    /// Lines of all agents of this process.
    pub lines: LineCounts,
    /// Writes of all answers of this process.
    pub flushes: FlushCounts,
    /// Process ids of the agents that have not ended.
    pub pids: Vec<i32>,
}

/// Looks.
pub fn stats() -> Stats {
    let (runs, departed) = registry::all();
    let mut stats =
        Stats { lines: departed, flushes: persistence::flushes(), ..Default::default() };
    for run in runs {
        let outcome = run.look(|log, outcome| {
            stats.events += log.len();
            stats.bytes += log.bytes();
            outcome
        });
        match outcome {
            None => stats.running += 1,
            Some(Outcome { is_error: false, .. }) => stats.completed += 1,
            Some(Outcome { is_error: true, .. }) => stats.failed += 1,
        }
        stats.lines += run.lines();
        stats.pids.extend(run.living_pid());
    }
    stats.pids.sort_unstable();
    stats
}
