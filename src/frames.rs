//! A run's events as server-sent events, each encoded once, whoever reads it.
//!
//! A [`FrameLog`] holds the frames of one run in one protocol; it grows from the event log when a
//! reader asks for more than there is, and lives as long as its run. Whole blocks of frames move to
//! pages, from which readers get them without a copy. It keeps no more than it may: of what was encoded
//! before that, only where each block begins, and who is so late that he needs it has it encoded again.
//! Knows no run and no reader.

use crate::{
    event_log::{Cursor, Entry, EventLog, Kind, OpenParts},
    json::{self, JsonStr, RawValue},
    pages::{Mapped, Pages},
};
use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
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

/// The frames of a run in one protocol.
#[derive(Debug)]
pub struct FrameLog {
    protocol: Protocol,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cursor: Cursor,
    /// All blocks, also those that are gone.
    blocks: Vec<Block>,
    /// The blocks before this one are gone: encoded again for those who ask for them.
    first_kept: usize,
    /// Of all blocks.
    bytes: usize,
    encoder: Encoder,
    /// The frames of kept blocks, in order, each segment with at least one. Those behind lie in their
    /// blocks.
    segments: VecDeque<Segment>,
    /// The system has refused to take a block: it and those behind it stay where they are.
    has_refused: bool,
    /// The block that was encoded again last, by its number: late readers come in crowds.
    again: Option<(usize, Block)>,
}

/// Frames of a few hundred events.
#[derive(Debug, Default)]
struct Block {
    /// The number of its first event.
    first_event: u64,
    /// Where it begins among all frames.
    start: usize,
    /// Its frames; empty when they have moved or are gone.
    bytes: Vec<u8>,
    /// No more frames are added.
    is_closed: bool,
    /// Where each event's frame ends, from `start` on; equal to the one before for an event that the
    /// protocol leaves out. Empty when it is gone.
    ends: Vec<u32>,
}

/// Pages that are freed together.
#[derive(Debug)]
struct Segment {
    /// Where it begins among all frames.
    start: usize,
    pages: Pages,
}

impl Segment {
    fn end(&self) -> usize {
        self.start + self.pages.len()
    }
}

/// A block is closed when it has this many bytes, or before, when a reader wants it without a copy.
const BLOCK_BYTES: usize = 64 * 1024;
/// A segment is so much of what may be kept, so that there are few of them: each is an open file.
const SEGMENT_PART: usize = 8;
const LEAST_SEGMENT_BYTES: usize = 4 * BLOCK_BYTES;

