//! A run's task, from the start of its input to the last look after its message.

use super::{Command, Question, Run, answer::Answer};
use crate::{
    clock,
    diagnostics::{self, Warning},
    feed::{Reason, RunEnd},
    format::AgentEnd,
    input::{End, Exit, Input, Ready},
    memory,
    persistence::{Persistence, Step},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until, timeout},
};

/// Where a run stands. Its task alone moves it, and only along these arrows:
///
/// ```text
/// Running ──────────────► Ended ──► Over
///    └──────► Stopping ─────┘
/// ```
///
/// - `Running → Stopping`: a command, a watchdog or a limit has it stopped. The first reason stays.
/// - `→ Ended`: the input has ended, and all of it is read; or there never was one. The final message
///   is being written.
/// - `Ended → Over`: that is on the disk, or has failed; the outcome is published. The message is
///   looked after for the grace period, at the end of which the session forgets the run and its
///   events are freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping(Reason),
    Ended(Reason),
    Over,
}

impl Phase {
    /// `Running → Stopping`. False in any other phase.
    fn stop(&mut self, reason: Reason) -> bool {
        let is_running = *self == Self::Running;
        if is_running {
            *self = Self::Stopping(reason);
        }
        is_running
    }

    /// `→ Ended`. `why` holds where it was not stopped. Returns the reason.
    fn end(&mut self, why: Reason) -> Reason {
        let reason = match *self {
            Self::Stopping(reason) | Self::Ended(reason) => reason,
            Self::Running | Self::Over => why,
        };
        *self = Self::Ended(reason);
        reason
    }

    fn is_stopping(self) -> bool {
        matches!(self, Self::Stopping(_))
    }
}

/// What the task begins with.
pub(crate) enum Start<I> {
    /// An input that has been started.
    Started(I),
    /// It was cancelled before it was started.
    Cancelled,
    /// It could not be started.
    Failed {
        /// Why, for the reader and the operator.
        error: String,
        /// The system's error number, negative.
        exit_code: i32,
    },
}

/// Whom the task tells where the run is. Each is called once, in this order.
pub(crate) trait Host: Send + 'static {
    /// The outcome is published.
    fn over(&mut self);
    /// The grace period is over.
    fn forgotten(&mut self);
}

/// Drives a run to its outcome, then looks after its message for the grace period, and longer while
/// it cannot be written.
pub(crate) async fn drive<I: Input>(
    run: Arc<Run>,
    question: Question,
    start: Start<I>,
    commands: UnboundedReceiver<Command>,
    persistence: Persistence,
    mut host: impl Host,
) {
    let mut task = Task {
        answer: Answer::new(&run, &question),
        watchdogs: Watchdogs::new(&run),
        phase: Phase::Running,
        persistence,
        commands,
        run,
    };
    let end = match start {
        Start::Started(input) => {
            let end = task.read(input).await;
            task.end(end)
        }
        Start::Cancelled => task.end(End { exit: Exit::NotStarted, explanation: String::new() }),
        Start::Failed { error, exit_code } => task.fail_to_start(&error, exit_code),
    };
    task.persistence.finish(task.answer.message().clone()).await;
    task.phase = Phase::Over;
    task.run.feed.finish(end);
    host.over();
    let Task { run, answer, mut persistence, .. } = task;
    let message = answer.into_message();
    persistence.look_after(&message, run.settings.cleanup_grace).await;
    host.forgotten();
    // Neither this task nor its retries keep the events.
    let feed = Arc::clone(&run.feed);
    drop((run, host));
    tokio::spawn(async move { memory::freed(feed.free().await) });
    persistence.keep_trying(message).await;
}

struct Task {
    run: Arc<Run>,
    phase: Phase,
    answer: Answer,
    persistence: Persistence,
    commands: UnboundedReceiver<Command>,
    watchdogs: Watchdogs,
}

