//! The answer under way: bytes become lines, lines become events, and events go into the feed and
//! into the message to keep.

use super::{Question, Run};
use crate::{
    clock,
    diagnostics::{self, Warning},
    event_log::NewEntries,
    feed::{Feed, LineCounts, RunEnd, metadata_at_start},
    format::{AgentEnd, LineKind, Translator},
    json::{JsonString, JsonValue},
    lines::{Line, LineSplitter},
    message::Message,
    session_id::SessionId,
    settings::Settings,
    ui::{Chunk, EventSink, UiEvent},
};
use std::sync::Arc;

/// How much of a line that cannot be read is quoted, in characters.
const QUOTED: usize = 120;

/// The answer of one run.
pub struct Answer {
    splitter: LineSplitter,
    fold: Fold,
}

/// What lines are folded into.
struct Fold {
    feed: Arc<Feed>,
    session: SessionId,
    settings: Arc<Settings>,
    translator: Translator,
    new: NewEntries,
    message: Message,
    counts: LineCounts,
    /// Whether the warning of a refused chunk was given.
    has_refused: bool,
    /// In the log.
    bytes: usize,
    is_over_limit: bool,
}

/// Both readers of an event.
struct Both<'a>(&'a mut NewEntries, &'a mut Message);

impl EventSink for Both<'_> {
    fn event(&mut self, event: UiEvent<'_>) {
        self.1.event(event);
        self.0.event(event);
    }
}

impl Answer {
    /// Nothing has been answered yet.
    pub fn new(run: &Run, question: &Question) -> Self {
        let Question { format, prompt, errors, earlier_runs } = question;
        let mut translator = Translator::new(*format, prompt, *errors);
        translator.skip_runs(earlier_runs.clone());
        let mut message = Message::new(run.message_id.as_str(), run.settings.store_format);
        message.add_metadata(&metadata_at_start(run.started_at));
        Self {
            splitter: LineSplitter::new(run.settings.max_line_bytes),
            fold: Fold {
                feed: Arc::clone(&run.feed),
                session: run.session.clone(),
                settings: Arc::clone(&run.settings),
                translator,
                new: NewEntries::default(),
                message,
                counts: LineCounts::default(),
                has_refused: false,
                bytes: 0,
                is_over_limit: false,
            },
        }
    }

    /// Takes the next bytes. What they say is published with [`Answer::publish`].
    pub fn feed(&mut self, bytes: &[u8]) {
        let now_ms = clock::now_ms();
        let Self { splitter, fold } = self;
        splitter.feed(bytes, |line| fold.line(line, now_ms, false));
    }

    /// Takes a chunk of the app's own.
    pub fn emit(&mut self, chunk: &Chunk) {
        self.fold.emit(chunk, clock::now_ms());
    }

    /// Publishes what is new; says whether it is something to keep.
    pub fn publish(&mut self) -> bool {
        let Fold { feed, new, counts, bytes, message, .. } = &mut self.fold;
        *bytes += new.bytes();
        let is_news = !new.is_empty();
        feed.append(new, *counts);
        // A status line is an event, but nothing to keep.
        is_news && !message.is_empty()
    }

    /// The message so far.
    pub fn message(&self) -> &Message {
        &self.fold.message
    }

    /// The message, of which no more is needed than that.
    pub fn into_message(self) -> Message {
        self.fold.message
    }

    /// Whether it has become larger than a run may; nothing more is taken then.
    pub fn is_over_limit(&self) -> bool {
        self.fold.is_over_limit
    }

    /// How many lines came, whatever became of them.
    pub fn lines(&self) -> u64 {
        let LineCounts { read, unreadable, other_session, too_long, .. } = self.fold.counts;
        read + unreadable + other_session + too_long
    }

    /// Whether a tool was called that has not come back.
    pub fn has_open_tool(&self) -> bool {
        self.fold.translator.has_open_tool()
    }

    /// The runs of the agent of which lines were read.
    pub fn own_runs(&self) -> &[JsonString] {
        self.fold.translator.own_runs()
    }

    /// The error that the stream tells, if it tells one.
    pub fn shown_error(&self) -> Option<String> {
        let error = self.fold.translator.shown_error()?;
        Some(error.to_string_lossy().into_owned())
    }

    /// What the agent reported of its model and usage.
    pub fn agent(&self) -> Option<Arc<JsonValue>> {
        self.fold.translator.agent().map(|agent| Arc::new(agent.clone()))
    }

