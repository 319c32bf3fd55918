//! The assistant's message as it grows: a run's UI message stream events folded into what is
//! stored of them.
//!
//! Pure: it is written to whatever it is given, piece by piece, and never built in one buffer.
//! Snapshots are cheap, so that the disk can be written while the answer goes on.

use crate::{
    json::{JsonStr, JsonValue, Rope},
    protocol::{EventSink, UiEvent},
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