impl Task {
    /// Reads the input to its end, writing the answer meanwhile.
    async fn read(&mut self, mut input: impl Input) -> End {
        loop {
            let alarm = self.watchdogs.alarm(self.phase, &self.answer);
            tokio::select! {
                ready = input.ready() => {
                    if let Some(end) = self.take(ready, &mut input) {
                        return end;
                    }
                }
                Some(command) = self.commands.recv() => self.obey(command, &mut input),
                step = self.persistence.wait() => {
                    if step == Step::Due {
                        self.persistence.start(self.answer.message().clone());
                    }
                }
                () = until(&alarm) => {
                    if let Some(end) = self.wake_up(alarm, &mut input).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Takes what the input has; the end, if it has ended.
    fn take(&mut self, ready: Ready, input: &mut impl Input) -> Option<End> {
        match ready {
            Ready::Ended(end) => return Some(end),
            Ready::Bytes => {
                let answer = &mut self.answer;
                input.read(&mut |bytes| answer.feed(bytes));
            }
        }
        if self.answer.publish() {
            self.persistence.changed();
        }
        self.watchdogs.heard(self.answer.lines());
        if self.answer.is_over_limit() {
            self.stop(Reason::TooLarge, self.run.settings.kill_after, input);
        }
        None
    }

    fn obey(&mut self, command: Command, input: &mut impl Input) {
        match command {
            Command::Stop(reason, kill_after) => self.stop(reason, kill_after, input),
            Command::Signal(signal) => input.signal(signal),
            Command::Hurry => input.hurry(),
        }
    }

    fn stop(&mut self, reason: Reason, kill_after: Duration, input: &mut impl Input) {
        // Again for a run that is stopping already: the time may be shorter.
        self.phase.stop(reason);
        input.stop(kill_after);
    }

    /// A watchdog's time is over: the run is stopped, unless there is something to read after all.
    async fn wake_up(&mut self, alarm: Option<Alarm>, input: &mut impl Input) -> Option<End> {
        let Alarm { at, kind, limit } = alarm?;
        if kind == Kind::Silence {
            if at.elapsed() > FROZEN {
                // This process was frozen, and perhaps the agent with it: it gets its time anew.
                self.watchdogs.silent_since = Instant::now();
                return None;
            }
            if let Ok(ready) = timeout(LAST_LISTEN, input.ready()).await {
                return self.take(ready, input);
            }
        }
        let limit = limit.as_millis();
        self.answer.fail(&match kind {
            Kind::Silence => {
                format!("The agent printed nothing for {limit} ms (maxSilenceMs) and was stopped")
            }
            Kind::Run => {
                format!("The agent ran for more than {limit} ms (maxRunMs) and was stopped")
            }
        });
        self.persistence.changed();
        self.stop(Reason::TimedOut, self.run.settings.kill_after, input);
        None
    }

    /// The input has ended: ends the answer, and says how the run ended.
    fn end(&mut self, End { exit, explanation }: End) -> RunEnd {
        // What was asked before the end was known counts.
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Stop(reason, _) = command {
                self.phase.stop(reason);
            }
        }
        let is_stopped = self.phase.is_stopping();
        let (why, exit_code, signal) = match exit {
            Exit::Code(0) => (Reason::Completed, Some(0), None),
            Exit::Code(code) => (Reason::Failed, Some(code), None),
            Exit::Signal(signal) => (Reason::Killed, None, Some(signal)),
            Exit::NotStarted => (Reason::Aborted, None, None),
            Exit::Unknown => (Reason::Failed, None, None),
        };
        let told = self.answer.shown_error();
        self.answer.finish(AgentEnd { stderr: &explanation, exit_code, is_stopped });
        // Of a stopped run, not that it has given no answer.
        let error = if is_stopped { told } else { self.answer.shown_error() };
        let reason = self.phase.end(why);
        RunEnd { reason, exit_code, signal, error, ended_at: clock::now_ms() }
    }

    /// There is no input: tells why.
    fn fail_to_start(&mut self, error: &str, exit_code: i32) -> RunEnd {
        let session = &self.run.session;
        diagnostics::warn(&Warning {
            code: "START_FAILED",
            message: format!("Failed to start the agent: {error}"),
            session: Some(session.clone()),
        });
        let error = format!("Failed to start agent: {error}");
        self.answer.fail(&error);
        let reason = self.phase.end(Reason::StartFailed);
        RunEnd {
            reason,
            exit_code: Some(exit_code),
            signal: None,
            error: Some(error),
            ended_at: clock::now_ms(),
        }
    }
}

/// The limits on a run's time.
struct Watchdogs {
    started: Instant,
    max_run: Option<Duration>,
    max_silence: Option<Duration>,
    silent_since: Instant,
    /// Lines that have come.
    lines: u64,
}

/// When a watchdog wakes up.
struct Alarm {
    at: Instant,
    kind: Kind,
    limit: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silence,
    Run,
}

/// An alarm that comes so late was held up with the whole process.
const FROZEN: Duration = Duration::from_secs(1);
/// How long a silent agent is listened to once more: what it has printed may not have been noticed.
const LAST_LISTEN: Duration = Duration::from_millis(20);

impl Watchdogs {
    fn new(run: &Run) -> Self {
        let now = Instant::now();
        let limit = |limit: Duration| (!limit.is_zero()).then_some(limit);
        Self {
            started: now,
            max_run: limit(run.settings.max_run),
            max_silence: limit(run.settings.max_silence),
            silent_since: now,
            lines: 0,
        }
    }

    /// So many lines have come in all.
    fn heard(&mut self, lines: u64) {
        if lines > self.lines {
            self.lines = lines;
            self.silent_since = Instant::now();
        }
    }

    /// The alarm that comes next, if one will.
    fn alarm(&self, phase: Phase, answer: &Answer) -> Option<Alarm> {
        if phase != Phase::Running {
            return None;
        }
        let alarm = |since: Instant, kind, limit| Alarm { at: since + limit, kind, limit };
        let run = self.max_run.map(|limit| alarm(self.started, Kind::Run, limit));
        // Tools are silent while they work.
        let may_be_silent = answer.has_open_tool();
        let silence = self.max_silence.filter(|_| !may_be_silent);
        let silence = silence.map(|limit| alarm(self.silent_since, Kind::Silence, limit));
        run.into_iter().chain(silence).min_by_key(|alarm| alarm.at)
    }
}

async fn until(alarm: &Option<Alarm>) {
    match alarm {
        Some(alarm) => sleep_until(alarm.at).await,
        None => std::future::pending().await,
    }
}
