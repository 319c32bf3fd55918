//! The agent's line format: one JSON object a line, read as leniently as JavaScript would.
//!
//! A member that is missing and one of the wrong type are the same: nothing. Members that no rule
//! reads are stepped over, and what is read stays source, so that a common line is scanned once
//! and nothing of it is copied.

use crate::json::{Cursor, Invalid, RawStr, RawValue};

/// A line, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct AgentLine<'a> {
    /// The chat the line belongs to, if it says so.
    pub session_key: Option<RawStr<'a>>,
    /// The agent's run it belongs to, if it says so.
    pub run_id: Option<RawStr<'a>>,
    /// What it says.
    pub event: AgentEvent<'a>,
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub enum AgentEvent<'a> {
    /// A turn begins.
    LifecycleStart,
    /// A turn ends.
    LifecycleEnd,
    /// A turn failed, or the agent as a whole did; the error body, if it has one.
    Error(Option<RawStr<'a>>),
    /// The model thinks.
    Thinking {
        /// What is new.
        delta: RawStr<'a>,
    },
    /// The model answers.
    Assistant {
        /// What is new.
        delta: Option<RawStr<'a>>,
        /// An array in which the strings are addresses of pictures.
        media_urls: Option<RawValue<'a>>,
        /// The error body, if the answer ended with an error.
        error: Option<RawStr<'a>>,
        /// Whether the model stopped because its answer is as long as it may be; none when the line
        /// does not say why it stopped.
        is_at_length_limit: Option<bool>,
    },
    /// A tool is called.
    ToolStart {
        /// The call.
        id: Option<RawStr<'a>>,
        /// The tool.
        name: Option<RawStr<'a>>,
        /// The arguments, if they are an object.
        args: Option<RawValue<'a>>,
    },
    /// A tool at work has something.
    ToolUpdate {
        /// The call.
        id: Option<RawStr<'a>>,
        /// What it has so far.
        partial: RawValue<'a>,
    },
    /// A tool came back.
    ToolResult {
        /// The call.
        id: Option<RawStr<'a>>,
        /// What it came back with.
        result: Option<RawValue<'a>>,
        /// Whether it failed.
        is_error: bool,
    },
    /// The session's history is being shortened.
    CompactionStart,
    /// It was shortened.
    CompactionEnd {
        /// The turn begins again with what is left.
        will_retry: bool,
    },
    /// The turn's result, which repeats its texts, or has the only ones.
    Result {
        /// An array of objects, each perhaps with a text.
        payloads: Option<RawValue<'a>>,
        /// An object: the model, and what it has used.
        agent: Option<RawValue<'a>>,
    },
    /// A chunk of the UI message stream.
    Chunk(RawValue<'a>),
    /// Something that the UI is not told.
    Other,
}

/// The members of a line that a rule reads.
#[derive(Default)]
struct Fields<'a> {
    event: Option<RawValue<'a>>,
    stream: Option<RawValue<'a>>,
    session_key: Option<RawValue<'a>>,
    run_id: Option<RawValue<'a>>,
    result: Option<RawValue<'a>>,
    data: Data<'a>,
    /// The source of `data`, if it is an object.
    data_source: Option<RawValue<'a>>,
    /// Unless `data` is missing or null.
    has_data: bool,
    /// The line's own, which count when there is no `data`.
    error: ErrorFields<'a>,
}

/// The members of `data` that a rule reads. None, if it is no object.
#[derive(Default)]
struct Data<'a> {
    delta: Option<RawValue<'a>>,
    phase: Option<RawValue<'a>>,
    media_urls: Option<RawValue<'a>>,
    stop_reason: Option<RawValue<'a>>,
    tool_call_id: Option<RawValue<'a>>,
    name: Option<RawValue<'a>>,
    args: Option<RawValue<'a>>,
    result: Option<RawValue<'a>>,
    is_error: Option<RawValue<'a>>,
    will_retry: Option<RawValue<'a>>,
    partial_result: Option<RawValue<'a>>,
    error: ErrorFields<'a>,
}

#[derive(Default)]
struct ErrorFields<'a> {
    error: Option<RawValue<'a>>,
    message: Option<RawValue<'a>>,
    error_message: Option<RawValue<'a>>,
}

