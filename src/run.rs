//! A run: one agent, from its start to the last look after its message.
//!
//! One task owns all that changes (pipes, translator, message, flushes) and publishes events into
//! the log; everybody else reads the log by cursor and may ask for the end. The lifecycle:
//!
//! ```text
//! running ── the agent has exited and its pipes are read, the final message is on the disk ──► over
//! ```
//!
//! The steps in between (starting, stopping, draining) are the task's own business: whoever looks
//! sees a running run until its outcome is set, and after that nothing of it changes.

use crate::{
    agent::{ExitStatus, Process, SpawnError, Spawned, StderrTail},
    clock,
    diagnostics::{self, Warning},
    event_log::{EventLog, NewEntries},
    frames::{FrameLog, Protocol},
    lines::{Line, LineSplitter},
    message::Message,
    persistence::{Persistence, Step},
    protocol::{EventSink, LineKind, Translator, UiEvent},
    session_id::SessionId,
    settings::Settings,
};
use std::{
    cell::RefCell,
    io,
    ops::AddAssign,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::unix::pipe,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

/// How a run ended, as the module names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether its status is `error` (else `completed`).
    pub is_error: bool,
    /// The agent's exit code; none when a signal ended it.
    pub exit_code: Option<i32>,
}

/// Somebody who wants to know when a run has news. Called without any lock held, from any thread;
/// must not block.
pub trait Watcher: Send + Sync {
    /// The run has new events, is over, or has left the registry.
    fn wake(&self, run: &Run);
}

/// A run, shared by its task and those who look at it.
pub struct Run {
    /// Tells the runs of this process apart.
    pub id: u32,
    /// The chat it answers in.
    pub session: SessionId,
    /// The id of the message it writes.
    pub message_id: String,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// The settings it was started with.
    pub settings: Arc<Settings>,
    published: Mutex<Published>,
    /// Made when first asked for: most runs are read in one protocol, or in none.
    module_frames: OnceLock<FrameLog>,
    ai_sdk_frames: OnceLock<FrameLog>,
    control: Control,
}

#[derive(Default)]
struct Published {
    log: EventLog,
    outcome: Option<Outcome>,
    has_left: bool,
    watchers: Vec<Weak<dyn Watcher>>,
    lines: LineCounts,
}

/// What became of the lines of an agent's stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Read as JSON and meant for this run.
    pub read: u64,
    /// Not JSON, or `null`.
    pub unreadable: u64,
    /// Meant for another session.
    pub other_session: u64,
    /// Longer than the limit.
    pub too_long: u64,
}

impl AddAssign for LineCounts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.unreadable += other.unreadable;
        self.other_session += other.other_session;
        self.too_long += other.too_long;
    }
}

/// What others ask of the task.
#[derive(Default)]
struct Control {
    child: Mutex<Child>,
    is_aborted: AtomicBool,
    /// The process is ending: no time for graces.
    hurry: Notify,
}

#[derive(Default)]
enum Child {
    /// Not started yet; signals wait for it.
    #[default]
    Starting,
    StartingWith(Vec<i32>),
    Started(Arc<Process>),
    /// It could not be started.
    Never,
}

/// How long an agent whose server ends may take to end by itself.
const HURRIED_KILL: Duration = Duration::from_millis(500);
/// How long the pipes of such an agent are still read after its end.
const HURRIED_PIPES: Duration = Duration::from_millis(100);

impl Run {
    pub(crate) fn new(
        id: u32,
        session: SessionId,
        started_at: u64,
        settings: Arc<Settings>,
    ) -> Self {
        let message_id = message_id(&session, started_at);
        Self {
            id,
            session,
            message_id,
            started_at,
            settings,
            published: Mutex::default(),
            module_frames: OnceLock::new(),
            ai_sdk_frames: OnceLock::new(),
            control: Control::default(),
        }
    }

    /// The outcome, once the run is over.
    pub fn outcome(&self) -> Option<Outcome> {
        self.published().outcome
    }

    /// Whether the run is running.
    pub fn is_running(&self) -> bool {
        self.outcome().is_none()
    }

    /// Whether the run is no longer to be found by its session.
    pub fn has_left(&self) -> bool {
        self.published().has_left
    }

    /// What became of the agent's lines so far.
    pub fn lines(&self) -> LineCounts {
        self.published().lines
    }

    /// Looks at the log, and at the outcome that belongs to this state of it. The log is locked
    /// meanwhile: to be short.
    pub fn look<R>(&self, look: impl FnOnce(&EventLog, Option<Outcome>) -> R) -> R {
        let published = self.published();
        look(&published.log, published.outcome)
    }

