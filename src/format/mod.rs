//! What an agent prints, turned into what the browser is told.
//!
//! A [`Format`] reads the lines of one kind of agent, and with it lives all else that belongs to that
//! kind: its default command, and its last words apart from the stream. Each is one file, and its name in the list below. The state machine of the UI stream ([`crate::ui`]) is the
//! same for all; [`Translator`] joins the two. Pure: no clock, no I/O; times and answers are handed in.

mod error_text;
mod openclaw;

use crate::{
    command::{AgentCommand, Environment},
    json::{JsonStr, JsonString, JsonValue},
    ui::{Chunk, EventSink, Ui, UiState},
};
use std::path::Path;

/// Declares the formats: for each its name in the public API, its variant, and the type that reads it.
macro_rules! formats {
    ($($name:literal => $variant:ident($reader:ty)),* $(,)?) => {
        /// A format's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is documented at the type that reads it")]
        pub enum FormatName {
            $($variant,)*
        }

        impl FormatName {
            /// All names in the public API.
            pub const ALL: &[&str] = &[$($name),*];

            /// The format of this name in the public API.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// See [`Format::default_command`].
            pub fn default_command(
                self,
                prompt: &Prompt,
                env: Environment,
                cwd: &Path,
                exists: &dyn Fn(&Path) -> bool,
            ) -> AgentCommand {
                match self {
                    $(Self::$variant => <$reader>::default_command(prompt, env, cwd, exists),)*
                }
            }
        }

        /// A reader of any format. An enum, because a call through a table for each line and event
        /// would show in the cost of a delta.
        #[derive(Debug)]
        enum Reader {
            $($variant($reader),)*
        }

        impl Reader {
            fn new(name: FormatName, prompt: &Prompt) -> Self {
                match name {
                    $(FormatName::$variant => Self::$variant(<$reader>::new(prompt)),)*
                }
            }

            fn line<S: EventSink>(&mut self, line: &[u8], ui: &mut Ui<'_, S>) -> LineKind {
                match self {
                    $(Self::$variant(reader) => reader.line(line, ui),)*
                }
            }

            fn last_words(&self) -> Option<&JsonStr> {
                match self {
                    $(Self::$variant(reader) => reader.last_words(),)*
                }
            }

            fn agent(&self) -> Option<&JsonValue> {
                match self {
                    $(Self::$variant(reader) => reader.agent(),)*
                }
            }

            fn skip_runs(&mut self, ids: Vec<JsonString>) {
                match self {
                    $(Self::$variant(reader) => reader.skip_runs(ids),)*
                }
            }

            fn own_runs(&self) -> &[JsonString] {
                match self {
                    $(Self::$variant(reader) => reader.own_runs(),)*
                }
            }
        }
    };
}

formats! {
    "openclaw" => OpenClaw(openclaw::OpenClaw),
}

impl Default for FormatName {
    /// The one of the module that this package replaces.
    fn default() -> Self {
        Self::OpenClaw
    }
}

/// What an agent is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What the user wrote.
    pub message: String,
    /// The agent's own id for the conversation; empty counts as none.
    pub agent_session_id: Option<String>,
}

/// Reads the lines of one kind of agent.
pub trait Format: Sized {
    /// A reader of the lines of an agent that is asked `prompt`.
    fn new(prompt: &Prompt) -> Self;

    /// The command that starts the agent when the caller names none. `env` and `cwd` are the
    /// caller's; `exists` tells whether there is a file of that path.
    fn default_command(
        prompt: &Prompt,
        env: Environment,
        cwd: &Path,
        exists: &dyn Fn(&Path) -> bool,
    ) -> AgentCommand;

    /// Reads a line, without its line end.
    fn line<S: EventSink>(&mut self, line: &[u8], ui: &mut Ui<'_, S>) -> LineKind;

    /// What the agent printed apart from its stream, for an end without an answer.
    fn last_words(&self) -> Option<&JsonStr>;

    /// What the agent reported of its model and usage: an object, for the message's metadata.
    fn agent(&self) -> Option<&JsonValue>;

    /// Has lines skipped that say that they are of these runs of the agent: earlier ones of this session,
    /// which did not come to their end.
    fn skip_runs(&mut self, ids: Vec<JsonString>);

    /// The runs of the agent of which lines were read, a few at most, the latest at the end. Empty for
    /// an agent that does not name them.
    fn own_runs(&self) -> &[JsonString];
}

/// What became of a line. Of a line that was read in pieces, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineKind {
    /// Only white space.
    Blank,
    /// Not JSON, or `null`; skipped.
    Unreadable,
    /// Another chat's, or an earlier run's; skipped.
    OtherSession,
    /// Read, whether or not it had something to show.
    Event,
}