impl FrameLog {
    /// No frames yet.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, state: Mutex::default() }
    }

    /// What the frames contain.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How many events have been encoded, and into how many bytes.
    pub fn encoded(&self) -> (u64, usize) {
        let state = self.lock();
        (state.cursor.next(), state.bytes)
    }

    /// The memory that the frames take, in bytes.
    pub fn kept(&self) -> usize {
        self.lock().kept()
    }

    /// Encodes about a block's worth of what `log` has more than this, and keeps about `most` bytes, of
    /// the frames that were encoded last. `run` is when the run was started. False when there was
    /// nothing to encode.
    pub fn encode_more(&self, log: &EventLog, run: u64, most: usize) -> bool {
        let mut state = self.lock();
        let State { cursor, blocks, bytes, encoder, .. } = &mut *state;
        let mut number = cursor.next();
        if number == log.len() {
            return false;
        }
        if blocks.last().is_none_or(|block| block.is_closed) {
            blocks.push(Block { first_event: number, start: *bytes, ..Block::default() });
        }
        let Some(block) = blocks.last_mut() else { return false };
        log.read(cursor, |entry, parts| {
            if block.bytes.len() >= BLOCK_BYTES {
                return ControlFlow::Break(());
            }
            number += 1;
            let id = EventId { run, events: number };
            encoder.frame(self.protocol, id, entry, parts, &mut block.bytes);
            block.ends.push(block.bytes.len() as u32);
            ControlFlow::Continue(())
        });
        *bytes = block.end();
        if block.len() >= BLOCK_BYTES {
            state.close_last(most);
            state.keep(most);
        }
        true
    }

    /// Frees the first frames, until `most` bytes are left, or the last segment and what is behind it.
    pub fn keep(&self, most: usize) {
        self.lock().keep(most);
    }

    /// Where the frame of event number `event` begins; none when that is not encoded yet.
    pub fn offset_of(&self, event: u64, log: &EventLog, run: u64) -> Option<usize> {
        let mut state = self.lock();
        if event >= state.cursor.next() {
            return (event == state.cursor.next()).then_some(state.bytes);
        }
        let index = state.blocks.partition_point(|block| block.first_event <= event);
        let block = state.block(index.checked_sub(1)?, self.protocol, log, run);
        let before = (event - block.first_event) as usize;
        let within = before.checked_sub(1).map_or(0, |last| block.ends[last] as usize);
        Some(block.start + within)
    }

    /// Whether the frames at `offset` are gone, and to be had from [`FrameLog::read_again`] only.
    pub fn is_gone(&self, offset: usize) -> bool {
        let state = self.lock();
        offset < state.kept_from() && offset < state.bytes
    }

    /// Encodes a block that is gone again, and appends its frames from `offset` on to `out`, `limit` bytes
    /// at most. Returns the offset behind them.
    pub fn read_again(
        &self,
        offset: usize,
        limit: usize,
        log: &EventLog,
        run: u64,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut state = self.lock();
        let index = state.blocks.partition_point(|block| block.start <= offset);
        let Some(index) = index.checked_sub(1).filter(|&index| index < state.first_kept) else {
            return offset;
        };
        let block = state.block(index, self.protocol, log, run);
        let rest = block.bytes.get(offset - block.start..).unwrap_or_default();
        let taken = rest.len().min(limit);
        out.extend_from_slice(&rest[..taken]);
        offset + taken
    }

    /// Appends frames from `offset` on, which are not gone, to `out`, until that has `limit` bytes or all
    /// that is encoded is read. Returns the offset behind them.
    pub fn read(&self, mut offset: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        let state = self.lock();
        if offset < state.kept_from() {
            return offset;
        }
        while out.len() < limit && offset < state.bytes {
            if let Some(segment) = state.segment(offset) {
                let (before, taken) = (out.len(), (segment.end() - offset).min(limit - out.len()));
                out.resize(before + taken, 0);
                if segment.pages.read(offset - segment.start, &mut out[before..]).is_err() {
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
        offset
    }

    /// Frames from `offset` on without a copy, up to `most` bytes. None when fewer than `least` can be
    /// had in this way.
    pub fn share(&self, offset: usize, least: usize, most: usize, kept: usize) -> Option<Mapped> {
        let mut state = self.lock();
        if state.bytes.checked_sub(offset)? < least {
            return None;
        }
        if state.paged() < offset + most && state.bytes - state.paged() >= least {
            state.close_last(kept);
        }
        let segment = state.segment(offset)?;
        let there = segment.end() - offset;
        (there >= least).then(|| segment.pages.map(offset - segment.start, there.min(most)))?
    }

    /// The ids, in JSON form, of the calls among what is encoded that have no result, in order.
    pub fn open_calls(&self) -> Vec<Box<str>> {
        self.lock().encoder.open_calls()
    }

    /// Frees the frames; returns how many bytes they took.
    pub fn free(&self) -> usize {
        std::mem::take(&mut *self.lock()).kept()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The offset up to which the kept frames have moved to pages.
    fn paged(&self) -> usize {
        self.segments.back().map_or_else(|| self.kept_from(), Segment::end)
    }

    /// The offset from which on frames are kept.
    fn kept_from(&self) -> usize {
        self.blocks.get(self.first_kept).map_or(self.bytes, |block| block.start)
    }

    fn kept(&self) -> usize {
        let first = self.blocks.get(self.first_kept);
        let events = first.map_or(0, |block| self.cursor.next() - block.first_event);
        let again = self.again.as_ref().map_or(0, |(_, block)| block.memory());
        self.bytes - self.kept_from() + events as usize * size_of::<u32>() + again
    }

    /// The segment that has the frame at `offset`.
    fn segment(&self, offset: usize) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.end() <= offset);
        self.segments.get(index).filter(|segment| segment.start <= offset)
    }

    /// A block with its index of frames: as it is kept, or encoded again with its frames.
    fn block(&mut self, index: usize, protocol: Protocol, log: &EventLog, run: u64) -> &Block {
        if index >= self.first_kept {
            return &self.blocks[index];
        }
        let Block { first_event, start, .. } = self.blocks[index];
        // There is a next one: the last block is kept.
        let until = self.blocks[index + 1].first_event;
        if self.again.as_ref().is_none_or(|&(number, _)| number != index) {
            let mut block = Block { first_event, start, is_closed: true, ..Block::default() };
            let mut number = first_event;
            log.read(&mut log.cursor_at(first_event), |entry, parts| {
                if number == until {
                    return ControlFlow::Break(());
                }
                number += 1;
                let id = EventId { run, events: number };
                self.encoder.frame_again(protocol, id, entry, parts, &mut block.bytes);
                block.ends.push(block.bytes.len() as u32);
                ControlFlow::Continue(())
            });
            self.again = Some((index, block));
        }
        self.again.as_ref().map_or(&self.blocks[index], |(_, block)| block)
    }

    /// Closes the last block, which moves to the pages. `most` bytes may be kept.
    fn close_last(&mut self, most: usize) {
        let paged = self.paged();
        let Some(block) = self.blocks.last_mut().filter(|block| !block.is_closed) else { return };
        block.is_closed = true;
        block.ends.shrink_to_fit();
        if !self.has_refused {
            let full = (most / SEGMENT_PART).max(LEAST_SEGMENT_BYTES);
            if self.segments.back().is_none_or(|segment| segment.pages.len() >= full)
                && let Ok(pages) = Pages::new()
            {
                if let Some(last) = self.segments.back() {
                    last.pages.close();
                }
                self.segments.push_back(Segment { start: paged, pages });
            }
            let last = self.segments.back_mut().filter(|segment| segment.end() == block.start);
            if last.is_some_and(|segment| segment.pages.append(&block.bytes).is_ok()) {
                block.bytes = Vec::new();
                return;
            }
            self.has_refused = true;
            self.segments.retain(|segment| segment.pages.len() > 0);
        }
        block.bytes.shrink_to_fit();
    }

    fn keep(&mut self, most: usize) {
        while self.kept() > most && self.first_kept + 1 < self.blocks.len() {
            let mut end = self.first_kept + 1;
            if let Some(first) = self.segments.front() {
                end = self.blocks.partition_point(|block| block.start < first.end());
                if end == self.blocks.len() {
                    return;
                }
                self.segments.pop_front();
            }
            for block in &mut self.blocks[self.first_kept..end] {
                (block.bytes, block.ends) = (Vec::new(), Vec::new());
            }
            self.first_kept = end;
        }
    }
}

impl Block {
    fn len(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    fn end(&self) -> usize {
        self.start + self.len()
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<u32>()
    }
}

/// What an `id:` line says: the run, and how many of its events the reader has had with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// When the run was started, which tells it from the session's other runs.
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

/// Writes frames. For the AI SDK it knows the tool calls so far: a result without its call is left
/// out, because the SDK's reader ends with an error at it.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// By id in JSON form.
    calls: HashMap<Box<str>, Call>,
}

#[derive(Debug)]
struct Call {
    /// The number of the first event with this id: where the SDK's message has its part.
    first: u64,
    /// The number of the last event with its input.
    input: u64,
    has_result: bool,
}

impl Encoder {
    /// Writes the frame of an event. `id` counts it; `parts` are those open at it.
    pub fn frame(
        &mut self,
        protocol: Protocol,
        id: EventId,
        entry: Entry<'_>,
        parts: &OpenParts,
        out: &mut Vec<u8>,
    ) {
        if protocol == Protocol::Module || entry.kind != Kind::Json {
            return write_frame(protocol, id, out, |out| entry.write_json(parts, out));
        }
        if let Some(json) = self.valid_json(id.events - 1, entry) {
            write_frame(protocol, id, out, |out| out.extend_from_slice(&json));
        }
    }

    /// Writes the frame of an event as it was written before.
    fn frame_again(
        &self,
        protocol: Protocol,
        id: EventId,
        entry: Entry<'_>,
        parts: &OpenParts,
        out: &mut Vec<u8>,
    ) {
        if protocol == Protocol::Module || entry.kind != Kind::Json {
            return write_frame(protocol, id, out, |out| entry.write_json(parts, out));
        }
        let number = id.events - 1;
        let was_called = |call: &str| self.calls.get(call).is_some_and(|call| call.first < number);
        let event = ToolEvent::read(entry)
            .filter(|event| event.is_input || was_called(event.call.as_str()));
        if let Some(event) = event {
            write_frame(protocol, id, out, |out| out.extend_from_slice(&event.json()));
        }
    }

    /// A tool's event as the AI SDK takes it, if it does.
    pub fn valid_json<'e>(&mut self, number: u64, entry: Entry<'e>) -> Option<Cow<'e, [u8]>> {
        let event = ToolEvent::read(entry)?;
        if event.is_input {
            let new = || Call { first: number, input: number, has_result: false };
            let call = self.calls.entry(event.call.as_str().into()).or_insert_with(new);
            (call.input, call.has_result) = (number, false);
        } else {
            self.calls.get_mut(event.call.as_str())?.has_result = true;
        }
        Some(event.json())
    }

    /// The numbers of the events with the inputs of all calls so far, in order.
    pub fn inputs(&self) -> Vec<u64> {
        let mut inputs: Vec<_> = self.calls.values().map(|call| call.input).collect();
        inputs.sort_unstable();
        inputs
    }

    /// The ids of the calls that have no result, in the order of their first events.
    fn open_calls(&self) -> Vec<Box<str>> {
        let open = self.calls.iter().filter(|(_, call)| !call.has_result);
        let mut open: Vec<_> = open.map(|(id, call)| (call.first, id.clone())).collect();
        open.sort_unstable();
        open.into_iter().map(|(_, id)| id).collect()
    }

    /// The number of the first event of those calls that have no result.
    pub fn first_open_call(&self) -> Option<u64> {
        self.calls.values().filter(|call| !call.has_result).map(|call| call.first).min()
    }
}

