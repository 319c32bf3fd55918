//! A run, as all see it who are not its task: a feed to read, a channel of commands, and its names.
//!
//! The task (`lifecycle`) owns everything that changes and is alone in speaking to the input; whoever
//! wants something of it (stop, a signal, haste) sends a command. Knows nothing of JavaScript.

mod answer;
mod lifecycle;
#[cfg(test)]
mod tests;
mod watchdogs;

pub(crate) use lifecycle::{Host, Start, drive};

use crate::{
    feed::{Feed, Reason},
    format::{Errors, FormatName, Prompt},
    input::Startup,
    json::JsonString,
    session_id::SessionId,
    settings::Settings,
    ui::Chunk,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A run, shared by its task and those who look at it.
pub struct Run {
    /// Tells the runs of this process apart.
    pub id: u32,
    /// The chat it answers in.
    pub session: SessionId,
    /// The id of the message it writes.
    pub message_id: String,
    /// The id of the user's message that it answers, where that is known.
    pub user_message_id: Option<String>,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// The same time, unless another run of the session has it or a later one, be it because the clock
    /// was put back: then one above. Tells the session's runs apart.
    pub stamp: u64,
    /// The settings it was started with.
    pub settings: Arc<Settings>,
    /// What is read of it.
    pub feed: Arc<Feed>,
    /// The start of its input.
    pub startup: Arc<Startup>,
    commands: UnboundedSender<Command>,
}

/// What others ask of a run's task.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Stop the agent: politely now, by force after this long.
    Stop(Reason, Duration),
    /// Send the agent a signal.
    Signal(i32),
    /// Put a chunk of the app's own into the answer.
    Emit(Chunk),
    /// The server ends: wait for nobody but the agent.
    Hurry,
}

/// What a run is asked, and what answers.
#[derive(Clone, Debug)]
pub struct Question {
    /// The format of the lines.
    pub format: FormatName,
    /// What the agent is asked.
    pub prompt: Prompt,
    /// How much is told of its errors.
    pub errors: Errors,
    /// The agent's runs in this session that did not come to their end.
    pub earlier_runs: Vec<JsonString>,
}

/// How long an agent whose server ends may take to end by itself.
const HURRIED_KILL: Duration = Duration::from_millis(500);

impl Run {
    /// A run, and the commands that its task will be sent. `id` is new in this process.
    pub(crate) fn new(
        id: u32,
        session: SessionId,
        user_message_id: Option<String>,
        started_at: u64,
        stamp: u64,
        settings: Arc<Settings>,
    ) -> (Self, UnboundedReceiver<Command>) {
        let (commands, received) = unbounded_channel();
        let run = Self {
            id,
            message_id: message_id(&session, stamp),
            user_message_id,
            session,
            started_at,
            stamp,
            feed: Arc::new(Feed::new(id, settings.max_run_bytes)),
            settings,
            startup: Arc::default(),
            commands,
        };
        (run, received)
    }

    /// Sends a signal to the agent and its group while the agent lives; before its start, the signal
    /// waits for it. False when there is nobody to send it to.
    pub fn signal(&self, signal: i32) -> bool {
        if !self.startup.can_be_signalled() {
            return false;
        }
        if signal != 0 && !self.startup.queue(signal) {
            self.send(Command::Signal(signal));
        }
        true
    }

    /// Stops the agent and what it has started: SIGTERM now, SIGKILL after the time that is set. An
    /// agent that has not been started never will be. False when the run is over.
    pub fn abort(&self) -> bool {
        self.feed.is_running() && {
            self.stop(Reason::Aborted, self.settings.kill_after);
            true
        }
    }

    /// Puts a chunk of the app's own into the answer. False when the run is over.
    pub fn emit(&self, chunk: Chunk) -> bool {
        self.commands.send(Command::Emit(chunk)).is_ok()
    }

    /// Ends the run as fast as may be, because its server ends.
    pub(crate) fn hurry(&self) {
        self.stop(Reason::Interrupted, self.settings.kill_after.min(HURRIED_KILL));
        self.send(Command::Hurry);
    }

    fn stop(&self, reason: Reason, kill_after: Duration) {
        // First: what is not started by the time at which this returns never is.
        self.startup.cancel();
        self.send(Command::Stop(reason, kill_after));
    }

    fn send(&self, command: Command) {
        // Nobody receives it when the run is over.
        let _ = self.commands.send(command);
    }
}

/// The id of the message of the run of this stamp.
pub(crate) fn message_id(session: &SessionId, stamp: u64) -> String {
    format!("{}{stamp}", message_id_prefix(session))
}

/// What comes before the stamp in a message's id.
pub(crate) fn message_id_prefix(session: &SessionId) -> String {
    format!("assistant-{session}-")
}