    /// The run's frames, shared by all who read it in this protocol.
    pub fn frames(&self, protocol: Protocol) -> &FrameLog {
        let frames = match protocol {
            Protocol::Module => &self.module_frames,
            Protocol::AiSdk => &self.ai_sdk_frames,
        };
        frames.get_or_init(|| FrameLog::new(protocol))
    }

    /// Has `watcher` woken by whatever is published from now on.
    pub fn watch(&self, watcher: &Arc<dyn Watcher>) {
        let watcher = Arc::downgrade(watcher);
        let mut published = self.published();
        published.watchers.retain(|known| known.strong_count() > 0);
        if !published.watchers.iter().any(|known| known.ptr_eq(&watcher)) {
            published.watchers.push(watcher);
        }
    }

    /// The agent's process id, once it has been started.
    pub fn pid(&self) -> Option<i32> {
        self.process().map(|process| process.pid())
    }

    /// The agent's process id while the agent itself has not ended.
    pub fn living_pid(&self) -> Option<i32> {
        self.process().filter(|process| process.signal(0)).map(|process| process.pid())
    }

    fn process(&self) -> Option<Arc<Process>> {
        match &*self.child() {
            Child::Started(process) => Some(Arc::clone(process)),
            _ => None,
        }
    }

    /// Sends a signal to the agent's group while the agent lives; before its start, the signal waits
    /// for it. False when there is nobody to send it to.
    pub fn signal(&self, signal: i32) -> bool {
        let mut child = self.child();
        match &mut *child {
            Child::Starting => *child = Child::StartingWith(vec![signal]),
            Child::StartingWith(signals) => signals.push(signal),
            Child::Started(process) => return process.signal(signal),
            Child::Never => return false,
        }
        true
    }

    /// Stops the agent and its children: SIGTERM now, SIGKILL after the time that is set. False when
    /// the run is over.
    pub fn abort(self: &Arc<Self>) -> bool {
        if !self.is_running() {
            return false;
        }
        self.end_group(self.settings.kill_after);
        true
    }

    /// Ends the run as fast as may be, because its server ends.
    pub(crate) fn hurry(self: &Arc<Self>) {
        self.end_group(self.settings.kill_after.min(HURRIED_KILL));
        self.control.hurry.notify_one();
    }

    /// As [`Run::signal`], and to the children that an agent left which has gone itself.
    fn signal_everybody(&self, signal: i32) {
        if !self.signal(signal)
            && let Some(process) = self.process()
        {
            process.signal_group(signal);
        }
    }

    fn end_group(self: &Arc<Self>, kill_after: Duration) {
        let is_first = !self.control.is_aborted.swap(true, Ordering::Relaxed);
        self.signal_everybody(libc::SIGTERM);
        let is_sooner = kill_after < self.settings.kill_after;
        if let (true, Ok(runtime)) = (is_first || is_sooner, crate::runtime::runtime()) {
            let run = Arc::clone(self);
            runtime.spawn(async move {
                sleep(kill_after).await;
                run.signal_everybody(libc::SIGKILL);
            });
        }
    }

    /// The run is no longer to be found by its session.
    pub(crate) fn leave(&self) {
        self.publish(|published| published.has_left = true);
    }

    fn publish(&self, change: impl FnOnce(&mut Published)) {
        let watchers: Vec<_> = {
            let mut published = self.published();
            change(&mut published);
            published.watchers.iter().filter_map(Weak::upgrade).collect()
        };
        for watcher in watchers {
            watcher.wake(self);
        }
    }

