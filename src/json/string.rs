//! Strings as JSON holds them: [`JsonStr`] is a JavaScript string, lone surrogates included, in
//! the one form that `JSON.stringify` gives it.
//!
//! The agent's deltas stay in this form from the pipe to the file and the browser; they are
//! decoded only where a rule must look inside.

use std::{
    borrow::{Borrow, Cow},
    ops::Deref,
};

/// The inside of a JSON string (no quotes around it) exactly as `JSON.stringify` prints it.
///
/// Invariant: only `"`, `\`, controls and lone surrogates are escaped, each in its one form
/// (`\"`, `\\`, `\b`, `\f`, `\n`, `\r`, `\t`, else `\u` and four lower-case digits), and a high
/// surrogate's escape is never followed by a low one's. So equal strings are equal bytes.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct JsonStr(str);

/// An owned [`JsonStr`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JsonString(String);

/// One character, or a surrogate that has no other half.
type Unit = Result<char, u16>;

/// Calls text that is known to satisfy [`JsonStr`]'s invariant by its type.
pub(crate) fn trusted(text: &str) -> &JsonStr {
    // SAFETY: `JsonStr` is a transparent wrapper of `str`; layout and lifetime are the same.
    unsafe { &*(std::ptr::from_ref(text) as *const JsonStr) }
}

impl JsonStr {
    /// The string that `text` is, escaped where it must be.
    pub fn escape(text: &str) -> Cow<'_, Self> {
        let first = plain_end(text.as_bytes(), 0);
        if first == text.len() {
            return Cow::Borrowed(trusted(text));
        }
        let mut out = String::with_capacity(text.len() + 16);
        let mut rest = text;
        let mut plain = first;
        loop {
            out.push_str(&rest[..plain]);
            // What stops `plain_end` is ASCII, so the byte is the character.
            let Some(&byte) = rest.as_bytes().get(plain) else { break };
            out.push_str(form(Ok(char::from(byte)), &mut [0; 6]));
            rest = &rest[plain + 1..];
            plain = plain_end(rest.as_bytes(), 0);
        }
        Cow::Owned(JsonString(out))
    }

    /// The JSON text, without the quotes around it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the empty string: the only one that JavaScript counts as false.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The string's `length` in JavaScript.
    pub fn utf16_len(&self) -> usize {
        self.units().map(|unit| unit.map_or(1, char::len_utf16)).sum()
    }

    /// Appends the string as JavaScript holds it.
    pub fn write_utf16(&self, out: &mut Vec<u16>) {
        for unit in self.units() {
            match unit {
                Ok(char) => out.extend_from_slice(char.encode_utf16(&mut [0; 2])),
                Err(surrogate) => out.push(surrogate),
            }
        }
    }

    /// The string as text, `None` if it has lone surrogates.
    pub fn decode(&self) -> Option<Cow<'_, str>> {
        if !self.0.contains('\\') {
            return Some(Cow::Borrowed(&self.0));
        }
        self.units().map(Result::ok).collect::<Option<String>>().map(Cow::Owned)
    }

    /// The string as text, with U+FFFD for each lone surrogate.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        if !self.0.contains('\\') {
            return Cow::Borrowed(&self.0);
        }
        self.units().map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }

    /// The text of this string for another JSON reader: as text, but lone surrogates as their
    /// escapes, which mean the same inside a string. `None` where a lone surrogate follows an
    /// unpaired backslash: there it makes the text invalid, as its escape would not.
    pub(crate) fn decode_for_parse(&self) -> Option<String> {
        let mut out = String::with_capacity(self.0.len());
        for unit in self.units() {
            match unit {
                Ok(char) => out.push(char),
                Err(_) if !is_even_backslashes(&out) => return None,
                Err(surrogate) => out.push_str(form(Err(surrogate), &mut [0; 6])),
            }
        }
        Some(out)
    }

    /// The string without the white space at its ends, as `String.prototype.trim` sees it.
    pub fn trim(&self) -> &Self {
        const WHITE_ESCAPES: [&str; 5] = ["\\n", "\\t", "\\r", "\\f", "\\u000b"];
        let mut text = &self.0;
        'front: loop {
            text = text.trim_start_matches(is_white);
            for escape in WHITE_ESCAPES {
                if let Some(rest) = text.strip_prefix(escape) {
                    text = rest;
                    continue 'front;
                }
            }
            break;
        }
        'back: loop {
            text = text.trim_end_matches(is_white);
            for escape in WHITE_ESCAPES {
                // In `\\n` the `n` is a letter.
                if let Some(rest) = text.strip_suffix(escape)
                    && is_even_backslashes(rest)
                {
                    text = rest;
                    continue 'back;
                }
            }
            break;
        }
        trusted(text)
    }

    /// The first bytes of the string, `most` at most and a few less where a character would be cut, and the
    /// rest. `most` is more than sixteen.
    pub fn split_at_most(&self, most: usize) -> (&Self, &Self) {
        if self.0.len() <= most {
            return (self, trusted(""));
        }
        let mut at = most;
        while !self.0.is_char_boundary(at) {
            at -= 1;
        }
        // An escape is not longer than six bytes, all of them ASCII.
        for start in (at - 6..at).rev() {
            let bytes = self.0.as_bytes();
            if bytes[start] == b'\\' && is_even_backslashes(&self.0[..start]) {
                let len = if bytes[start + 1] == b'u' { 6 } else { 2 };
                if start + len > at {
                    at = start;
                }
                break;
            }
        }
        let (before, rest) = self.0.split_at(at);
        (trusted(before), trusted(rest))
    }

    /// Cuts off what stands before byte `at`, which must be the start of an unescaped character.
    pub(crate) fn split_off(&self, at: usize) -> &Self {
        trusted(&self.0[at..])
    }

    /// Cuts a high surrogate off the end, if the string ends with one.
    pub(super) fn split_high_surrogate(&self) -> Option<(&Self, u16)> {
        let at = self.0.len().checked_sub(6)?;
        // Not a character boundary: then no escape stands here.
        let (before, escape) = self.0.split_at_checked(at)?;
        let high = surrogate(escape, 0xd800)?;
        is_even_backslashes(before).then(|| (trusted(before), high))
    }

    /// Cuts a low surrogate off the start, if the string starts with one.
    pub(super) fn split_low_surrogate(&self) -> Option<(u16, &Self)> {
        let (escape, rest) = self.0.split_at_checked(6)?;
        Some((surrogate(escape, 0xdc00)?, trusted(rest)))
    }

    fn units(&self) -> impl Iterator<Item = Unit> {
        let mut rest = &self.0;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let (unit, len) =
                if first == '\\' { escape_at(rest, 0) } else { (Ok(first), first.len_utf8()) };
            rest = &rest[len..];
            Some(unit)
        })
    }
}

