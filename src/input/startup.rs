//! The beginning of an input, as those see it who do not own it.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI32, AtomicU32, Ordering},
};

/// The beginning of an input, as those see it who do not own it: whether it is still wanted, the
/// signals that wait for it, and, of a process, its number.
#[derive(Debug, Default)]
pub struct Startup {
    /// What the one who starts it reads last: see [`Startup::wanted`].
    gate: AtomicU32,
    /// The child that is about to become the process, where it is known.
    child: AtomicI32,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// Not started yet; with the signals that wait for it.
    Waiting(Vec<i32>),
    Started(i32),
    /// The process has ended; its number may be given to another.
    Ended(i32),
    /// It was never started.
    Never,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Waiting(Vec::new())
    }
}

/// Bits of the gate.
const PASSED: u32 = 1;
const CLOSED: u32 = 2;

impl Startup {
    /// It is not wanted any more. True when it has not passed the gate: then it never will.
    pub fn cancel(&self) -> bool {
        self.gate.fetch_or(CLOSED, Ordering::SeqCst) & PASSED == 0
    }

    /// Whether it was cancelled, before or after it passed the gate.
    pub fn is_cancelled(&self) -> bool {
        self.gate.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Passes the gate; false when it was cancelled before. The last thing that is done before the
    /// source comes to life. Touches one word of memory: may be called between `vfork` and `execve`.
    pub fn wanted(&self) -> bool {
        self.gate.compare_exchange(0, PASSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Where the system notes the number of the child that is to become the process.
    #[cfg(linux)]
    pub(crate) fn child(&self) -> &AtomicI32 {
        &self.child
    }

    /// The child has ended, and is about to be reaped.
    #[cfg(linux)]
    pub(crate) fn forget_child(&self) {
        let _stage = self.stage();
        self.child.store(0, Ordering::SeqCst);
    }

    /// Kills the child that was to become the process and hangs on its way. Returns whether there is
    /// such a child.
    pub fn kill_child(&self) -> bool {
        let stage = self.stage();
        let child = Pid::from_raw(self.child.load(Ordering::SeqCst));
        // Not reaped while it is waited for, and nothing but that is done here.
        matches!(*stage, Stage::Waiting(_))
            && child.is_some_and(|child| kill_process(child, Signal::KILL).is_ok())
    }

    /// The process number, once it has been started.
    pub fn pid(&self) -> Option<i32> {
        match *self.stage() {
            Stage::Started(pid) | Stage::Ended(pid) => Some(pid),
            Stage::Waiting(_) | Stage::Never => None,
        }
    }

    /// The process number while the process lives.
    pub fn living_pid(&self) -> Option<i32> {
        match *self.stage() {
            Stage::Started(pid) => Some(pid),
            _ => None,
        }
    }

    /// Whether it has ended, or never will be.
    pub fn has_ended(&self) -> bool {
        matches!(*self.stage(), Stage::Ended(_) | Stage::Never)
    }

    /// Whether there is somebody to send a signal to, or will be.
    pub fn can_be_signalled(&self) -> bool {
        match *self.stage() {
            Stage::Waiting(_) => !self.is_cancelled(),
            Stage::Started(_) => true,
            Stage::Ended(_) | Stage::Never => false,
        }
    }

    /// Keeps a signal for the start. False when that has been.
    pub fn queue(&self, signal: i32) -> bool {
        let mut stage = self.stage();
        match &mut *stage {
            Stage::Waiting(signals) => signals.push(signal),
            Stage::Started(_) | Stage::Ended(_) | Stage::Never => return false,
        }
        true
    }

    /// It is started. Returns the signals that waited for it.
    pub(crate) fn started(&self, pid: i32) -> Vec<i32> {
        match std::mem::replace(&mut *self.stage(), Stage::Started(pid)) {
            Stage::Waiting(signals) => signals,
            _ => Vec::new(),
        }
    }

    /// It has ended.
    pub(crate) fn ended(&self) {
        let mut stage = self.stage();
        *stage = match *stage {
            Stage::Started(pid) | Stage::Ended(pid) => Stage::Ended(pid),
            Stage::Waiting(_) | Stage::Never => Stage::Never,
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
        assert!(startup.can_be_signalled() && startup.cancel());
        assert!(!startup.wanted() && !startup.can_be_signalled());
        let startup = Startup::default();
        assert!(startup.wanted() && !startup.is_cancelled());
        assert!(!startup.cancel() && startup.is_cancelled());
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
