//! What the store must know of one line of a session file: whether it is blank, whose message it
//! is, and whether that is marked as still being written.
//!
//! Lines are bytes: they may hold invalid UTF-8, which JavaScript reads as U+FFFD. Nothing here
//! changes a line or keeps it.

use crate::json::{Cursor, is_white};

/// The end of a message that was being streamed when it was written.
pub(super) const MARK: &[u8] = br#","_streaming":true}"#;

/// How much of a line's beginning [`leading_id`] may need: room for the longest ids in use.
pub(super) const HEAD: usize = 512;

/// Whether JavaScript's `trim` leaves nothing of the line.
pub(super) fn is_blank(line: &[u8]) -> bool {
    match line.first() {
        None => true,
        Some(b' ' | b'\t'..=b'\r' | 0x80..) => String::from_utf8_lossy(line).chars().all(is_white),
        Some(_) => false,
    }
}

/// The line without the byte order mark with which some editors begin a file, and which no JSON has.
pub(super) fn without_bom(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
}

/// The id of a line that begins `{"id":"…"` with a plain string, which is how messages are
/// written; `None` means that only [`Facts::read`] can tell. `head` is the line's beginning. A
/// line that turns out to be no JSON later, or has a second `id`, is taken at this word.
pub(super) fn leading_id(head: &[u8]) -> Option<&str> {
    let rest = head.strip_prefix(br#"{"id":""#)?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    if rest[end] == b'\\' || rest[..end].iter().any(|&byte| byte < 0x20) {
        return None;
    }
    str::from_utf8(&rest[..end]).ok()
}

/// What parsing a line tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The message's id as `JSON.stringify` prints it, without quotes; `None` when it is no string.
    pub id: Option<String>,
    /// Whether `role` is `"assistant"`.
    pub by_assistant: bool,
}

impl Facts {
    /// Reads a line as `JSON.parse` does, but for a byte order mark: all of it must be valid, of equal keys the last counts.
    /// `None` for a line that is no JSON object.
    pub fn read(line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(without_bom(line));
        let mut facts = Self::default();
        let mut cursor = Cursor::new(&text);
        cursor
            .members(|cursor, key| {
                let value = cursor.value()?;
                match key.json().as_str() {
                    "id" => facts.id = value.as_str().map(|id| id.json().as_str().to_owned()),
                    "role" => facts.by_assistant = value.is_str("assistant"),
                    _ => {}
                }
                Ok(())
            })
            .ok()?;
        cursor.end().ok()?;
        Some(facts)
    }

    /// The same of a line that begins as this package writes messages; none where only all of it can tell.
    pub fn of_head(line: &[u8]) -> Option<Self> {
        let id = leading_id(line)?;
        let rest = &line[br#"{"id":""#.len() + id.len()..];
        let rest = rest.strip_prefix(br#"","role":""#)?;
        let by_assistant = rest.starts_with(br#"assistant""#);
        let is_known = by_assistant || rest.starts_with(br#"user""#);
        is_known.then(|| Self { id: Some(id.to_owned()), by_assistant })
    }

    /// Whether this is the message with this id, in the form in which `JSON.stringify` prints it.
    pub fn is(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(line: &str) -> Option<String> {
        Facts::read(line.as_bytes()).and_then(|facts| facts.id)
    }

    #[test]
    fn a_line_of_this_package_is_known_by_its_beginning() {
        for line in [
            r#"{"id":"a","role":"assistant","content":""}"#,
            r#"{"id":"b","role":"user","content":""}"#,
        ] {
            assert_eq!(Facts::of_head(line.as_bytes()), Facts::read(line.as_bytes()));
        }
        for other in [
            r#"{"id":"a\"b","role":"user"}"#,
            r#"{"id":"a","role":"system"}"#,
            r#"{"role":"user","id":"a"}"#,
            "",
        ] {
            assert_eq!(Facts::of_head(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn blank_is_what_javascript_trims_to_nothing() {
        for blank in
            ["", " ", "\t\r", "\u{b}\u{c}", "\u{feff}", "\u{2028}\u{2029}", "\u{a0}\u{3000}"]
        {
            assert!(is_blank(blank.as_bytes()), "{blank:?}");
        }
        for text in ["\u{85}", "x", " x", "\0", "\u{200b}", "é"] {
            assert!(!is_blank(text.as_bytes()), "{text:?}");
        }
        assert!(!is_blank(b"\xff"));
    }

    #[test]
    fn the_last_id_of_the_top_level_counts_and_all_of_the_line_must_be_json() {
        assert_eq!(id(r#"{"id":"a"}"#).as_deref(), Some("a"));
        assert_eq!(id(" {\"x\":{\"id\":\"b\"} , \"id\" : \"a\" } \r").as_deref(), Some("a"));
        assert_eq!(id(r#"{"id":"a","id":"b"}"#).as_deref(), Some("b"));
        assert_eq!(id(r#"{"id":"a","id":5}"#), None);
        assert_eq!(id(r#"{"\u0069d":"\u0061"}"#).as_deref(), Some("a"));
        assert_eq!(id(r#"{"x":["id","a"]}"#), None);
        assert_eq!(id("\u{feff}{\"id\":\"a\"}").as_deref(), Some("a"));
        for broken in
            [r#"{"id":"a""#, r#"{"id":"a"}}"#, r#"{"id":"a",}"#, "null", "[]", "\u{feff}", ""]
        {
            assert_eq!(Facts::read(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn invalid_utf8_inside_a_string_does_not_hide_the_message() {
        let facts = Facts::read(b"{\"id\":\"a\xff\",\"role\":\"assistant\"}").unwrap();
        assert!(facts.by_assistant && facts.is("a\u{fffd}"));
        assert_eq!(leading_id(b"{\"id\":\"a\xff\"}"), None);
    }

    #[test]
    fn an_id_at_the_front_is_found_without_parsing() {
        assert_eq!(leading_id(br#"{"id":"a b","x"#), Some("a b"));
        for unclear in
            [r#"{"id":"a"#, r#"{"id":"a\n"}"#, r#"{ "id":"a"}"#, r#"{"id":5}"#, "{\"id\":\"a\t\"}"]
        {
            assert_eq!(leading_id(unclear.as_bytes()), None, "{unclear}");
        }
    }

    #[test]
    fn ids_with_characters_that_json_escapes_are_compared_as_strings() {
        let facts = Facts::read(br#"{"id":"a\"\u00e9\/"}"#).unwrap();
        assert!(facts.is(r#"a\"é/"#) && !facts.is("a"));
    }
}
