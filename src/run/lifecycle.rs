//! A run's task, from the start of its input to the last look after its message.

use super::{
    Command, Question, Run,
    answer::Answer,
    watchdogs::{Alarm, AlarmKind, Watchdogs},
};
use crate::{
    clock,
    diagnostics::{self, Warning},
    feed::{Reason, RunEnd},
    format::AgentEnd,
    input::{End, Exit, Input, Ready},
    json::JsonString,
    memory,
    persistence::{Persistence, Step},
    ui::Chunk,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until, timeout},
};

/// Where a run stands, until its outcome is known. Its task alone moves it, and only along these
/// arrows:
///
/// ```text
/// Starting ──► Running ──► Stopping
///     └───────────────────────┘
/// ```
///
/// - `Starting → Running`: the input is there.
/// - `Running → Stopping`: a command, a watchdog or a limit has it stopped. The first reason stays.
/// - `Starting → Stopping`: a command, before there is an input. If it never will be, the run ends.
///
/// From each of them the run ends, when its input has ended or there is none. What follows is a
/// straight line, and no state: the final message is written, the outcome is published, the message
/// is looked after for the grace period, the session forgets the run, and its events are freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Stopping(Reason),
}

impl Phase {
    /// `Starting → Running`.
    fn start(&mut self) {
        if *self == Self::Starting {
            *self = Self::Running;
        }
    }

    /// `→ Stopping`, unless it is that already.
    fn stop(&mut self, reason: Reason) {
        if !self.is_stopping() {
            *self = Self::Stopping(reason);
        }
    }

    fn is_stopping(self) -> bool {
        matches!(self, Self::Stopping(_))
    }

    /// Why the run ends; `why` holds where it was not stopped.
    fn reason(self, why: Reason) -> Reason {
        match self {
            Self::Stopping(reason) => reason,
            Self::Starting | Self::Running => why,
        }
    }
}