fn write_frame(
    protocol: Protocol,
    id: EventId,
    out: &mut Vec<u8>,
    write_json: impl FnOnce(&mut Vec<u8>),
) {
    if protocol == Protocol::AiSdk {
        id.write(out);
    }
    out.extend_from_slice(b"data: ");
    write_json(out);
    out.extend_from_slice(b"\n\n");
}

/// An event of a tool call.
struct ToolEvent<'e> {
    all: &'e [u8],
    is_input: bool,
    /// In JSON form.
    call: Cow<'e, JsonStr>,
    /// An error that is no string.
    error: Option<RawValue<'e>>,
}

impl<'e> ToolEvent<'e> {
    fn read(entry: Entry<'e>) -> Option<Self> {
        let (mut kind, mut call, mut error_text) = (None, None, None);
        let mut cursor = json::Cursor::new(std::str::from_utf8(entry.payload).ok()?);
        let read = cursor.members(|cursor, key| {
            let value = cursor.value()?;
            match key.json().as_str() {
                "type" => kind = value.as_str(),
                "toolCallId" => call = value.as_str(),
                "errorText" => error_text = Some(value),
                _ => {}
            }
            Ok(())
        });
        read.ok()?;
        let is_input = matches!(kind?.json().as_str(), "tool-input-start" | "tool-input-available");
        let error = error_text.filter(|text| text.as_str().is_none());
        Some(Self { all: entry.payload, is_input, call: call?.json(), error })
    }

