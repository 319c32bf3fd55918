//! The message as a `UIMessage` of the AI SDK: its parts as the SDK's reader makes them of the stream,
//! without the status lines, which are no part of the answer.

use super::metadata;
use crate::{
    json::{JsonStr, JsonValue, Rope},
    ui::{Chunk, EventSink, INTERRUPTED, Kept, UiEvent},
};
use std::{collections::HashMap, io, sync::Arc};

/// What is stored of the events.
#[derive(Clone, Debug)]
pub(super) struct UiForm {
    parts: Vec<Part>,
    /// The text part that grows, by its place in `parts`.
    text: Option<usize>,
    reasoning: Option<usize>,
    /// Where in `parts` a call is, by its id in JSON form.
    calls: HashMap<Arc<str>, usize>,
    /// Where a data part with an id is.
    data: HashMap<Box<str>, usize>,
    metadata: Arc<JsonValue>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(TextPart),
    Reasoning(TextPart),
    Tool(ToolPart),
    /// The part's JSON.
    Other(Arc<JsonValue>),
}

#[derive(Clone, Debug, Default)]
struct TextPart {
    text: Rope,
    is_done: bool,
}

#[derive(Clone, Debug)]
struct ToolPart {
    /// In JSON form, without quotes; so is `name`.
    id: Arc<str>,
    name: Arc<str>,
    input: Arc<JsonValue>,
    result: ToolResult,
}

#[derive(Clone, Debug)]
enum ToolResult {
    Pending,
    /// What it has so far.
    Progress(Arc<JsonValue>),
    Output(Arc<JsonValue>),
    Error(Arc<JsonValue>),
}

impl Default for UiForm {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            text: None,
            reasoning: None,
            calls: HashMap::new(),
            data: HashMap::new(),
            metadata: Arc::new(JsonValue::empty_object()),
        }
    }
}

impl UiForm {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn add_metadata(&mut self, added: &JsonValue) {
        self.metadata = Arc::new(metadata::merged(&self.metadata, added));
    }

    /// The metadata's JSON.
    pub fn metadata(&self) -> &str {
        self.metadata.text()
    }

    /// Writes all text, the inside of a JSON string.
    pub fn write_content(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for part in &self.parts {
            if let Part::Text(TextPart { text, .. }) = part {
                text.write_to(out)?;
            }
        }
        Ok(())
    }

    /// Writes the parts, with commas between. When the message grows no more, calls without a result
    /// have failed.
    pub fn write_parts(&self, out: &mut dyn io::Write, is_growing: bool) -> io::Result<()> {
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            match part {
                Part::Text(part) => part.write("text", is_growing, out)?,
                Part::Reasoning(part) => part.write("reasoning", is_growing, out)?,
                Part::Tool(part) => part.write(is_growing, out)?,
                Part::Other(part) => out.write_all(part.text().as_bytes())?,
            }
        }
        Ok(())
    }

    fn push(&mut self, part: Part) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }

    fn text_part(&mut self, place: Option<usize>) -> Option<&mut TextPart> {
        match self.parts.get_mut(place?)? {
            Part::Text(part) | Part::Reasoning(part) => Some(part),
            Part::Tool(_) | Part::Other(_) => None,
        }
    }

    fn call(&mut self, id: &JsonStr, name: &JsonStr, input: &JsonValue) {
        let part = Part::Tool(ToolPart {
            id: id.as_str().into(),
            name: name.as_str().into(),
            input: Arc::new(input.clone()),
            result: ToolResult::Pending,
        });
        match self.calls.get(id.as_str()) {
            Some(&place) => self.parts[place] = part,
            None => {
                let place = self.push(part);
                self.calls.insert(id.as_str().into(), place);
            }
        }
    }

    fn set_result(&mut self, id: &JsonStr, result: ToolResult) {
        let place = self.calls.get(id.as_str()).copied();
        if let Some(Part::Tool(part)) = place.and_then(|place| self.parts.get_mut(place)) {
            part.result = result;
        }
    }

    fn chunk(&mut self, chunk: &Chunk) {
        match chunk.kept() {
            Kept::Nothing => {}
            Kept::Metadata(metadata) => self.add_metadata(metadata),
            Kept::Part(part) => _ = self.push(Part::Other(Arc::new(part.clone()))),
            Kept::Data { key, part } => {
                let part = Part::Other(Arc::new(part.clone()));
                let known = key.as_ref().and_then(|key| self.data.get(key)).copied();
                if let Some(place) = known {
                    self.parts[place] = part;
                } else {
                    let place = self.push(part);
                    self.data.extend(key.clone().map(|key| (key, place)));
                }
            }
        }
    }
}

