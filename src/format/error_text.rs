//! Finds the sentence for the user in what programs and services give as an error: an HTTP body
//! behind a status, or everything a program wrote to stderr.

use crate::json::{self, Document, JsonStr};
use std::borrow::Cow;

/// A line of stderr with one of these words is likely to say what went wrong.
const TELLING_WORDS: [&str; 3] = ["error", "failed", "fatal"];

/// A telling line must have more UTF-16 units than this to be shown.
const MIN_LINE_UNITS: usize = 5;

/// A last line that is not telling must have at most so many UTF-16 units to be shown.
const MAX_LAST_LINE_UNITS: usize = 300;

/// The message in an error body such as `402 {"error":{"message":"…"}}`, else the body itself.
pub(super) fn of_body(body: &JsonStr) -> Cow<'_, JsonStr> {
    message_of_body(body).unwrap_or(Cow::Borrowed(body))
}

fn message_of_body(body: &JsonStr) -> Option<Cow<'_, JsonStr>> {
    // A brace is never escaped.
    let brace = body.as_str().find('{')?;
    let document = Document::parse(&body.split_off(brace).decode_for_parse()?).ok()?;
    let body = document.root();
    let error = body.get("error");
    let message = error.and_then(|error| error.get("message"));
    let candidates = [message, body.get("message"), error];
    let first = candidates.into_iter().flatten().find(|value| !value.is_null())?;
    Some(Cow::Owned(first.as_str()?.to_owned()))
}

/// What of an agent's stderr, all of it, is worth showing.
pub(super) fn of_stderr(stderr: &str) -> Option<Cow<'_, str>> {
    match without_escapes(json::trim(stderr)) {
        Cow::Borrowed(clean) => telling_part(clean).map(Cow::Borrowed),
        Cow::Owned(clean) => telling_part(&clean).map(|part| Cow::Owned(part.to_owned())),
    }
}

fn telling_part(stderr: &str) -> Option<&str> {
    if let Some(message) = message_in(stderr) {
        return Some(message);
    }
    let lines = || stderr.split('\n').filter(|line| !line.is_empty()).map(json::trim);
    lines()
        .filter(|line| is_telling(line))
        .map(without_prefixes)
        .find(|line| units(line) > MIN_LINE_UNITS)
        .or_else(|| {
            lines().next_back().filter(|line| (1..=MAX_LAST_LINE_UNITS).contains(&units(line)))
        })
}