    /// As the AI SDK takes it.
    fn json(&self) -> Cow<'e, [u8]> {
        match self.error {
            Some(text) => with_error_text(self.call.as_str(), text).into(),
            None => self.all.into(),
        }
    }
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
        let frames = FrameLog::new(protocol);
        while frames.encode_more(log, RUN, usize::MAX) {}
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
                let offset = frames.offset_of(event, &log, RUN).unwrap();
                assert!(offset >= before && text.is_char_boundary(offset));
                let rest = &text[offset..];
                assert!(rest.is_empty() || rest.starts_with("data: ") || rest.starts_with("id: "));
                before = offset;
            }
            assert_eq!(frames.offset_of(events.len() as u64 + 1, &log, RUN), None);
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
            assert!(!frames.encode_more(&log, RUN, usize::MAX));
            assert_eq!(again, text.as_bytes());
        }
        assert_eq!(frames.encoded().0, events.len() as u64);
    }

    #[test]
    fn what_is_not_kept_is_encoded_again_and_is_the_same() {
        // A result before its call, which is left out, and one after it.
        let lines: Vec<&str> = LINES.iter().rev().copied().cycle().take(9_000).collect();
        let (log, events) = log_of(&lines);
        for protocol in [Protocol::Module, Protocol::AiSdk] {
            let (whole, text) = encoded(protocol, &log);
            for most in [0, 300_000, 1_000_000] {
                let frames = FrameLog::new(protocol);
                while frames.encode_more(&log, RUN, most) {
                    // What is freed is freed in segments, behind which there is a block.
                    let slack = 2 * LEAST_SEGMENT_BYTES.max(most / SEGMENT_PART);
                    assert!(frames.kept() <= most + slack, "{} kept of {most}", frames.kept());
                }
                assert!(frames.is_gone(0) && !frames.is_gone(text.len()));
                assert_eq!(frames.encoded(), whole.encoded());
                for limit in [1_000, 65_536, 100_000] {
                    let (mut at, mut bytes) = (0, Vec::new());
                    while at < text.len() {
                        let before = bytes.len();
                        at = match frames.is_gone(at) {
                            true => frames.read_again(at, limit, &log, RUN, &mut bytes),
                            false => frames.read(at, before + limit, &mut bytes),
                        };
                        assert!(bytes.len() > before && bytes.len() <= before + limit);
                        assert_eq!(bytes.len(), at);
                    }
                    assert!(bytes == text.as_bytes());
                }
                for event in (0..=events.len() as u64).step_by(7) {
                    let offset = whole.offset_of(event, &log, RUN);
                    assert_eq!(frames.offset_of(event, &log, RUN), offset);
                }
            }
        }
    }

    #[test]
    fn only_an_id_is_read_as_one() {
        assert_eq!(EventId::parse("12-3"), Some(EventId { run: 12, events: 3 }));
        for wrong in ["", "-", "12", "12-", "-3", "a-3", "12-3-4", "99999999999999999999-1"] {
            assert_eq!(EventId::parse(wrong), None, "{wrong:?}");
        }
    }
}