    /// The process has been started: signals that waited reach it.
    fn started(&self, process: &Arc<Process>) {
        let before = std::mem::replace(&mut *self.child(), Child::Started(Arc::clone(process)));
        if let Child::StartingWith(signals) = before {
            for signal in signals {
                process.signal(signal);
            }
        }
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.control.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of the message of the run that was started at this time.
pub(crate) fn message_id(session: &SessionId, started_at: u64) -> String {
    format!("assistant-{session}-{started_at}")
}

/// Drives a run from its agent's start to its outcome, then looks after its message for the grace
/// period, and longer while it cannot be written. `session_key` is on the run's own lines, if it is
/// known. `on_over` is called once the outcome is published, `on_forgotten` when the grace period is
/// over.
pub(crate) async fn drive(
    run: Arc<Run>,
    session_key: Option<String>,
    spawned: Result<Spawned, SpawnError>,
    mut persistence: Persistence,
    on_over: impl FnOnce(),
    on_forgotten: impl FnOnce(),
) {
    let mut answer = Answer::new(&run, session_key);
    let exit_code = match spawned {
        Ok(spawned) => {
            let (exit, stderr) = attend(&run, spawned, &mut answer, &mut persistence).await;
            let exit_code = exit.and_then(ExitStatus::code);
            answer.finish(&stderr, exit_code);
            exit_code
        }
        Err(error) => {
            *run.child() = Child::Never;
            diagnostics::warn(&Warning {
                code: "START_FAILED",
                message: format!("Failed to start the agent: {error}"),
                session: Some(run.session.clone()),
            });
            answer.fail(&format!("Failed to start agent: {error}"));
            Some(error.exit_code())
        }
    };
    persistence.finish(answer.message.clone()).await;
    let is_error = exit_code.is_some_and(|code| code != 0) || answer.is_over_limit;
    run.publish(|published| published.outcome = Some(Outcome { is_error, exit_code }));
    on_over();
    let (message, grace) = (answer.message, run.settings.cleanup_grace);
    persistence.look_after(&message, grace).await;
    on_forgotten();
    // With the last of these goes the log.
    drop((run, answer.run));
    persistence.keep_trying(message).await;
}

/// Reads the agent until it has exited and its pipes are at their end (or the grace for them is
/// over), writing the answer meanwhile. Returns its end and what it said on stderr.
async fn attend(
    run: &Arc<Run>,
    spawned: Spawned,
    answer: &mut Answer,
    persistence: &mut Persistence,
) -> (Option<ExitStatus>, String) {
    let process = Arc::new(Process::new(spawned.pid));
    run.started(&process);
    let tail = Arc::new(Mutex::new(StderrTail::new(run.settings.max_stderr_bytes)));
    let mut stderr = tokio::spawn(read_stderr(spawned.stderr, Arc::clone(&tail)));
    let mut stdout = pipe::Receiver::from_owned_fd(spawned.stdout).ok();
    let mut lines = LineSplitter::new(run.settings.max_line_bytes);

    let exited = process.wait();
    tokio::pin!(exited);
    let mut exit = None;
    let mut has_exited = false;
    let mut is_stderr_open = true;
    let mut pipe_grace = run.settings.pipe_grace;
    // Set when the agent has exited: pipes are read no longer than this.
    let mut pipes_until = Instant::now();

    while !has_exited || stdout.is_some() || is_stderr_open {
        tokio::select! {
            readable = readable(&stdout), if stdout.is_some() => {
                let is_open = readable.is_ok() && read_lines(&stdout, &mut lines, answer);
                if !is_open {
                    stdout = None;
                }
                // A status line is an event, but nothing to keep.
                if answer.publish() && !answer.message.is_empty() {
                    persistence.changed();
                }
            }
            _ = &mut stderr, if is_stderr_open => is_stderr_open = false,
            status = &mut exited, if !has_exited => {
                has_exited = true;
                exit = status.ok();
                pipes_until = Instant::now() + pipe_grace;
            }
            () = sleep_until(pipes_until), if has_exited => break,
            () = run.control.hurry.notified() => {
                pipe_grace = pipe_grace.min(HURRIED_PIPES);
                pipes_until = pipes_until.min(Instant::now() + pipe_grace);
            }
            step = persistence.wait() => {
                if step == Step::Due {
                    persistence.start(answer.message.clone());
                }
            }
        }
    }
    stderr.abort();
    lines.end(|line| answer.line(line, clock::now_ms()));
    answer.publish();
    let stderr = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
    (exit, stderr)
}

async fn readable(stdout: &Option<pipe::Receiver>) -> io::Result<()> {
    match stdout {
        Some(stdout) => stdout.readable().await,
        None => std::future::pending().await,
    }
}

/// As much as a pipe holds.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Runs read one after the other on a thread, so that an idle run holds no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Reads what is there, once. False at the end of the pipe.
fn read_lines(
    stdout: &Option<pipe::Receiver>,
    lines: &mut LineSplitter,
    answer: &mut Answer,
) -> bool {
    let Some(stdout) = stdout else { return false };
    READ_BUFFER.with_borrow_mut(|buffer| match stdout.try_read(buffer) {
        Ok(0) => false,
        Ok(length) => {
            let now_ms = clock::now_ms();
            lines.feed(&buffer[..length], |line| answer.line(line, now_ms));
            true
        }
        Err(error) => {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    })
}

async fn read_stderr(stderr: std::os::fd::OwnedFd, tail: Arc<Mutex<StderrTail>>) {
    let Ok(stderr) = pipe::Receiver::from_owned_fd(stderr) else { return };
    let mut held = Vec::new();
    let mut is_open = true;
    while is_open && stderr.readable().await.is_ok() {
        READ_BUFFER.with_borrow_mut(|buffer| match stderr.try_read(buffer) {
            Ok(0) => is_open = false,
            Ok(length) => {
                tail.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..length]);
                held.extend_from_slice(&buffer[..length]);
            }
            Err(error) => is_open = error.kind() == io::ErrorKind::WouldBlock,
        });
        let lines = take_lines(&mut held);
        if !lines.is_empty() {
            diagnostics::agent_stderr(&String::from_utf8_lossy(&lines)).await;
        }
    }
    if !held.is_empty() {
        diagnostics::agent_stderr(&String::from_utf8_lossy(&held)).await;
    }
}

/// Takes the whole lines; the beginning of a line stays for its rest, unless it is very long.
fn take_lines(held: &mut Vec<u8>) -> Vec<u8> {
    let end = memchr::memrchr(b'\n', held).map_or(0, |newline| newline + 1);
    let end = if held.len() - end > READ_BYTES { held.len() } else { end };
    let rest = held.split_off(end);
    std::mem::replace(held, rest)
}

/// The answer under way: lines become events, for the log and for the message.
struct Answer {
    run: Arc<Run>,
    translator: Translator,
    message: Message,
    new: NewEntries,
    lines: LineCounts,
    bytes: usize,
    is_over_limit: bool,
}

/// Both readers of an event.
struct Fold<'a>(&'a mut NewEntries, &'a mut Message);

impl EventSink for Fold<'_> {
    fn event(&mut self, event: UiEvent<'_>) {
        self.1.event(event);
        self.0.event(event);
    }
}