/// How much is told of errors that an agent does not report in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Errors {
    /// As the TypeScript module does: what reads like an error on stderr is one.
    Module,
    /// Stderr explains failures only, and an end without an answer is explained by the agent's last
    /// words.
    #[default]
    Full,
}

/// How an agent ended, as far as its stream must tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentEnd<'a> {
    /// All that is kept of its stderr.
    pub stderr: &'a str,
    /// Its exit code; none when a signal ended it, or when it is not known.
    pub exit_code: Option<i32>,
    /// It was told to stop.
    pub is_stopped: bool,
}

/// Turns one run's lines into its events.
#[derive(Debug)]
pub struct Translator {
    reader: Reader,
    errors: Errors,
    ui: UiState,
}

impl Translator {
    /// For an agent of this format that is asked `prompt`.
    pub fn new(format: FormatName, prompt: &Prompt, errors: Errors) -> Self {
        Self { reader: Reader::new(format, prompt), errors, ui: UiState::default() }
    }

    /// Reads a line, without its line end. `now_ms` goes into the ids of parts that begin.
    pub fn line(&mut self, line: &[u8], now_ms: u64, sink: &mut impl EventSink) -> LineKind {
        self.reader.line(line, &mut self.ui.at(now_ms, sink))
    }

    /// Shows an error of the run itself, such as an agent that could not be started. The agent's
    /// own errors are not shown after it.
    pub fn error(&mut self, message: &str, now_ms: u64, sink: &mut impl EventSink) {
        self.ui.at(now_ms, sink).error(&JsonStr::escape(message));
    }

    /// Takes a chunk of the app's own.
    pub fn chunk(&mut self, chunk: &Chunk, sink: &mut impl EventSink) {
        // No part begins, so no time is needed.
        self.ui.at(0, sink).chunk(chunk);
    }

    /// Why a chunk of the agent's was refused since this was asked last, if one was.
    pub fn take_refusal(&mut self) -> Option<String> {
        self.ui.take_refusal()
    }

    /// See [`Format::agent`].
    pub fn agent(&self) -> Option<&JsonValue> {
        self.reader.agent()
    }

    /// Whether the model stopped because its answer is as long as it may be.
    pub fn is_at_length_limit(&self) -> bool {
        self.ui.is_at_length_limit()
    }

    /// Ends the stream.
    pub fn finish(&mut self, end: AgentEnd<'_>, now_ms: u64, sink: &mut impl EventSink) {
        let is_answered = self.ui.is_answered();
        let mut ui = self.ui.at(now_ms, sink);
        let has_failed = end.exit_code != Some(0);
        let (last_words, stderr_explains) = match self.errors {
            Errors::Module => (None, true),
            Errors::Full => (
                self.reader.last_words().filter(|_| !is_answered && !has_failed),
                (has_failed || !is_answered) && !end.is_stopped,
            ),
        };
        if !ui.is_error_reported() {
            if let Some(words) = last_words {
                ui.error(words);
            } else if let Some(text) = error_text::of_stderr(end.stderr).filter(|_| stderr_explains)
            {
                ui.error(&JsonStr::escape(&text));
            }
        }
        ui.finish(end.exit_code);
    }

    /// See [`Format::skip_runs`].
    pub fn skip_runs(&mut self, ids: Vec<JsonString>) {
        self.reader.skip_runs(ids);
    }

    /// See [`Format::own_runs`].
    pub fn own_runs(&self) -> &[JsonString] {
        self.reader.own_runs()
    }

    /// The error that was shown, if one was.
    pub fn shown_error(&self) -> Option<&JsonString> {
        self.ui.shown_error()
    }

