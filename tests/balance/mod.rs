//! Checks a run's events while they come: for the property tests and the fuzzer.

use active_runs::{
    json::{Document, JsonStr},
    message::Message,
    ui::{EventSink, Kept, UiEvent},
};

/// Makes sure that every delta lies inside its part, and that ids are new and tool calls whole.
#[derive(Default)]
pub struct Balance {
    open: Vec<String>,
    seen: Vec<String>,
    called: Option<String>,
    is_answered: bool,
}

impl Balance {
    fn start(&mut self, id: &str) {
        assert!(!self.seen.iter().any(|seen| seen == id), "{id} is new");
        self.seen.push(id.to_owned());
        self.open.push(id.to_owned());
    }

    fn delta(&self, id: &str, delta: &JsonStr) {
        assert!(self.open.iter().any(|open| open == id), "{id} is open");
        assert!(!delta.is_empty());
    }

    /// To be called at the end.
    pub fn expect_closed(&self) {
        assert!(self.open.is_empty(), "{:?} ended", self.open);
        assert!(self.is_answered, "something was answered");
    }

    fn end(&mut self, id: &str) {
        let place = self.open.iter().position(|open| open == id).expect("what ends is open");
        self.open.remove(place);
    }
}

impl EventSink for Balance {
    fn event(&mut self, event: UiEvent<'_>) {
        let mut json = Vec::new();
        event.write_json(&mut json);
        let json = String::from_utf8(json).expect("events are text");
        assert_eq!(Document::parse(&json).expect("events are JSON").root().stringify(), json);
        let called = self.called.take();
        match event {
            UiEvent::TextStart { id } | UiEvent::ReasoningStart { id } => self.start(id),
            UiEvent::TextDelta { id, delta } => {
                self.delta(id, delta);
                self.is_answered = true;
            }
            UiEvent::ReasoningDelta { id, delta, .. } => self.delta(id, delta),
            UiEvent::TextEnd { id } | UiEvent::ReasoningEnd { id } => self.end(id),
            UiEvent::ToolInputStart { tool_call_id, .. } => {
                assert!(self.open.is_empty());
                self.called = Some(tool_call_id.as_str().to_owned());
            }
            UiEvent::ToolInputAvailable { tool_call_id, .. } => {
                assert_eq!(called.as_deref(), Some(tool_call_id.as_str()));
            }
            UiEvent::ToolOutputAvailable { .. }
            | UiEvent::ToolOutputError { .. }
            | UiEvent::ToolProgress { .. }
            | UiEvent::ExtraChunk(_) => {}
            UiEvent::Chunk(chunk) => {
                let kept = chunk.kept();
                self.is_answered |= matches!(kept, Kept::Part(_) | Kept::Data { .. });
            }
        }
    }
}

/// Both readers of an event.
pub struct Both(pub Balance, pub Message);

impl EventSink for Both {
    fn event(&mut self, event: UiEvent<'_>) {
        self.0.event(event);
        self.1.event(event);
    }
}
