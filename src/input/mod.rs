//! Where a run's lines come from, and who can be told to stop.
//!
//! An [`Input`] hands over bytes and, at last, how it ended. It has heard neither of runs nor of
//! formats nor of events. Each kind of source is one file beside this one.

pub mod process;
#[cfg(test)]
pub(crate) mod scripted;
mod startup;

pub use startup::Startup;

use std::{future::Future, time::Duration};

/// A source of lines. One task owns it.
pub trait Input: Send + 'static {
    /// Waits until there are bytes to read, or the input has ended. May be dropped and called again;
    /// not after it has said that the input ended.
    fn ready(&mut self) -> impl Future<Output = Ready> + Send;

    /// Hands over bytes that are there, without waiting.
    fn read(&mut self, take: &mut dyn FnMut(&[u8]));

    /// Has it end: politely now, by force after `kill_after`. A later call only shortens the time.
    fn stop(&mut self, kill_after: Duration);

    /// Sends it a signal of the system, if it is something that can be sent one.
    fn signal(&mut self, signal: i32);

    /// The server ends: what is held open by others is not waited for.
    fn hurry(&mut self);
}

/// What [`Input::ready`] waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// There are bytes to read.
    Bytes,
    /// Everything was read, and nothing will follow.
    Ended(End),
}

/// How an input ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What became of the source.
    pub exit: Exit,
    /// What explains a failure: of a process, what is kept of its stderr.
    pub explanation: String,
}

/// What became of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was told to stop before it was started, and never was.
    NotStarted,
    /// It ended, or does not answer any more, and nobody can tell how.
    Unknown,
}
