//! Attempts at files that other programs change: why one fails, and which are made again.
//!
//! Whoever finds that a file is no longer what it was a moment ago starts over from looking at it.
//! Knows nothing of what is attempted.

use crate::error::Error;
use std::{io, path::Path, thread, time::Duration};

/// Attempts before giving up. The pause between them grows by a millisecond each time.
const ATTEMPTS: usize = 20;

/// Why an attempt did not work out.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file is not what it was a moment ago: look again.
    Changed,
    /// The system refused, on the file that the attempt is about.
    System(io::Error),
    Failed(Error),
}

impl Trouble {
    /// Whether the file may only be read.
    pub fn is_for_writers(&self) -> bool {
        let cause = match self {
            Self::Changed => return false,
            Self::System(cause) => Some(cause),
            Self::Failed(error) => error.io(),
        };
        cause.is_some_and(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            )
        })
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs `attempt`, which is told its number, until the file holds still for it.
pub(super) fn until_unchanged<T>(
    action: &'static str,
    path: &Path,
    mut attempt: impl FnMut(usize) -> Result<T, Trouble>,
) -> Result<T, Error> {
    for number in 0..ATTEMPTS {
        match attempt(number) {
            Ok(done) => return Ok(done),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::System(cause)) => return Err(Error::store(action, path, cause)),
            Err(Trouble::Changed) => thread::sleep(Duration::from_millis(number as u64)),
        }
    }
    Err(Error::store(action, path, changing()))
}

/// The cause given when others change a file faster than it can be read.
pub(super) fn changing() -> io::Error {
    io::Error::other("others keep changing it")
}
