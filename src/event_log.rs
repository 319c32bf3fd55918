//! The events of one run, written once and compactly, read by cursor in whatever form is asked for.
//!
//! An entry is a header (LEB128 of `length << 3 | kind`) and its payload: of a delta the inside of
//! its JSON string, of a part's start its id, of any other event its JSON, behind a tag where it is for
//! some readers only. Ends and deltas belong to
//! the part of their kind that was started last, so they need no id of their own. Entries lie in
//! blocks that never move once written, and a cursor is a place in them. Beside them lies what is open
//! at every place (`outline`). The log knows no subscribers.

mod outline;

pub use outline::{Input, Open};

use crate::ui::{EventSink, UiEvent};
use outline::{CHANGE_BYTES, Calls, Change, KnownCalls, Parts, Place, Point, SPACING};
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
    /// An event that the module does not have; payload: its JSON.
    Extra = 7,
    /// The result of a tool that was never called, which only the module has; payload: its JSON.
    Orphan = 8,
}

/// The low bits of the header of an entry whose payload begins with a tag.
const TAGGED: usize = 7;
const EXTRA_TAG: u8 = b'x';
const ORPHAN_TAG: u8 = b'o';

impl Kind {
    /// The kind in the low three bits of an entry's header; none when its payload has it.
    fn of(header: usize) -> Option<Self> {
        Some(match header & 7 {
            0 => Self::TextDelta,
            1 => Self::TextEnd,
            2 => Self::ReasoningDelta,
            3 => Self::ReasoningEnd,
            4 => Self::TextStart,
            5 => Self::ReasoningStart,
            6 => Self::Json,
            _ => return None,
        })
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
            Kind::Json | Kind::Extra | Kind::Orphan => return out.extend_from_slice(self.payload),
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

/// Events on their way into a log, always the same: encoded outside its lock, appended under it.
#[derive(Debug, Default)]
pub struct NewEntries {
    bytes: Vec<u8>,
    count: u64,
    /// The number in the run of the event that comes next.
    next: u64,
    /// After the last entry.
    parts: Parts,
    /// Their offsets are those in `bytes`.
    points: Vec<Point>,
    calls: KnownCalls,
    changes: Vec<Change>,
    scratch: Vec<u8>,
}

impl NewEntries {
    /// Bytes that the log will take more.
    pub fn bytes(&self) -> usize {
        let outline = self.points.len() * size_of::<Point>() + self.changes.len() * CHANGE_BYTES;
        self.bytes.len() + outline
    }

    /// Whether there is anything to append.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, kind: Kind, payload: &[u8]) {
        if self.next.is_multiple_of(SPACING) && self.next > 0 {
            let place = Place { block: 0, offset: self.bytes.len() };
            self.points.push(Point { place, parts: self.parts.clone() });
        }
        let tag = match kind {
            Kind::Extra => Some(EXTRA_TAG),
            Kind::Orphan => Some(ORPHAN_TAG),
            _ => None,
        };
        match tag {
            None => write_number(payload.len() << 3 | kind as usize, &mut self.bytes),
            Some(tag) => {
                write_number((payload.len() + 1) << 3 | TAGGED, &mut self.bytes);
                self.bytes.push(tag);
            }
        }
        self.bytes.extend_from_slice(payload);
        self.parts.open.pass(self.next, kind);
        self.next += 1;
        self.count += 1;
    }

    fn push_json(&mut self, kind: Kind, event: &UiEvent<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        event.write_json(&mut scratch);
        self.push(kind, &scratch);
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
                self.parts.ids.text = Some((*id).into());
            }
            UiEvent::TextDelta { delta, .. } => {
                self.push(Kind::TextDelta, delta.as_str().as_bytes())
            }
            UiEvent::TextEnd { .. } => self.push(Kind::TextEnd, b""),
            UiEvent::ReasoningStart { id } => {
                self.push(Kind::ReasoningStart, id.as_bytes());
                self.parts.ids.reasoning = Some((*id).into());
            }
            UiEvent::ReasoningDelta { delta, .. } => {
                self.push(Kind::ReasoningDelta, delta.as_str().as_bytes());
            }
            UiEvent::ReasoningEnd { .. } => self.push(Kind::ReasoningEnd, b""),
            UiEvent::ToolInputStart { tool_call_id: id, .. }
            | UiEvent::ToolInputAvailable { tool_call_id: id, .. } => {
                let input = self.calls.input(id.as_str(), self.next, self.bytes.len());
                self.changes.push(input);
                self.push_json(Kind::Json, &event);
            }
            UiEvent::ToolOutputAvailable { tool_call_id: id, .. }
            | UiEvent::ToolOutputError { tool_call_id: id, .. } => {
                let result = self.calls.result(id.as_str(), self.next);
                let kind = if result.is_some() { Kind::Json } else { Kind::Orphan };
                self.changes.extend(result);
                self.push_json(kind, &event);
            }
            UiEvent::Chunk(_) => self.push_json(Kind::Json, &event),
            UiEvent::ToolProgress { .. } | UiEvent::ExtraChunk(_) => {
                self.push_json(Kind::Extra, &event);
            }
        }
    }
}