impl ToOwned for JsonStr {
    type Owned = JsonString;

    fn to_owned(&self) -> JsonString {
        JsonString(self.0.to_owned())
    }
}

impl JsonString {
    /// Appends, and makes one character of surrogates that meet.
    pub fn push(&mut self, piece: &JsonStr) {
        if let Some((low, rest)) = piece.split_low_surrogate()
            && let Some((before, high)) = self.split_high_surrogate()
        {
            self.0.truncate(before.as_str().len());
            self.0.push(joined(high, low));
            self.0.push_str(rest.as_str());
        } else {
            self.0.push_str(piece.as_str());
        }
    }
}

impl Deref for JsonString {
    type Target = JsonStr;

    fn deref(&self) -> &JsonStr {
        trusted(&self.0)
    }
}

impl Borrow<JsonStr> for JsonString {
    fn borrow(&self) -> &JsonStr {
        self
    }
}

impl From<&str> for JsonString {
    fn from(text: &str) -> Self {
        JsonStr::escape(text).into_owned()
    }
}

/// The first place from `at` on of a quote, a backslash or a control character, or the end.
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // Sets the high bit of every zero byte, and perhaps of bytes behind the first zero one: the
    // lowest set bit is exact, and it is the only one read.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*block);
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// The string that a valid source denotes, in `JSON.stringify`'s form.
pub(super) fn canonical(source: &str) -> Cow<'_, JsonStr> {
    let mut out: Option<String> = None;
    // `source[..copied]` is in `out`, once there is one; an escape begins at or behind `at`.
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = memchr::memchr(b'\\', &source.as_bytes()[at..]) {
        let start = at + found;
        let (unit, len) = escape_at(source, start);
        at = start + len;
        let mut buffer = [0; 6];
        let form = form(unit, &mut buffer);
        if form != &source[start..at] {
            let out = out.get_or_insert_with(|| String::with_capacity(source.len()));
            out.push_str(&source[copied..start]);
            out.push_str(form);
            copied = at;
        }
    }
    match out {
        None => Cow::Borrowed(trusted(source)),
        Some(mut out) => {
            out.push_str(&source[copied..]);
            Cow::Owned(JsonString(out))
        }
    }
}

