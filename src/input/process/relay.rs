//! What an agent writes to stderr, on its way to the server's own: line by line, at the pace at which
//! that takes it, and no slower than the agent may be held up.

use super::READ_BYTES;
use crate::diagnostics::{self, StderrRoom};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long an agent is held up whose stderr nobody takes. After that it is dropped, until somebody
/// does.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines of one agent.
#[derive(Debug, Default)]
pub struct Relay {
    /// The beginning of a line that waits for its end.
    held: Vec<u8>,
    /// Room for the lines that come next.
    room: Option<StderrRoom>,
    /// Since when there has been no room.
    stuck_since: Option<Instant>,
}

impl Relay {
    /// Waits for room, or for the end of patience. May be dropped and called again.
    pub async fn room(&mut self) {
        if self.room.is_none() {
            let now = Instant::now();
            let since = *self.stuck_since.get_or_insert(now);
            // Where others have been waiting already, this agent is not held up as well.
            let left = PATIENCE.saturating_sub(diagnostics::stderr_stuck_for());
            let until = (since + PATIENCE).min(now + left);
            let room = timeout_at(until, diagnostics::room_for_stderr()).await;
            if let Ok(room) = room {
                self.room = room;
                self.stuck_since = None;
            }
        }
    }

    /// Takes the next bytes and passes whole lines on; a very long one in pieces.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &self.held).map_or(0, |newline| newline + 1);
        let end = if self.held.len() - end > READ_BYTES { self.held.len() } else { end };
        if end > 0 {
            let rest = self.held.split_off(end);
            let lines = std::mem::replace(&mut self.held, rest);
            diagnostics::agent_stderr(&lines, self.room.take());
        }
    }

    /// Passes on what has come without the end of its line.
    pub fn end(&mut self) {
        if !self.held.is_empty() {
            diagnostics::agent_stderr(&std::mem::take(&mut self.held), self.room.take());
        }
    }
}
