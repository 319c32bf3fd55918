//! Lines in, UI message stream events out: the agent's line format applied to the state machine.

use super::{
    agent_event::{AgentEvent, AgentLine},
    error_text, tool_result,
    ui_events::{EventSink, UiState},
};
use crate::json::{self, Cursor, JsonStr, JsonString, JsonValue, RawStr};
use std::{borrow::Cow, mem};

/// How many other runs are remembered by their id, the latest ones.
const MAX_OTHER_RUNS: usize = 1_024;

/// What became of a line. Of a line that was read in pieces, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineKind {
    /// Only white space.
    Blank,
    /// Not JSON, or `null`; skipped.
    Unreadable,
    /// Another chat's; skipped.
    OtherSession,
    /// Read, whether or not it had something to show.
    Event,
}

/// Turns one run's lines into its events.
#[derive(Debug, Default)]
pub struct Translator {
    ui: UiState,
    /// The key on this run's own lines. Without it every line counts as its own.
    own_session_key: Option<JsonString>,
    /// The ids of runs last seen on other sessions' lines.
    other_runs: Vec<JsonString>,
}

impl Translator {
    /// For a run whose lines bear `own_session_key`: lines of other sessions will be skipped.
    pub fn new(own_session_key: Option<Box<str>>) -> Self {
        Self {
            own_session_key: own_session_key.map(|key| JsonString::from(&*key)),
            ..Self::default()
        }
    }

    /// Reads a line, without its line end. `now_ms` goes into the ids of parts that begin.
    pub fn line(&mut self, line: &[u8], now_ms: u64, sink: &mut impl EventSink) -> LineKind {
        // Node's decoder replaces invalid bytes as this does.
        let text = String::from_utf8_lossy(line);
        match AgentLine::read(&text) {
            Ok(line) => self.read(line, now_ms, sink),
            Err(_) => separated(&text)
                .map(|piece| match AgentLine::read(piece) {
                    Ok(line) => self.read(line, now_ms, sink),
                    Err(_) if json::trim(piece).is_empty() => LineKind::Blank,
                    Err(_) => LineKind::Unreadable,
                })
                .max()
                .unwrap_or(LineKind::Blank),
        }
    }

    /// Shows an error of the run itself, such as an agent that could not be started. The agent's
    /// own errors are not shown after it.
    pub fn error(&mut self, message: &str, now_ms: u64, sink: &mut impl EventSink) {
        self.ui.error(&JsonStr::escape(message), now_ms, sink);
    }

    /// Ends the stream of an agent that ended. `stderr` is all it wrote there; `exit_code` is
    /// `None` if a signal ended it.
    pub fn finish(
        &mut self,
        stderr: &str,
        exit_code: Option<i32>,
        now_ms: u64,
        sink: &mut impl EventSink,
    ) {
        if !self.ui.is_error_reported()
            && let Some(message) = error_text::of_stderr(stderr)
        {
            self.error(&message, now_ms, sink);
        }
        self.ui.finish(exit_code, now_ms, sink);
    }

    fn read(
        &mut self,
        line: Option<AgentLine<'_>>,
        now_ms: u64,
        sink: &mut impl EventSink,
    ) -> LineKind {
        let Some(line) = line else { return LineKind::Unreadable };
        if self.is_other_sessions(&line) {
            return LineKind::OtherSession;
        }
        self.act(line.event, now_ms, sink);
        LineKind::Event
    }

    /// Whether a line is of another session: by its session key, or, if it has none, by its run.
    fn is_other_sessions(&mut self, line: &AgentLine<'_>) -> bool {
        let Some(own) = &self.own_session_key else { return false };
        let run_id = line.run_id.map(RawStr::json);
        let known = run_id
            .as_deref()
            .and_then(|run_id| self.other_runs.iter().rposition(|other| **other == *run_id));
        let Some(key) = line.session_key.filter(|key| !key.is_empty()) else {
            return known.is_some();
        };
        let other = *key.json() != **own;
        match (known, run_id) {
            (Some(place), _) if !other => drop(self.other_runs.remove(place)),
            (None, Some(run_id)) if other => {
                if self.other_runs.len() == MAX_OTHER_RUNS {
                    self.other_runs.remove(0);
                }
                self.other_runs.push(run_id.into_owned());
            }
            _ => {}
        }
        other
    }

    fn act(&mut self, event: AgentEvent<'_>, now_ms: u64, sink: &mut impl EventSink) {
        match event {
            AgentEvent::LifecycleStart => self.ui.status("Preparing response...", now_ms, sink),
            AgentEvent::LifecycleEnd => self.ui.close(sink),
            AgentEvent::Thinking { delta } => self.ui.thinking(&delta.json(), now_ms, sink),
            AgentEvent::Assistant { delta, media_urls, error } => {
                if let Some(delta) = delta {
                    self.ui.text(&delta.json(), now_ms, sink);
                }
                if let Some(urls) = media_urls {
                    // Cannot fail: the array was read before.
                    let _ = Cursor::new(urls.text()).items(|cursor| {
                        if let Some(url) = cursor.value()?.as_str() {
                            self.ui.media(&url.json(), now_ms, sink);
                        }
                        Ok(())
                    });
                }
                // Shown even if it is empty.
                if let Some(body) = error
                    && !self.ui.is_error_reported()
                {
                    self.ui.error(&error_text::of_body(&body.json()), now_ms, sink);
                }
            }
            AgentEvent::ToolStart { id, name, args } => {
                let input = args.map_or_else(JsonValue::empty_object, JsonValue::from);
                self.ui.tool_call(&or_empty(id), &or_empty(name), &input, sink);
            }
            AgentEvent::ToolResult { id, result, is_error: true } => {
                self.ui.tool_error(&or_empty(id), &tool_result::error_text(result), sink);
            }
            AgentEvent::ToolResult { id, result, is_error: false } => {
                self.ui.tool_output(&or_empty(id), &tool_result::output(result), sink);
            }
            AgentEvent::CompactionStart => {
                self.ui.status("Optimizing session context...", now_ms, sink);
            }
            AgentEvent::CompactionEnd { will_retry: true } => {
                self.ui.status_note("\nRetrying with compacted context...", sink);
            }
            AgentEvent::CompactionEnd { will_retry: false } => self.ui.end_status(sink),
            AgentEvent::Error(body) => {
                if let Some(body) = body
                    && !self.ui.is_error_reported()
                {
                    let body = body.json();
                    let message = error_text::of_body(&body);
                    if !message.is_empty() {
                        self.ui.error(&message, now_ms, sink);
                    }
                }
            }
            AgentEvent::Other => {}
        }
    }
}

fn or_empty(text: Option<RawStr<'_>>) -> Cow<'_, JsonStr> {
    text.map_or_else(|| JsonStr::escape(""), RawStr::json)
}

/// The pieces of a line at the U+2028 and U+2029 that stand outside its strings; the line itself
/// if there are none. Inside a string they are text.
fn separated(line: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escape) = (false, false);
    line.split(move |char| {
        let escaped = mem::take(&mut escape);
        match char {
            '"' if !escaped => in_string = !in_string,
            '\\' if in_string && !escaped => escape = true,
            '\u{2028}' | '\u{2029}' => return !in_string,
            _ => {}
        }
        false
    })
}