/// The events of a run.
#[derive(Debug, Default)]
pub struct EventLog {
    blocks: Vec<Vec<u8>>,
    events: u64,
    /// With the outline.
    bytes: usize,
    /// After the last entry.
    parts: Parts,
    /// Just before the events whose numbers are multiples of [`SPACING`], but the first.
    points: Vec<Point>,
    calls: Calls,
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

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends what was gathered and empties it.
    pub fn append(&mut self, new: &mut NewEntries) {
        self.bytes += new.bytes();
        let offset = match self.blocks.last_mut() {
            Some(block) if block.len() + new.bytes.len() <= BLOCK_BYTES => {
                block.extend_from_slice(&new.bytes);
                block.len() - new.bytes.len()
            }
            full => {
                if let Some(full) = full {
                    full.shrink_to_fit();
                }
                self.blocks.push(new.bytes.clone());
                0
            }
        };
        let base = Place { block: self.blocks.len() - 1, offset };
        self.points.extend(new.points.drain(..).map(|Point { place, parts }| {
            let place = Place { offset: offset + place.offset, ..base };
            Point { place, parts }
        }));
        for change in new.changes.drain(..) {
            self.calls.apply(change, base);
        }
        self.events += new.count;
        if self.parts != new.parts {
            self.parts = new.parts.clone();
        }
        new.count = 0;
        new.bytes.clear();
        new.bytes.shrink_to(KEPT_SCRATCH);
    }

    /// A place just before event number `event`, or at the end when there are fewer.
    pub fn cursor_at(&self, event: u64) -> Cursor {
        self.place_at(event).0
    }

    /// The same place, or one of less than a block before it where such places are shared.
    pub fn cursor_near(&self, event: u64) -> Cursor {
        let there = self.cursor_at(event);
        let shared = self.cursor_at(there.next / SPACING * SPACING);
        if self.is_within(&shared, &there, BLOCK_BYTES) { shared } else { there }
    }

    /// Whether no more than so many bytes lie between two places.
    pub fn is_within(&self, from: &Cursor, to: &Cursor, most: usize) -> bool {
        if to.next <= from.next {
            return true;
        }
        let mut left = most + from.offset;
        for block in self.blocks.get(from.block..to.block).unwrap_or_default() {
            let Some(rest) = left.checked_sub(block.len()) else { return false };
            left = rest;
        }
        to.offset <= left
    }

    /// The parts that are open there.
    pub fn open_at(&self, event: u64) -> Open {
        self.place_at(event).1
    }

    fn place_at(&self, event: u64) -> (Cursor, Open) {
        if event >= self.events {
            let block = self.blocks.len().saturating_sub(1);
            let offset = self.blocks.last().map_or(0, Vec::len);
            let parts = self.parts.ids.clone();
            return (Cursor { next: self.events, block, offset, parts }, self.parts.open);
        }
        let passed = event / SPACING;
        let point = passed.checked_sub(1).and_then(|index| self.points.get(index as usize));
        let (mut cursor, mut open) = match point {
            None => (Cursor::default(), Open::default()),
            Some(Point { place: Place { block, offset }, parts: Parts { ids, open } }) => {
                let (next, parts) = (passed * SPACING, ids.clone());
                (Cursor { next, block: *block, offset: *offset, parts }, *open)
            }
        };
        while cursor.next < event
            && let Some((entry, end)) = self.peek(&mut cursor)
        {
            open.pass(cursor.next, entry.kind);
            cursor.pass(entry, end);
        }
        (cursor, open)
    }

    /// The number of the first event of the first tool call that has no result just before event
    /// number `event`.
    pub fn first_open_call_at(&self, event: u64) -> Option<u64> {
        self.calls.first_open_at(event)
    }

    /// The `index`th of the events that say with what tools are called, in order.
    pub fn input(&self, index: usize) -> Option<Input> {
        self.calls.input(index)
    }

