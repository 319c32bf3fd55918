//! `stats`: what the engine is doing.

use crate::stats;
use napi_derive::napi;

/// The numbers of [`stats::stats`].
#[napi(object, object_from_js = false)]
pub struct StatsValues {
    /// Runs.
    pub running: u32,
    /// Runs.
    pub completed: u32,
    /// Runs.
    pub failed: u32,
    /// In the logs of these runs.
    pub events: f64,
    /// Bytes.
    pub buffered_bytes: f64,
    /// Lines.
    pub read: f64,
    /// Lines.
    pub unreadable: f64,
    /// Lines.
    pub other_session: f64,
    /// Lines.
    pub too_long: f64,
    /// Flushes.
    pub written: f64,
    /// Flushes.
    pub not_written: f64,
    /// Why the last of these was not.
    pub last_error: Option<FlushErrorValues>,
    /// Of agents.
    pub pids: Vec<i32>,
    /// Of what stopped agents have left.
    pub remaining: Vec<i32>,
    /// Milliseconds since 1970.
    pub last_line_at: Option<f64>,
    /// Milliseconds since 1970.
    pub silent_since: Option<f64>,
    /// Bytes.
    pub dropped_stderr: f64,
}

/// A flush that failed.
#[napi(object, object_from_js = false)]
pub struct FlushErrorValues {
    /// For people.
    pub message: String,
    /// Whose answer it was.
    pub session_id: String,
    /// Milliseconds since 1970.
    pub at: f64,
}

/// What the engine is doing.
#[napi(catch_unwind)]
pub fn stats() -> StatsValues {
    let stats = stats::stats();
    let last_error = stats.flushes.last_failure.map(|failure| FlushErrorValues {
        message: failure.message,
        session_id: failure.session.as_str().to_owned(),
        at: failure.at as f64,
    });
    StatsValues {
        running: stats.running as u32,
        completed: stats.completed as u32,
        failed: stats.failed as u32,
        events: stats.events as f64,
        buffered_bytes: stats.bytes as f64,
        read: stats.lines.read as f64,
        unreadable: stats.lines.unreadable as f64,
        other_session: stats.lines.other_session as f64,
        too_long: stats.lines.too_long as f64,
        written: stats.flushes.written as f64,
        not_written: stats.flushes.failed as f64,
        last_error,
        pids: stats.pids,
        remaining: stats.remaining,
        last_line_at: stats.lines.last_at.map(|at| at as f64),
        silent_since: stats.silent_since.map(|at| at as f64),
        dropped_stderr: stats.dropped_stderr as f64,
    }
}
