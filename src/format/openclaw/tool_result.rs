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

/// The pictures among the content of a result: the media type and the `data:` URL of each.
pub(super) fn pictures(result: RawValue<'_>) -> Vec<(JsonString, JsonString)> {
    // Most results have none, and are not read for them once more.
    if !result.text().contains("image") {
        return Vec::new();
    }
    let document = Document::from_raw(result);
    let content = document.root().get("content").filter(|content| content.is_array());
    let blocks = content.into_iter().flat_map(|content| content.items());
    let pictures = blocks.filter_map(|block| {
        let text = |key: &str| block.get(key)?.as_str();
        let is_image = text("type").is_some_and(|kind| kind.as_str() == "image");
        let (data, media_type) = (text("data")?, text("mimeType")?);
        if !is_image || data.is_empty() || !media_type.as_str().starts_with("image/") {
            return None;
        }
        let mut url = JsonString::from("data:");
        for piece in [media_type, &JsonStr::escape(";base64,"), data] {
            url.push(piece);
        }
        Some((media_type.to_owned(), url))
    });
    pictures.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Cursor;

    fn outputs(source: &str) -> String {
        output(Some(Cursor::new(source).value().unwrap())).text().to_owned()
    }

    fn errors(source: &str) -> String {
        error_text(Some(Cursor::new(source).value().unwrap())).text().to_owned()
    }

    #[test]
    fn what_is_no_text_and_no_object_is_no_output() {
        for source in ["null", "false", "true", "0", "5", "\"\"", r#"{"content":[]}"#] {
            assert_eq!(outputs(source), "{}", "{source}");
            assert_eq!(errors(source), "\"Tool execution failed\"", "{source}");
        }
        assert_eq!(output(None).text(), "{}");
        assert_eq!(error_text(None).text(), "\"Tool execution failed\"");
    }

    #[test]
    fn text_blocks_are_joined_by_a_new_line() {
        let source = r#"{"content":[{"type":"text","text":"one"},{"type":"image","text":"no"},
            {"type":"text","text":3},null,"s",[],{"text":"no"},{"type":"te\u0078t","text":"\ud83d"}],"x":1}"#;
        assert_eq!(outputs(source), r#"{"text":"one\n\ud83d"}"#);
        assert_eq!(errors(source), r#""one\n\ud83d""#);
    }

    #[test]
    fn pictures_are_data_urls() {
        let found = |source: &str| -> Vec<String> {
            let pictures = pictures(Cursor::new(source).value().unwrap()).into_iter();
            pictures.map(|(kind, url)| format!("{} {}", kind.as_str(), url.as_str())).collect()
        };
        let picture = r#"{"type":"image","data":"iVBO","mimeType":"image/png"}"#;
        let source =
            format!(r#"{{"content":[{{"type":"text","text":"image"}},{picture},{picture}]}}"#);
        assert_eq!(found(&source), ["image/png data:image/png;base64,iVBO"; 2]);
        for none in [
            "\"image\"",
            r#"{"content":"image"}"#,
            r#"{"content":[{"type":"image","data":"","mimeType":"image/png"}]}"#,
            r#"{"content":[{"type":"image","data":"x","mimeType":"text/html"}]}"#,
            r#"{"content":[{"type":"image","data":5,"mimeType":"image/png"},null,"image"]}"#,
        ] {
            assert!(found(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn details_are_passed_on_in_a_fixed_order() {
        let source = r#"{"content":[{"type":"text","text":"T"}],"details":
            {"zero":0,"query":null,"exitCode":-0,"error":"e"}}"#;
        assert_eq!(outputs(source), r#"{"text":"T","exitCode":0,"error":"e","query":null}"#);
    }

    #[test]
    fn details_without_a_text_are_shown_as_json_behind_what_is_passed_on() {
        assert_eq!(
            outputs(r#"{"content":[],"details":{"url":"u","n":[1.0]}}"#),
            r#"{"url":"u","text":"{\"url\":\"u\",\"n\":[1]}"}"#
        );
        assert_eq!(outputs(r#"{"query":"q"}"#), r#"{"query":"q","text":"{\"query\":\"q\"}"}"#);
        assert_eq!(outputs("[1,2]"), r#"{"text":"[1,2]"}"#);
        assert_eq!(outputs(r#"{"details":[]}"#), r#"{"text":"[]"}"#);
        assert_eq!(
            outputs(r#"{"content":{},"details":5}"#),
            r#"{"text":"{\"content\":{},\"details\":5}"}"#
        );
    }

    #[test]
    fn details_are_shown_up_to_12000_units() {
        // `["` and `"]` are four units; the character is one unit and three bytes.
        let just = format!("[\"{}\"]", "€".repeat(11_996));
        let over = format!("[\"{}\"]", "€".repeat(11_997));
        assert!(outputs(&just).starts_with("{\"text\":\"[\\\"€"));
        assert_eq!(outputs(&over), "{}");
    }

    #[test]
    fn an_error_in_the_details_may_be_any_true_value() {
        assert_eq!(errors(r#"{"details":{"error":{"code":-0}}}"#), r#"{"code":0}"#);
        assert_eq!(errors(r#"{"error":["a"]}"#), r#"["a"]"#);
        assert_eq!(errors(r#"{"details":{"error":0}}"#), "\"Tool execution failed\"");
        assert_eq!(errors("\"text\""), "\"text\"");
    }
}
