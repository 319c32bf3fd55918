//! A run's events as server-sent events, each encoded once, whoever reads it.
//!
//! A [`FrameLog`] holds the frames of a stretch of one run in one protocol; it grows from the event log
//! when a reader asks for more than there is, and lives as long as its run. Whole blocks of frames move to
//! pages, from which readers get them without a copy. Knows no run and no reader.

use crate::{
    event_log::{Cursor, Entry, EventLog, Kind, OpenParts},
    json::{self, JsonStr, RawValue},
    pages::{Mapped, Pages},
};
use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the frames contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The module's: a `data:` line for each event.
    Module,
    /// The AI SDK's UI message stream, version 1: `start` and `finish` around the events, ids, and
    /// nothing that its reader would refuse.
    AiSdk,
}

/// The frames of a stretch of a run in one protocol.
#[derive(Debug)]
pub struct FrameLog {
    protocol: Protocol,
    /// The event at which it begins.
    first: u64,
    /// The offset of its first frame.
    base: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cursor: Cursor,
    /// The event at which it ends, and another begins; none while it grows with the run.
    end: Option<u64>,
    blocks: Vec<Block>,
    /// Of all blocks.
    bytes: usize,
    /// The frames of the first blocks. None before there is a whole block, and when the system has
    /// none.
    pages: Option<Pages>,
    /// No block is to move, or the system has refused to take one: it and those behind it stay where they
    /// are.
    has_refused: bool,
}

/// Frames of a few hundred events.
#[derive(Debug)]
struct Block {
    /// The number of its first event.
    first_event: u64,
    /// Where it begins among all frames.
    start: usize,
    /// Its frames; empty when they have moved.
    bytes: Vec<u8>,
    /// No more frames are added.
    is_closed: bool,
    /// Where each event's frame ends, from `start` on; equal to the one before for an event that the
    /// protocol leaves out.
    ends: Vec<u32>,
}

/// A block is closed when it has this many bytes, or before, when a reader wants it without a copy.
const BLOCK_BYTES: usize = 64 * 1024;
/// So many stretches have pages: each takes a descriptor, and a client says where its stretch begins.
const MOST_PAGED: usize = 8;
/// A stretch has fewer bytes than this.
const LONGEST: usize = 1 << 36;

impl FrameLog {
    /// No frames yet, of the events from `cursor` on, up to event number `end` if there is one. It is
    /// the run's `stretch`th in this protocol.
    pub fn new(protocol: Protocol, stretch: usize, cursor: Cursor, end: Option<u64>) -> Self {
        let (first, base) = (cursor.next(), stretch * LONGEST);
        let has_refused = stretch >= MOST_PAGED;
        let state = State { cursor, end, has_refused, ..State::default() };
        Self { protocol, first, base, state: Mutex::new(state) }
    }

    /// Whether an offset is one of its own: no two stretches have one in common.
    pub fn has(&self, offset: usize) -> bool {
        (self.base..self.base + LONGEST).contains(&offset)
    }

    /// The event at which it begins.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The event at which it ends, and another begins; none while it grows with the run.
    pub fn end(&self) -> Option<u64> {
        self.lock().end
    }

    /// Has it end before the event at `begin`, where another is to begin. False when it should not: the
    /// event is encoded, or not more than a block away.
    pub fn end_before(&self, log: &EventLog, begin: &Cursor) -> bool {
        let mut state = self.lock();
        let is_far = !log.is_within(&state.cursor, begin, BLOCK_BYTES);
        if is_far {
            state.end = Some(begin.next());
        }
        is_far
    }

    /// What the frames contain.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The event up to which all are encoded, and the offset behind them.
    pub fn encoded(&self) -> (u64, usize) {
        let state = self.lock();
        (state.cursor.next(), self.base + state.bytes)
    }

    /// Encodes about a block's worth of what `log` has more than this. `run` is the run's
    /// stamp. False when there was nothing to encode.
    pub fn encode_more(&self, log: &EventLog, run: u64) -> bool {
        let mut state = self.lock();
        let State { cursor, end, blocks, bytes, .. } = &mut *state;
        let mut number = cursor.next();
        let end = end.unwrap_or(u64::MAX).min(log.len());
        if number >= end {
            return false;
        }
        if blocks.last().is_none_or(|block| block.is_closed) {
            let (first_event, start) = (number, *bytes);
            blocks.push(Block {
                first_event,
                start,
                bytes: Vec::new(),
                is_closed: false,
                ends: Vec::new(),
            });
        }
        let Some(block) = blocks.last_mut() else { return false };
        log.read(cursor, |entry, parts| {
            if block.bytes.len() >= BLOCK_BYTES || number == end {
                return ControlFlow::Break(());
            }
            number += 1;
            let id = EventId { run, events: number };
            write_frame(self.protocol, id, entry, parts, &mut block.bytes);
            block.ends.push(block.bytes.len() as u32);
            ControlFlow::Continue(())
        });
        *bytes = block.end();
        if block.len() >= BLOCK_BYTES {
            state.close_last();
        }
        true
    }

