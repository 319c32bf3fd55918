//! Where a run's lines come from, and who can be told to stop.
//!
//! An [`Input`] hands over bytes and, at last, how it ended. It has heard neither of runs nor of
//! formats nor of events. Each kind of source is one file beside this one.

pub mod process;
#[cfg(test)]
pub(crate) mod scripted;

use std::{
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

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

/// The beginning of an input, as those see it who do not own it: whether it is still wanted, the
/// signals that wait for it, and, of a process, its number.
#[derive(Debug, Default)]
pub struct Startup {
    /// What the one who starts it reads last: see [`Startup::wanted`].
    gate: AtomicU32,
    stage: Mutex<Stage>,
}

#[derive(Debug, Default)]
enum Stage {
    /// Not started yet; with the signals that wait for it.
    #[default]
    Waiting,
    WaitingWith(Vec<i32>),
    Started(i32),
    /// The process has ended; its number may be given to another.
    Ended(i32),
    /// It was never started.
    Never,
}

/// Values of the gate.
const OPEN: u32 = 0;
const PASSED: u32 = 1;
const CLOSED: u32 = 2;

impl Startup {
    /// It is not wanted any more. If it has not passed the gate, it never will be started.
    pub fn cancel(&self) {
        self.gate.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Whether it was cancelled, before or after it passed the gate.
    pub fn is_cancelled(&self) -> bool {
        self.gate.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Passes the gate; false when it was cancelled before. The last thing that is done before the
    /// source comes to life. Touches one word of memory: may be called between `vfork` and `execve`.
    pub fn wanted(&self) -> bool {
        self.gate.compare_exchange(OPEN, PASSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The process number, once it has been started.
    pub fn pid(&self) -> Option<i32> {
        match *self.stage() {
            Stage::Started(pid) | Stage::Ended(pid) => Some(pid),
            Stage::Waiting | Stage::WaitingWith(_) | Stage::Never => None,
        }
    }

    /// The process number while the process lives.
    pub fn living_pid(&self) -> Option<i32> {
        match *self.stage() {
            Stage::Started(pid) => Some(pid),
            _ => None,
        }
    }

    /// Whether there is somebody to send a signal to, or will be.
    pub fn can_be_signalled(&self) -> bool {
        matches!(*self.stage(), Stage::Waiting | Stage::WaitingWith(_) | Stage::Started(_))
    }

    /// Keeps a signal for the start. False when that has been.
    pub fn queue(&self, signal: i32) -> bool {
        let mut stage = self.stage();
        match &mut *stage {
            Stage::Waiting => *stage = Stage::WaitingWith(vec![signal]),
            Stage::WaitingWith(signals) => signals.push(signal),
            Stage::Started(_) | Stage::Ended(_) | Stage::Never => return false,
        }
        true
    }

    /// It is started. Returns the signals that waited for it.
    pub(crate) fn started(&self, pid: i32) -> Vec<i32> {
        match std::mem::replace(&mut *self.stage(), Stage::Started(pid)) {
            Stage::WaitingWith(signals) => signals,
            _ => Vec::new(),
        }
    }

    /// It has ended.
    pub(crate) fn ended(&self) {
        let mut stage = self.stage();
        *stage = match *stage {
            Stage::Started(pid) | Stage::Ended(pid) => Stage::Ended(pid),
            Stage::Waiting | Stage::WaitingWith(_) | Stage::Never => Stage::Never,
        };
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cancelled_before_the_gate_never_passes_it() {
        let startup = Startup::default();
        startup.cancel();
        assert!(!startup.wanted());
        let startup = Startup::default();
        assert!(startup.wanted() && !startup.is_cancelled());
        startup.cancel();
        assert!(startup.is_cancelled());
    }

    #[test]
    fn signals_wait_for_the_start() {
        let startup = Startup::default();
        assert!(startup.queue(2) && startup.queue(10) && startup.can_be_signalled());
        assert_eq!((startup.started(7), startup.pid()), (vec![2, 10], Some(7)));
        assert!(!startup.queue(2));
        startup.ended();
        assert_eq!((startup.pid(), startup.living_pid()), (Some(7), None));
        assert!(!startup.can_be_signalled());
    }

    #[test]
    fn nothing_waits_for_what_never_starts() {
        let startup = Startup::default();
        startup.ended();
        assert!(!startup.queue(2) && !startup.can_be_signalled());
        assert_eq!(startup.pid(), None);
    }
}