    /// What such an event says.
    pub fn input_entry(&self, input: &Input) -> Entry<'_> {
        let Place { block, offset } = input.place;
        read_entry(&self.blocks[block][offset..]).0
    }

    /// The ids, in JSON form, of the calls that have no result, in order.
    pub fn open_calls(&self) -> impl Iterator<Item = &str> {
        self.calls.open()
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
        let mut rest = &block[cursor.offset..];
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
        cursor.offset = block.len() - rest.len();
        cursor.next += count as u64;
        count
    }

    /// The entry at the cursor and the offset behind it.
    fn peek(&self, cursor: &mut Cursor) -> Option<(Entry<'_>, usize)> {
        let mut block = self.blocks.get(cursor.block)?;
        if cursor.offset == block.len() {
            block = self.blocks.get(cursor.block + 1)?;
            cursor.block += 1;
            cursor.offset = 0;
        }
        let (entry, behind) = read_entry(&block[cursor.offset..]);
        Some((entry, block.len() - behind.len()))
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

    /// Passes an entry, behind which is `end`.
    fn pass(&mut self, entry: Entry<'_>, end: usize) {
        self.parts.pass(entry);
        self.offset = end;
        self.next += 1;
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
    let entry = match (Kind::of(header), payload) {
        (Some(kind), payload) => Entry { kind, payload },
        (None, [EXTRA_TAG, payload @ ..]) => Entry { kind: Kind::Extra, payload },
        (None, tagged) => {
            Entry { kind: Kind::Orphan, payload: tagged.get(1..).unwrap_or_default() }
        }
    };
    (entry, behind)
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
            if let Some((entry, end)) = log.peek(&mut walking) {
                walking.pass(entry, end);
            }
        }
        assert_eq!(log.cursor_at(u64::MAX).next(), log.len());
    }

    #[test]
    fn what_is_open_is_known_before_every_event() {
        let tool = |phase: &str, id: usize| {
            format!(
                r#"{{"event":"agent","stream":"tool","data":{{"phase":"{phase}","toolCallId":"t{id}\\n","name":"x","result":"r"}}}}"#
            )
        };
        let mut lines: Vec<String> = Vec::new();
        for turn in 0..300 {
            lines.extend(LINES.map(str::to_owned));
            // Some that never come back, some that are called again, some with two results.
            lines.extend([tool("start", turn), tool("start", turn / 3)]);
            let results = [turn / 2, turn / 3 + 1].map(|id| tool("result", id));
            lines.extend(results.into_iter().take(turn % 3));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (log, events) = log_of(&lines);
        assert!(log.points.len() > 10);

        let mut open = Open::default();
        // By id: the first event, the last with an input, and whether there is a result.
        let mut calls: Vec<(String, u64, u64, bool)> = Vec::new();
        for (number, event) in events.iter().enumerate() {
            let number = number as u64;
            assert_eq!(log.open_at(number), open, "before event {number}");
            let first = calls.iter().filter(|call| !call.3).map(|call| call.1).min();
            assert_eq!(log.first_open_call_at(number), first, "before event {number}");
            let inputs = (0..).map_while(|index| log.input(index));
            let inputs = inputs.take_while(|input| input.number < number);
            let last = inputs.filter(|input| input.is_last_before(number));
            let mut expected: Vec<_> = calls.iter().map(|call| call.2).collect();
            expected.sort_unstable();
            for (input, expected) in last.zip(&expected) {
                assert_eq!(input.number, *expected);
                assert_eq!(log.input_entry(&input).payload, events[*expected as usize].as_bytes());
            }

            let (kind, rest) = event[9..].split_once('"').unwrap();
            let (_, rest) = rest.split_once("\":\"").unwrap();
            let id = &rest[..rest.find('"').unwrap()];
            let known = calls.iter_mut().find(|call| call.0 == id);
            match (kind, known) {
                ("text-start", _) => open.text = Some(number),
                ("text-end", _) => open.text = None,
                ("reasoning-start", _) => open.reasoning = Some(number),
                ("reasoning-end", _) => open.reasoning = None,
                ("tool-input-start" | "tool-input-available", Some(call)) => {
                    (call.2, call.3) = (number, false);
                }
                ("tool-input-start", None) => calls.push((id.to_owned(), number, number, false)),
                ("tool-output-available" | "tool-output-error", Some(call)) => call.3 = true,
                _ => {}
            }
        }
        let open: Vec<_> =
            calls.iter().filter(|call| !call.3).map(|call| call.0.as_str()).collect();
        assert!(open.len() > 100);
        assert_eq!(log.open_calls().collect::<Vec<_>>(), open);
    }

    #[test]
    fn a_place_near_an_event_is_not_far_from_it() {
        let long = LINES[2].replace("é", &"x".repeat(9_000));
        let lines: Vec<&str> = LINES.iter().copied().chain([&*long]).cycle().take(4_000).collect();
        let (log, events) = log_of(&lines);
        for event in 0..events.len() as u64 {
            let (near, there) = (log.cursor_near(event), log.cursor_at(event));
            assert!(near.next() <= event && log.is_within(&near, &there, BLOCK_BYTES));
            let (start, end) = (log.cursor_at(0), log.cursor_at(u64::MAX));
            assert!(log.is_within(&end, &start, 0), "what is behind us is near");
            assert_eq!(log.is_within(&there, &end, 0), there.next() == end.next());
        }
        assert!(!log.is_within(&log.cursor_at(0), &log.cursor_at(u64::MAX), BLOCK_BYTES));
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
        let held: usize = log.blocks.iter().map(|block| block.capacity()).sum();
        assert!(held < log.bytes() + 2 * BLOCK_BYTES, "{held} bytes held");
    }
}