/// What the escape at `at` of a valid source stands for, and its length in bytes; two escapes
/// that are the halves of one character are read together.
fn escape_at(source: &str, at: usize) -> (Unit, usize) {
    let escape = &source.as_bytes()[at..];
    let short = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = hex(escape);
            if let Some(char) = char::from_u32(unit.into()) {
                return (Ok(char), 6);
            }
            if unit < 0xdc00 && escape.get(6..8) == Some(b"\\u") {
                let low = hex(&escape[6..]);
                if (0xdc00..0xe000).contains(&low) {
                    return (Ok(joined(unit, low)), 12);
                }
            }
            return (Err(unit), 6);
        }
        // A quote, a backslash or a slash; the source is valid.
        other => other.map_or('\\', |&byte| char::from(byte)),
    };
    (Ok(short), 2)
}

/// The value of `\uXXXX`. Anything but a digit counts as 0; a valid source has none.
fn hex(escape: &[u8]) -> u16 {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u16;
    escape.iter().skip(2).take(4).fold(0, |unit, byte| unit << 4 | digit(byte))
}

/// The surrogate that `escape` is, if it is one of the 1,024 from `first` on.
fn surrogate(escape: &str, first: u16) -> Option<u16> {
    let bytes = escape.as_bytes();
    if !bytes.starts_with(b"\\u") || !bytes[2..].iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let unit = hex(bytes);
    (first..first + 0x400).contains(&unit).then_some(unit)
}

