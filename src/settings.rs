//! What can be set, with the values that hold until somebody sets others.
//!
//! Settings belong to the process. A run keeps those in force when it was started.

use crate::{format::Errors, message::StoreFormat};
use once_cell::sync::Lazy;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The values in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the session files; none until somebody set one or a caller brought a default.
    pub store_dir: Option<PathBuf>,
    /// The least time between two flushes of a running answer.
    pub persist_interval: Duration,
    /// How long a finished run can still be looked at and replayed.
    pub cleanup_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub kill_after: Duration,
    /// How long the pipes of an agent that has exited are still read when a child holds them open.
    pub pipe_grace: Duration,
    /// The longest line of stdout that is read, in bytes.
    pub max_line_bytes: usize,
    /// The most that a run's log may hold, in bytes, before its agent is stopped.
    pub max_run_bytes: usize,
    /// What is kept of stderr, in bytes: this much of its beginning and as much of its end.
    pub max_stderr_bytes: usize,
    /// The longest time without a line of the agent while no tool is at work; zero: no limit.
    pub max_silence: Duration,
    /// The longest time that a run may take; zero: no limit.
    pub max_run: Duration,
    /// How much is told of errors; none: as the agent asks for.
    pub errors: Option<Errors>,
    /// In which form answers are stored.
    pub store_format: StoreFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store_dir: None,
            persist_interval: Duration::from_millis(2_000),
            cleanup_grace: Duration::from_millis(30_000),
            kill_after: Duration::from_millis(5_000),
            pipe_grace: Duration::from_millis(2_000),
            max_line_bytes: 64 << 20,
            max_run_bytes: 512 << 20,
            max_stderr_bytes: 64 << 10,
            max_silence: Duration::ZERO,
            max_run: Duration::ZERO,
            errors: None,
            store_format: StoreFormat::Module,
        }
    }
}

static IN_FORCE: Lazy<Mutex<Arc<Settings>>> = Lazy::new(Mutex::default);

/// The settings in force now.
pub fn current() -> Arc<Settings> {
    Arc::clone(&IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Changes the settings for all runs started from now on.
pub fn change(edit: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut in_force = IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner);
    edit(Arc::make_mut(&mut in_force));
    Arc::clone(&in_force)
}