    /// Whether the model stopped because its answer is as long as it may be.
    pub fn is_at_length_limit(&self) -> bool {
        self.fold.translator.is_at_length_limit()
    }

    /// Adds the run's end to the message's metadata.
    pub fn note_end(&mut self, run: &Run, end: &RunEnd) {
        self.fold.message.add_metadata(&end.metadata(run.started_at));
    }

    /// Tells an error of the run itself, and publishes it.
    pub fn fail(&mut self, error: &str) {
        self.fold.fail(error, clock::now_ms());
        self.publish();
    }

    /// The input has ended: a last line without an end is a line, and open parts are closed.
    pub fn finish(&mut self, end: AgentEnd<'_>) {
        let now_ms = clock::now_ms();
        let Self { splitter, fold } = self;
        splitter.end(|line| fold.line(line, now_ms, true));
        let Fold { translator, new, message, .. } = fold;
        translator.finish(end, now_ms, &mut Both(new, message));
        self.publish();
    }
}

impl Fold {
    /// `is_cut`: the output ended before the line did.
    fn line(&mut self, line: Line<'_>, now_ms: u64, is_cut: bool) {
        if self.is_over_limit {
            return;
        }
        match line {
            Line::TooLong => {
                self.counts.too_long += 1;
                let limit = self.settings.max_line_bytes;
                self.warn(
                    "LINE_TOO_LONG",
                    &format!("Skipped a line of more than {limit} bytes (maxLineBytes)"),
                    "",
                );
            }
            Line::Bytes(bytes) => {
                let mut both = Both(&mut self.new, &mut self.message);
                match self.translator.line(bytes, now_ms, &mut both) {
                    LineKind::Event => {
                        self.counts.read += 1;
                        self.tell_refusal(bytes);
                    }
                    LineKind::OtherSession => self.counts.other_session += 1,
                    LineKind::Blank => return,
                    LineKind::Unreadable => {
                        self.counts.unreadable += 1;
                        let quoted = format!(": {}", quoted(bytes));
                        if is_cut {
                            let cut = "The agent's output ended inside a line";
                            self.warn("OUTPUT_CUT", cut, &quoted);
                        } else if self.counts.unreadable == 1 {
                            self.warn("LINE_UNREADABLE", "Skipped what is not JSON", &quoted);
                        }
                    }
                }
            }
        }
        self.counts.last_at = Some(now_ms);
        self.check_limit(now_ms);
    }

    fn emit(&mut self, chunk: &Chunk, now_ms: u64) {
        if self.is_over_limit {
            return;
        }
        self.translator.chunk(chunk, &mut Both(&mut self.new, &mut self.message));
        self.check_limit(now_ms);
    }

    /// Warns, once a run, that a chunk of the agent's was refused.
    fn tell_refusal(&mut self, line: &[u8]) {
        let Some(why) = self.translator.take_refusal() else { return };
        if !std::mem::replace(&mut self.has_refused, true) {
            let what = format!("Left out a chunk (its data: {why})");
            self.warn("CHUNK_REFUSED", &what, &format!(": {}", quoted(line)));
        }
    }

    fn check_limit(&mut self, now_ms: u64) {
        let limit = self.settings.max_run_bytes;
        if self.bytes + self.new.bytes() > limit {
            self.is_over_limit = true;
            let exceeded = format!("The agent's output exceeded {limit} bytes (maxRunBytes)");
            self.fail(&format!("{exceeded} and was stopped"), now_ms);
        }
    }

    fn fail(&mut self, error: &str, now_ms: u64) {
        let mut both = Both(&mut self.new, &mut self.message);
        self.translator.error(error, now_ms, &mut both);
    }

    fn warn(&self, code: &'static str, what: &str, quoted: &str) {
        let session = &self.session;
        diagnostics::warn(&Warning {
            code,
            message: format!("{what} in session {session}{quoted}"),
            session: Some(session.clone()),
        });
    }
}

/// The beginning of a line, as a quotation.
fn quoted(line: &[u8]) -> String {
    // A character has four bytes at most.
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * QUOTED)]);
    let beginning: String = text.chars().take(QUOTED).collect();
    let rest = if beginning.len() < line.len() { "…" } else { "" };
    format!("{beginning:?}{rest}")
}
