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
        // Node's decoder replaces invalid bytes as Rust's lossy one does, which is a slow way to
        // find that there are none.
        let text = match str::from_utf8(line) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(line),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UiEvent;

    /// Keeps the deltas, and of other events the type.
    #[derive(Default)]
    struct Seen(Vec<String>);

    impl EventSink for Seen {
        fn event(&mut self, event: UiEvent<'_>) {
            match event {
                UiEvent::TextDelta { delta, .. } | UiEvent::ReasoningDelta { delta, .. } => {
                    self.0.push(delta.as_str().to_owned());
                }
                UiEvent::TextStart { id } | UiEvent::ReasoningStart { id } => {
                    self.0.push(format!("<{id}>"));
                }
                UiEvent::TextEnd { id } | UiEvent::ReasoningEnd { id } => {
                    self.0.push(format!("</{id}>"));
                }
                _ => {
                    let mut json = Vec::new();
                    event.write_json(&mut json);
                    self.0.push(String::from_utf8(json).unwrap());
                }
            }
        }
    }

    fn text(delta: &str) -> String {
        format!(r#"{{"event":"agent","stream":"assistant","data":{{"delta":"{delta}"}}}}"#)
    }

    fn said(lines: &[&str]) -> (Vec<LineKind>, Vec<String>) {
        let (mut translator, mut seen) = (Translator::default(), Seen::default());
        let kinds = lines.iter().map(|line| translator.line(line.as_bytes(), 5, &mut seen));
        (kinds.collect(), seen.0)
    }

    #[test]
    fn a_line_is_told_by_what_became_of_it() {
        let (kinds, seen) =
            said(&["", " \t\u{feff}\u{2028}", "log", "null", "{", "5", "{}", &text("a"), "[null]"]);
        use LineKind::{Blank, Event, Unreadable};
        let rest = [Unreadable, Unreadable, Unreadable, Event, Event, Event, Event];
        assert_eq!(kinds[..2], [Blank, Blank]);
        assert_eq!(kinds[2..], rest);
        assert_eq!(seen, ["<text-5-1>", "a"]);
    }

    #[test]
    fn a_line_separator_is_text_inside_a_string_and_a_line_end_outside() {
        let inside = text("x\u{2028}y\u{2029}");
        let two = format!("{}\u{2028}{}", text("a\\\"\u{2029}"), text("b"));
        let broken = format!("log\u{2028}{}\u{2029}null", text("c"));
        let (kinds, seen) = said(&[&inside, &two, &broken, "a\u{2028}b", "\"\u{2028}{}"]);
        assert_eq!(seen, ["<text-5-1>", "x\u{2028}y\u{2029}", "a\\\"\u{2029}", "b", "c"]);
        assert_eq!(kinds[..3], [LineKind::Event; 3]);
        assert_eq!(kinds[3..], [LineKind::Unreadable; 2]);
    }

    #[test]
    fn a_delta_that_needs_no_change_is_not_copied() {
        struct Within(std::ops::Range<*const u8>, usize);
        impl EventSink for Within {
            fn event(&mut self, event: UiEvent<'_>) {
                if let UiEvent::TextDelta { delta, .. } = event {
                    assert!(self.0.contains(&delta.as_str().as_ptr()));
                    self.1 += 1;
                }
            }
        }
        let line = text(r"plain \n é");
        let mut sink = Within(line.as_bytes().as_ptr_range(), 0);
        Translator::default().line(line.as_bytes(), 0, &mut sink);
        assert_eq!(sink.1, 1);
    }

    #[test]
    fn other_sessions_lines_are_skipped_by_key_and_by_run() {
        let line = |key: &str, run: &str, delta: &str| {
            format!(
                r#"{{"event":"agent",{key}{run}"stream":"assistant","data":{{"delta":"{delta}"}}}}"#
            )
        };
        let [own, other] = ["me \\\"é", "you"].map(|key| format!(r#""sessionKey":"{key}","#));
        let [run_1, run_2] = ["1", "2"].map(|run| format!(r#""runId":"{run}","#));
        let lines = [
            (line("", &run_1, "a"), true),
            (line(&other, &run_1, "-"), false),
            (line("", &run_1, "-"), false),
            (line(r#""sessionKey":"","#, &run_1, "-"), false),
            (line(r#""sessionKey":5,"#, r#""runId":"\u0031","#, "-"), false),
            (line("", &run_2, "b"), true),
            (line("", "", "c"), true),
            (line(&own, &run_1, "d"), true),
            (line("", &run_1, "e"), true),
            (line(&other, "", "-"), false),
            (line("", "", "f"), true),
        ];
        let mut translator = Translator::new(Some("me \"é".into()));
        let mut seen = Seen::default();
        for (line, is_own) in &lines {
            let kind = translator.line(line.as_bytes(), 5, &mut seen);
            let expected = if *is_own { LineKind::Event } else { LineKind::OtherSession };
            assert_eq!(kind, expected, "{line}");
        }
        assert_eq!(seen.0, ["<text-5-1>", "a", "b", "c", "d", "e", "f"]);
        // Without a key of its own a run takes every line.
        for (line, _) in &lines {
            let kind = Translator::new(None).line(line.as_bytes(), 5, &mut Seen::default());
            assert_eq!(kind, LineKind::Event);
        }
    }

    #[test]
    fn only_so_many_other_runs_are_remembered() {
        let mut translator = Translator::new(Some("me".into()));
        for run in 0..MAX_OTHER_RUNS + 10 {
            let line = format!(r#"{{"sessionKey":"you","runId":"{run}"}}"#);
            translator.line(line.as_bytes(), 0, &mut Seen::default());
        }
        assert_eq!(translator.other_runs.len(), MAX_OTHER_RUNS);
        let last = format!(r#"{{"runId":"{}"}}"#, MAX_OTHER_RUNS + 9);
        let kind = translator.line(last.as_bytes(), 0, &mut Seen::default());
        assert_eq!(kind, LineKind::OtherSession);
    }

    #[test]
    fn an_error_of_the_run_is_the_only_one_shown() {
        let (mut translator, mut seen) = (Translator::default(), Seen::default());
        translator.line(text("a").as_bytes(), 5, &mut seen);
        translator.error("Failed to start agent: \"x\"", 6, &mut seen);
        translator.line(br#"{"event":"error","error":"second"}"#, 7, &mut seen);
        translator.finish("Error: third one", Some(1), 8, &mut seen);
        let error = r#"[error] Failed to start agent: \"x\""#;
        assert_eq!(seen.0, ["<text-5-1>", "a", "</text-5-1>", "<text-6-2>", error, "</text-6-2>"]);
    }

    #[test]
    fn an_end_without_an_answer_says_why() {
        for (stderr, code, message) in [
            ("", Some(0), "[error] No response from agent."),
            ("", None, "[error] No response from agent."),
            ("", Some(3), "[error] Agent exited with code 3. Check server logs for details."),
            ("Error: no key\n", Some(3), "[error] no key"),
            (" \n", Some(0), "[error] No response from agent."),
        ] {
            let mut seen = Seen::default();
            Translator::default().finish(stderr, code, 5, &mut seen);
            assert_eq!(seen.0, ["<text-5-1>", message, "</text-5-1>"]);
        }
    }

    #[test]
    fn a_status_is_replaced_by_what_it_announced() {
        let line = |stream: &str, data: &str| {
            format!(r#"{{"event":"agent","stream":"{stream}","data":{{{data}}}}}"#)
        };
        let lines = [
            line("lifecycle", r#""phase":"start""#),
            line("compaction", r#""phase":"start""#),
            line("compaction", r#""phase":"end","willRetry":true"#),
            line("thinking", r#""delta":"hm""#),
            line("compaction", r#""phase":"end""#),
            line("tool", r#""phase":"start","toolCallId":"t","name":"n","args":[1.0]"#),
            line("tool", r#""phase":"result","toolCallId":"t","result":"r""#),
        ];
        let (_, seen) = said(&lines.each_ref().map(String::as_str));
        assert_eq!(
            seen,
            [
                "<status-5-1>",
                "Preparing response...",
                "</status-5-1>",
                "<status-5-2>",
                "Optimizing session context...",
                r"\nRetrying with compacted context...",
                "</status-5-2>",
                "<reasoning-5-3>",
                "hm",
                "</reasoning-5-3>",
                r#"{"type":"tool-input-start","toolCallId":"t","toolName":"n"}"#,
                r#"{"type":"tool-input-available","toolCallId":"t","toolName":"n","input":[1]}"#,
                r#"{"type":"tool-output-available","toolCallId":"t","output":{"text":"r"}}"#,
            ]
        );
    }
}
