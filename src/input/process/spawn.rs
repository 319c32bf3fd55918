//! Starting the agent without stopping anybody: on threads of its own, and without copying page tables.
//!
//! `fork` of a server with a gigabyte resident takes tens of milliseconds and holds its memory map
//! all the while. On Linux the child is made as glibc's `posix_spawn` makes it, sharing the memory
//! until it has become the agent (`CLONE_VM | CLONE_VFORK`), with two things that `posix_spawn`
//! cannot do: the parent-death signal, so that an agent does not outlive a server that is killed; and
//! a last look, just before `execve`, whether the agent is still wanted.
//! The parent-death signal is sent when the *thread* ends that made the child; these threads never end.
//! Other systems take the standard library's way.
//!
//! Linux lets a thread that is woken preempt the one that woke it, which here would be the event loop:
//! the threads are in the class `SCHED_BATCH`, whose threads never do, and the agent goes back to the
//! usual class.
//!
//! Agents are started one at a time, but a start may hang: its working directory or its program may be
//! on a file system that does not answer. Then the next thread takes over, and the one that hangs is left
//! to it; there is a most for these threads, after which starts fail.

#[cfg(linux)]
mod linux;

use super::{
    family::{Family, Record},
    leader::Leader,
    table::MARK,
};
use crate::{command::AgentCommand, input::Startup, panics};
use rustix::process::Pid;
use std::{
    collections::{VecDeque, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
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

/// Agents are started one after the other. A start that takes longer than this is held up, by a file
/// system that does not answer for example; the others then go on without it.
const HELD_UP: Duration = Duration::from_millis(200);
/// When all threads have been held up for so long, what waits for one is not started.
const STUCK: Duration = Duration::from_secs(10);
/// So many starts can be held up at a time.
pub(super) const THREADS: usize = 16;

/// The threads that start agents: one that does, and one that stands by for when it is held up.
pub struct Spawner {
    state: Mutex<State>,
    /// Something for a thread that is idle.
    more: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    /// When each start that is under way began, with a number.
    began: Vec<(u64, Instant)>,
    last_number: u64,
    threads: usize,
    idle: usize,
    /// An idle thread looks whether the start that is under way gets held up.
    is_watched: bool,
}

/// What a thread does next.
enum Next {
    Start(u64, Job),
    /// Another thread is at it, and may be held up from then on.
    Watch(Instant),
    Rest,
}

static SPAWNER: Spawner = Spawner::new();

/// The threads that start agents, started if they were not. To be called on a thread of the usual
/// priority, which they and the agents inherit.
///
/// # Errors
/// When there is no thread and the system refuses one; the next call tries again.
pub fn spawner() -> io::Result<&'static Spawner> {
    SPAWNER.with_thread()
}

impl State {
    /// When the start that is under way will be held up; none while there is no such start.
    fn held_up_at(&self, now: Instant) -> Option<Instant> {
        let newest = self.began.iter().map(|(_, began)| *began).max();
        newest.map(|began| began + HELD_UP).filter(|at| *at > now)
    }

    fn next(&mut self, now: Instant) -> Next {
        match self.held_up_at(now) {
            Some(at) if !self.waiting.is_empty() && !self.is_watched => Next::Watch(at),
            Some(_) => Next::Rest,
            None => self.waiting.pop_front().map_or(Next::Rest, |job| {
                self.last_number += 1;
                self.began.push((self.last_number, now));
                Next::Start(self.last_number, job)
            }),
        }
    }
}

impl Spawner {
    const fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            began: Vec::new(),
            last_number: 0,
            threads: 0,
            idle: 0,
            is_watched: false,
        };
        Self { state: Mutex::new(state), more: Condvar::new() }
    }

    #[cfg(test)]
    pub(super) fn with_own_threads() -> &'static Self {
        // Its threads never end.
        Box::leak(Box::new(Self::new())).with_thread().expect("there are threads")
    }

    fn with_thread(&'static self) -> io::Result<&'static Self> {
        let mut state = self.lock();
        if state.threads == 0 {
            self.start_thread(&mut state)?;
        }
        Ok(self)
    }

    fn add(&'static self, job: Job) {
        let mut state = self.lock();
        state.waiting.push_back(job);
        self.have_standby(&mut state);
        if !state.is_watched || state.held_up_at(Instant::now()).is_none() {
            self.more.notify_one();
        }
    }

    /// Where all threads are at work, has another: it takes over should they be held up. Where the
    /// system refuses it, the next start tries again.
    fn have_standby(&'static self, state: &mut State) {
        if state.began.len() == state.threads && state.threads < THREADS {
            let _ = self.start_thread(state);
        }
    }

    fn start_thread(&'static self, state: &mut State) -> io::Result<()> {
        thread::Builder::new().name("active-runs-spawn".into()).spawn(|| self.work())?;
        state.threads += 1;
        Ok(())
    }

    /// Never ends: agents die with the thread that has started them.
    fn work(&'static self) {
        #[cfg(linux)]
        linux::never_preempt();
        let mut state = self.lock();
        loop {
            match state.next(Instant::now()) {
                Next::Start(number, job) => {
                    self.have_standby(&mut state);
                    if !state.waiting.is_empty() && !state.is_watched {
                        self.more.notify_one();
                    }
                    drop(state);
                    // Whoever waits for the agent learns that it was dropped.
                    let _ = panics::caught("the thread that starts agents", job);
                    // Of hundreds that are started at once each gets going before the next: in a
                    // crowd of them the event loop would wait its turn for tens of milliseconds.
                    thread::yield_now();
                    state = self.lock();
                    state.began.retain(|(under_way, _)| *under_way != number);
                }
                Next::Watch(until) => {
                    state.is_watched = true;
                    state.idle += 1;
                    let time = until.saturating_duration_since(Instant::now());
                    let woken = self.more.wait_timeout(state, time);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                    state.idle -= 1;
                    state.is_watched = false;
                }
                Next::Rest => {
                    state.idle += 1;
                    state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }

    /// How many starts are held up, when that is why no other can be begun and will not be soon.
    pub fn stuck(&self) -> Option<usize> {
        let state = self.lock();
        let is_stuck = !state.waiting.is_empty()
            && state.began.len() == state.threads
            && state.began.iter().all(|(_, began)| began.elapsed() > STUCK);
        is_stuck.then_some(state.threads)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the agent in a process group of its own, stdin closed, stdout and stderr as pipes, with
    /// `mark` in its environment. Returns at once; `prepare` and `done` are called on a thread that starts
    /// agents. What `prepare` returns beside the command is kept as long as somebody may have to be
    /// stopped. Signals that wait in `startup` are delivered before `done` is called.
    pub fn spawn(
        &'static self,
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
        self.add(job);
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
