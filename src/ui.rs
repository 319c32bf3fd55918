//! UI message stream events, and the state machine that keeps them well-formed: every delta lies
//! inside its part, and every part that begins ends.
//!
//! [`Ui`] is told in the agent's terms what happened (thinking, text, a tool call, an error) and
//! decides which parts begin and end. It is the same for all formats of lines, knows none of them,
//! and keeps no text.

mod chunk;

pub use chunk::{Chunk, Kept};

use crate::json::{Document, JsonStr, JsonString, JsonValue, RawValue};
use std::{borrow::Cow, collections::HashSet, fmt::Write};

/// An event of the UI message stream, as the AI SDK names them.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants and fields are the AI SDK's own")]
pub enum UiEvent<'a> {
    TextStart {
        id: &'a str,
    },
    TextDelta {
        id: &'a str,
        delta: &'a JsonStr,
    },
    TextEnd {
        id: &'a str,
    },
    ReasoningStart {
        id: &'a str,
    },
    ReasoningDelta {
        id: &'a str,
        delta: &'a JsonStr,
        /// False for a status label ("Preparing response..."), which is shown but not stored.
        kept: bool,
    },
    ReasoningEnd {
        id: &'a str,
    },
    ToolInputStart {
        tool_call_id: &'a JsonStr,
        tool_name: &'a JsonStr,
    },
    ToolInputAvailable {
        tool_call_id: &'a JsonStr,
        tool_name: &'a JsonStr,
        input: &'a JsonValue,
    },
    ToolOutputAvailable {
        tool_call_id: &'a JsonStr,
        output: &'a JsonValue,
    },
    ToolOutputError {
        tool_call_id: &'a JsonStr,
        error_text: &'a JsonValue,
    },
    /// `tool-output-available` with `preliminary`: what a tool that is at work has so far. Not of the
    /// module's stream.
    ToolProgress {
        tool_call_id: &'a JsonStr,
        output: &'a JsonValue,
    },
    /// A chunk that the agent or the app has made itself.
    Chunk(&'a Chunk),
    /// One that is made of what the module leaves out, and is not of its stream.
    ExtraChunk(&'a Chunk),
}

/// An event's JSON is about so long at most, in bytes. JavaScript has no strings of more than 2²⁹ − 24
/// units.
pub const MAX_EVENT_BYTES: usize = 128 << 20;

/// After each so many bytes of tools' progress in a run, the pause between two updates doubles. Before
/// the first so many there is none.
const PROGRESS_BYTES: usize = 1 << 20;
/// Half the first pause.
const PROGRESS_PAUSE_MS: u64 = 50;
/// Keeps the pause below 15 hours, and the shift in range.
const MOST_DOUBLINGS: usize = 20;

/// The error of a call without a result, when the run has ended.
pub const INTERRUPTED: &str = "interrupted";

/// Where events go.
pub trait EventSink {
    /// Takes an event, after all that came before it.
    fn event(&mut self, event: UiEvent<'_>);
}

impl UiEvent<'_> {
    /// Appends the event as `JSON.stringify` prints it.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut put = |pieces: &[&str]| {
            for piece in pieces {
                out.extend_from_slice(piece.as_bytes());
            }
        };
        // The ids of parts are made here, of letters, digits and `-`.
        match self {
            Self::TextStart { id } => put(&[r#"{"type":"text-start","id":""#, id, "\"}"]),
            Self::TextDelta { id, delta } => put(&[
                r#"{"type":"text-delta","id":""#,
                id,
                r#"","delta":""#,
                delta.as_str(),
                "\"}",
            ]),
            Self::TextEnd { id } => put(&[r#"{"type":"text-end","id":""#, id, "\"}"]),
            Self::ReasoningStart { id } => {
                put(&[r#"{"type":"reasoning-start","id":""#, id, "\"}"]);
            }
            Self::ReasoningDelta { id, delta, .. } => put(&[
                r#"{"type":"reasoning-delta","id":""#,
                id,
                r#"","delta":""#,
                delta.as_str(),
                "\"}",
            ]),
            Self::ReasoningEnd { id } => put(&[r#"{"type":"reasoning-end","id":""#, id, "\"}"]),
            Self::ToolInputStart { tool_call_id, tool_name } => put(&[
                r#"{"type":"tool-input-start","toolCallId":""#,
                tool_call_id.as_str(),
                r#"","toolName":""#,
                tool_name.as_str(),
                "\"}",
            ]),
            Self::ToolInputAvailable { tool_call_id, tool_name, input } => put(&[
                r#"{"type":"tool-input-available","toolCallId":""#,
                tool_call_id.as_str(),
                r#"","toolName":""#,
                tool_name.as_str(),
                r#"","input":"#,
                input.text(),
                "}",
            ]),
            Self::ToolOutputAvailable { tool_call_id, output } => put(&[
                r#"{"type":"tool-output-available","toolCallId":""#,
                tool_call_id.as_str(),
                r#"","output":"#,
                output.text(),
                "}",
            ]),
            Self::ToolOutputError { tool_call_id, error_text } => put(&[
                r#"{"type":"tool-output-error","toolCallId":""#,
                tool_call_id.as_str(),
                r#"","errorText":"#,
                error_text.text(),
                "}",
            ]),
            Self::ToolProgress { tool_call_id, output } => put(&[
                r#"{"type":"tool-output-available","toolCallId":""#,
                tool_call_id.as_str(),
                r#"","output":"#,
                output.text(),
                r#","preliminary":true}"#,
            ]),
            Self::Chunk(chunk) | Self::ExtraChunk(chunk) => put(&[chunk.json().text()]),
        }
    }
}

/// Which parts are open, and what the end of the run will have to say.
#[derive(Debug, Default)]
pub struct UiState {
    /// How many parts have begun; numbers their ids.
    parts: u64,
    text: Part,
    reasoning: Part,
    /// The open reasoning part is a status label. Never set without one.
    status: bool,
    /// Something was answered, an error counting as an answer.
    answered: bool,
    shown_error: Option<JsonString>,
    /// The model stopped because its answer is as long as it may be.
    is_at_length_limit: bool,
    /// Why the last chunk that was refused was refused.
    refusal: Option<String>,
    /// The bytes of tools' progress that were passed on, and when that was done last.
    progress: (usize, u64),
    /// The ids of the tools that were called and have not come back.
    open_tools: HashSet<JsonString>,
}

/// The last part of its kind.
#[derive(Debug, Default)]
struct Part {
    id: String,
    open: bool,
}

impl Part {
    fn begin(&mut self, kind: &str, now_ms: u64, number: &mut u64) {
        *number += 1;
        self.open = true;
        self.id.clear();
        // Writing into a `String` cannot fail.
        let _ = write!(self.id, "{kind}-{now_ms}-{number}");
    }
}

impl UiState {
    /// The state together with what it needs to act: the time for the ids of parts that begin, and
    /// where events go.
    pub fn at<'a, S: EventSink>(&'a mut self, now_ms: u64, sink: &'a mut S) -> Ui<'a, S> {
        Ui { state: self, now_ms, sink }
    }

    /// Whether something was answered, an error counting as an answer.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The error that was shown, if one was; a run shows one.
    pub fn shown_error(&self) -> Option<&JsonString> {
        self.shown_error.as_ref()
    }

    /// Whether the model stopped because its answer is as long as it may be.
    pub fn is_at_length_limit(&self) -> bool {
        self.is_at_length_limit
    }

    /// Why a chunk was refused since this was asked last, if one was.
    pub fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    /// Whether a tool was called that has not come back.
    pub fn has_open_tool(&self) -> bool {
        !self.open_tools.is_empty()
    }
}

/// The state machine at work.
#[derive(Debug)]
pub struct Ui<'a, S> {
    state: &'a mut UiState,
    now_ms: u64,
    sink: &'a mut S,
}

impl<S: EventSink> Ui<'_, S> {
    /// Shows `label` in place of whatever is open, until something else is there to be shown.
    pub fn status(&mut self, label: &str) {
        self.close();
        let UiState { reasoning, parts, status, .. } = &mut *self.state;
        reasoning.begin("status", self.now_ms, parts);
        *status = true;
        self.sink.event(UiEvent::ReasoningStart { id: &reasoning.id });
        self.add_to_status(label);
    }

    /// Adds to the status that is shown, if one is.
    pub fn status_note(&mut self, note: &str) {
        if self.state.status {
            self.add_to_status(note);
        }
    }

    fn add_to_status(&mut self, text: &str) {
        let (id, delta) = (&*self.state.reasoning.id, &*JsonStr::escape(text));
        self.sink.event(UiEvent::ReasoningDelta { id, delta, kept: false });
    }

    /// Takes the status away, if one is shown.
    pub fn end_status(&mut self) {
        if self.state.status {
            self.close_reasoning();
        }
    }

    /// More of the model's thinking. A text part that is open stays open.
    pub fn thinking(&mut self, delta: &JsonStr) {
        if delta.is_empty() {
            return;
        }
        self.end_status();
        let UiState { reasoning, parts, .. } = &mut *self.state;
        if !reasoning.open {
            reasoning.begin("reasoning", self.now_ms, parts);
            self.sink.event(UiEvent::ReasoningStart { id: &reasoning.id });
        }
        for delta in pieces(delta) {
            self.sink.event(UiEvent::ReasoningDelta { id: &reasoning.id, delta, kept: true });
        }
    }

    /// More of the answer.
    pub fn text(&mut self, delta: &JsonStr) {
        if delta.is_empty() {
            return;
        }
        self.close_reasoning();
        let UiState { text, parts, answered, .. } = &mut *self.state;
        if !text.open {
            text.begin("text", self.now_ms, parts);
            self.sink.event(UiEvent::TextStart { id: &text.id });
        }
        *answered = true;
        for delta in pieces(delta) {
            self.sink.event(UiEvent::TextDelta { id: &text.id, delta });
        }
    }

    /// A picture, as markdown in the answer.
    pub fn media(&mut self, url: &JsonStr) {
        let url = url.trim();
        if url.is_empty() {
            return;
        }
        let mut markdown = JsonString::from("\n![media](");
        markdown.push(url);
        markdown.push(&JsonStr::escape(")\n"));
        self.text(&markdown);
    }

    /// A tool is called. An input that is too long is left out, and the call says so.
    pub fn tool_call(&mut self, tool_call_id: &JsonStr, tool_name: &JsonStr, input: &JsonValue) {
        self.close();
        let names = tool_call_id.as_str().len() + tool_name.as_str().len();
        let Some(input) = &bounded(input, names, || left_out_in("input")) else { return };
        self.state.open_tools.insert(tool_call_id.to_owned());
        self.sink.event(UiEvent::ToolInputStart { tool_call_id, tool_name });
        self.sink.event(UiEvent::ToolInputAvailable { tool_call_id, tool_name, input });
    }

    /// A tool came back with `output`. Open parts stay open. One that is too long is left out, and the
    /// result says so.
    pub fn tool_output(&mut self, id: &JsonStr, output: &JsonValue) {
        self.state.open_tools.remove(id);
        let names = id.as_str().len();
        let Some(output) = &bounded(output, names, || left_out_in("text")) else { return };
        self.sink.event(UiEvent::ToolOutputAvailable { tool_call_id: id, output });
    }

    /// A tool failed. Open parts stay open. An error that is too long is left out, and the event says so.
    pub fn tool_error(&mut self, id: &JsonStr, error_text: &JsonValue) {
        self.state.open_tools.remove(id);
        let names = id.as_str().len();
        let otherwise = || JsonValue::string(&JsonStr::escape(&left_out()));
        let Some(error_text) = &bounded(error_text, names, otherwise) else { return };
        self.sink.event(UiEvent::ToolOutputError { tool_call_id: id, error_text });
    }

    /// What a tool has so far; ignored where no such call is open. A tool may repeat all of its output with each
    /// update, which adds up quadratically: the more bytes were passed on in this run, the longer the pauses.
    pub fn tool_progress(&mut self, id: &JsonStr, output: &JsonValue) {
        let (bytes, last_ms) = &mut self.state.progress;
        let pause_ms = match *bytes / PROGRESS_BYTES {
            0 => 0,
            times => PROGRESS_PAUSE_MS << times.min(MOST_DOUBLINGS),
        };
        let is_due = !(*last_ms..*last_ms + pause_ms).contains(&self.now_ms);
        if !is_due || !self.state.open_tools.contains(id) {
            return;
        }
        *bytes += output.text().len();
        *last_ms = self.now_ms;
        let names = id.as_str().len();
        let Some(output) = &bounded(output, names, || left_out_in("text")) else { return };
        self.sink.event(UiEvent::ToolProgress { tool_call_id: id, output });
    }

    /// A picture that a tool came back with. One that is too long is left out.
    pub fn tool_picture(&mut self, media_type: &JsonStr, url: &JsonStr) {
        let chunk = Chunk::file(media_type, url);
        if chunk.json().text().len() <= MAX_EVENT_BYTES {
            self.sink.event(UiEvent::ExtraChunk(&chunk));
        }
    }

    /// A chunk of the app's own. Open parts stay open.
    pub fn chunk(&mut self, chunk: &Chunk) {
        self.sink.event(UiEvent::Chunk(chunk));
    }

    /// A chunk as the agent has printed it. One that cannot be passed on is left out; see
    /// [`UiState::take_refusal`].
    pub fn read_chunk(&mut self, chunk: RawValue<'_>) {
        match Chunk::read(chunk) {
            Ok(chunk) => {
                let is_answer = matches!(chunk.kept(), Kept::Part(_) | Kept::Data { .. });
                self.state.answered |= is_answer;
                self.chunk(&chunk);
            }
            Err(why) => self.state.refusal = Some(why),
        }
    }

    /// Why the model stopped: because its answer is as long as it may be, or otherwise.
    pub fn model_stopped(&mut self, is_at_length_limit: bool) {
        self.state.is_at_length_limit = is_at_length_limit;
    }

    /// Whether an error was shown; a run shows one.
    pub fn is_error_reported(&self) -> bool {
        self.state.shown_error.is_some()
    }

    /// Shows an error, in a text part of its own.
    pub fn error(&mut self, message: &JsonStr) {
        self.state.shown_error = Some(message.to_owned());
        self.close();
        let mut text = JsonString::from("[error] ");
        text.push(message);
        self.text(&text);
        self.close();
    }

    /// A turn of the agent ends: so do the parts that are open, and no tool of it is at work any more.
    pub fn end_turn(&mut self) {
        self.close();
        self.state.open_tools.clear();
    }

    /// Ends the parts that are open.
    pub fn close(&mut self) {
        self.close_reasoning();
        let text = &mut self.state.text;
        if text.open {
            text.open = false;
            self.sink.event(UiEvent::TextEnd { id: &text.id });
        }
    }

    /// Ends the stream of an agent that ended with `exit_code`, `None` if a signal ended it.
    pub fn finish(&mut self, exit_code: Option<i32>) {
        self.close();
        if self.state.answered {
            return;
        }
        let message = match exit_code {
            None | Some(0) => JsonString::from("No response from agent."),
            Some(code) => JsonString::from(&*format!(
                "Agent exited with code {code}. Check server logs for details."
            )),
        };
        self.error(&message);
    }

    fn close_reasoning(&mut self) {
        let UiState { reasoning, status, .. } = &mut *self.state;
        if reasoning.open {
            reasoning.open = false;
            *status = false;
            self.sink.event(UiEvent::ReasoningEnd { id: &reasoning.id });
        }
    }
}

/// A delta in pieces, each of which an event may hold.
fn pieces(delta: &JsonStr) -> impl Iterator<Item = &JsonStr> {
    let mut rest = Some(delta);
    std::iter::from_fn(move || {
        let (piece, after) = rest?.split_at_most(MAX_EVENT_BYTES);
        rest = (!after.is_empty()).then_some(after);
        Some(piece)
    })
}

/// The value, or what stands in its place where it is too long. None where nothing can: the event's names
/// are too long themselves.
fn bounded<'v>(
    value: &'v JsonValue,
    names: usize,
    otherwise: impl FnOnce() -> JsonValue,
) -> Option<Cow<'v, JsonValue>> {
    let left = MAX_EVENT_BYTES.checked_sub(names)?;
    let fits = value.text().len() <= left;
    Some(if fits { Cow::Borrowed(value) } else { Cow::Owned(otherwise()) })
}

/// What stands in the place of a value that is too long.
fn left_out() -> String {
    format!("[left out: longer than {MAX_EVENT_BYTES} bytes]")
}

/// The same as the only member of an object.
fn left_out_in(member: &str) -> JsonValue {
    let object = format!(r#"{{"{member}":"{}"}}"#, left_out());
    let document = Document::parse(&object);
    document.map_or_else(|_| JsonValue::empty_object(), |document| document.root().into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps the deltas, and of other events the type or the JSON.
    #[derive(Default)]
    pub(crate) struct Seen(pub Vec<String>);

    impl EventSink for Seen {
        fn event(&mut self, event: UiEvent<'_>) {
            self.0.push(match event {
                UiEvent::TextDelta { delta, .. } | UiEvent::ReasoningDelta { delta, .. } => {
                    delta.as_str().to_owned()
                }
                UiEvent::TextStart { id } | UiEvent::ReasoningStart { id } => format!("<{id}>"),
                UiEvent::TextEnd { id } | UiEvent::ReasoningEnd { id } => format!("</{id}>"),
                _ => json(event),
            });
        }
    }

    fn json(event: UiEvent<'_>) -> String {
        let mut out = Vec::new();
        event.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_have_the_modules_keys_in_its_order() {
        let id = "text-5-1";
        let [text, name] = ["a\n\"", "exec"].map(JsonStr::escape);
        let value = JsonValue::from(Document::parse("[-0,1e999]").unwrap().root());
        for (event, expected) in [
            (UiEvent::TextStart { id }, r#"{"type":"text-start","id":"text-5-1"}"#),
            (
                UiEvent::TextDelta { id, delta: &text },
                r#"{"type":"text-delta","id":"text-5-1","delta":"a\n\""}"#,
            ),
            (UiEvent::TextEnd { id }, r#"{"type":"text-end","id":"text-5-1"}"#),
            (UiEvent::ReasoningStart { id }, r#"{"type":"reasoning-start","id":"text-5-1"}"#),
            (
                UiEvent::ReasoningDelta { id, delta: &text, kept: false },
                r#"{"type":"reasoning-delta","id":"text-5-1","delta":"a\n\""}"#,
            ),
            (UiEvent::ReasoningEnd { id }, r#"{"type":"reasoning-end","id":"text-5-1"}"#),
            (
                UiEvent::ToolInputStart { tool_call_id: &text, tool_name: &name },
                r#"{"type":"tool-input-start","toolCallId":"a\n\"","toolName":"exec"}"#,
            ),
            (
                UiEvent::ToolInputAvailable {
                    tool_call_id: &text,
                    tool_name: &name,
                    input: &value,
                },
                r#"{"type":"tool-input-available","toolCallId":"a\n\"","toolName":"exec","input":[0,null]}"#,
            ),
            (
                UiEvent::ToolOutputAvailable { tool_call_id: &name, output: &value },
                r#"{"type":"tool-output-available","toolCallId":"exec","output":[0,null]}"#,
            ),
            (
                UiEvent::ToolOutputError { tool_call_id: &name, error_text: &value },
                r#"{"type":"tool-output-error","toolCallId":"exec","errorText":[0,null]}"#,
            ),
        ] {
            assert_eq!(json(event), expected);
        }
    }

    #[test]
    fn what_is_too_long_for_an_event_is_left_out_and_said_to_be() {
        let mut state = UiState::default();
        let mut seen = Seen::default();
        let mut ui = state.at(5, &mut seen);
        let id = &*JsonStr::escape("t");
        let long = "x".repeat(MAX_EVENT_BYTES);
        let (long, value) = (&*JsonStr::escape(&long), &JsonValue::string(&JsonStr::escape(&long)));
        ui.tool_call(id, id, value);
        ui.tool_output(id, value);
        ui.tool_error(id, value);
        ui.tool_call(long, id, value);
        ui.text(long);
        assert_eq!(
            seen.0[..4],
            [
                r#"{"type":"tool-input-start","toolCallId":"t","toolName":"t"}"#,
                r#"{"type":"tool-input-available","toolCallId":"t","toolName":"t","input":{"input":"[left out: longer than 134217728 bytes]"}}"#,
                r#"{"type":"tool-output-available","toolCallId":"t","output":{"text":"[left out: longer than 134217728 bytes]"}}"#,
                r#"{"type":"tool-output-error","toolCallId":"t","errorText":"[left out: longer than 134217728 bytes]"}"#,
            ]
        );
        assert_eq!(seen.0.len(), 6);
        assert_eq!(seen.0[5].len(), MAX_EVENT_BYTES, "just as long as it may be");
    }

    #[test]
    fn the_more_tools_at_work_have_had_the_less_often_it_is_passed_on() {
        let (mut state, mut seen) = (UiState::default(), Seen::default());
        let id = &*JsonStr::escape("t");
        let value = &JsonValue::string(&JsonStr::escape(&"x".repeat(100_000)));
        state.at(0, &mut seen).tool_call(id, id, value);
        // All that it has, each time, ten times a second for an hour.
        for at in 1..36_000 {
            state.at(at * 100, &mut seen).tool_progress(id, value);
        }
        let passed = seen.0.len() - 2;
        assert!((40..200).contains(&passed), "{passed}");
        // Short ones are all passed on.
        let (mut state, short) = (UiState::default(), &JsonValue::string(id));
        state.at(0, &mut seen).tool_call(id, id, short);
        let before = seen.0.len();
        (0..10_000).for_each(|_| state.at(5, &mut seen).tool_progress(id, short));
        assert_eq!(seen.0.len() - before, 10_000);
    }

    #[test]
    fn a_tool_is_open_from_its_call_to_its_first_result() {
        let mut state = UiState::default();
        let [first, second] = ["1", "2"].map(JsonStr::escape);
        let value = JsonValue::empty_object();
        let mut sink = Seen::default();
        let mut ui = state.at(5, &mut sink);
        ui.tool_output(&first, &value);
        ui.tool_call(&first, &first, &value);
        ui.tool_call(&second, &first, &value);
        ui.tool_call(&second, &first, &value);
        ui.tool_error(&first, &value);
        assert!(state.has_open_tool());
        state.at(5, &mut sink).tool_output(&second, &value);
        assert!(!state.has_open_tool());
    }
}
