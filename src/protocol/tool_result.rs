//! What a tool came back with, cut down to what the UI shows of it.

use crate::json::{Document, JsonStr, JsonString, JsonValue, NodeId, RawValue};

/// The members of a result's details that are passed on, in this order.
const PASSED_ON: [&str; 12] = [
    "exitCode",
    "status",
    "durationMs",
    "cwd",
    "error",
    "reason",
    "url",
    "finalUrl",
    "targetUrl",
    "query",
    "results",
    "citations",
];

/// Details without a text are shown as JSON, up to this many UTF-16 units.
const MAX_DETAILS_UNITS: usize = 12_000;

/// A result, read.
struct Extract {
    document: Document,
    /// Empty if there is none: no rule tells the two apart.
    text: JsonString,
    /// An object or an array.
    details: Option<NodeId>,
}

impl Extract {
    fn of(result: RawValue<'_>) -> Self {
        let document = Document::from_raw(result);
        let value = document.root();
        let mut text = JsonString::default();
        let mut details = None;
        if let Some(string) = value.as_str() {
            text.push(string);
        } else if value.is_object() {
            let content = value.get("content").filter(|content| content.is_array());
            let blocks = content.into_iter().flat_map(|content| content.items());
            let texts = blocks
                .filter(|block| {
                    block.get("type").and_then(|kind| kind.as_str())
                        == Some(&JsonStr::escape("text"))
                })
                .filter_map(|block| block.get("text")?.as_str());
            for (index, block) in texts.enumerate() {
                if index > 0 {
                    text.push(&JsonStr::escape("\n"));
                }
                text.push(block);
            }
            details = value.get("details").filter(|details| details.is_object());
            if details.is_none() && text.is_empty() && content.is_none() {
                details = Some(value);
            }
        }
        let details = details.map(|details| details.id());
        Self { document, text, details }
    }
}

/// The output of a call that did not fail.
pub(super) fn output(result: Option<RawValue<'_>>) -> JsonValue {
    let Some(result) = result else { return JsonValue::empty_object() };
    let Extract { mut document, text, details } = Extract::of(result);
    let mut members = Vec::new();
    if !text.is_empty() {
        members.push(("text", document.scalar(&*text)));
    }
    if let Some(details) = details {
        let details = document.get(details);
        let passed = PASSED_ON.iter().filter_map(|key| Some((*key, details.get(key)?.id())));
        members.extend(passed);
        if text.is_empty() {
            let json = details.stringify();
            if json.chars().map(char::len_utf16).sum::<usize>() <= MAX_DETAILS_UNITS {
                members.push(("text", document.scalar(&*json)));
            }
        }
    }
    let members = members.into_iter().map(|(key, value)| (JsonStr::escape(key), value));
    let members: Vec<_> = members.collect();
    let output = document.object(members.iter().map(|(key, value)| (&**key, *value)));
    document.get(output).into()
}

/// The error of a call that failed; mostly a string.
pub(super) fn error_text(result: Option<RawValue<'_>>) -> JsonValue {
    if let Some(result) = result {
        let Extract { document, text, details } = Extract::of(result);
        if !text.is_empty() {
            return JsonValue::string(&text);
        }
        let error = details.and_then(|details| document.get(details).get("error"));
        if let Some(error) = error.filter(|error| error.is_truthy()) {
            return error.into();
        }
    }
    JsonValue::string(&JsonStr::escape("Tool execution failed"))
}
