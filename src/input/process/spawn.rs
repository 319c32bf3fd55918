//! Starting the agent without stopping anybody: on one thread of its own, and without copying page
//! tables.
//!
//! `fork` of a server with a gigabyte resident takes tens of milliseconds and holds its memory map
//! all the while. On Linux the child is made as glibc's `posix_spawn` makes it, sharing the memory
//! until it has become the agent (`CLONE_VM | CLONE_VFORK`), with two things that `posix_spawn`
//! cannot do: the parent-death signal, so that an agent does not outlive a server that is killed; and
//! a last look, just before `execve`, whether the agent is still wanted.
//! The parent-death signal is sent when the *thread* ends that made the child; this thread never ends.
//! Other systems take the standard library's way.
//!
//! Linux lets a thread that is woken preempt the one that woke it, which here would be the event loop:
//! the thread is in the class `SCHED_BATCH`, whose threads never do, and the agent goes back to the
//! usual class.

#[cfg(linux)]
mod linux;

use super::{
    family::{Family, Record},
    leader::Leader,
    table::MARK,
};
use crate::{command::AgentCommand, input::Startup};
use once_cell::sync::OnceCell;
use rustix::process::Pid;
use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

/// The agent, and the near ends of its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// Its process, which leads a group of its own.
    pub family: Arc<Family>,
    /// Near end of its stdout.
    pub stdout: OwnedFd,
    /// Near end of its stderr.
    pub stderr: OwnedFd,
}

/// Why there is no agent.
#[derive(Debug)]
pub enum NotSpawned {
    /// It was cancelled before it was the agent.
    Cancelled,
    /// The system refused.
    Failed(SpawnError),
}

/// The agent could not be started. Reads like Node's own error: `spawn COMMAND CODE`.
#[derive(Debug)]
pub struct SpawnError {
    command: String,
    cause: io::Error,
}

/// What the child reports in the place of an error number when it is not wanted any more.
const NOT_WANTED: i32 = -1;

/// A child that has become the agent.
struct Child {
    pid: Pid,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl SpawnError {
    fn new(command: &AgentCommand, cause: io::Error) -> Self {
        Self { command: command.program.to_string_lossy().into_owned(), cause }
    }

    /// The negative error number, which Node gives as the exit code of a child that never ran.
    pub fn exit_code(&self) -> i32 {
        self.cause.raw_os_error().map_or(-1, |number| -number)
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spawn {} ", self.command)?;
        match self.cause.raw_os_error().map(|number| (number, error_name(number))) {
            Some((_, Some(name))) => f.write_str(name),
            Some((number, None)) => write!(f, "Unknown system error {}", -number),
            None => write!(f, "{}", self.cause),
        }
    }
}

impl std::error::Error for SpawnError {}

fn error_name(number: i32) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => {
            match number { $(libc::$name => Some(stringify!($name)),)* _ => None }
        };
    }
    names!(E2BIG EACCES EAGAIN EINVAL EIO EISDIR ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV
        ENOENT ENOMEM ENOSPC ENOTDIR EPERM ETXTBSY)
}

/// How many agents at a time have a stdout with room for so many bytes; the others have the usual
/// 64 KiB. The socket pairs that Node.js gives its children hold 208 KiB of one long record, and less
/// of many short ones. A user without privileges has 64 MiB for the pipes of all programs together
/// (`pipe-user-pages-soft`); beyond it, every new one has room for 8 KiB only.
#[cfg(linux)]
const STDOUT_BYTES: [(usize, usize); 2] = [(16, 1 << 20), (100, 256 << 10)];

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts agents.
pub struct Spawner(Mutex<Sender<Job>>);

static SPAWNER: OnceCell<Spawner> = OnceCell::new();

/// The thread that starts agents, started if it was not. To be called on a thread of the usual
/// priority, which it and the agents inherit.
///
/// # Errors
/// When the system refuses the thread; the next call tries again.
pub fn spawner() -> io::Result<&'static Spawner> {
    SPAWNER.get_or_try_init(|| {
        let (sender, jobs) = channel::<Job>();
        let thread = thread::Builder::new().name("active-runs-spawn".into());
        thread.spawn(move || {
            #[cfg(linux)]
            linux::never_preempt();
            for job in jobs {
                // Agents die with this thread.
                let _ = catch_unwind(AssertUnwindSafe(job));
                // Of hundreds that are started at once each gets going before the next: in a crowd
                // of them the event loop would wait its turn for tens of milliseconds.
                thread::yield_now();
            }
        })?;
        Ok(Spawner(Mutex::new(sender)))
    })
}