    /// Where the frame of event number `event`, which is not before its first, begins; none when that
    /// is not encoded yet.
    pub fn offset_of(&self, event: u64) -> Option<usize> {
        let state = self.lock();
        if event >= state.cursor.next() {
            return (event == state.cursor.next()).then_some(self.base + state.bytes);
        }
        let index = state.blocks.partition_point(|block| block.first_event <= event);
        let block = &state.blocks[index.checked_sub(1)?];
        let before = (event - block.first_event) as usize;
        let within = before.checked_sub(1).map_or(0, |last| block.ends[last] as usize);
        Some(self.base + block.start + within)
    }

    /// Appends frames from `offset` on to `out`, until that has `limit` bytes or all that is encoded
    /// is read. Returns the offset behind them.
    pub fn read(&self, offset: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        let mut offset = offset - self.base;
        let state = self.lock();
        let paged = state.paged();
        while out.len() < limit && offset < state.bytes {
            if let Some(pages) = state.pages.as_ref().filter(|_| offset < paged) {
                let (before, taken) = (out.len(), (paged - offset).min(limit - out.len()));
                out.resize(before + taken, 0);
                if pages.read(offset, &mut out[before..]).is_err() {
                    // Cannot be: it was written before it counted as there.
                    out.truncate(before);
                    break;
                }
                offset += taken;
                continue;
            }
            let index = state.blocks.partition_point(|block| block.start <= offset);
            let Some(block) = index.checked_sub(1).map(|index| &state.blocks[index]) else { break };
            let rest = &block.bytes[offset - block.start..];
            let taken = rest.len().min(limit - out.len());
            out.extend_from_slice(&rest[..taken]);
            offset += taken;
        }
        self.base + offset
    }

    /// Frames from `offset` on without a copy, up to `most` bytes. None when fewer than `least` can be
    /// had in this way.
    pub fn share(&self, offset: usize, least: usize, most: usize) -> Option<Mapped> {
        let offset = offset - self.base;
        let mut state = self.lock();
        if state.bytes.checked_sub(offset)? < least {
            return None;
        }
        if state.paged() < offset + most && state.bytes - state.paged() >= least {
            state.close_last();
        }
        let there = state.paged().checked_sub(offset).filter(|&there| there >= least)?;
        state.pages.as_ref()?.map(offset, there.min(most))
    }

    /// Frees the frames; returns how many bytes they took.
    pub fn free(&self) -> usize {
        std::mem::take(&mut *self.lock()).bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The offset up to which the frames have moved to the pages.
    fn paged(&self) -> usize {
        self.pages.as_ref().map_or(0, Pages::len)
    }

    /// Closes the last block, which moves to the pages.
    fn close_last(&mut self) {
        let Some(block) = self.blocks.last_mut().filter(|block| !block.is_closed) else { return };
        block.is_closed = true;
        block.ends.shrink_to_fit();
        if !self.has_refused {
            if self.pages.is_none() {
                self.pages = Pages::new().ok();
            }
            let pages = self.pages.as_mut();
            if pages.is_some_and(|pages| pages.append(&block.bytes).is_ok()) {
                block.bytes = Vec::new();
                return;
            }
            self.has_refused = true;
        }
        block.bytes.shrink_to_fit();
    }
}

impl Block {
    fn len(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    fn end(&self) -> usize {
        self.start + self.len()
    }
}

/// What an `id:` line says: the run, and how many of its events the reader has had with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Its stamp, which tells it from the session's other runs.
    pub run: u64,
    /// The number of events.
    pub events: u64,
}

impl EventId {
    /// Reads what `EventId::write` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, events) = text.trim().split_once('-')?;
        Some(Self { run: run.parse().ok()?, events: events.parse().ok()? })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"id: ");
        write_decimal(self.run, out);
        out.push(b'-');
        write_decimal(self.events, out);
        out.push(b'\n');
    }
}

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// Writes the frame of an event, if the protocol has one for it: the AI SDK's reader ends with an error
/// at the result of a call that it does not know. `id` counts the event; `parts` are those open at it.
pub(crate) fn write_frame(
    protocol: Protocol,
    id: EventId,
    entry: Entry<'_>,
    parts: &OpenParts,
    out: &mut Vec<u8>,
) {
    let text = match (protocol, entry.kind) {
        (Protocol::AiSdk, Kind::Orphan) => return,
        (Protocol::AiSdk, Kind::Json) => valid_error(entry.payload),
        _ => None,
    };
    if protocol == Protocol::AiSdk {
        id.write(out);
    }
    out.extend_from_slice(b"data: ");
    match text {
        Some(text) => out.extend_from_slice(&text),
        None => entry.write_json(parts, out),
    }
    out.extend_from_slice(b"\n\n");
}