/// What the start of an input has come to.
pub(crate) enum Start<I> {
    /// It has been started.
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

/// Whom the task tells where the run is. Each is called once at most, in this order.
pub(crate) trait Host: Send + 'static {
    /// The run ends before these runs of the agent have: lines of theirs may still come.
    fn unfinished(&mut self, runs: &[JsonString]);
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
    start: impl Future<Output = Start<I>> + Send,
    commands: UnboundedReceiver<Command>,
    persistence: Persistence,
    mut host: impl Host,
) {
    let mut task = Task {
        answer: Answer::new(&run, &question),
        watchdogs: Watchdogs::new(&run.settings),
        phase: Phase::Starting,
        persistence,
        commands,
        run,
    };
    let (start, missed) = task.wait_for(start).await;
    let end = match start {
        Start::Started(mut input) => {
            task.phase.start();
            missed.into_iter().for_each(|command| task.obey(command, &mut input));
            // Chunks that the app emitted before the start count, too.
            task.stop_if_too_large(&mut input);
            let end = task.read(input).await;
            task.end(end)
        }
        Start::Cancelled => task.end(End { exit: Exit::NotStarted, explanation: String::new() }),
        Start::Failed { error, exit_code } => task.fail_to_start(&error, exit_code),
    };
    task.answer.note_end(&task.run, &end);
    task.persistence.finish(task.answer.message().clone()).await;
    if end.reason != Reason::Completed {
        host.unfinished(task.answer.own_runs());
    }
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

/// How long a silent agent is listened to once more: what it has printed may not have been noticed.
const LAST_READ: Duration = Duration::from_millis(20);
/// How long a start that hangs is waited for when its child was killed.
const AFTER_KILL: Duration = Duration::from_secs(2);

impl Task {
    /// Waits for the start of the input, or until it is certain that it never will be. Returns the
    /// commands that came meanwhile and are for the input.
    async fn wait_for<I>(
        &mut self,
        start: impl Future<Output = Start<I>>,
    ) -> (Start<I>, Vec<Command>) {
        tokio::pin!(start);
        let mut missed = Vec::new();
        // Set when it is not wanted any more, and on its way already.
        let mut is_killed = false;
        let mut gone_by: Option<Instant> = None;
        loop {
            let alarm = self.alarm();
            let command = tokio::select! {
                start = &mut start => return (start, missed),
                Some(command) = self.commands.recv() => command,
                alarm = Alarm::wait(alarm) => {
                    self.answer.fail(&alarm.error());
                    Command::Stop(Reason::TimedOut, self.run.settings.kill_after)
                }
                () = sleep_until(gone_by.unwrap_or_else(Instant::now)), if gone_by.is_some() => {
                    if is_killed || !self.run.startup.kill_child() {
                        return (Start::Cancelled, missed);
                    }
                    is_killed = true;
                    gone_by = Some(Instant::now() + AFTER_KILL);
                    continue;
                }
            };
            if let Command::Emit(chunk) = &command {
                self.emit(chunk);
                continue;
            }
            if let Command::Stop(reason, kill_after) = command {
                self.phase.stop(reason);
                if self.run.startup.cancel() {
                    // Whoever starts it may be held up; nothing will come of it.
                    return (Start::Cancelled, missed);
                }
                let at = Instant::now() + kill_after;
                gone_by = Some(gone_by.map_or(at, |known| known.min(at)));
            }
            missed.push(command);
        }
    }

    /// Reads the input to its end, writing the answer meanwhile.
    async fn read(&mut self, mut input: impl Input) -> End {
        loop {
            let alarm = self.alarm();
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
                alarm = Alarm::wait(alarm) => {
                    if let Some(end) = self.sound(alarm, &mut input).await {
                        return end;
                    }
                }
            }
        }
    }

    /// The alarm that comes next, if one will. An agent that has ended is not watched, though others
    /// may hold its pipes.
    fn alarm(&self) -> Option<Alarm> {
        let is_watched = !self.phase.is_stopping() && !self.run.startup.has_ended();
        is_watched.then(|| self.watchdogs.next(self.answer.has_open_tool()))?
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
        self.watchdogs.count_lines(self.answer.lines());
        self.stop_if_too_large(input);
        None
    }

    /// Stops a run that has become larger than it may.
    fn stop_if_too_large(&mut self, input: &mut impl Input) {
        if self.answer.is_over_limit() {
            self.stop(Reason::TooLarge, self.run.settings.kill_after, input);
        }
    }

    fn obey(&mut self, command: Command, input: &mut impl Input) {
        match command {
            Command::Stop(reason, kill_after) => self.stop(reason, kill_after, input),
            Command::Signal(signal) => input.signal(signal),
            Command::Hurry => input.hurry(),
            Command::Emit(chunk) => {
                self.emit(&chunk);
                self.stop_if_too_large(input);
            }
        }
    }

    fn emit(&mut self, chunk: &Chunk) {
        self.answer.emit(chunk);
        if self.answer.publish() {
            self.persistence.changed();
        }
    }

    fn stop(&mut self, reason: Reason, kill_after: Duration, input: &mut impl Input) {
        // Again for a run that is stopping already: the time may be shorter.
        self.phase.stop(reason);
        input.stop(kill_after);
    }

    /// A watchdog's time is over: the run is stopped, unless there is a line to read after all.
    async fn sound(&mut self, alarm: Alarm, input: &mut impl Input) -> Option<End> {
        if self.watchdogs.forgive(alarm) || self.alarm().is_none() {
            return None;
        }
        if alarm.kind == AlarmKind::Silence {
            let lines = self.answer.lines();
            if let Ok(ready) = timeout(LAST_READ, input.ready()).await
                && let Some(end) = self.take(ready, input)
            {
                return Some(end);
            }
            if self.answer.lines() > lines {
                return None;
            }
        }
        self.answer.fail(&alarm.error());
        self.persistence.changed();
        self.stop(Reason::TimedOut, self.run.settings.kill_after, input);
        None
    }

    /// The input has ended: ends the answer, and says how the run ended.
    fn end(&mut self, End { exit, explanation }: End) -> RunEnd {
        self.take_last_commands();
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
        if self.answer.is_over_limit() {
            // Perhaps with its last line, when there was nothing to stop any more.
            self.phase.stop(Reason::TooLarge);
        }
        // Of a stopped run, not that it has given no answer.
        let error = if is_stopped { told } else { self.answer.shown_error() };
        let reason = self.phase.reason(why);
        let is_at_length_limit = self.answer.is_at_length_limit();
        let (agent, ended_at) = (self.answer.agent(), clock::now_ms());
        RunEnd { reason, exit_code, signal, error, ended_at, agent, is_at_length_limit }
    }

    /// What was asked before the end was known counts; nothing is taken any more.
    fn take_last_commands(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop(reason, _) => self.phase.stop(reason),
                Command::Emit(chunk) => self.emit(&chunk),
                Command::Signal(_) | Command::Hurry => {}
            }
        }
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
        self.take_last_commands();
        self.answer.fail(&error);
        RunEnd {
            exit_code: Some(exit_code),
            error: Some(error),
            ..RunEnd::new(Reason::StartFailed, clock::now_ms())
        }
    }
}
