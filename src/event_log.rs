//! The events of one run, written once and compactly, read by cursor in whatever form is asked for.
//!
//! An entry is a header (LEB128 of `length << 3 | kind`) and its payload: of a delta the inside of
//! its JSON string, of a part's start its id, of any other event its JSON. Ends and deltas belong to
//! the part of their kind that was started last, so they need no id of their own. Entries lie in
//! blocks that never move once written, and a cursor is a place in them. The log knows no subscribers.

use crate::ui::{EventSink, UiEvent};
use std::{ops::ControlFlow, sync::Arc};

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `text-delta`; payload: the inside of its JSON string.
    TextDelta = 0,
    /// `text-end`; no payload.
    TextEnd = 1,
    /// `reasoning-delta`; payload: the inside of its JSON string.
    ReasoningDelta = 2,
    /// `reasoning-end`; no payload.
    ReasoningEnd = 3,
    /// `text-start`; payload: the part's id.
    TextStart = 4,
    /// `reasoning-start`; payload: the part's id.
    ReasoningStart = 5,
    /// Any other event; payload: its JSON.
    Json = 6,
}

impl Kind {
    /// The kind in the low three bits of an entry's header.
    fn of(header: usize) -> Self {
        match header & 7 {
            0 => Self::TextDelta,
            1 => Self::TextEnd,
            2 => Self::ReasoningDelta,
            3 => Self::ReasoningEnd,
            4 => Self::TextStart,
            5 => Self::ReasoningStart,
            _ => Self::Json,
        }
    }
}

/// One event as it lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it says.
    pub kind: Kind,
    /// See [`Kind`]; always UTF-8.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Writes the event as `JSON.stringify` prints it. `parts` are those open at this entry.
    pub fn write_json(&self, parts: &OpenParts, out: &mut Vec<u8>) {
        let (kind, id) = match self.kind {
            Kind::TextStart => ("text-start", self.payload),
            Kind::TextDelta => ("text-delta", OpenParts::id(&parts.text)),
            Kind::TextEnd => ("text-end", OpenParts::id(&parts.text)),
            Kind::ReasoningStart => ("reasoning-start", self.payload),
            Kind::ReasoningDelta => ("reasoning-delta", OpenParts::id(&parts.reasoning)),
            Kind::ReasoningEnd => ("reasoning-end", OpenParts::id(&parts.reasoning)),
            Kind::Json => return out.extend_from_slice(self.payload),
        };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"id\":\"");
        out.extend_from_slice(id);
        if matches!(self.kind, Kind::TextDelta | Kind::ReasoningDelta) {
            out.extend_from_slice(b"\",\"delta\":\"");
            out.extend_from_slice(self.payload);
        }
        out.extend_from_slice(b"\"}");
    }
}

/// The ids of the text and the reasoning part that were started last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenParts {
    /// Of `text-start`.
    pub text: Option<Arc<str>>,
    /// Of `reasoning-start`.
    pub reasoning: Option<Arc<str>>,
}

impl OpenParts {
    fn id(part: &Option<Arc<str>>) -> &[u8] {
        part.as_deref().unwrap_or_default().as_bytes()
    }

    fn pass(&mut self, entry: Entry<'_>) {
        let part = match entry.kind {
            Kind::TextStart => &mut self.text,
            Kind::ReasoningStart => &mut self.reasoning,
            _ => return,
        };
        *part = Some(String::from_utf8_lossy(entry.payload).into());
    }
}

/// Events on their way into the log: encoded outside its lock, appended under it.
#[derive(Debug, Default)]
pub struct NewEntries {
    bytes: Vec<u8>,
    count: u64,
    /// After the last entry.
    parts: OpenParts,
    scratch: Vec<u8>,
}

impl NewEntries {
    /// Bytes that are to be appended.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is anything to append.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, kind: Kind, payload: &[u8]) {
        write_number(payload.len() << 3 | kind as usize, &mut self.bytes);
        self.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    fn push_json(&mut self, event: &UiEvent<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        event.write_json(&mut scratch);
        self.push(Kind::Json, &scratch);
        scratch.shrink_to(KEPT_SCRATCH);
        self.scratch = scratch;
    }
}