impl<'a> AgentLine<'a> {
    /// Reads a line; `None` when it is `null`, to which JavaScript's rules cannot be put.
    ///
    /// # Errors
    /// When the line is not JSON.
    pub fn read(line: &'a str) -> Result<Option<Self>, Invalid> {
        let mut cursor = Cursor::new(line);
        let mut fields = Fields::default();
        let mut null = false;
        if cursor.peek() == Some(b'{') {
            cursor.members(|cursor, key| fields.member(cursor, key))?;
        } else {
            null = cursor.value()?.text() == "null";
        }
        cursor.end()?;
        Ok((!null).then(|| Self {
            session_key: string(fields.session_key),
            run_id: string(fields.run_id),
            event: fields.event(),
        }))
    }
}

impl<'a> Fields<'a> {
    // Of a repeated key the last value counts, so each simply replaces what was there.
    fn member(&mut self, cursor: &mut Cursor<'a>, key: RawStr<'a>) -> Result<(), Invalid> {
        let field = match key.json().as_str() {
            "event" => &mut self.event,
            "stream" => &mut self.stream,
            "sessionKey" => &mut self.session_key,
            "runId" => &mut self.run_id,
            "result" => &mut self.result,
            "data" => {
                self.data = Data::default();
                (self.has_data, self.data_source) = self.data.read(cursor)?;
                return Ok(());
            }
            name => match self.error.field(name) {
                Some(field) => field,
                None => return cursor.value().map(drop),
            },
        };
        *field = Some(cursor.value()?);
        Ok(())
    }

    fn event(&self) -> AgentEvent<'a> {
        if is(self.event, "error") {
            let error = if self.has_data { &self.data.error } else { &self.error };
            return AgentEvent::Error(error.body());
        }
        if is(self.event, "result") {
            let (payloads, agent) = self.result.map_or((None, None), result);
            return AgentEvent::Result { payloads, agent };
        }
        if !is(self.event, "agent") {
            return AgentEvent::Other;
        }
        let data = &self.data;
        let stream = string(self.stream).map(RawStr::json);
        match stream.as_ref().map_or("", |stream| stream.as_str()) {
            "assistant" => data.assistant(),
            "thinking" => match string(data.delta) {
                Some(delta) => AgentEvent::Thinking { delta },
                None => AgentEvent::Other,
            },
            "tool" => data.tool(),
            "ui" => self.data_source.map_or(AgentEvent::Other, AgentEvent::Chunk),
            "lifecycle" if is(data.phase, "start") => AgentEvent::LifecycleStart,
            "lifecycle" if is(data.phase, "end") => AgentEvent::LifecycleEnd,
            "lifecycle" if is(data.phase, "error") => AgentEvent::Error(data.error.body()),
            "compaction" if is(data.phase, "start") => AgentEvent::CompactionStart,
            "compaction" if is(data.phase, "end") => {
                AgentEvent::CompactionEnd { will_retry: is_true(data.will_retry) }
            }
            _ => AgentEvent::Other,
        }
    }
}

impl<'a> Data<'a> {
    /// Reads the value of `data`: whether it is not null, and its source if it is an object.
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(bool, Option<RawValue<'a>>), Invalid> {
        if cursor.peek() == Some(b'{') {
            let source = cursor.object(|cursor, key| {
                let field = match key.json().as_str() {
                    "delta" => &mut self.delta,
                    "phase" => &mut self.phase,
                    "mediaUrls" => &mut self.media_urls,
                    "stopReason" => &mut self.stop_reason,
                    "toolCallId" => &mut self.tool_call_id,
                    "name" => &mut self.name,
                    "args" => &mut self.args,
                    "result" => &mut self.result,
                    "isError" => &mut self.is_error,
                    "willRetry" => &mut self.will_retry,
                    "partialResult" => &mut self.partial_result,
                    name => match self.error.field(name) {
                        Some(field) => field,
                        None => return cursor.value().map(drop),
                    },
                };
                *field = Some(cursor.value()?);
                Ok(())
            })?;
            Ok((true, Some(source)))
        } else {
            Ok((cursor.value()?.text() != "null", None))
        }
    }

    fn assistant(&self) -> AgentEvent<'a> {
        let failed = is(self.stop_reason, "error");
        AgentEvent::Assistant {
            delta: string(self.delta),
            media_urls: self.media_urls.filter(|urls| urls.is_array()),
            error: string(self.error.error_message).filter(|_| failed),
            is_at_length_limit: self.stop_reason.map(|reason| reason.is_str("length")),
        }
    }

    fn tool(&self) -> AgentEvent<'a> {
        let id = string(self.tool_call_id);
        if is(self.phase, "start") {
            let args = self.args.filter(|args| args.is_object());
            AgentEvent::ToolStart { id, name: string(self.name), args }
        } else if is(self.phase, "update") {
            match self.partial_result {
                Some(partial) => AgentEvent::ToolUpdate { id, partial },
                None => AgentEvent::Other,
            }
        } else if is(self.phase, "result") {
            let is_error = is_true(self.is_error);
            AgentEvent::ToolResult { id, result: self.result, is_error }
        } else {
            AgentEvent::Other
        }
    }
}

