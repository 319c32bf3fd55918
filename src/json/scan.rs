//! The grammar: finds where values begin and end, and accepts exactly what `JSON.parse` accepts.
//!
//! [`Cursor`] lets a reader walk the few levels it knows and step over the rest, touching each
//! byte once and allocating nothing. It never decodes: strings and numbers come out as source.

use super::string::{self, JsonStr};
use std::{borrow::Cow, fmt};

/// The text is not JSON as `JSON.parse` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not JSON")
    }
}

impl std::error::Error for Invalid {}

/// The inside of a JSON string as it stands in the source: valid, but in no particular form.
#[derive(Clone, Copy, Debug)]
pub struct RawStr<'a> {
    text: &'a str,
    escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The string in `JSON.stringify`'s form; borrowed whenever the source is in it already.
    #[inline]
    pub fn json(self) -> Cow<'a, JsonStr> {
        if self.escaped {
            string::canonical(self.text)
        } else {
            Cow::Borrowed(string::trusted(self.text))
        }
    }

    /// Whether this is the empty string.
    pub fn is_empty(self) -> bool {
        self.text.is_empty()
    }
}

/// The source of one valid value, without white space around it.
#[derive(Clone, Copy, Debug)]
pub struct RawValue<'a> {
    text: &'a str,
    /// Of a string: whether it has escapes. False for every other value.
    escaped: bool,
}

impl<'a> RawValue<'a> {
    /// The source.
    pub fn text(self) -> &'a str {
        self.text
    }

    /// The string, if the value is one.
    pub fn as_str(self) -> Option<RawStr<'a>> {
        let text = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(RawStr { text, escaped: self.escaped })
    }

    /// Whether the value is the string `plain`, which must need no escapes.
    pub fn is_str(self, plain: &str) -> bool {
        self.as_str().is_some_and(|found| found.json().as_str() == plain)
    }

    /// Whether the value is an array.
    pub fn is_array(self) -> bool {
        self.text.starts_with('[')
    }

    /// Whether the value is an object or an array: JavaScript's `typeof` says "object" and it is
    /// not `null`.
    pub fn is_object(self) -> bool {
        self.text.starts_with(['{', '['])
    }
}

/// A place in a text at which a value begins, or that follows one. White space is stepped over.
#[derive(Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: white_end(text.as_bytes(), 0) }
    }

    /// The next byte: the first of a value, when one is due.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over one value.
    ///
    /// # Errors
    /// When no valid value stands here.
    pub fn value(&mut self) -> Result<RawValue<'a>, Invalid> {
        let start = self.at;
        let (end, escaped) = match self.peek() {
            Some(b'"') => string_end(self.text.as_bytes(), start + 1)?,
            _ => (walk(self.text, start, &mut Skip)?, false),
        };
        self.jump(end);
        Ok(RawValue { text: &self.text[start..end], escaped })
    }

    /// Reads an object: `each` is called with every key, in the source's order and repeated ones
    /// too, and must read the one value that follows.
    ///
    /// # Errors
    /// When no valid object stands here, or `each` fails.
    pub fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, RawStr<'a>) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.eat(b'{')?;
        if self.peek() == Some(b'}') {
            return self.eat(b'}');
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(Invalid);
            }
            let start = self.at + 1;
            let (end, escaped) = string_end(self.text.as_bytes(), start)?;
            self.jump(end);
            self.eat(b':')?;
            each(self, RawStr { text: &self.text[start..end - 1], escaped })?;
            match self.peek() {
                Some(b',') => self.eat(b',')?,
                _ => return self.eat(b'}'),
            }
        }
    }

    /// Reads an object as [`Cursor::members`] does, and returns its source.
    ///
    /// # Errors
    /// When no valid object stands here, or `each` fails.
    pub fn object(
        &mut self,
        each: impl FnMut(&mut Self, RawStr<'a>) -> Result<(), Invalid>,
    ) -> Result<RawValue<'a>, Invalid> {
        let start = self.at;
        self.members(each)?;
        let text = self.text[start..self.at].trim_end_matches([' ', '\t', '\n', '\r']);
        Ok(RawValue { text, escaped: false })
    }

    /// Reads an array: `each` is called at every item and must read it.
    ///
    /// # Errors
    /// When no valid array stands here, or `each` fails.
    pub fn items(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.eat(b'[')?;
        if self.peek() == Some(b']') {
            return self.eat(b']');
        }
        loop {
            each(self)?;
            match self.peek() {
                Some(b',') => self.eat(b',')?,
                _ => return self.eat(b']'),
            }
        }
    }

    /// Makes sure that nothing follows.
    ///
    /// # Errors
    /// When something does.
    pub fn end(self) -> Result<(), Invalid> {
        if self.at == self.text.len() { Ok(()) } else { Err(Invalid) }
    }

    fn eat(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.peek() != Some(byte) {
            return Err(Invalid);
        }
        self.jump(self.at + 1);
        Ok(())
    }

    fn jump(&mut self, to: usize) {
        self.at = white_end(self.text.as_bytes(), to);
    }
}

