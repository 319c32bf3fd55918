//! The assistant's message as it grows: a run's UI message stream events folded into what is
//! stored of them.
//!
//! Pure: it is written to whatever it is given, piece by piece, and never built in one buffer.
//! Snapshots are cheap, so that the disk can be written while the answer goes on.

mod metadata;
mod module_form;
mod ui_form;
mod well_formed;

use crate::{
    json::{JsonStr, JsonValue},
    ui::{EventSink, UiEvent},
};
use module_form::ModuleForm;
use std::{
    io::{self, Write},
    sync::Arc,
};
use ui_form::UiForm;
use well_formed::WellFormed;

/// The JSON of a message with U+FFFD in the place of half surrogate pairs.
pub fn well_formed(json: &str) -> String {
    let mut out = Vec::with_capacity(json.len());
    // Memory can be written.
    let _ = WellFormed::new(&mut out).write_all(json.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// In which form messages are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreFormat {
    /// The TypeScript module's: all reasoning, then all tool calls, then all text.
    #[default]
    Module,
    /// The AI SDK's `UIMessage`: the parts in their order, with what the other form has beside them.
    Ui,
}

/// An assistant's message. A clone is a snapshot that shares its texts.
#[derive(Clone, Debug)]
pub struct Message {
    id: Arc<str>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Module(ModuleForm),
    Ui(UiForm),
}

impl Message {
    /// An empty message. `id` may be any text.
    pub fn new(id: impl Into<Arc<str>>, format: StoreFormat) -> Self {
        let form = match format {
            StoreFormat::Module => Form::Module(ModuleForm::default()),
            StoreFormat::Ui => Form::Ui(UiForm::default()),
        };
        Self { id: id.into(), form }
    }

    /// The message's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether there is nothing to store yet.
    pub fn is_empty(&self) -> bool {
        match &self.form {
            Form::Module(form) => form.is_empty(),
            Form::Ui(form) => form.is_empty(),
        }
    }

    /// Adds members to its metadata, as the AI SDK's reader does. Nothing where there are none.
    pub fn add_metadata(&mut self, metadata: &JsonValue) {
        if let Form::Ui(form) = &mut self.form {
            form.add_metadata(metadata);
        }
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
        let id = JsonStr::escape(&self.id);
        let head = format!(r#"{{"id":"{}","role":"assistant","content":""#, id.as_str());
        out.write_all(head.as_bytes())?;
        match &self.form {
            Form::Module(form) => {
                form.write_content(out)?;
                out.write_all(br#"","parts":["#)?;
                form.write_parts(out)?;
                out.write_all(b"]")?;
            }
            Form::Ui(form) => {
                let out = &mut WellFormed::new(out);
                form.write_content(out)?;
                out.write_all(br#"","parts":["#)?;
                form.write_parts(out, streaming)?;
                out.write_all(br#"],"metadata":"#)?;
                out.write_all(form.metadata().as_bytes())?;
            }
        }
        write!(out, r#","timestamp":"{}""#, JsonStr::escape(timestamp).as_str())?;
        out.write_all(if streaming { br#","_streaming":true}"# } else { b"}" })
    }
}

impl EventSink for Message {
    fn event(&mut self, event: UiEvent<'_>) {
        match &mut self.form {
            Form::Module(form) => form.event(event),
            Form::Ui(form) => form.event(event),
        }
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
        let mut message = Message::new("assistant-\"s\"\n-1", StoreFormat::Module);
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
        let mut message = Message::new("m", StoreFormat::Module);
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
        let mut message = Message::new("m", StoreFormat::Module);
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