impl<'a> ErrorFields<'a> {
    fn field(&mut self, name: &str) -> Option<&mut Option<RawValue<'a>>> {
        match name {
            "error" => Some(&mut self.error),
            "message" => Some(&mut self.message),
            "errorMessage" => Some(&mut self.error_message),
            _ => None,
        }
    }

    fn body(&self) -> Option<RawStr<'a>> {
        [self.error, self.message, self.error_message].into_iter().find_map(string)
    }
}

/// The `payloads` of a result, if they are an array, and its `meta.agentMeta`, if that is an object.
fn result(result: RawValue<'_>) -> (Option<RawValue<'_>>, Option<RawValue<'_>>) {
    let payloads = member(result, "payloads").filter(|payloads| payloads.is_array());
    let meta = member(result, "meta");
    let agent = meta.and_then(|meta| member(meta, "agentMeta"));
    (payloads, agent.filter(|agent| agent.is_object() && !agent.is_array()))
}

/// A member of what may be an object.
fn member<'a>(object: RawValue<'a>, name: &str) -> Option<RawValue<'a>> {
    let mut member = None;
    let read = Cursor::new(object.text()).members(|cursor, key| {
        let value = cursor.value()?;
        if key.json().as_str() == name {
            member = Some(value);
        }
        Ok(())
    });
    member.filter(|_| read.is_ok())
}

fn string(value: Option<RawValue<'_>>) -> Option<RawStr<'_>> {
    value.and_then(RawValue::as_str)
}

fn is(value: Option<RawValue<'_>>, word: &str) -> bool {
    value.is_some_and(|value| value.is_str(word))
}

fn is_true(value: Option<RawValue<'_>>) -> bool {
    value.is_some_and(|value| value.text() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> AgentEvent<'_> {
        AgentLine::read(line).unwrap().unwrap().event
    }

    #[test]
    fn members_of_the_wrong_type_count_as_missing() {
        for line in [
            "[1]",
            "5",
            "\"s\"",
            "true",
            "{}",
            r#"{"event":5}"#,
            r#"{"event":"agent"}"#,
            r#"{"event":"agent","stream":7,"data":{"delta":"x"}}"#,
            r#"{"event":"agent","stream":"thinking","data":{"delta":["x"]}}"#,
            r#"{"event":"agent","stream":"thinking","data":[{"delta":"x"}]}"#,
            r#"{"event":"agent","stream":"tool","data":{"phase":5}}"#,
            r#"{"event":"agent","stream":"lifecycle","data":"start"}"#,
            r#"{"event":"other","stream":"thinking","data":{"delta":"x"}}"#,
        ] {
            assert!(matches!(event(line), AgentEvent::Other), "{line}");
        }
        assert!(AgentLine::read("null").unwrap().is_none());
        assert!(AgentLine::read("").is_err());
    }

    #[test]
    fn of_repeated_keys_the_last_value_counts() {
        let line =
            r#"{"event":"x","stream":"thinking","data":{"delta":"1","delta":"2"},"event":"agent"}"#;
        assert!(
            matches!(event(line), AgentEvent::Thinking { delta } if delta.json().as_str() == "2")
        );
        let line = r#"{"event":"agent","stream":"thinking","data":{"delta":"1"},"data":{}}"#;
        assert!(matches!(event(line), AgentEvent::Other));
        let line = r#"{"event":"error","data":{"error":"1"},"data":null,"error":"2"}"#;
        assert!(
            matches!(event(line), AgentEvent::Error(Some(body)) if body.json().as_str() == "2")
        );
    }

    #[test]
    fn an_error_is_read_from_the_data_even_if_that_says_nothing() {
        for line in [
            r#"{"event":"error","error":"own","data":{}}"#,
            r#"{"event":"error","error":"own","data":0}"#,
            r#"{"event":"error","error":"own","data":"text"}"#,
            r#"{"event":"error","error":5}"#,
        ] {
            assert!(matches!(event(line), AgentEvent::Error(None)), "{line}");
        }
        let line = r#"{"event":"error","errorMessage":"3","message":"2","error":{}}"#;
        assert!(
            matches!(event(line), AgentEvent::Error(Some(body)) if body.json().as_str() == "2")
        );
    }
}