/// What is kept of a buffer that one big event made grow.
const KEPT_SCRATCH: usize = 64 * 1024;

impl EventSink for NewEntries {
    fn event(&mut self, event: UiEvent<'_>) {
        match &event {
            UiEvent::TextStart { id } => {
                self.push(Kind::TextStart, id.as_bytes());
                self.parts.text = Some((*id).into());
            }
            UiEvent::TextDelta { delta, .. } => {
                self.push(Kind::TextDelta, delta.as_str().as_bytes())
            }
            UiEvent::TextEnd { .. } => self.push(Kind::TextEnd, b""),
            UiEvent::ReasoningStart { id } => {
                self.push(Kind::ReasoningStart, id.as_bytes());
                self.parts.reasoning = Some((*id).into());
            }
            UiEvent::ReasoningDelta { delta, .. } => {
                self.push(Kind::ReasoningDelta, delta.as_str().as_bytes());
            }
            UiEvent::ReasoningEnd { .. } => self.push(Kind::ReasoningEnd, b""),
            UiEvent::ToolInputStart { .. }
            | UiEvent::ToolInputAvailable { .. }
            | UiEvent::ToolOutputAvailable { .. }
            | UiEvent::ToolOutputError { .. } => self.push_json(&event),
        }
    }
}

#[derive(Debug)]
struct Block {
    /// The number of its first event in the run.
    first: u64,
    /// Before its first entry.
    parts: OpenParts,
    bytes: Vec<u8>,
}

/// The events of a run.
#[derive(Debug, Default)]
pub struct EventLog {
    blocks: Vec<Block>,
    events: u64,
    bytes: usize,
    /// After the last entry.
    parts: OpenParts,
}

/// Entries are gathered in blocks of about this size; one append never spans two.
const BLOCK_BYTES: usize = 64 * 1024;

impl EventLog {
    /// The number of events; the next one gets it as its own.
    pub fn len(&self) -> u64 {
        self.events
    }

    /// Whether there is no event yet.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Bytes that the entries take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends what was gathered and empties it.
    pub fn append(&mut self, new: &mut NewEntries) {
        let fits = |block: &Block| block.bytes.len() + new.bytes.len() <= BLOCK_BYTES;
        match self.blocks.last_mut() {
            Some(block) if fits(block) => block.bytes.extend_from_slice(&new.bytes),
            full => {
                if let Some(full) = full {
                    full.bytes.shrink_to_fit();
                }
                let (first, parts) = (self.events, self.parts.clone());
                self.blocks.push(Block { first, parts, bytes: new.bytes.clone() });
            }
        }
        self.events += new.count;
        self.bytes += new.bytes.len();
        if self.parts != new.parts {
            self.parts = new.parts.clone();
        }
        new.count = 0;
        new.bytes.clear();
        new.bytes.shrink_to(KEPT_SCRATCH);
    }

    /// A place just before event number `event`, or at the end when there are fewer.
    pub fn cursor_at(&self, event: u64) -> Cursor {
        let event = event.min(self.events);
        let block = self.blocks.partition_point(|block| block.first <= event).saturating_sub(1);
        let Some(found) = self.blocks.get(block) else { return Cursor::default() };
        let mut cursor = Cursor { next: found.first, block, offset: 0, parts: found.parts.clone() };
        while cursor.next < event && self.step(&mut cursor).is_some() {}
        cursor
    }

    /// Hands entries over from the cursor on, each with the parts open at it, until there are no
    /// more or `take` breaks off. An entry at which it breaks off counts as not read.
    pub fn read<'a>(
        &'a self,
        cursor: &mut Cursor,
        mut take: impl FnMut(Entry<'a>, &OpenParts) -> ControlFlow<()>,
    ) {
        while let Some((entry, end)) = self.peek(cursor) {
            cursor.parts.pass(entry);
            if take(entry, &cursor.parts).is_break() {
                return;
            }
            cursor.offset = end;
            cursor.next += 1;
        }
    }

