//! The agent's own process: how it is signalled, and how its end is learnt.
//!
//! It leads a process group of its own, so that a signal reaches its children too. A number is never
//! signalled that the system may have given to somebody else: the process is reaped under the lock
//! that signalling takes, and its group is signalled only while the process, be it as a zombie, still
//! holds the group's number.

use crate::input::Exit;
use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpgid, kill_process, kill_process_group,
        waitid, waitpid,
    },
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
#[cfg(linux)]
use std::{os::fd::OwnedFd, sync::Arc};

/// The process that was started.
#[derive(Debug)]
pub struct Leader {
    pid: Pid,
    /// Refers to this very process, whatever becomes of its number. None where the system has no such
    /// thing.
    #[cfg(linux)]
    pidfd: Option<Arc<OwnedFd>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How it ended, once that is known.
    exit: Option<Exit>,
    is_reaped: bool,
    /// It is not to be reaped yet: see [`Leader::keep`].
    is_kept: bool,
}

/// Tells when a process has ended, where the system can.
#[derive(Debug)]
pub struct EndWatch {
    #[cfg(linux)]
    ended: Option<tokio::io::unix::AsyncFd<Arc<OwnedFd>>>,
}

/// The numbers of the leaders that have not been reaped.
static UNREAPED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn unreaped() -> MutexGuard<'static, BTreeSet<i32>> {
    UNREAPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many leaders have not been reaped.
#[cfg(linux)]
pub fn unreaped_leaders() -> usize {
    unreaped().len()
}

/// Whether a leader that is still to be reaped has this number.
pub fn is_leader(pid: i32) -> bool {
    unreaped().contains(&pid)
}

impl Leader {
    /// Takes charge of a child of this process that leads a group and has not been reaped.
    pub fn new(pid: Pid) -> Self {
        unreaped().insert(pid.as_raw_nonzero().get());
        Self {
            pid,
            #[cfg(linux)]
            pidfd: {
                use rustix::process::{PidfdFlags, pidfd_open};
                pidfd_open(pid, PidfdFlags::NONBLOCK).ok().map(Arc::new)
            },
            state: Mutex::default(),
        }
    }

    /// Its process id, which is its group's too.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether the process has been reaped, so that its number may be another's by now.
    pub fn is_reaped(&self) -> bool {
        self.state().is_reaped
    }

    /// Sends a signal to the process and to its group, once to each member. False, and nothing
    /// happens, when the process has been reaped.
    pub fn signal(&self, signal: Signal) -> bool {
        let mut state = self.state();
        if !self.is_there(&mut state) {
            return false;
        }
        if getpgid(Some(self.pid)) != Ok(self.pid) {
            // It has left its group: the signal to that does not reach it.
            self.send(signal);
        }
        // Refused where no member may be signalled (another user's), or none is left.
        let _ = kill_process_group(self.pid, signal);
        true
    }

    /// Sends a signal to the process and not to its group. Nothing happens when the process has been
    /// reaped.
    pub fn signal_alone(&self, signal: Signal) {
        let mut state = self.state();
        if self.is_there(&mut state) {
            self.send(signal);
        }
    }

    /// Whether the process, be it as a zombie, holds its number.
    fn is_there(&self, state: &mut State) -> bool {
        if !state.is_reaped && self.peek() == Err(Errno::CHILD) {
            // Somebody else has reaped it, or the system has, because SIGCHLD is ignored.
            self.reaped(state, Exit::Unknown);
        }
        !state.is_reaped
    }

    /// How it ended, if it has, without reaping it.
    fn peek(&self) -> Result<Option<Exit>, Errno> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.pid), options)?;
        Ok(status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Exit::Code(code)),
            (None, Some(signal)) => Some(Exit::Signal(signal)),
            (None, None) => None,
        }))
    }

    /// To be called while the process is there.
    fn send(&self, signal: Signal) {
        #[cfg(linux)]
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, signal);
            return;
        }
        let _ = kill_process(self.pid, signal);
    }

    /// What [`Leader::wait`] waits with. Needs the runtime's context.
    pub fn watch(&self) -> EndWatch {
        EndWatch {
            #[cfg(linux)]
            ended: self.pidfd.as_ref().and_then(|pidfd| {
                use tokio::io::{Interest, unix::AsyncFd};
                let pidfd = Arc::clone(pidfd);
                // SAFETY: the descriptor is owned by the `AsyncFd`, which neither closes nor
                // replaces it.
                unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.ok()
            }),
        }
    }

    /// Waits until the process has ended. May be dropped and called again.
    pub async fn wait(&self, #[cfg_attr(not(linux), expect(unused))] watch: &EndWatch) -> Exit {
        #[cfg(linux)]
        if let Some(ended) = &watch.ended {
            loop {
                let ready = ended.readable().await;
                if let Some(exit) = self.exit() {
                    return exit;
                }
                match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime ends.
                    Err(_) => break,
                }
            }
        }
        // Elsewhere: SIGCHLD belongs to Node, and a thread for each agent costs more than a look
        // every few milliseconds.
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(exit) = self.exit() {
                return exit;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Has it not reaped when it ends: its number stays its own, and its group's.
    pub fn keep(&self) {
        self.state().is_kept = true;
    }

    /// Takes [`Leader::keep`] back.
    pub fn release(&self) {
        self.state().is_kept = false;
        self.exit();
    }

    /// How it ended, if it has; reaps it then, unless it is kept.
    pub fn exit(&self) -> Option<Exit> {
        let mut state = self.state();
        if state.is_reaped {
            return state.exit;
        }
        match self.peek() {
            Ok(None) | Err(Errno::INTR) => {}
            Ok(exit) if state.is_kept => state.exit = exit,
            Ok(Some(exit)) => {
                // Its end is known; there is nothing to wait for.
                let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
                self.reaped(&mut state, exit);
            }
            // Another library of this process has reaped it.
            Err(_) => self.reaped(&mut state, Exit::Unknown),
        }
        state.exit
    }

    fn reaped(&self, state: &mut State, exit: Exit) {
        // What was seen before somebody else reaped it is better than nothing.
        state.exit = state.exit.or(Some(exit));
        state.is_reaped = true;
        unreaped().remove(&self.pid());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
