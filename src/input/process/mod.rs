//! An agent program as an input: its pipes, its end, and how it is stopped.
//!
//! Signals go through the input, which one task owns; only those that wait for the start are sent by
//! the thread that starts. To stop an agent with its descendants takes longer than its run may: it is
//! a task of its own (`family`), which the input begins once. Both pipes are read all the time.
//! Knows nothing of lines, events or the disk.

mod family;
mod leader;
mod orphans;
mod relay;
mod spawn;
mod stderr;
mod table;
#[cfg(test)]
mod tests;

pub use family::{Record, hurry, listed, remaining, until_gone, wait_until_gone};
pub use orphans::{end_marked, reap_orphans};
pub use spawn::{NotSpawned, SpawnError, Spawned, Spawner, new_mark, spawner};
pub use stderr::StderrTail;

use super::{End, Exit, Input, Ready, Startup};
use family::Family;
use leader::EndWatch;
use relay::Relay;
use rustix::io::ioctl_fionread;
use std::{cell::RefCell, io, os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio::{
    net::unix::pipe,
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep_until},
};

/// After SIGKILL, how long the agent's end is waited for. What the system does not end by then, it may
/// never end, and the run must.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// The same when the server ends.
const HURRIED_AFTER_KILL: Duration = Duration::from_millis(500);
/// How long the pipes of an agent are still read after its end when the server ends.
const HURRIED_PIPES: Duration = Duration::from_millis(100);
/// The most that is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The threads that agents need, from their start to their end; started if they were not. To be called
/// as [`spawner`].
///
/// # Errors
/// When the system refuses them; the next call tries again.
pub fn ready() -> io::Result<&'static Spawner> {
    table::start_looker()?;
    spawner()
}

/// Ends an agent that nobody will read: its run was over before it was started.
pub async fn abandon(spawned: Spawned) {
    spawned.family.stop_at_once().await;
}

/// How long things may take, and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the pipes are read after the agent's end when somebody else holds them open.
    pub pipe_grace: Duration,
    /// What is kept of the beginning, and again of the end, of stderr, in bytes.
    pub max_stderr_bytes: usize,
}

/// A started agent.
#[derive(Debug)]
pub struct ProcessInput {
    family: Arc<Family>,
    ended: EndWatch,
    startup: Arc<Startup>,
    stdout: Pipe,
    stderr: Pipe,
    tail: StderrTail,
    relay: Relay,
    exit: Option<Exit>,
    pipe_grace: Duration,
    after_kill: Duration,
    /// Set when the agent has ended: the pipes are read no longer than this.
    pipes_until: Option<Instant>,
    /// Set when it was told to stop.
    kill_at: Option<watch::Sender<Instant>>,
}

/// The near end of a pipe.
#[derive(Debug)]
struct Pipe {
    /// None at its end.
    receiver: Option<pipe::Receiver>,
    /// Set when nothing more is read than was in it at a time: how much of that is unread.
    unread: Option<usize>,
}

impl ProcessInput {
    /// Takes charge of an agent. Needs the runtime's context.
    ///
    /// # Errors
    /// When its pipes cannot be watched. It is killed then.
    pub fn new(spawned: Spawned, startup: Arc<Startup>, limits: Limits) -> io::Result<Self> {
        let Spawned { family, stdout, stderr } = spawned;
        let pipes = Pipe::new(stdout).and_then(|stdout| Ok((stdout, Pipe::new(stderr)?)));
        let (stdout, stderr) = pipes.inspect_err(|_| {
            tokio::spawn(family.stop_at_once());
            startup.ended();
        })?;
        Ok(Self {
            ended: family.leader.watch(),
            family,
            startup,
            stdout,
            stderr,
            tail: StderrTail::new(limits.max_stderr_bytes),
            relay: Relay::default(),
            exit: None,
            pipe_grace: limits.pipe_grace,
            after_kill: AFTER_KILL,
            pipes_until: None,
            kill_at: None,
        })
    }

    fn exited(&mut self, exit: Exit) {
        self.startup.ended();
        self.exit = Some(exit);
        self.pipes_until = Some(Instant::now() + self.pipe_grace);
    }

    /// Nothing but what is in the pipes now will be read of them.
    fn close_pipes(&mut self) {
        self.pipes_until = None;
        self.stdout.limit();
        self.stderr.limit();
        while self.stderr.is_open() {
            self.read_stderr();
        }
    }

    fn read_stderr(&mut self) {
        let Self { stderr, tail, relay, .. } = self;
        stderr.read(&mut |bytes| {
            tail.push(bytes);
            relay.push(bytes);
        });
    }

    /// When the agent should be gone: some time after SIGKILL was sent, or should have been.
    fn gone_by(&self) -> Option<Instant> {
        let kill_at = *self.kill_at.as_ref()?.borrow();
        Some(self.family.killed_at().unwrap_or(kill_at) + self.after_kill)
    }