impl Spawner {
    /// Starts the agent in a process group of its own, stdin closed, stdout and stderr as pipes, with
    /// `mark` in its environment. Returns at once; `prepare` and `done` are called on the thread. What
    /// `prepare` returns beside the command is kept as long as somebody may have to be stopped. Signals that wait in `startup` are delivered before `done` is called.
    pub fn spawn(
        &self,
        prepare: impl FnOnce() -> (AgentCommand, Option<Record>) + Send + 'static,
        mark: Box<str>,
        startup: Arc<Startup>,
        done: impl FnOnce(Result<Spawned, NotSpawned>) + Send + 'static,
    ) {
        let job = Box::new(move || {
            let spawned = if startup.is_cancelled() {
                Err(NotSpawned::Cancelled)
            } else {
                let (command, record) = prepare();
                start(command, mark, record, &startup)
            };
            if spawned.is_err() {
                startup.ended();
            }
            done(spawned);
        });
        // The thread never ends, so there is always somebody to take it.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    }
}

fn start(
    mut command: AgentCommand,
    mark: Box<str>,
    record: Option<Record>,
    startup: &Startup,
) -> Result<Spawned, NotSpawned> {
    add_mark(&mut command, &mark);
    let Child { pid, stdout, stderr } =
        spawn_here(&command, startup).map_err(|cause| match cause.raw_os_error() {
            Some(NOT_WANTED) => NotSpawned::Cancelled,
            _ => NotSpawned::Failed(SpawnError::new(&command, cause)),
        })?;
    let family = Family::new(Leader::new(pid), mark, record);
    for signal in startup.started(family.leader.pid()) {
        family.signal(signal);
    }
    if startup.is_cancelled() {
        family.ask_leader();
    }
    Ok(Spawned { family: Arc::new(family), stdout, stderr })
}

/// A value by which a run's processes are known: that of `MARK`.
pub fn new_mark() -> Box<str> {
    // Hashers with keys of their own, the first of which the system gave at random.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random()).into()
}

/// Puts the run's mark into the environment; behind the one that is there, where this server was
/// itself started by an agent.
fn add_mark(command: &mut AgentCommand, mark: &str) {
    let outer = command.env.iter().position(|(name, _)| name == MARK);
    let outer = outer.map(|at| command.env.remove(at).1).filter(|value| !value.is_empty());
    command.env.retain(|(name, _)| name != MARK);
    let mut value = outer.unwrap_or_default();
    if !value.is_empty() {
        value.push(".");
    }
    value.push(mark);
    command.env.push((MARK.into(), value));
}

#[cfg(linux)]
fn spawn_here(command: &AgentCommand, startup: &Startup) -> io::Result<Child> {
    use rustix::{
        fs::{Mode, OFlags},
        pipe::{PipeFlags, pipe_with},
    };
    let (stdout, agent_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, agent_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // More than the usual room, for an agent that prints a lot and ends without waiting until it is
    // read. Where the system refuses, it is the usual room.
    let agents = super::leader::unreaped_leaders();
    if let Some((_, bytes)) = STDOUT_BYTES.iter().find(|(most, _)| agents < *most) {
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, *bytes);
    }
    let pid = linux::start(command, [null, agent_stdout, agent_stderr], startup)?;
    Ok(Child { pid, stdout, stderr })
}

#[cfg(not(linux))]
fn spawn_here(command: &AgentCommand, startup: &Startup) -> io::Result<Child> {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };
    // The nearest that there is to a look before `execve`.
    if !startup.wanted() {
        return Err(io::Error::from_raw_os_error(NOT_WANTED));
    }
    let mut child = Command::new(&command.program)
        .args(&command.args)
        .current_dir(&command.cwd)
        .env_clear()
        .envs(command.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match (pid, child.stdout.take(), child.stderr.take()) {
        (Some(pid), Some(stdout), Some(stderr)) => {
            Ok(Child { pid, stdout: stdout.into(), stderr: stderr.into() })
        }
        _ => Err(io::Error::other("the child came without a pid or pipes")),
    }
}
