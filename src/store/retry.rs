//! Attempts at files that other programs use at the same time: why one fails, and when the next is due.
//!
//! Whoever finds that a file is no longer what it was a moment ago starts over from looking at it.
//! Whoever would have to wait ends its attempt instead and says when to make the next, so that waiting
//! occupies no thread. Knows nothing of what is attempted.

use super::identity::Identity;
use crate::{
    disk::Turn,
    error::{Error, Result},
};
use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long attempts are made.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long, when it is only somebody's lock that is in the way. Holders need milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// The least number of attempts, however long the call waited for its first.
const LEAST_ATTEMPTS: u32 = 10;
/// The pause after the first attempt, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(25));

/// Why an attempt did not work out.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file is not what it was a moment ago: look again.
    Changed,
    /// Another program is in the midst of writing the file.
    Busy,
    /// Another process holds the file's lock, or another thread of this one its state.
    Locked,
    /// The system refused, on the file that the attempt is about.
    System(io::Error),
    Failed(Error),
}

impl Trouble {
    /// Whether the file may only be read.
    pub fn is_read_only(&self) -> bool {
        let cause = match self {
            Self::Changed | Self::Busy | Self::Locked => return false,
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

/// The attempts of one call.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Those that have failed.
    failed: u32,
    /// When the call was made, if it was not made at once.
    call: Option<Instant>,
    /// Since when they fail, and since when they fail for a lock without a break.
    since: Option<Instant>,
    locked_since: Option<Instant>,
    /// The states in which the files were seen last, and since when they are in them.
    still: Vec<(Identity, Instant)>,
    /// For a call of two parts: the first one has found a file.
    pub(super) had_file: bool,
}

impl Attempts {
    /// Of a call that was made then, and may have waited behind others: that is a part of its patience.
    pub(super) fn begun_at(&mut self, call: Instant) -> &mut Self {
        self.call.get_or_insert(call);
        self
    }

    /// How many have failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// How long they have failed.
    pub(super) fn failing_for(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How long the file has been in this state, as far as these attempts have seen.
    pub(super) fn unchanged_for(&mut self, now: Identity) -> Duration {
        match self.still.iter_mut().find(|(seen, _)| seen.same_file(&now)) {
            Some((seen, since)) if *seen == now => return since.elapsed(),
            Some(still) => *still = (now, Instant::now()),
            None => self.still.push((now, Instant::now())),
        }
        Duration::ZERO
    }

    /// What follows from an attempt to `action` the file at `path`.
    pub(super) fn step<T>(
        &mut self,
        action: &'static str,
        path: &Path,
        outcome: Result<T, Trouble>,
    ) -> Result<Turn<T>> {
        let trouble = match outcome {
            Ok(done) => return Ok(Turn::Done(done)),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::System(cause)) => return Err(Error::store(action, path, cause)),
            Err(trouble) => trouble,
        };
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        // A few attempts everybody has.
        let call = self.call.filter(|_| self.failed >= LEAST_ATTEMPTS).unwrap_or(since);
        let locked_since = match trouble {
            Trouble::Locked => Some(*self.locked_since.get_or_insert(now)),
            _ => None,
        };
        self.locked_since = locked_since;
        let is_locked = locked_since.is_some_and(|since| now - since.min(call) > LOCK_PATIENCE);
        if is_locked || now - since.min(call) > PATIENCE {
            let (kind, reason) = match trouble {
                Trouble::Locked if is_locked => {
                    (io::ErrorKind::TimedOut, "another process holds its lock for too long")
                }
                Trouble::Busy => (
                    io::ErrorKind::TimedOut,
                    "another program is writing it, or has left it emptied or cut",
                ),
                _ => (io::ErrorKind::Other, "others keep changing it"),
            };
            return Err(Error::store(action, path, io::Error::new(kind, reason)));
        }
        let pause = PAUSES.0 * 2_u32.saturating_pow(self.failed.min(10));
        self.failed += 1;
        Ok(Turn::Again(pause.min(PAUSES.1)))
    }
}

/// Whether a call has failed because others were at work on the file for too long.
pub(super) fn is_contention(error: &Error) -> bool {
    error
        .io()
        .is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Other))
}

/// Makes attempts on this thread until one is done, or `patience` is over; then none is.
///
/// # Errors
/// Those of `attempt`.
pub fn wait<T>(
    patience: Duration,
    mut attempt: impl FnMut(&mut Attempts) -> Result<Turn<T>>,
) -> Result<Option<T>> {
    let until = Instant::now() + patience;
    let mut attempts = Attempts::default();
    loop {
        match attempt(&mut attempts)? {
            Turn::Done(done) => return Ok(Some(done)),
            Turn::Again(_) if Instant::now() > until => return Ok(None),
            Turn::Again(after) => thread::sleep(after),
        }
    }
}