impl EventSink for UiForm {
    fn event(&mut self, event: UiEvent<'_>) {
        match event {
            UiEvent::TextStart { .. } => {
                self.text = Some(self.push(Part::Text(TextPart::default())));
            }
            UiEvent::TextDelta { delta, .. } => {
                if let Some(part) = self.text_part(self.text) {
                    part.text.push(delta);
                }
            }
            UiEvent::TextEnd { .. } => {
                let ended = self.text.take();
                if let Some(part) = self.text_part(ended) {
                    part.is_done = true;
                }
            }
            UiEvent::ReasoningDelta { delta, kept: true, .. } => {
                // Begun here, not at its start: a status line starts a part, too, but has no delta to keep.
                let place = self
                    .reasoning
                    .unwrap_or_else(|| self.push(Part::Reasoning(TextPart::default())));
                self.reasoning = Some(place);
                if let Some(part) = self.text_part(Some(place)) {
                    part.text.push(delta);
                }
            }
            UiEvent::ReasoningEnd { .. } => {
                let ended = self.reasoning.take();
                if let Some(part) = self.text_part(ended) {
                    part.is_done = true;
                }
            }
            UiEvent::ToolInputAvailable { tool_call_id, tool_name, input } => {
                self.call(tool_call_id, tool_name, input);
            }
            UiEvent::ToolProgress { tool_call_id, output } => {
                self.set_result(tool_call_id, ToolResult::Progress(Arc::new(output.clone())));
            }
            UiEvent::ToolOutputAvailable { tool_call_id, output } => {
                self.set_result(tool_call_id, ToolResult::Output(Arc::new(output.clone())));
            }
            UiEvent::ToolOutputError { tool_call_id, error_text } => {
                self.set_result(tool_call_id, ToolResult::Error(Arc::new(error_text.clone())));
            }
            UiEvent::Chunk(chunk) | UiEvent::ExtraChunk(chunk) => self.chunk(chunk),
            UiEvent::ReasoningStart { .. }
            | UiEvent::ReasoningDelta { kept: false, .. }
            | UiEvent::ToolInputStart { .. } => {}
        }
    }
}

impl TextPart {
    fn write(&self, kind: &str, is_growing: bool, out: &mut dyn io::Write) -> io::Result<()> {
        write!(out, r#"{{"type":"{kind}","text":""#)?;
        self.text.write_to(out)?;
        let is_done = self.is_done || !is_growing;
        let state = if is_done { "done" } else { "streaming" };
        write!(out, r#"","state":"{state}"}}"#)
    }
}

impl ToolPart {
    fn write(&self, is_growing: bool, out: &mut dyn io::Write) -> io::Result<()> {
        let Self { id, name, input, result } = self;
        write!(out, r#"{{"type":"tool-{name}","toolCallId":"{id}","state":""#)?;
        let input = format!(r#"","input":{}"#, input.text());
        match result {
            ToolResult::Pending if is_growing => write!(out, r#"input-available{input}}}"#),
            ToolResult::Progress(output) if is_growing => {
                let output = output.text();
                write!(out, r#"output-available{input},"output":{output},"preliminary":true}}"#)
            }
            ToolResult::Pending | ToolResult::Progress(_) => {
                write!(out, r#"output-error{input},"errorText":"{INTERRUPTED}"}}"#)
            }
            ToolResult::Output(output) => {
                write!(out, r#"output-available{input},"output":{}}}"#, output.text())
            }
            ToolResult::Error(error) if error.text().starts_with('"') => {
                write!(out, r#"output-error{input},"errorText":{}}}"#, error.text())
            }
            // The agent may say anything as an error; a `UIMessage` has a string.
            ToolResult::Error(error) => {
                let error = JsonStr::escape(error.text());
                write!(out, r#"output-error{input},"errorText":"{}"}}"#, error.as_str())
            }
        }
    }
}