    /// Hands over deltas from the cursor on, `most` at most, up to the first event that is no delta
    /// or is longer than `longest`, or to the end of a block. Says how many. Most events are such
    /// deltas, and this reads them several times as fast as [`EventLog::read`].
    pub fn read_deltas<'a>(
        &'a self,
        cursor: &mut Cursor,
        most: usize,
        longest: usize,
        mut take: impl FnMut(Kind, &'a [u8]),
    ) -> usize {
        let Some(block) = self.blocks.get(cursor.block) else { return 0 };
        let mut rest = &block.bytes[cursor.offset..];
        let mut count = 0;
        while count < most && !rest.is_empty() {
            let (Entry { kind, payload }, behind) = read_entry(rest);
            let is_delta = matches!(kind, Kind::TextDelta | Kind::ReasoningDelta);
            if !is_delta || payload.len() > longest {
                break;
            }
            take(kind, payload);
            rest = behind;
            count += 1;
        }
        cursor.offset = block.bytes.len() - rest.len();
        cursor.next += count as u64;
        count
    }

    fn step(&self, cursor: &mut Cursor) -> Option<()> {
        let (entry, end) = self.peek(cursor)?;
        cursor.parts.pass(entry);
        cursor.offset = end;
        cursor.next += 1;
        Some(())
    }

    /// The entry at the cursor and the offset behind it.
    fn peek(&self, cursor: &mut Cursor) -> Option<(Entry<'_>, usize)> {
        let mut block = self.blocks.get(cursor.block)?;
        if cursor.offset == block.bytes.len() {
            block = self.blocks.get(cursor.block + 1)?;
            cursor.block += 1;
            cursor.offset = 0;
        }
        let (entry, behind) = read_entry(&block.bytes[cursor.offset..]);
        Some((entry, block.bytes.len() - behind.len()))
    }
}

/// A place in a log. It stays valid while the log grows.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    next: u64,
    block: usize,
    /// In the block; at its end, the next entry begins the next block.
    offset: usize,
    parts: OpenParts,
}

impl Cursor {
    /// The number of the event that is read next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The parts started last before this place.
    pub fn parts(&self) -> &OpenParts {
        &self.parts
    }
}

fn write_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The entry at the start of `bytes`, and what follows it.
fn read_entry(bytes: &[u8]) -> (Entry<'_>, &[u8]) {
    let (header, after) = read_number(bytes);
    let (payload, behind) = after.split_at(header >> 3);
    (Entry { kind: Kind::of(header), payload }, behind)
}

