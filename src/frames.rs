//! A run's events as server-sent events, each encoded once, whoever reads it.
//!
//! A [`FrameLog`] holds the frames of a stretch of one run in one protocol; it grows from the event log
//! when a reader asks for more than there is, and lives as long as its run. Whole blocks of frames move to
//! pages, from which readers get them without a copy. [`Kept`] counts what all stretches of a run keep: of
//! more than that may be, the frames that were encoded last stay, and who needs others has them encoded
//! again. Knows no run and no reader.

use crate::{
    event_log::{Cursor, Entry, EventLog, Kind, OpenParts},
    json::{self, Document, JsonStr, RawValue},
    pages::{Mapped, Pages},
};
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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

/// What all stretches of a run keep, in all protocols together.
#[derive(Debug)]
pub struct Kept {
    /// The most bytes that they may keep.
    most: AtomicUsize,
    bytes: AtomicUsize,
    /// How often something was encoded: which frames are older.
    encoded: AtomicU64,
    /// What was encoded again last: late readers come in crowds.
    again: Mutex<Option<Again>>,
}

/// A block that had been freed, encoded again.
#[derive(Debug)]
struct Again {
    protocol: Protocol,
    /// The offset of its first frame.
    offset: usize,
    block: Block,
}

impl Kept {
    /// Nothing yet, and `most` bytes at most.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.into(),
            bytes: AtomicUsize::new(0),
            encoded: AtomicU64::new(0),
            again: Mutex::default(),
        }
    }

    /// The memory that the frames take, in bytes.
    pub fn bytes(&self) -> usize {
        let again = self.again();
        let again = again.as_ref().map_or(0, |again| again.block.memory());
        self.bytes.load(Ordering::Relaxed) + again
    }

    /// From now on, `most` bytes may be kept.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether more is kept than may be.
    pub fn is_too_much(&self) -> bool {
        self.bytes() > self.most()
    }

    /// Forgets what was encoded again.
    pub fn forget(&self) {
        *self.again() = None;
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    fn again(&self) -> MutexGuard<'_, Option<Again>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frames of a stretch of a run in one protocol.
#[derive(Debug)]
pub struct FrameLog {
    protocol: Protocol,
    /// The event at which it begins.
    first: u64,
    /// The offset of its first frame.
    base: usize,
    kept: Arc<Kept>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cursor: Cursor,
    /// The event at which it ends, and another begins; none while it grows with the run.
    end: Option<u64>,
    /// All blocks, also those that were freed.
    blocks: Vec<Block>,
    /// The blocks before this one were freed: they are encoded again for who asks for them.
    first_kept: usize,
    /// Of all blocks.
    bytes: usize,
    /// What [`Kept`] counts of it.
    counted: usize,
    /// The frames of kept blocks, in order, each segment with at least one. Those behind lie in their
    /// blocks.
    segments: VecDeque<Segment>,
    /// No block is to move, or the system has refused to take one: it and those behind it stay where they
    /// are.
    has_refused: bool,
}

/// Frames of a few hundred events.
#[derive(Debug, Default)]
struct Block {
    /// The number of its first event.
    first_event: u64,
    /// Where it begins among the frames of its stretch.
    start: usize,
    /// Its frames; empty when they have moved or were freed.
    bytes: Vec<u8>,
    /// No more frames are added.
    is_closed: bool,
    /// Where each event's frame ends, from `start` on; equal to the one before for an event that the
    /// protocol leaves out. Empty when they were freed.
    ends: Vec<u32>,
    /// When frames were last added, by [`Kept::encoded`].
    encoded: u64,
}

/// Pages that are freed together.
#[derive(Debug)]
pub struct Segment {
    /// Where it begins among the frames of its stretch.
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
/// So many stretches have pages: each takes a descriptor, and a client says where its stretch begins.
const MOST_PAGED: usize = 8;
/// A stretch has fewer bytes than this.
const LONGEST: usize = 1 << 36;

impl FrameLog {
    /// No frames yet, of the events from `cursor` on, up to event number `end` if there is one. It is
    /// the run's `stretch`th in this protocol.
    pub fn new(
        protocol: Protocol,
        stretch: usize,
        cursor: Cursor,
        end: Option<u64>,
        kept: Arc<Kept>,
    ) -> Self {
        let (first, base) = (cursor.next(), stretch * LONGEST);
        let has_refused = stretch >= MOST_PAGED;
        let state = State { cursor, end, has_refused, ..State::default() };
        Self { protocol, first, base, kept, state: Mutex::new(state) }
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

    /// Encodes about a block's worth of what `log` has more than this. `run` is the run's stamp. False
    /// when there was nothing to encode.
    pub fn encode_more(&self, log: &EventLog, run: u64) -> bool {
        let mut state = self.lock();
        let State { cursor, end, blocks, bytes, .. } = &mut *state;
        let number = cursor.next();
        let end = end.unwrap_or(u64::MAX).min(log.len());
        if number >= end {
            return false;
        }
        if blocks.last().is_none_or(|block| block.is_closed) {
            blocks.push(Block { first_event: number, start: *bytes, ..Block::default() });
        }
        let Some(block) = blocks.last_mut() else { return false };
        block.encode(self.protocol, log, cursor, end, run);
        block.encoded = self.kept.encoded.fetch_add(1, Ordering::Relaxed) + 1;
        *bytes = block.end();
        if block.len() >= BLOCK_BYTES {
            state.close_last(self.kept.most());
        }
        self.count(&mut state);
        true
    }

    /// When the first frames were encoded that can be freed, by a clock that all stretches of the run
    /// share. None when there are none, or when nothing was encoded later: whoever has had them encoded is
    /// about to read them.
    pub fn oldest(&self) -> Option<u64> {
        let (_, encoded) = self.lock().first_unit()?;
        (encoded < self.kept.encoded.load(Ordering::Relaxed)).then_some(encoded)
    }

    /// Frees these frames. What is returned takes the memory until it is dropped.
    pub fn free_first(&self) -> Option<Segment> {
        let mut state = self.lock();
        let (end, _) = state.first_unit()?;
        let segment = state.segments.pop_front();
        let first = std::mem::replace(&mut state.first_kept, end);
        for block in &mut state.blocks[first..end] {
            block.is_closed = true;
            (block.bytes, block.ends) = (Vec::new(), Vec::new());
        }
        self.count(&mut state);
        segment
    }

    /// Where the frame of event number `event`, which is not before its first, begins; none when that
    /// is not encoded yet.
    pub fn offset_of(&self, event: u64, log: &EventLog, run: u64) -> Option<usize> {
        let state = self.lock();
        if event >= state.cursor.next() {
            return (event == state.cursor.next()).then_some(self.base + state.bytes);
        }
        let behind = state.blocks.partition_point(|block| block.first_event <= event);
        self.with_block(&state, behind.checked_sub(1)?, log, run, |block| {
            let before = (event - block.first_event) as usize;
            let within = match before.checked_sub(1) {
                Some(last) => *block.ends.get(last)? as usize,
                None => 0,
            };
            Some(self.base + block.start + within)
        })
    }

    /// Appends frames from `offset` on to `out`, until that has `limit` bytes or all that is encoded is
    /// read, or what follows was freed. Returns the offset behind them.
    pub fn read(&self, offset: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        let mut offset = offset - self.base;
        let state = self.lock();
        while out.len() < limit && (state.kept_from()..state.bytes).contains(&offset) {
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
            let Some(index) = state.block_at(offset) else { break };
            offset = state.blocks[index].read(offset, limit, out);
        }
        self.base + offset
    }

    /// Whether the frames at `offset` were freed, and are to be had from [`FrameLog::read_again`] only.
    pub fn is_gone(&self, offset: usize) -> bool {
        let state = self.lock();
        (offset - self.base) < state.kept_from()
    }

    /// Appends frames that were freed, from `offset` on and of one block, to `out`, until that has `limit`
    /// bytes. Returns the offset behind them.
    pub fn read_again(
        &self,
        offset: usize,
        limit: usize,
        log: &EventLog,
        run: u64,
        out: &mut Vec<u8>,
    ) -> usize {
        let state = self.lock();
        let within = offset - self.base;
        let index = state.block_at(within).filter(|&index| index < state.first_kept);
        let Some(index) = index else { return offset };
        self.base + self.with_block(&state, index, log, run, |block| block.read(within, limit, out))
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
            state.close_last(self.kept.most());
        }
        let segment = state.segment(offset)?;
        let there = segment.end() - offset;
        (there >= least).then(|| segment.pages.map(offset - segment.start, there.min(most)))?
    }

    /// Frees all frames, of a run whose events are gone.
    pub fn free(&self) {
        let mut state = self.lock();
        let counted = state.counted;
        *state = State { counted, ..State::default() };
        self.count(&mut state);
    }

    /// Calls `read` with a block and its index of frames: as it is kept, or encoded again with its frames.
    fn with_block<R>(
        &self,
        state: &State,
        index: usize,
        log: &EventLog,
        run: u64,
        read: impl FnOnce(&Block) -> R,
    ) -> R {
        let block = &state.blocks[index];
        if index >= state.first_kept {
            return read(block);
        }
        let (protocol, offset) = (self.protocol, self.base + block.start);
        let mut again = self.kept.again();
        let known = again.take_if(|again| (again.protocol, again.offset) == (protocol, offset));
        let known = known.unwrap_or_else(|| {
            // Its memory goes first.
            *again = None;
            let next = state.blocks.get(index + 1);
            let end = next.map_or(state.cursor.next(), |next| next.first_event);
            let Block { first_event, start, .. } = *block;
            let mut block = Block { first_event, start, ..Block::default() };
            block.encode(protocol, log, &mut log.cursor_at(first_event), end, run);
            Again { protocol, offset, block }
        });
        read(&again.insert(known).block)
    }

    fn count(&self, state: &mut State) {
        let (before, now) = (state.counted, state.kept());
        state.counted = now;
        // The sum wraps as the difference does.
        self.kept.bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
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
        self.bytes - self.kept_from() + events as usize * size_of::<u32>()
    }

    /// The segment that has the frame at `offset`.
    fn segment(&self, offset: usize) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.end() <= offset);
        self.segments.get(index).filter(|segment| segment.start <= offset)
    }

    /// The block that has the frame at `offset`.
    fn block_at(&self, offset: usize) -> Option<usize> {
        self.blocks.partition_point(|block| block.start <= offset).checked_sub(1)
    }

    /// The first kept blocks, which are freed together: before which block they end, and when the last of
    /// them was encoded. None when the run adds to them.
    fn first_unit(&self) -> Option<(usize, u64)> {
        let end = match self.segments.front() {
            Some(first) => self.blocks.partition_point(|block| block.start < first.end()),
            None => self.first_kept + 1,
        };
        let last = self.blocks.get(end - 1)?;
        (last.is_closed || self.end.is_some()).then_some((end, last.encoded))
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
}

impl Block {
    /// Adds the frames of events from `cursor` on, before event number `end`, until it has
    /// [`BLOCK_BYTES`].
    fn encode(
        &mut self,
        protocol: Protocol,
        log: &EventLog,
        cursor: &mut Cursor,
        end: u64,
        run: u64,
    ) {
        let mut number = cursor.next();
        log.read(cursor, |entry, parts| {
            if self.bytes.len() >= BLOCK_BYTES || number == end {
                return ControlFlow::Break(());
            }
            number += 1;
            let id = EventId { run, events: number };
            write_frame(protocol, Some(id), entry, parts, &mut self.bytes);
            self.ends.push(self.bytes.len() as u32);
            ControlFlow::Continue(())
        });
    }

    /// Appends frames from `offset` on, which it has, to `out`, until that has `limit` bytes. Returns the
    /// offset behind them.
    fn read(&self, offset: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        let rest = self.bytes.get(offset - self.start..).unwrap_or_default();
        let taken = rest.len().min(limit.saturating_sub(out.len()));
        out.extend_from_slice(&rest[..taken]);
        offset + taken
    }

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

    pub(crate) fn write(self, out: &mut Vec<u8>) {
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
/// at the result of a call that it does not know. `id` counts the event, and is none where a reader cannot
/// resume; `parts` are those open at it.
pub(crate) fn write_frame(
    protocol: Protocol,
    id: Option<EventId>,
    entry: Entry<'_>,
    parts: &OpenParts,
    out: &mut Vec<u8>,
) {
    let text = match (protocol, entry.kind) {
        (Protocol::AiSdk, Kind::Orphan) | (Protocol::Module, Kind::Extra) => return,
        (Protocol::AiSdk, Kind::Json | Kind::Extra) => valid_error(entry.payload)
            .or_else(|| without_prototypes(entry.payload).map(String::into_bytes)),
        _ => None,
    };
    if let Some(id) = id.filter(|_| protocol == Protocol::AiSdk) {
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

/// An event as the AI SDK takes it that has members which would change an object's prototype, at which its
/// reader ends with an error; none where it has no such.
pub(crate) fn without_prototypes(json: &[u8]) -> Option<String> {
    let has = |name: &[u8]| memchr::memmem::find(json, name).is_some();
    if !has(br#""__proto__":"#) && !has(br#""constructor":"#) {
        return None;
    }
    let mut document = Document::parse(std::str::from_utf8(json).ok()?).ok()?;
    document.remove_members(|key, value| match key {
        "__proto__" => true,
        "constructor" => value.is_null() || value.get("prototype").is_some(),
        _ => false,
    });
    Some(document.root().stringify())
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

    /// A stretch that is the whole run, of which `most` bytes may be kept.
    fn whole(protocol: Protocol, most: usize) -> FrameLog {
        FrameLog::new(protocol, 0, Cursor::default(), None, Arc::new(Kept::new(most)))
    }

    fn encoded(protocol: Protocol, log: &EventLog) -> (FrameLog, String) {
        let frames = whole(protocol, usize::MAX);
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
    fn what_would_change_a_prototype_is_left_out_for_the_ai_sdk() {
        let line = r#"{"event":"agent","stream":"tool","data":{"phase":"start","toolCallId":"t","name":"x","args":{"a":1,"__proto__":{"b":2},"c":[{"constructor":{"prototype":3},"d":4},{"constructor":5}]}}}"#;
        let (log, _) = log_of(&[line]);
        let (_, text) = encoded(Protocol::AiSdk, &log);
        assert!(text.contains(r#""input":{"a":1,"c":[{"d":4},{"constructor":5}]}}"#), "{text}");
        let (_, text) = encoded(Protocol::Module, &log);
        assert!(text.contains(r#""__proto__":{"b":2}"#));
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
            assert!(!frames.encode_more(&log, RUN));
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
            let (all, text) = encoded(protocol, &log);
            for most in [0, 300_000, 1_000_000] {
                let frames = whole(protocol, most);
                while frames.encode_more(&log, RUN) {
                    while frames.kept.is_too_much() && frames.oldest().is_some() {
                        frames.free_first();
                    }
                    // What is freed is freed in segments, and the last one stays.
                    let slack = 2 * LEAST_SEGMENT_BYTES.max(most / SEGMENT_PART);
                    let kept = frames.kept.bytes();
                    assert!(kept <= most + slack, "{kept} kept of {most}");
                }
                assert!(frames.is_gone(0) && !frames.is_gone(text.len()));
                assert_eq!(frames.encoded(), all.encoded());
                for limit in [1_000, 65_536, 100_000] {
                    let (mut at, mut bytes) = (0, Vec::new());
                    while at < text.len() {
                        let (before, limit) = (bytes.len(), bytes.len() + limit);
                        at = match frames.is_gone(at) {
                            true => frames.read_again(at, limit, &log, RUN, &mut bytes),
                            false => frames.read(at, limit, &mut bytes),
                        };
                        assert!(bytes.len() > before && bytes.len() <= limit);
                        assert_eq!(bytes.len(), at);
                    }
                    assert!(bytes == text.as_bytes());
                }
                for event in (0..=events.len() as u64).step_by(7) {
                    let offset = all.offset_of(event, &log, RUN);
                    assert_eq!(frames.offset_of(event, &log, RUN), offset);
                }
                frames.free();
                frames.kept.forget();
                assert_eq!(frames.kept.bytes(), 0);
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