/// A failed tool's event as the AI SDK takes it, where it does not take it as it is.
fn valid_error(json: &[u8]) -> Option<Vec<u8>> {
    if !json.starts_with(br#"{"type":"tool-output-error""#) {
        return None;
    }
    let (mut call, mut error_text) = (None, None);
    let mut cursor = json::Cursor::new(std::str::from_utf8(json).ok()?);
    let read = cursor.members(|cursor, key| {
        let value = cursor.value()?;
        match key.json().as_str() {
            "toolCallId" => call = value.as_str(),
            "errorText" => error_text = Some(value),
            _ => {}
        }
        Ok(())
    });
    read.ok()?;
    let error_text = error_text.filter(|text| text.as_str().is_none())?;
    Some(with_error_text(call?.json().as_str(), error_text))
}

/// The agent may say anything as an error; the AI SDK takes a string.
fn with_error_text(call: &str, text: RawValue<'_>) -> Vec<u8> {
    let text = JsonStr::escape(text.text());
    let text = text.as_str();
    format!(r#"{{"type":"tool-output-error","toolCallId":"{call}","errorText":"{text}"}}"#).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::tests::{LINES, log_of};

    const RUN: u64 = 1_771_000_000_000;

    fn encoded(protocol: Protocol, log: &EventLog) -> (FrameLog, String) {
        let frames = FrameLog::new(protocol, 0, Cursor::default(), None);
        while frames.encode_more(log, RUN) {}
        let mut bytes = Vec::new();
        let end = frames.read(0, usize::MAX, &mut bytes);
        assert_eq!(end, bytes.len());
        (frames, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_modules_frames_are_its_events() {
        let (log, events) = log_of(&LINES);
        let (frames, text) = encoded(Protocol::Module, &log);
        let expected: String = events.iter().map(|json| format!("data: {json}\n\n")).collect();
        assert_eq!(text, expected);
        assert_eq!(frames.encoded(), (events.len() as u64, text.len()));
    }

    #[test]
    fn the_ai_sdk_gets_ids_and_nothing_that_it_refuses() {
        let (log, events) = log_of(&LINES);
        let (_, text) = encoded(Protocol::AiSdk, &log);
        assert!(!text.contains("never called"));
        assert!(text.contains(r#""errorText":"{\"code\":5}""#));
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids.len(), events.len() - 1);
        let last = EventId { run: RUN, events: events.len() as u64 };
        assert_eq!(ids.last().and_then(|id| EventId::parse(id)), Some(last));
    }

    #[test]
    fn a_reader_can_begin_at_every_event_and_read_in_pieces() {
        let lines: Vec<&str> = LINES.iter().copied().cycle().take(900).collect();
        let (log, events) = log_of(&lines);
        for protocol in [Protocol::Module, Protocol::AiSdk] {
            let (frames, text) = encoded(protocol, &log);
            let mut before = 0;
            for event in 0..=events.len() as u64 {
                let offset = frames.offset_of(event).unwrap();
                assert!(offset >= before && text.is_char_boundary(offset));
                let rest = &text[offset..];
                assert!(rest.is_empty() || rest.starts_with("data: ") || rest.starts_with("id: "));
                before = offset;
            }
            assert_eq!(frames.offset_of(events.len() as u64 + 1), None);
            for limit in [1_000, 65_536, 100_000] {
                let (mut at, mut bytes) = (0, Vec::new());
                while at < text.len() {
                    let mut piece = Vec::new();
                    at = frames.read(at, limit, &mut piece);
                    assert!(!piece.is_empty() && piece.len() <= limit);
                    bytes.extend(piece);
                }
                assert_eq!(bytes, text.as_bytes());
            }
        }
    }

    #[test]
    fn an_event_is_encoded_once() {
        let (log, events) = log_of(&LINES);
        let (frames, text) = encoded(Protocol::Module, &log);
        for _ in 0..3 {
            let mut again = Vec::new();
            frames.read(0, usize::MAX, &mut again);
            assert!(!frames.encode_more(&log, RUN));
            assert_eq!(again, text.as_bytes());
        }
        assert_eq!(frames.encoded().0, events.len() as u64);
    }

    #[test]
    fn only_an_id_is_read_as_one() {
        assert_eq!(EventId::parse("12-3"), Some(EventId { run: 12, events: 3 }));
        for wrong in ["", "-", "12", "12-", "-3", "a-3", "12-3-4", "99999999999999999999-1"] {
            assert_eq!(EventId::parse(wrong), None, "{wrong:?}");
        }
    }
}
