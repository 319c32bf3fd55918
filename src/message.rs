//! The assistant's message as it grows: a run's UI message stream events folded into what is
//! stored of them.
//!
//! Pure: it is written to whatever it is given, piece by piece, and never built in one buffer.
//! Snapshots are cheap, so that the disk can be written while the answer goes on.

use crate::{
    json::{JsonStr, JsonValue, Rope},
    ui::{EventSink, UiEvent},
};
use std::{collections::HashMap, io, sync::Arc};

/// An assistant's message. A clone is a snapshot that shares its texts.
#[derive(Clone, Debug)]
pub struct Message {
    id: Arc<str>,
    text: Rope,
    reasoning: Rope,
    /// In the order of the first call of each id.
    tool_calls: Vec<ToolCall>,
    /// Where in `tool_calls` an id, in JSON form, is.
    places: HashMap<Arc<str>, usize>,
}

#[derive(Clone, Debug)]
struct ToolCall {
    /// In JSON form, without quotes; so is `name`.
    id: Arc<str>,
    name: Arc<str>,
    input: Arc<JsonValue>,
    output: Option<Arc<JsonValue>>,
    error_text: Option<Arc<JsonValue>>,
}

impl Message {
    /// An empty message. `id` may be any text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            text: Rope::default(),
            reasoning: Rope::default(),
            tool_calls: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The message's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether there is nothing to store yet.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.tool_calls.is_empty()
    }

    /// Writes the message as the JSON line it is stored as, without a line end. `timestamp` is
    /// the time of writing in ISO form; `streaming` marks a message that is still growing.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_line(
        &self,
        out: &mut dyn io::Write,
        timestamp: &str,
        streaming: bool,
    ) -> io::Result<()> {
        let (id, timestamp) = (JsonStr::escape(&self.id), JsonStr::escape(timestamp));
        write!(out, r#"{{"id":"{}","role":"assistant","content":""#, id.as_str())?;
        self.text.write_to(out)?;
        out.write_all(br#"","parts":["#)?;
        let mut separator = "";
        if !self.reasoning.is_empty() {
            out.write_all(br#"{"type":"reasoning","text":""#)?;
            self.reasoning.write_to(out)?;
            out.write_all(b"\"}")?;
            separator = ",";
        }
        for call in &self.tool_calls {
            out.write_all(separator.as_bytes())?;
            call.write_part(out)?;
            separator = ",";
        }
        if !self.text.is_empty() {
            write!(out, r#"{separator}{{"type":"text","text":""#)?;
            self.text.write_to(out)?;
            out.write_all(b"\"}")?;
        }
        write!(out, r#"],"timestamp":"{}""#, timestamp.as_str())?;
        out.write_all(if streaming { br#","_streaming":true}"# } else { b"}" })
    }

    fn call(&mut self, id: &JsonStr, name: &JsonStr, input: &JsonValue) {
        let call = ToolCall {
            id: id.as_str().into(),
            name: name.as_str().into(),
            input: Arc::new(input.clone()),
            output: None,
            error_text: None,
        };
        match self.known(id) {
            Some(known) => *known = call,
            None => {
                self.places.insert(call.id.clone(), self.tool_calls.len());
                self.tool_calls.push(call);
            }
        }
    }

    fn known(&mut self, id: &JsonStr) -> Option<&mut ToolCall> {
        let place = *self.places.get(id.as_str())?;
        self.tool_calls.get_mut(place)
    }
}

impl EventSink for Message {
    fn event(&mut self, event: UiEvent<'_>) {
        match event {
            UiEvent::TextDelta { delta, .. } => self.text.push(delta),
            UiEvent::ReasoningDelta { delta, kept: true, .. } => self.reasoning.push(delta),
            UiEvent::ToolInputAvailable { tool_call_id, tool_name, input } => {
                self.call(tool_call_id, tool_name, input);
            }
            UiEvent::ToolOutputAvailable { tool_call_id, output } => {
                if let Some(call) = self.known(tool_call_id) {
                    call.output = Some(Arc::new(output.clone()));
                }
            }
            UiEvent::ToolOutputError { tool_call_id, error_text } => {
                if let Some(call) = self.known(tool_call_id) {
                    call.error_text = Some(Arc::new(error_text.clone()));
                }
            }
            UiEvent::TextStart { .. }
            | UiEvent::TextEnd { .. }
            | UiEvent::ReasoningStart { .. }
            | UiEvent::ReasoningDelta { kept: false, .. }
            | UiEvent::ReasoningEnd { .. }
            | UiEvent::ToolInputStart { .. } => {}
        }
    }
}

impl ToolCall {
    fn write_part(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write!(
            out,
            r#"{{"type":"tool-invocation","toolCallId":"{}","toolName":"{}","args":{}"#,
            self.id,
            self.name,
            self.input.text()
        )?;
        if let Some(output) = &self.output {
            write!(out, r#","result":{}"#, output.text())?;
        }
        if let Some(error_text) = &self.error_text {
            write!(out, r#","errorText":{}"#, error_text.text())?;
        }
        out.write_all(b"}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn line(message: &Message, streaming: bool) -> String {
        let mut out = Vec::new();
        message.write_line(&mut out, "2026-01-01T00:00:00.000Z", streaming).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn value(source: &str) -> JsonValue {
        Document::parse(source).unwrap().root().into()
    }

    fn call(message: &mut Message, id: &str, name: &str, input: &str) {
        let (tool_call_id, tool_name) = (&*JsonStr::escape(id), &*JsonStr::escape(name));
        let input = &value(input);
        message.event(UiEvent::ToolInputStart { tool_call_id, tool_name });
        message.event(UiEvent::ToolInputAvailable { tool_call_id, tool_name, input });
    }

    fn output(message: &mut Message, id: &str, output: &str) {
        let (tool_call_id, output) = (&*JsonStr::escape(id), &value(output));
        message.event(UiEvent::ToolOutputAvailable { tool_call_id, output });
    }

    fn error(message: &mut Message, id: &str, error_text: &str) {
        let (tool_call_id, error_text) = (&*JsonStr::escape(id), &value(error_text));
        message.event(UiEvent::ToolOutputError { tool_call_id, error_text });
    }

    #[test]
    fn a_message_is_written_as_the_module_writes_it() {
        let mut message = Message::new("assistant-\"s\"\n-1");
        assert!(message.is_empty());
        let delta = &*JsonStr::escape("Preparing…");
        message.event(UiEvent::ReasoningStart { id: "r" });
        message.event(UiEvent::ReasoningDelta { id: "r", delta, kept: false });
        assert!(message.is_empty());
        let delta = &*JsonStr::escape("hm\n");
        message.event(UiEvent::ReasoningDelta { id: "r", delta, kept: true });
        assert!(!message.is_empty());
        assert_eq!(
            line(&message, true),
            r#"{"id":"assistant-\"s\"\n-1","role":"assistant","content":"","parts":[{"type":"reasoning","text":"hm\n"}],"timestamp":"2026-01-01T00:00:00.000Z","_streaming":true}"#
        );
        call(&mut message, "t", "exec", "{\"n\":-0}");
        for piece in ["a", "", "é\""] {
            message.event(UiEvent::TextDelta { id: "x", delta: &JsonStr::escape(piece) });
        }
        assert_eq!(
            line(&message, false),
            r#"{"id":"assistant-\"s\"\n-1","role":"assistant","content":"aé\"","parts":[{"type":"reasoning","text":"hm\n"},{"type":"tool-invocation","toolCallId":"t","toolName":"exec","args":{"n":0}},{"type":"text","text":"aé\""}],"timestamp":"2026-01-01T00:00:00.000Z"}"#
        );
    }

    #[test]
    fn tool_calls_are_kept_as_a_javascript_map_keeps_them() {
        let mut message = Message::new("m");
        output(&mut message, "a", "{}");
        assert!(message.is_empty(), "a result without its call is not stored");
        call(&mut message, "a", "one", "{}");
        assert!(!message.is_empty());
        call(&mut message, "b", "two", "[]");
        output(&mut message, "a", r#"{"text":"old"}"#);
        error(&mut message, "a", "\"old\"");
        call(&mut message, "a", "three", "{\"k\":1}");
        error(&mut message, "b", "{\"code\":5}");
        output(&mut message, "b", r#"{"text":"new"}"#);
        let parts = r#""parts":[{"type":"tool-invocation","toolCallId":"a","toolName":"three","args":{"k":1}},{"type":"tool-invocation","toolCallId":"b","toolName":"two","args":[],"result":{"text":"new"},"errorText":{"code":5}}],"#;
        assert!(line(&message, false).contains(parts), "{}", line(&message, false));
    }

    #[test]
    fn a_clone_stays_as_it_was() {
        let mut message = Message::new("m");
        call(&mut message, "a", "one", "{}");
        message.event(UiEvent::TextDelta { id: "x", delta: &JsonStr::escape("now") });
        let (kept, before) = (message.clone(), line(&message, true));
        message.event(UiEvent::TextDelta { id: "x", delta: &JsonStr::escape(" later") });
        output(&mut message, "a", "{}");
        call(&mut message, "b", "two", "{}");
        assert_eq!(line(&kept, true), before);
        assert_ne!(line(&message, true), before);
    }
}