/// The character whose halves are `high` (0xd800 to 0xdbff) and `low` (0xdc00 to 0xdfff).
pub(super) fn joined(high: u16, low: u16) -> char {
    let code = 0x1_0000 + (u32::from(high & 0x3ff) << 10 | u32::from(low & 0x3ff));
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// How `JSON.stringify` prints a unit.
pub(super) fn form(unit: Unit, buffer: &mut [u8; 6]) -> &str {
    let code = match unit {
        Ok('"') => return "\\\"",
        Ok('\\') => return "\\\\",
        Ok('\u{8}') => return "\\b",
        Ok('\u{c}') => return "\\f",
        Ok('\n') => return "\\n",
        Ok('\r') => return "\\r",
        Ok('\t') => return "\\t",
        Ok(char) if char >= ' ' => return char.encode_utf8(buffer),
        Ok(control) => control as u16,
        Err(surrogate) => surrogate,
    };
    *buffer = *b"\\u0000";
    for (place, shift) in buffer[2..].iter_mut().zip([12, 8, 4, 0]) {
        *place = b"0123456789abcdef"[usize::from(code >> shift & 15)];
    }
    // Six ASCII bytes.
    std::str::from_utf8(buffer).unwrap_or_default()
}

/// Whether a backslash behind `text` would begin an escape: it has an even number of them at its
/// end.
fn is_even_backslashes(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count().is_multiple_of(2)
}

/// Whether JavaScript counts `char` as white space or a line end.
pub fn is_white(char: char) -> bool {
    char == '\u{feff}' || char.is_whitespace() && char != '\u{85}'
}

/// `String.prototype.trim`.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_white)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn json(source: &str) -> Cow<'_, JsonStr> {
        canonical(source)
    }

    #[test]
    fn a_string_is_cut_between_its_characters() {
        let text = r#"abc\n\\\\u0041é\ud83d\ude00🙂\"x"#.repeat(9);
        for most in 17..=text.len() {
            let (mut pieces, mut rest) = (Vec::new(), trusted(&text));
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at_most(most);
                assert!(
                    piece.as_str().len() <= most
                        && piece.as_str().len() + 6 > most.min(rest.as_str().len())
                );
                pieces.push(piece);
                rest = behind;
            }
            let mut units = Vec::new();
            pieces.iter().for_each(|piece| piece.write_utf16(&mut units));
            let mut whole = Vec::new();
            trusted(&text).write_utf16(&mut whole);
            assert_eq!(units, whole, "pieces of {most}");
        }
    }

    #[test]
    fn a_source_gets_the_form_of_json_stringify() {
        for (source, form) in [
            ("", ""),
            ("plain é 🙂", "plain é 🙂"),
            (r"\u0041\/\u00e9", "A/é"),
            (r"\b\f\n\r\t\u000b\u0000\u001F", r"\b\f\n\r\t\u000b\u0000\u001f"),
            (r"\u0008\u000A\u0022\u005c", r#"\b\n\"\\"#),
            (r"\ud83d\ude42", "🙂"),
            (r"\uD83D\uDE42!", "🙂!"),
            (r"\uD83D\uD83D\uDE42", r"\ud83d🙂"),
            (r"\uDE42\uD83D", r"\ude42\ud83d"),
            (r"\uD83Dx\uDE42", r"\ud83dx\ude42"),
            (r"\ud83d\n", r"\ud83d\n"),
            (r"\\ud83d\\ude42", r"\\ud83d\\ude42"),
            (r"\u2028\u007f", "\u{2028}\u{7f}"),
        ] {
            assert_eq!(json(source).as_str(), form, "{source}");
            assert_eq!(json(form).as_str(), form, "{source}");
        }
    }

    #[test]
    fn a_source_that_has_the_form_already_is_not_copied() {
        for source in ["a", r"a\nb\\\u001f", r"\ud800 \udfff"] {
            assert!(matches!(json(source), Cow::Borrowed(_)), "{source}");
        }
    }

    #[test]
    fn text_is_escaped_where_it_must_be() {
        let all: String =
            (0..0x100_u32).filter_map(char::from_u32).chain("\u{2028}🙂".chars()).collect();
        let escaped = JsonStr::escape(&all);
        assert_eq!(escaped.decode().unwrap(), all);
        assert_eq!(
            Document::parse(&format!("\"{}\"", escaped.as_str())).unwrap().root().as_str().unwrap(),
            &*escaped
        );
        assert_eq!(
            JsonStr::escape("\"\\\u{8}\u{c}\n\r\t\u{b}\0").as_str(),
            r#"\"\\\b\f\n\r\t\u000b\u0000"#
        );
        assert!(matches!(JsonStr::escape("nothing to do"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_end_of_plain_text_is_found_at_every_offset() {
        for stop in ['"', '\\', '\0', '\u{1f}'] {
            for before in 0..40 {
                for after in 0..10 {
                    let text =
                        format!("{}{stop}{}", "ÿ~".repeat(before), "\" \u{80}".repeat(after));
                    assert_eq!(plain_end(text.as_bytes(), 0), before * 3, "{text:?}");
                }
            }
        }
        assert_eq!(plain_end("😀\u{80}\u{7f} !#[]".as_bytes(), 0), 12);
    }

    #[test]
    fn lengths_and_units_are_javascripts() {
        let text = json(r"aé🙂\n\ud800\\");
        assert_eq!(text.utf16_len(), 7);
        let mut units = Vec::new();
        text.write_utf16(&mut units);
        assert_eq!(units, [97, 0xe9, 0xd83d, 0xde42, 10, 0xd800, 92]);
        assert_eq!(text.decode(), None);
        assert_eq!(text.to_string_lossy(), "aé🙂\n\u{fffd}\\");
        assert_eq!(json(r"a\n").decode().unwrap(), "a\n");
    }

    #[test]
    fn trim_removes_javascripts_white_space_in_either_form() {
        let white = "\t\n\u{b}\u{c}\r \u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";
        for inside in
            ["x", "x \n y", "\\", "\\n", "n", "\u{85}", "\u{180e}", "\u{200b}", "\\\\u000b", "\0"]
        {
            let text = format!("{white}{inside}{white}");
            assert_eq!(trim(&text), inside);
            assert_eq!(JsonStr::escape(&text).trim().decode().unwrap(), inside);
        }
        assert!(JsonStr::escape(white).trim().is_empty());
        assert_eq!(trim(white), "");
    }

    #[test]
    fn surrogates_that_meet_become_one_character() {
        let mut text = JsonString::from("a");
        for piece in [r"\ud83d", r"\ude42\ud83d", "", r"\ude42", r"\ude42", r"\\ud83d", r"\ude42"] {
            text.push(&json(piece));
        }
        assert_eq!(text.as_str(), r"a🙂🙂\ude42\\ud83d\ude42");
    }

    #[test]
    fn lone_surrogates_survive_a_second_reading() {
        let parse = |source: &str| {
            let text = json(source).decode_for_parse()?;
            Some(Document::parse(&text).ok()?.root().stringify())
        };
        assert_eq!(parse(r#"\"a\ud83d\""#).unwrap(), r#""a\ud83d""#);
        // A half that is bare and one that is escaped are neighbours all the same.
        assert_eq!(parse(r#"\"\ud83d\\ude42\""#).unwrap(), r#""🙂""#);
        assert_eq!(parse(r#"\"\\\\\ud83d\""#).unwrap(), r#""\\\ud83d""#);
        // JSON has no escape that is a backslash and a surrogate.
        assert_eq!(parse(r#"\"\\\ud83d\""#), None);
        assert_eq!(parse(r"[\ud83d]"), None);
    }
}