impl Answer {
    fn new(run: &Arc<Run>, session_key: Option<String>) -> Self {
        Self {
            translator: Translator::new(session_key.map(String::into_boxed_str)),
            message: Message::new(run.message_id.as_str()),
            new: NewEntries::default(),
            lines: LineCounts::default(),
            bytes: 0,
            is_over_limit: false,
            run: Arc::clone(run),
        }
    }

    /// `now_ms` is when it was read.
    fn line(&mut self, line: Line<'_>, now_ms: u64) {
        match line {
            _ if self.is_over_limit => {}
            Line::TooLong => {
                self.lines.too_long += 1;
                let (session, limit) = (&self.run.session, self.run.settings.max_line_bytes);
                diagnostics::warn(&Warning {
                    code: "LINE_TOO_LONG",
                    message: format!(
                        "Skipped a line of more than {limit} bytes (maxLineBytes) in session {session}"
                    ),
                    session: Some(session.clone()),
                });
            }
            Line::Bytes(bytes) => {
                let mut fold = Fold(&mut self.new, &mut self.message);
                match self.translator.line(bytes, now_ms, &mut fold) {
                    LineKind::Event => self.lines.read += 1,
                    LineKind::Blank => {}
                    LineKind::Unreadable => self.lines.unreadable += 1,
                    LineKind::OtherSession => self.lines.other_session += 1,
                }
                let limit = self.run.settings.max_run_bytes;
                if self.bytes + self.new.bytes() > limit {
                    self.is_over_limit = true;
                    self.fail(&format!(
                        "The agent's output exceeded {limit} bytes (maxRunBytes) and was stopped"
                    ));
                    self.run.abort();
                }
            }
        }
    }

    fn fail(&mut self, message: &str) {
        let mut fold = Fold(&mut self.new, &mut self.message);
        self.translator.error(message, clock::now_ms(), &mut fold);
        self.publish();
    }

    fn finish(&mut self, stderr: &str, exit_code: Option<i32>) {
        let mut fold = Fold(&mut self.new, &mut self.message);
        self.translator.finish(stderr, exit_code, clock::now_ms(), &mut fold);
        self.publish();
    }

    /// Puts what is new into the log; false when nothing is.
    fn publish(&mut self) -> bool {
        if self.new.is_empty() {
            // Skipped lines are nobody's news.
            self.run.published().lines = self.lines;
            return false;
        }
        self.bytes += self.new.bytes();
        self.run.publish(|published| {
            published.log.append(&mut self.new);
            published.lines = self.lines;
        });
        true
    }
}