/// A number written by [`write_number`] at the start of `bytes`, and what follows it.
fn read_number(bytes: &[u8]) -> (usize, &[u8]) {
    // Most are of one byte.
    if let [byte @ ..0x80, rest @ ..] = bytes {
        return (usize::from(*byte), rest);
    }
    let mut number = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (number, &bytes[index + 1..]);
        }
    }
    (number, &[])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::{AgentEnd, tests::as_the_module};

    /// A log of what the module makes of these lines, and each event's JSON as it came.
    pub(crate) fn log_of(lines: &[&str]) -> (EventLog, Vec<String>) {
        struct Both(NewEntries, Vec<String>);
        impl EventSink for Both {
            fn event(&mut self, event: UiEvent<'_>) {
                let mut json = Vec::new();
                event.write_json(&mut json);
                self.1.push(String::from_utf8(json).unwrap());
                self.0.event(event);
            }
        }
        let mut log = EventLog::default();
        let mut both = Both(NewEntries::default(), Vec::new());
        let mut translator = as_the_module();
        for line in lines {
            translator.line(line.as_bytes(), 1_771_000_000_000, &mut both);
            log.append(&mut both.0);
        }
        let end = AgentEnd { exit_code: Some(0), ..AgentEnd::default() };
        translator.finish(end, 1_771_000_000_000, &mut both);
        log.append(&mut both.0);
        (log, both.1)
    }

    pub(crate) const LINES: [&str; 9] = [
        r#"{"event":"agent","stream":"lifecycle","data":{"phase":"start"}}"#,
        r#"{"event":"agent","stream":"thinking","data":{"delta":"hm\n"}}"#,
        r#"{"event":"agent","stream":"assistant","data":{"delta":"é\ud83d"}}"#,
        r#"{"event":"agent","stream":"assistant","data":{"delta":"\ude00"}}"#,
        r#"{"event":"agent","stream":"tool","data":{"phase":"start","toolCallId":"t","name":"x","args":{"a":1e400,"b":-0}}}"#,
        r#"{"event":"agent","stream":"tool","data":{"phase":"result","toolCallId":"t","isError":true,"result":{"details":{"error":{"code":5}}}}}"#,
        r#"{"event":"agent","stream":"tool","data":{"phase":"result","toolCallId":"never called","result":"日本"}}"#,
        r#"{"event":"agent","stream":"assistant","data":{"delta":"more"}}"#,
        r#"{"event":"agent","stream":"thinking","data":{"delta":"and on"}}"#,
    ];

    fn json_from(log: &EventLog, mut cursor: Cursor) -> Vec<String> {
        let mut all = Vec::new();
        log.read(&mut cursor, |entry, parts| {
            let mut json = Vec::new();
            entry.write_json(parts, &mut json);
            all.push(String::from_utf8(json).unwrap());
            ControlFlow::Continue(())
        });
        assert_eq!(cursor.next(), log.len());
        all
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (log, events) = log_of(&LINES);
        assert!(events.len() > 15);
        assert_eq!(json_from(&log, Cursor::default()), events);
    }

    #[test]
    fn a_cursor_can_be_placed_before_every_event_of_every_block() {
        let lines: Vec<&str> = LINES.iter().copied().cycle().take(9 * 1_500).collect();
        let (log, events) = log_of(&lines);
        assert!(log.blocks.len() > 5, "{} blocks", log.blocks.len());
        let mut walking = Cursor::default();
        for (number, event) in events.iter().enumerate() {
            let mut placed = log.cursor_at(number as u64);
            assert_eq!(placed.parts(), walking.parts(), "before event {number}");
            let mut json = Vec::new();
            log.read(&mut placed, |entry, parts| {
                entry.write_json(parts, &mut json);
                ControlFlow::Break(())
            });
            assert_eq!(placed.next(), number as u64, "what breaks off is not read");
            assert_eq!(json, event.as_bytes(), "event {number}");
            log.step(&mut walking);
        }
        assert_eq!(log.cursor_at(u64::MAX).next(), log.len());
    }

    #[test]
    fn a_cursor_at_the_end_goes_on_when_more_is_appended() {
        let mut log = EventLog::default();
        let mut new = NewEntries::default();
        let mut cursor = Cursor::default();
        let id = "text-1-1";
        for number in 0..20_000_u64 {
            let text = format!("delta number {number}");
            let event = match number {
                0 => UiEvent::TextStart { id },
                _ => UiEvent::TextDelta { id, delta: crate::json::trusted(&text) },
            };
            new.event(event);
            log.append(&mut new);
            let mut seen = 0;
            log.read(&mut cursor, |entry, parts| {
                assert_eq!(parts.text.as_deref(), Some(id));
                assert!(number == 0 || entry.payload == text.as_bytes());
                seen += 1;
                ControlFlow::Continue(())
            });
            assert_eq!((seen, cursor.next()), (1, number + 1));
        }
        assert!(log.blocks.len() > 3);
    }

    #[test]
    fn a_short_delta_takes_little_more_than_its_bytes() {
        let line = r#"{"event":"agent","stream":"assistant","data":{"delta":"abcdefgh"}}"#;
        let (log, events) = log_of(&vec![line; 10_000]);
        assert!(log.bytes() < 10 * events.len(), "{} bytes", log.bytes());
        let held: usize = log.blocks.iter().map(|block| block.bytes.capacity()).sum();
        assert!(held < log.bytes() + 2 * BLOCK_BYTES, "{held} bytes held");
    }
}