    /// Whether a tool was called that has not come back.
    pub fn has_open_tool(&self) -> bool {
        self.ui.has_open_tool()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ui::tests::Seen;

    /// A translator for the contract's agent, as the module is.
    pub(crate) fn as_the_module() -> Translator {
        Translator::new(FormatName::OpenClaw, &Prompt::default(), Errors::Module)
    }

    fn text(delta: &str) -> String {
        format!(r#"{{"event":"agent","stream":"assistant","data":{{"delta":"{delta}"}}}}"#)
    }

    fn ended(errors: Errors, lines: &[&str], end: AgentEnd<'_>) -> String {
        let mut translator = Translator::new(FormatName::OpenClaw, &Prompt::default(), errors);
        let mut seen = Seen::default();
        for line in lines {
            translator.line(line.as_bytes(), 5, &mut seen);
        }
        translator.finish(end, 6, &mut seen);
        seen.0.join(" ")
    }

    #[test]
    fn a_format_is_found_by_its_name() {
        assert_eq!(FormatName::parse("openclaw"), Some(FormatName::OpenClaw));
        assert_eq!(FormatName::parse("OpenClaw"), None);
    }

    #[test]
    fn an_error_of_the_run_is_the_only_one_shown() {
        let (mut translator, mut seen) = (as_the_module(), Seen::default());
        translator.line(text("a").as_bytes(), 5, &mut seen);
        translator.error("Failed to start agent: \"x\"", 6, &mut seen);
        translator.line(br#"{"event":"error","error":"second"}"#, 7, &mut seen);
        let end = AgentEnd { stderr: "Error: third one", exit_code: Some(1), is_stopped: false };
        translator.finish(end, 8, &mut seen);
        let error = r#"[error] Failed to start agent: \"x\""#;
        assert_eq!(seen.0, ["<text-5-1>", "a", "</text-5-1>", "<text-6-2>", error, "</text-6-2>"]);
        let shown = translator.shown_error().map(|error| error.to_string_lossy().into_owned());
        assert_eq!(shown.as_deref(), Some("Failed to start agent: \"x\""));
    }

    #[test]
    fn an_end_without_an_answer_says_why() {
        for (stderr, exit_code, message) in [
            ("", Some(0), "[error] No response from agent."),
            ("", None, "[error] No response from agent."),
            ("", Some(3), "[error] Agent exited with code 3. Check server logs for details."),
            ("Error: no key\n", Some(3), "[error] no key"),
            (" \n", Some(0), "[error] No response from agent."),
        ] {
            let end = AgentEnd { stderr, exit_code, is_stopped: false };
            for errors in [Errors::Module, Errors::Full] {
                assert_eq!(ended(errors, &[], end), format!("<text-6-1> {message} </text-6-1>"));
            }
        }
    }

    #[test]
    fn told_in_full_stderr_explains_failures_only() {
        let answered = text("42");
        let lines = [answered.as_str()];
        let shown = |errors, exit_code, is_stopped| {
            let end = AgentEnd { stderr: "lint: 0 errors\n", exit_code, is_stopped };
            ended(errors, &lines, end).contains("[error] lint: 0 errors")
        };
        for exit_code in [Some(0), Some(1), None] {
            assert!(shown(Errors::Module, exit_code, false), "{exit_code:?}");
            let has_failed = exit_code != Some(0);
            assert_eq!(shown(Errors::Full, exit_code, false), has_failed, "{exit_code:?}");
            assert!(!shown(Errors::Full, exit_code, true), "{exit_code:?}");
        }
    }

    #[test]
    fn told_in_full_an_end_without_an_answer_is_explained_by_the_result() {
        let start = r#"{"event":"agent","stream":"lifecycle","data":{"phase":"start"}}"#;
        let result = r#"{"event":"result","result":{"payloads":[{"text":"HTTP 429: slow down"},{"text":"é\ud83d"},{"text":5},null,{"text":""}]}}"#;
        let end = |exit_code| AgentEnd { stderr: "failed to do it", exit_code, is_stopped: false };
        let told = |errors, lines: &[&str], code| ended(errors, lines, end(Some(code)));
        let words = "[error] HTTP 429: slow down\\né\\ud83d";
        assert!(told(Errors::Full, &[start, result], 0).contains(words));
        assert!(told(Errors::Module, &[start, result], 0).contains("[error] failed to do it"));
        assert!(told(Errors::Full, &[start, result], 1).contains("[error] failed to do it"));
        let answered = text("42");
        assert!(!told(Errors::Full, &[&answered, result], 0).contains("[error]"));
        for empty in [r#"{"event":"result"}"#, r#"{"event":"result","result":{"payloads":[]}}"#] {
            assert!(told(Errors::Full, &[empty], 0).contains("[error] failed to do it"), "{empty}");
        }
    }
}
