//! A started agent: its process group, its pipes and its end.
//!
//! The agent leads a group of its own, so that a signal reaches its children too. A signal is never
//! sent to a number that the system may have given to somebody else: the leader is reaped under the
//! lock that signalling takes, and a group without members is remembered as gone.

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpid,
};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code; none after a signal.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// The leader has not been reaped.
    Led,
    /// The leader is gone; children of it are left.
    Leaderless,
    /// Nobody is left: the number may belong to somebody else by now.
    Gone,
}

/// An agent's process and the group that it leads.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    group: Mutex<Group>,
}

impl Process {
    /// Takes charge of a child of this process that leads a group.
    pub fn new(pid: Pid) -> Self {
        Self { pid, group: Mutex::new(Group::Led) }
    }

    /// The process id of the agent.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends `signal` to the whole group; 0 only asks whether anybody is there. False when nobody
    /// is, or when the signal does not exist.
    pub fn signal_group(&self, signal: i32) -> bool {
        let mut group = self.group();
        if *group == Group::Gone {
            return false;
        }
        let sent = match signal {
            0 => test_kill_process_group(self.pid),
            _ => match Signal::from_named_raw(signal) {
                Some(signal) => kill_process_group(self.pid, signal),
                None => return false,
            },
        };
        if sent == Err(rustix::io::Errno::SRCH) {
            *group = Group::Gone;
        }
        sent.is_ok()
    }

    /// As [`Process::signal_group`], while the agent itself has not ended.
    pub fn signal(&self, signal: i32) -> bool {
        let is_led = *self.group() == Group::Led;
        is_led && self.signal_group(signal)
    }

    /// Waits for the agent's end and reaps it. To be called until it has answered, then no more.
    /// Needs the runtime's context.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        // Open no longer than this takes: whoever looks at a run that is over keeps `self`.
        #[cfg(linux)]
        if let Some(pidfd) = watch_end(self.pid) {
            loop {
                let mut ready = pidfd.readable().await?;
                if let Some(status) = self.try_reap()? {
                    return Ok(status);
                }
                ready.clear_ready();
            }
        }
        // Elsewhere: SIGCHLD belongs to Node, and a thread for each agent costs more than a look
        // every few milliseconds.
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(status) = self.try_reap()? {
                return Ok(status);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn try_reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut group = self.group();
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::NOHANG)? else {
            return Ok(None);
        };
        let is_left = test_kill_process_group(self.pid).is_ok();
        *group = if is_left { Group::Leaderless } else { Group::Gone };
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(ExitStatus::Code(code)),
            (None, Some(signal)) => Some(ExitStatus::Signal(signal)),
            (None, None) => None,
        })
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readable when the process has ended. None where the system has no such thing.
#[cfg(linux)]
fn watch_end(pid: Pid) -> Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use rustix::process::{PidfdFlags, pidfd_open};
    use tokio::io::{Interest, unix::AsyncFd};
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    // SAFETY: the descriptor is owned by the `AsyncFd`, which neither closes nor replaces it.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.ok()
}