    /// The agent should be gone.
    fn give_up(&mut self) {
        if let Some(exit) = self.family.leader.exit() {
            self.exited(exit);
        } else if self.family.killed_at().is_none() {
            // Whoever was to do it is held up.
            self.family.kill_leader();
        } else if self.gone_by().is_none_or(|at| at <= Instant::now()) {
            // Not, where SIGKILL was sent while this waited: then its time has just begun.
            self.exited(Exit::Unknown);
            self.close_pipes();
        }
    }
}

impl Drop for ProcessInput {
    /// Whose run has come to its end has an end, too. Otherwise its task has panicked, and nobody will
    /// stop the agent.
    fn drop(&mut self) {
        if self.exit.is_none()
            && self.kill_at.is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(self.family.stop_at_once());
        }
    }
}

impl Input for ProcessInput {
    async fn ready(&mut self) -> Ready {
        loop {
            if self.stdout.has_unread() {
                return Ready::Bytes;
            }
            let is_read = !self.stdout.is_open() && !self.stderr.is_open();
            if let Some(exit) = self.exit.filter(|_| is_read) {
                self.relay.end();
                return Ready::Ended(End { exit, explanation: self.tail.text() });
            }
            let has_exited = self.exit.is_some();
            let gone_by = self.gone_by();
            tokio::select! {
                () = self.stdout.readable() => return Ready::Bytes,
                () = readable(&self.stderr, &mut self.relay) => self.read_stderr(),
                exit = self.family.leader.wait(&self.ended), if !has_exited => self.exited(exit),
                () = until(self.pipes_until) => self.close_pipes(),
                () = until(gone_by), if !has_exited => self.give_up(),
            }
        }
    }

    fn read(&mut self, take: &mut dyn FnMut(&[u8])) {
        self.stdout.read(take);
    }

    fn stop(&mut self, kill_after: Duration) {
        let at = Instant::now() + kill_after;
        match &self.kill_at {
            Some(kill_at) => drop(kill_at.send_if_modified(|known| {
                let is_sooner = at < *known;
                *known = at.min(*known);
                is_sooner
            })),
            None => {
                let (sender, receiver) = watch::channel(at);
                self.kill_at = Some(sender);
                self.family.ask_childless_leader();
                tokio::spawn(self.family.stop(receiver));
            }
        }
    }

    fn signal(&mut self, signal: i32) {
        self.family.signal(signal);
    }

    fn hurry(&mut self) {
        self.after_kill = HURRIED_AFTER_KILL;
        self.pipe_grace = self.pipe_grace.min(HURRIED_PIPES);
        self.pipes_until = self.pipes_until.map(|until| until.min(Instant::now() + HURRIED_PIPES));
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until there is something on stderr, and room for it where it goes.
async fn readable(stderr: &Pipe, relay: &mut Relay) {
    stderr.readable().await;
    relay.room().await;
}

impl Pipe {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { receiver: Some(pipe::Receiver::from_owned_fd(fd)?), unread: None })
    }

    fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    fn has_unread(&self) -> bool {
        self.is_open() && self.unread.is_some()
    }

    /// Waits until there is something to read, or the end; for ever, when it is closed.
    async fn readable(&self) {
        match &self.receiver {
            // An error shows when it is read.
            Some(receiver) => drop(receiver.readable().await),
            None => std::future::pending().await,
        }
    }

    /// Has no more read than is in it now. It cannot be closed at once: what the agent has printed is
    /// read, however late this process is.
    fn limit(&mut self) {
        if let Some(receiver) = &self.receiver {
            self.unread =
                ioctl_fionread(receiver).ok().and_then(|bytes| usize::try_from(bytes).ok());
            if self.unread.is_none_or(|unread| unread == 0) {
                self.receiver = None;
            }
        }
    }

    /// Reads what is there, once, and knows when it was the last.
    fn read(&mut self, take: &mut dyn FnMut(&[u8])) {
        let Some(receiver) = &self.receiver else { return };
        let is_open = READ_BUFFER.with_borrow_mut(|buffer| {
            let read = match self.unread {
                None => receiver.try_read(buffer),
                // Not as tokio reads: it may not have learnt yet that there is something.
                Some(unread) => {
                    let most = unread.min(buffer.len());
                    rustix::io::read(receiver, &mut buffer[..most]).map_err(io::Error::from)
                }
            };
            match read {
                Ok(0) => false,
                Ok(length) => {
                    take(&buffer[..length]);
                    self.unread = self.unread.map(|unread| unread - length);
                    self.unread != Some(0)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock && self.unread.is_none(),
            }
        });
        if !is_open {
            self.receiver = None;
        }
    }
}

thread_local! {
    /// Runs read one after the other on a thread, so that an idle run holds no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}
