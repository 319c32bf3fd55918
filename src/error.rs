//! The one error of the engine: what failed, on what, and why.
//!
//! The kind is private to the crate's callers except through [`Error::code`], a stable word that
//! JavaScript sees as `error.code`, so that nobody has to parse a message.

use std::{fmt, io, path::PathBuf};

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of the engine failed.
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug)]
enum Kind {
    InvalidArgument { argument: String, reason: String },
    InvalidSessionId { id: String, reason: &'static str },
    AlreadyRunning,
    Closing,
    NoThreads { cause: io::Error },
    Internal { fault: String },
    Store { action: &'static str, path: PathBuf, cause: io::Error },
    TooLarge { path: PathBuf, most: usize },
}

impl Error {
    /// A value given by the caller cannot be used; `argument` is its name in the public API.
    pub fn invalid_argument(argument: impl Into<String>, reason: impl Into<String>) -> Self {
        Self(Box::new(Kind::InvalidArgument { argument: argument.into(), reason: reason.into() }))
    }

    /// `id` cannot name a session: as a file name it would leave the store.
    pub fn invalid_session_id(id: impl Into<String>, reason: &'static str) -> Self {
        Self(Box::new(Kind::InvalidSessionId { id: id.into(), reason }))
    }

    /// The session has a run that is still running.
    pub fn already_running() -> Self {
        Self(Box::new(Kind::AlreadyRunning))
    }

    /// The process ends.
    pub fn closing() -> Self {
        Self(Box::new(Kind::Closing))
    }

    /// The threads of the engine could not be started.
    pub fn no_threads(cause: io::Error) -> Self {
        Self(Box::new(Kind::NoThreads { cause }))
    }

    /// A fault of this package.
    pub fn internal(fault: impl Into<String>) -> Self {
        Self(Box::new(Kind::Internal { fault: fault.into() }))
    }

    /// The store could not be read or written; `action` completes "failed to …".
    pub fn store(action: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self(Box::new(Kind::Store { action, path: path.into(), cause }))
    }

    /// What is in `path` would be a string of more than `most` UTF-16 units, the most that JavaScript has.
    pub fn too_large(path: impl Into<PathBuf>, most: usize) -> Self {
        Self(Box::new(Kind::TooLarge { path: path.into(), most }))
    }

    /// The stable word for this kind of error, JavaScript's `error.code`.
    pub fn code(&self) -> &'static str {
        match *self.0 {
            Kind::InvalidArgument { .. } => "INVALID_ARGUMENT",
            Kind::InvalidSessionId { .. } => "INVALID_SESSION_ID",
            Kind::AlreadyRunning => "RUN_ALREADY_ACTIVE",
            Kind::Closing => "CLOSING",
            Kind::NoThreads { .. } => "NO_THREADS",
            Kind::Internal { .. } => "INTERNAL",
            Kind::Store { .. } => "STORE_FAILED",
            Kind::TooLarge { .. } => "TOO_LARGE",
        }
    }

    /// The operating system's error beneath this one, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        match &*self.0 {
            Kind::NoThreads { cause } | Kind::Store { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::InvalidArgument { argument, reason } => write!(f, "{argument}: {reason}"),
            Kind::InvalidSessionId { id, reason } => {
                let shown: String = id.chars().take(60).collect();
                write!(f, "sessionId: {shown:?} {reason}")
            }
            // The module's own words: callers of the module compare them.
            Kind::AlreadyRunning => f.write_str("Active run already exists for this session"),
            Kind::Closing => f.write_str("the process is ending: no run is started any more"),
            Kind::NoThreads { cause } => write!(f, "failed to start the engine's threads: {cause}"),
            Kind::Internal { fault } => write!(f, "a fault of active-runs: {fault}"),
            Kind::Store { action, path, cause } => {
                write!(f, "failed to {action} {}: {cause}", path.display())
            }
            Kind::TooLarge { path, most } => {
                let path = path.display();
                write!(f, "failed to read {path}: it is longer than a string may be ({most} units)")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io().map(|cause| cause as _)
    }
}