/// The text without terminal sequences of the form `ESC [ digits-and-semicolons letter`.
fn without_escapes(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    let mut searched = 0;
    while let Some(found) = rest[searched..].find("\u{1b}[") {
        let start = searched + found;
        let parameters = &rest[start + 2..];
        let letter =
            parameters.trim_start_matches(|char: char| char.is_ascii_digit() || char == ';');
        if letter.starts_with(|char: char| char.is_ascii_alphabetic()) {
            out.push_str(&rest[..start]);
            rest = &letter[1..];
            searched = 0;
        } else {
            searched = start + 2;
        }
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The first `TEXT`, not empty, in `{"error":{` … `"message":"TEXT"` … `}`, where no `}` stands
/// before `"message"`. Of several messages in one body the last one.
fn message_in(text: &str) -> Option<&str> {
    const BODY: &str = "{\"error\":{";
    const MESSAGE: &str = "\"message\":\"";
    let last_brace = text.rfind('}')?;
    let mut at = 0;
    while let Some(found) = text[at..].find(BODY) {
        let start = at + found + BODY.len();
        let end = start + text[start..].find('}')?;
        let message = text[start..end].rmatch_indices(MESSAGE).find_map(|(place, _)| {
            let start = start + place + MESSAGE.len();
            let end = start + text[start..].find('"')?;
            (start < end && end < last_brace).then(|| &text[start..end])
        });
        if message.is_some() {
            return message;
        }
        // A body that begins before `end` would have no other messages to offer.
        at = end;
    }
    None
}

/// Whether a telling word stands in the line, in any case. Words are ASCII letters, digits and
/// `_`; everything else is between words.
fn is_telling(line: &str) -> bool {
    line.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .any(|word| TELLING_WORDS.iter().any(|telling| word.eq_ignore_ascii_case(telling)))
}

/// The line without one `[tag]` and one `Error:` in front.
fn without_prefixes(line: &str) -> &str {
    let tagged = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let line = match tagged {
        Some((tag, rest)) if !tag.contains(['\n', '\r', '\u{2028}', '\u{2029}']) => {
            rest.trim_start_matches(json::is_white)
        }
        _ => line,
    };
    match line.split_at_checked("error:".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("error:") => {
            rest.trim_start_matches(json::is_white)
        }
        _ => line,
    }
}

fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> String {
        of_body(&JsonStr::escape(text)).as_str().to_owned()
    }

    #[test]
    fn a_body_gives_its_message() {
        for (text, message) in [
            (r#"402 {"error":{"message":"no funds"}}"#, "no funds"),
            (r#"{"error":{"message":"m"},"message":"outer"}"#, "m"),
            (r#"{"error":{"message":null},"message":"outer"}"#, "outer"),
            (r#"{"error":"plain"}"#, "plain"),
            (r#"{"error":["a"],"message":"m"}"#, "m"),
            (r#"{"error":{"message":""}}"#, ""),
            (r#"{"a":0,"error":{"message":"1"},"error":{"message":"2"}}"#, "2"),
            (r#"{"error":{"message":"a\nb"}}"#, r"a\nb"),
        ] {
            assert_eq!(body(text), message, "{text}");
        }
    }

    #[test]
    fn a_body_without_a_message_is_the_message() {
        for text in [
            "",
            "plain",
            "not { json",
            r"{'a':1}",
            r"{",
            r"{}",
            "a } b",
            r#"{"error":{"message":5}}"#,
            r#"{"error":{"message":"x"}} trailing"#,
            r#"{"error":{"message":false},"message":"never looked at"}"#,
            r#"{"error":null}"#,
        ] {
            let escaped = JsonStr::escape(text);
            assert!(
                matches!(of_body(&escaped), Cow::Borrowed(body) if *body == *escaped),
                "{text}"
            );
        }
    }

    #[test]
    fn lone_surrogates_in_a_body_are_kept() {
        let source = r#""{\"error\":{\"message\":\"a\ud83d\"}}""#;
        let document = Document::parse(source).unwrap();
        let message = of_body(document.root().as_str().unwrap()).into_owned();
        assert_eq!(message.as_str(), r"a\ud83d");
    }

    #[test]
    fn stderr_gives_its_most_telling_part() {
        let long = "x".repeat(300);
        for (stderr, part) in [
            ("", None),
            ("  \n\u{feff}\n", None),
            ("[openclaw] Error: no model\n", Some("no model")),
            ("\u{1b}[31mfatal\u{1b}[0m: \u{1b}[1;3mboom\u{1b}[0m\n", Some("fatal: boom")),
            ("\u{1b}[2K\u{1b}[1G", None),
            ("\u{1b}[?25l error here", Some("\u{1b}[?25l error here")),
            ("\u{1b}[3\u{1b}[4m it failed", Some("\u{1b}[3 it failed")),
            ("it FAILED twice\nerror two", Some("it FAILED twice")),
            ("terror\nfailedly\nerror_x\nerr0r", Some("err0r")),
            ("errorſ", Some("errorſ")),
            ("naïve error", Some("naïve error")),
            ("Error: short\nError: longer one\n", Some("longer one")),
            ("error: error: twice over", Some("error: twice over")),
            ("[a] [b] Error: nested", Some("[b] Error: nested")),
            ("[a\u{2028}] error inside", Some("[a\u{2028}] error inside")),
            ("[] \u{a0}ERROR:\tworked out", Some("worked out")),
            ("[tag without end error", Some("[tag without end error")),
            ("first\nlast\n", Some("last")),
            ("first\n\u{1b}[0m  \u{1b}[0m", None),
            ("first\n\u{1b}[0m\n", Some("first")),
            ("a\r\nb\r\n", Some("b")),
            (&*long, Some(&*long)),
            (&*format!("{long}é"), None),
            ("🙂 error", Some("🙂 error")),
        ] {
            assert_eq!(of_stderr(stderr).as_deref(), part, "{stderr:?}");
        }
    }

    #[test]
    fn stderr_gives_the_message_of_an_api_error() {
        for (stderr, message) in [
            (r#"x {"error":{"message":"limit"}}"#, Some("limit")),
            (r#"{"error":{"code":1,"message":"in","x":2}} tail"#, Some("in")),
            (r#"{"error":{"message":"a","message":"b"}}"#, Some("b")),
            (r#"{"error":{"message":"a","message":""}}"#, Some("a")),
            (r#"{"error":{"message":"a } b"}}"#, Some("a } b")),
            (
                r#"{"error":{"x":{}, "message":"behind a brace"}} {"error":{"message":"ok"}}"#,
                Some("ok"),
            ),
            (r#"{"error":{"message":"cut"#, None),
            (r#"{"error":{"message":"cut"} "#, Some("cut")),
            (r#"} {"error":{"message":"cut""#, None),
            (r#"{"error": {"message":"a space"}}"#, None),
        ] {
            assert_eq!(message_in(stderr), message, "{stderr}");
        }
    }

    #[test]
    fn hostile_stderr_is_read_in_linear_time() {
        let bodies = "{\"error\":{\"message\":\"\"".repeat(100_000) + "}";
        assert_eq!(message_in(&bodies), None);
        let escapes = "\u{1b}[1".repeat(200_000) + "!";
        assert_eq!(without_escapes(&escapes), escapes);
    }
}
