//! The message in the TypeScript module's form: all reasoning, then all tool calls, then all text.

use crate::{
    json::{JsonStr, JsonValue, Rope},
    ui::{EventSink, UiEvent},
};
use std::{collections::HashMap, io, sync::Arc};

/// What is stored of the events.
#[derive(Clone, Debug, Default)]
pub(super) struct ModuleForm {
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

impl ModuleForm {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.tool_calls.is_empty()
    }

    /// Writes the answer's text, the inside of a JSON string.
    pub fn write_content(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.text.write_to(out)
    }

    /// Writes the parts, with commas between.
    pub fn write_parts(&self, out: &mut dyn io::Write) -> io::Result<()> {
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
        Ok(())
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

impl EventSink for ModuleForm {
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
            | UiEvent::ToolInputStart { .. }
            // What the module does not have.
            | UiEvent::ToolProgress { .. }
            | UiEvent::Chunk(_)
            | UiEvent::ExtraChunk(_) => {}
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
