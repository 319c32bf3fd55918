//! The form in which events cross into JavaScript: one string for a batch, and a number for each
//! event that says its kind and how much of the string is its own.
//!
//! Making one string and cutting it costs JavaScript a few nanoseconds an event, making objects from
//! here several hundred. Deltas come decoded; part starts and rare events as JSON for `JSON.parse`.
//! Knows the log, not Node.

use crate::{
    event_log::{Cursor, EventLog, Kind},
    json::trusted,
};
use std::ops::ControlFlow;

/// A batch ends when its text has this many UTF-16 units: a delta that JavaScript keeps may be a
/// slice that keeps the whole batch's string.
const TEXT_UNITS: usize = 32 * 1024;
/// An event longer than this makes a batch of its own.
const ALONE_BYTES: usize = 16 * 1024;

/// The text of a batch in the narrowest form that holds it.
#[derive(Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// ASCII.
    Ascii(&'a [u8]),
    /// One big event.
    Utf8(&'a str),
    /// UTF-16, perhaps with lone surrogates.
    Utf16(&'a [u16]),
}

/// Buffers for batches, used again and again.
#[derive(Debug, Default)]
pub struct Batch {
    narrow: Vec<u8>,
    wide: Vec<u16>,
    is_wide: bool,
    is_utf8: bool,
}

impl Batch {
    /// Reads events from the cursor on: as many as `codes` has room for, or fewer, when they are
    /// long. Each gets a code, `units << 3 | kind`, where `units` is the length of its text in UTF-16
    /// units and `kind` is that of [`Kind`] (starts and JSON events: [`Kind::Json`]; events that
    /// JavaScript is not told of: [`Kind::Extra`], without a text). Returns how many were read.
    pub fn fill(&mut self, log: &EventLog, cursor: &mut Cursor, codes: &mut [u32]) -> usize {
        *self = Self {
            narrow: reuse(std::mem::take(&mut self.narrow)),
            wide: reuse(std::mem::take(&mut self.wide)),
            ..Self::default()
        };
        let mut count = self.fill_plain(log, cursor, codes);
        log.read(cursor, |entry, parts| {
            let is_long = entry.payload.len() > ALONE_BYTES;
            let is_full = self.narrow.len().max(self.wide.len()) > TEXT_UNITS;
            if count == codes.len() || self.is_utf8 || count > 0 && (is_long || is_full) {
                return ControlFlow::Break(());
            }
            let (kind, units) = match entry.kind {
                Kind::TextDelta | Kind::ReasoningDelta => {
                    (entry.kind, self.push_delta(entry.payload))
                }
                Kind::TextEnd | Kind::ReasoningEnd | Kind::Extra => (entry.kind, 0),
                Kind::Json | Kind::Orphan => (Kind::Json, self.push_json(entry.payload, is_long)),
                Kind::TextStart | Kind::ReasoningStart => {
                    let mut json = Vec::new();
                    entry.write_json(parts, &mut json);
                    (Kind::Json, self.push_json(&json, false))
                }
            };
            codes[count] = (units << 3) as u32 | kind as u32;
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// Reads the deltas that come first if all of them are plain: they are copied as they are, and
    /// looked through together.
    fn fill_plain(&mut self, log: &EventLog, cursor: &mut Cursor, codes: &mut [u32]) -> usize {
        let before = cursor.clone();
        let mut codes = codes.iter_mut();
        let most = codes.len();
        let longest = ALONE_BYTES.min(TEXT_UNITS / most.max(1));
        let count = log.read_deltas(cursor, most, longest, |kind, payload| {
            self.narrow.extend_from_slice(payload);
            if let Some(code) = codes.next() {
                *code = (payload.len() << 3) as u32 | kind as u32;
            }
        });
        if is_plain(&self.narrow) {
            return count;
        }
        self.narrow.clear();
        *cursor = before;
        0
    }

    /// The text of the batch read last.
    pub fn text(&self) -> Text<'_> {
        if self.is_wide {
            Text::Utf16(&self.wide)
        } else if self.is_utf8 {
            Text::Utf8(utf8(&self.narrow))
        } else {
            Text::Ascii(&self.narrow)
        }
    }

    fn push_delta(&mut self, payload: &[u8]) -> usize {
        if is_plain(payload) {
            return self.push_ascii(payload);
        }
        self.widen();
        let before = self.wide.len();
        trusted(utf8(payload)).write_utf16(&mut self.wide);
        self.wide.len() - before
    }

    fn push_json(&mut self, json: &[u8], is_long: bool) -> usize {
        if json.is_ascii() {
            return self.push_ascii(json);
        }
        let text = utf8(json);
        if is_long {
            self.is_utf8 = true;
            self.narrow.extend_from_slice(json);
            return text.chars().map(char::len_utf16).sum();
        }
        self.widen();
        let before = self.wide.len();
        self.wide.extend(text.encode_utf16());
        self.wide.len() - before
    }

    fn push_ascii(&mut self, text: &[u8]) -> usize {
        match self.is_wide {
            true => self.wide.extend(text.iter().map(|&byte| u16::from(byte))),
            false => self.narrow.extend_from_slice(text),
        }
        text.len()
    }

    fn widen(&mut self) {
        if !self.is_wide {
            self.is_wide = true;
            self.wide.extend(self.narrow.iter().map(|&byte| u16::from(byte)));
        }
    }
}

/// Empties a buffer; one that a big event made grow is given back.
fn reuse<T>(mut buffer: Vec<T>) -> Vec<T> {
    buffer.clear();
    buffer.shrink_to(4 * TEXT_UNITS);
    buffer
}

/// Whether a delta's payload is its text, in ASCII.
fn is_plain(payload: &[u8]) -> bool {
    payload.is_ascii() && memchr::memchr(b'\\', payload).is_none()
}

fn utf8(payload: &[u8]) -> &str {
    // The log is written from `str`s only, and an entry is never cut.
    std::str::from_utf8(payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::tests::{LINES, log_of};

    /// The events of a log, put together again as JavaScript does: kind and text of each.
    fn read(log: &EventLog, room: usize) -> Vec<(u32, Vec<u16>)> {
        let (mut batch, mut cursor) = (Batch::default(), Cursor::default());
        let mut events = Vec::new();
        loop {
            let mut codes = vec![0; room];
            let count = batch.fill(log, &mut cursor, &mut codes);
            if count == 0 {
                return events;
            }
            let units: Vec<u16> = match batch.text() {
                Text::Ascii(text) => text.iter().map(|&byte| u16::from(byte)).collect(),
                Text::Utf8(text) => text.encode_utf16().collect(),
                Text::Utf16(text) => text.to_vec(),
            };
            let mut rest = &units[..];
            for code in &codes[..count] {
                let (own, behind) = rest.split_at((code >> 3) as usize);
                events.push((code & 7, own.to_vec()));
                rest = behind;
            }
            assert!(rest.is_empty(), "the text is used up");
        }
    }

    #[test]
    fn every_size_of_batch_gives_the_same_events() {
        let (log, events) = log_of(&LINES);
        let whole = read(&log, 256);
        assert_eq!(whole.len(), events.len());
        for room in 1..events.len() {
            assert_eq!(read(&log, room), whole, "batches of {room}");
        }
    }

    #[test]
    fn plain_deltas_of_any_length_lose_nothing_at_the_end_of_a_block() {
        let lines: Vec<String> = (0..3_000)
            .map(|number| {
                let (stream, length) = match number % 7 {
                    0 => ("thinking", 300),
                    1 => ("assistant", 15),
                    2 => ("assistant", 16),
                    length => ("assistant", length),
                };
                let delta = format!("{number:<length$}");
                // Now and then one that is not plain.
                let delta = if number % 999 == 500 { delta + r"\n\u00e9" } else { delta };
                format!(r#"{{"event":"agent","stream":"{stream}","data":{{"delta":"{delta}"}}}}"#)
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (log, events) = log_of(&lines);
        assert!(log.bytes() > 128 * 1024, "more than one block");
        let told = read(&log, 256);
        assert_eq!(told.len(), events.len());
        let deltas: Vec<String> = told
            .iter()
            .filter(|(kind, _)| {
                [Kind::TextDelta as u32, Kind::ReasoningDelta as u32].contains(kind)
            })
            .map(|(_, units)| String::from_utf16(units).unwrap())
            .collect();
        assert_eq!(deltas.len(), 3_000);
        for (number, delta) in deltas.iter().enumerate() {
            assert_eq!(delta.trim_end().trim_end_matches("\n\u{e9}").trim(), number.to_string());
        }
        assert_eq!(read(&log, 1), told);
    }

    #[test]
    fn deltas_come_decoded_with_lone_surrogates() {
        let (log, _) = log_of(&LINES);
        let events = read(&log, 256);
        let delta = |units: &[u16]| (Kind::TextDelta as u32, units.to_vec());
        assert!(events.contains(&delta(&[0xe9, 0xd83d])));
        assert!(events.contains(&delta(&[0xde00])));
        assert!(events.contains(&(Kind::ReasoningDelta as u32, vec![0x68, 0x6d, 10])));
    }

    #[test]
    fn plain_text_stays_narrow() {
        let (log, _) = log_of(&[r#"{"event":"agent","stream":"assistant","data":{"delta":"ab"}}"#]);
        let mut batch = Batch::default();
        batch.fill(&log, &mut Cursor::default(), &mut [0; 9]);
        assert!(matches!(batch.text(), Text::Ascii(_)));
    }

    #[test]
    fn a_big_event_makes_a_batch_of_its_own() {
        for (text, is_ascii) in [("x".repeat(100_000), true), ("é\u{1f642}".repeat(30_000), false)]
        {
            let call = format!(
                r#"{{"event":"agent","stream":"tool","data":{{"phase":"start","toolCallId":"t","name":"x","args":{{"a":"{text}"}}}}}}"#
            );
            let small = r#"{"event":"agent","stream":"assistant","data":{"delta":"ab"}}"#;
            let (log, events) = log_of(&[small, &call, small]);
            let (mut batch, mut cursor) = (Batch::default(), Cursor::default());
            let mut codes = [0; 64];
            let before = batch.fill(&log, &mut cursor, &mut codes);
            assert_eq!(batch.fill(&log, &mut cursor, &mut codes), 1);
            assert_eq!(matches!(batch.text(), Text::Utf8(_)), !is_ascii);
            assert!(before >= 3);
            assert_eq!(read(&log, 256).len(), events.len());
        }
    }
}