/// What [`walk`] meets, in the source's order.
pub(super) trait Visitor<'a> {
    fn open(&mut self, nesting: Nesting);
    fn key(&mut self, key: RawStr<'a>);
    fn string(&mut self, string: RawStr<'a>);
    fn number(&mut self, source: &'a str);
    fn literal(&mut self, literal: Literal);
    fn close(&mut self, nesting: Nesting);
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nesting {
    Array,
    Object,
}

#[derive(Clone, Copy)]
pub(super) enum Literal {
    Null,
    True,
    False,
}

struct Skip;

impl Visitor<'_> for Skip {
    fn open(&mut self, _: Nesting) {}
    fn key(&mut self, _: RawStr<'_>) {}
    fn string(&mut self, _: RawStr<'_>) {}
    fn number(&mut self, _: &str) {}
    fn literal(&mut self, _: Literal) {}
    fn close(&mut self, _: Nesting) {}
}

/// Reads the value that begins at `at`, which must not be white space, and returns where it ends.
pub(super) fn walk<'a>(
    text: &'a str,
    mut at: usize,
    visitor: &mut impl Visitor<'a>,
) -> Result<usize, Invalid> {
    let bytes = text.as_bytes();
    let mut around = Around::default();
    loop {
        // A value begins at `at`.
        match *bytes.get(at).ok_or(Invalid)? {
            b'"' => {
                let (end, escaped) = string_end(bytes, at + 1)?;
                visitor.string(RawStr { text: &text[at + 1..end - 1], escaped });
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at)?;
                visitor.number(&text[at..end]);
                at = end;
            }
            b'{' => {
                visitor.open(Nesting::Object);
                at = white_end(bytes, at + 1);
                if bytes.get(at) == Some(&b'}') {
                    visitor.close(Nesting::Object);
                    at += 1;
                } else {
                    around.push(Nesting::Object);
                    at = key(text, at, visitor)?;
                    continue;
                }
            }
            b'[' => {
                visitor.open(Nesting::Array);
                at = white_end(bytes, at + 1);
                if bytes.get(at) == Some(&b']') {
                    visitor.close(Nesting::Array);
                    at += 1;
                } else {
                    around.push(Nesting::Array);
                    continue;
                }
            }
            _ => {
                let rest = &bytes[at..];
                let (literal, len) = if rest.starts_with(b"null") {
                    (Literal::Null, 4)
                } else if rest.starts_with(b"true") {
                    (Literal::True, 4)
                } else if rest.starts_with(b"false") {
                    (Literal::False, 5)
                } else {
                    return Err(Invalid);
                };
                visitor.literal(literal);
                at += len;
            }
        }
        // A value ended at `at`; so may the ones around it.
        loop {
            let Some(nesting) = around.top() else { return Ok(at) };
            at = white_end(bytes, at);
            match (nesting, *bytes.get(at).ok_or(Invalid)?) {
                (Nesting::Array, b',') => {
                    at = white_end(bytes, at + 1);
                    break;
                }
                (Nesting::Object, b',') => {
                    at = key(text, white_end(bytes, at + 1), visitor)?;
                    break;
                }
                (Nesting::Array, b']') | (Nesting::Object, b'}') => {
                    visitor.close(nesting);
                    around.pop();
                    at += 1;
                }
                _ => return Err(Invalid),
            }
        }
    }
}

/// Reads a key and its colon; returns where the value begins.
fn key<'a>(text: &'a str, at: usize, visitor: &mut impl Visitor<'a>) -> Result<usize, Invalid> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return Err(Invalid);
    }
    let (end, escaped) = string_end(bytes, at + 1)?;
    visitor.key(RawStr { text: &text[at + 1..end - 1], escaped });
    let colon = white_end(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(Invalid);
    }
    Ok(white_end(bytes, colon + 1))
}

/// The containers around a value, a bit each, so that a million levels are 125 kB; the innermost
/// 64 need no memory of their own.
#[derive(Default)]
struct Around {
    depth: usize,
    /// The innermost levels, the lowest bit innermost; set for an object.
    near: u64,
    /// The levels further out, 64 a word.
    far: Vec<u64>,
}

impl Around {
    fn push(&mut self, nesting: Nesting) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.far.push(self.near);
        }
        self.near = self.near << 1 | u64::from(nesting == Nesting::Object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.near >>= 1;
        if self.depth > 0
            && self.depth.is_multiple_of(64)
            && let Some(word) = self.far.pop()
        {
            self.near = word;
        }
    }

    fn top(&self) -> Option<Nesting> {
        let nesting = if self.near & 1 == 1 { Nesting::Object } else { Nesting::Array };
        (self.depth > 0).then_some(nesting)
    }
}

fn white_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Where the string whose first inner byte is at `at` ends (behind its closing quote), and
/// whether it has escapes.
fn string_end(bytes: &[u8], mut at: usize) -> Result<(usize, bool), Invalid> {
    let mut escaped = false;
    loop {
        at = string::plain_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, escaped)),
            Some(b'\\') => {
                escaped = true;
                at += match bytes.get(at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                    Some(b'u')
                        if bytes.len() >= at + 6
                            && bytes[at + 2..at + 6].iter().all(u8::is_ascii_hexdigit) =>
                    {
                        6
                    }
                    _ => return Err(Invalid),
                };
            }
            _ => return Err(Invalid),
        }
    }
}

fn number_end(bytes: &[u8], mut at: usize) -> Result<usize, Invalid> {
    let digits = |mut at: usize| {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == start { Err(Invalid) } else { Ok(at) }
    };
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if bytes.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(at)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn accepts(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.value().is_ok() && cursor.end().is_ok()
    }

    #[test]
    fn what_json_parse_accepts_is_accepted() {
        for text in [
            "null",
            " true\t",
            "\r\nfalse\n",
            "0",
            "-0",
            "1.5e+3",
            "1E-7",
            "-0.0",
            "\"\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[1 , 2]",
            "{\"a\" : [{}]}",
            "\"\\u0000\\uD83d\\\"\\/\\b\\f\\n\\r\\t\\\\\"",
            "\"\\ud800\"",
            "\"\u{7f}\u{85}\u{2028}\u{feff}\"",
            "{\"\":{\"\":[]}}",
            "1e99999",
        ] {
            assert!(accepts(text), "{text}");
        }
    }

    #[test]
    fn what_json_parse_refuses_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "True",
            "nulll",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "\"",
            "\"a",
            "\"\\",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u123g\"",
            "\"\u{1}\"",
            "\"\n\"",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\" 1}",
            "[1}",
            "{\"a\":1]",
            "[1 2]",
            "1 2",
            "{} x",
            "\u{feff}1",
            "\u{a0}1",
            "\u{b}1",
            "[\u{2028}]",
            "{\"\\u00e\":1}",
            "'a'",
        ] {
            assert!(!accepts(text), "{text}");
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn containers_are_told_apart_at_every_depth() {
        for depth in [1, 2, 63, 64, 65, 127, 128, 129, 200, 1_000] {
            for step in 1..4 {
                let opens = |level: usize| level.is_multiple_of(step + 1);
                let mut text = String::new();
                for level in 0..depth {
                    text.push_str(if opens(level) { "[" } else { "{\"k\":" });
                }
                text.push('7');
                let mut wrong = text.clone();
                for level in (0..depth).rev() {
                    text.push(if opens(level) { ']' } else { '}' });
                    wrong.push(if opens(level) != (level == 0) { ']' } else { '}' });
                }
                assert!(accepts(&text), "{depth} {step}");
                assert!(!accepts(&wrong), "{depth} {step}");
            }
        }
    }

    #[test]
    fn members_come_with_their_keys_decoded_and_their_values_whole() {
        let mut cursor = Cursor::new(" { \"\\u0061\" : [1, {\"b\":2}] , \"c\":\"d\\n\" } ");
        let mut found = Vec::new();
        cursor
            .members(|cursor, key| {
                found.push((key.json().as_str().to_owned(), cursor.value()?.text()));
                Ok(())
            })
            .unwrap();
        cursor.end().unwrap();
        assert_eq!(found, [("a".to_owned(), "[1, {\"b\":2}]"), ("c".to_owned(), "\"d\\n\"")]);
    }

    #[test]
    fn members_and_items_refuse_what_the_grammar_refuses() {
        for text in ["", "[]", "{", "{]", "{\"a\"}", "{\"a\":}", "{\"a\":1", "{\"a\":1,}", "{,}"] {
            let mut cursor = Cursor::new(text);
            let read = cursor.members(|cursor, _| cursor.value().map(drop));
            assert_eq!(read, Err(Invalid), "{text}");
        }
        for text in ["", "{}", "[", "[}", "[1", "[1,]", "[,]", "[1 1]"] {
            let mut cursor = Cursor::new(text);
            assert_eq!(cursor.items(|cursor| cursor.value().map(drop)), Err(Invalid), "{text}");
        }
    }
}
