//! Reading a run as server-sent events: from the start, from where it is, or from where a reader was
//! cut off.
//!
//! A [`FrameReader`] is a place in the run's shared frames, behind what is this reader's own: an
//! opening, and the part of the replay that it wants shortened. A reader that stops costs nothing
//! more. Knows no HTTP and no JavaScript.
//!
//! In [`Protocol::AiSdk`] each frame has an `id:` line, `<start of the run>-<events so far>`, from
//! which a reader can resume. The reader of the AI SDK refuses a delta whose part it has not seen
//! begin, and begins a new part at every start. A resumed stream therefore goes back to where the
//! first part that is open at the cursor began, and merges deltas up to the cursor: whoever goes on
//! with a message drops its unfinished parts first, whoever joins bytes to bytes skips the frames up
//! to the cursor. Neither loses or doubles anything.

use crate::{
    event_log::{Cursor, Entry, EventLog, Kind, OpenParts},
    feed::Reading,
    frames::{Encoder, EventId, Protocol},
    json::{JsonStr, JsonString, trusted},
    pages::Mapped,
    run::Run,
};
use std::{ops::ControlFlow, sync::Arc};

/// The most that one [`FrameReader::pull`] gives, in bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Less is copied: that takes no longer.
const LEAST_SHARED_BYTES: usize = 16 * 1024;
/// A copy that many readers are given has at most so many bytes. What is more is mapped for each.
const MOST_LIVE_BYTES: usize = LEAST_SHARED_BYTES;
/// Merged deltas grow no longer than about this.
const MERGED_BYTES: usize = 32 * 1024;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first event, every event in a frame of its own.
    Start,
    /// At the first event, with neighbouring deltas merged up to this one.
    CompactTo(u64),
    /// At this event.
    Event(u64),
    /// At this event, which follows the last one that the reader has had; see the module.
    Resume(u64),
}

/// Some of a run's frames.
#[derive(Debug)]
pub enum Chunk {
    /// A copy.
    Own(Vec<u8>),
    /// A mapping of the shared ones, as good as a copy.
    Shared(Mapped),
}

/// A place in a run's frames.
pub struct FrameReader {
    run: Arc<Run>,
    protocol: Protocol,
    /// Bytes of its own that come first.
    own: Vec<u8>,
    /// The replay that it wants shortened, while there is more of it.
    compact: Option<Compact>,
    /// Among the shared frames; none until the replay of its own is over.
    offset: Option<usize>,
    /// The event at which the shared frames begin.
    shared_from: u64,
    /// Keeps the run's events until all are read.
    reading: Option<Reading>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is read, but there may be bytes of its own left.
    Over,
    /// The events have gone before they were read.
    Cut,
}

impl FrameReader {
    /// A reader of the run's frames.
    pub fn new(run: Arc<Run>, protocol: Protocol, from: From) -> Self {
        // First: what is there now stays there.
        let reading = Some(run.feed.pulling());
        let length = run.feed.with_log(|log, _| log.len());
        let (begin, shared_from) = match from {
            From::Start => (0, 0),
            From::CompactTo(event) => (0, event.min(length)),
            From::Event(event) => (event.min(length), event.min(length)),
            From::Resume(event) => {
                let event = event.min(length);
                (Open::at(&run, event).first().unwrap_or(event), event)
            }
        };
        let mut own = Vec::new();
        if protocol == Protocol::AiSdk {
            let id = JsonStr::escape(&run.message_id);
            let start =
                format!("data: {{\"type\":\"start\",\"messageId\":\"{}\"}}\n\n", id.as_str());
            own.extend_from_slice(start.as_bytes());
            if let From::Event(_) = from {
                Open::at(&run, shared_from).write_starts(&run, &mut own);
            }
        }
        let compact = (begin < shared_from).then(|| Compact::new(&run, begin, shared_from));
        let state = State::Open;
        Self { run, protocol, own, compact, offset: None, shared_from, reading, state }
    }

    /// Where it is among the frames that all share; none while it reads what is only for itself, or
    /// when it reads no further.
    pub fn place(&self) -> Option<usize> {
        let is_shared = self.own.is_empty() && self.compact.is_none();
        self.offset.filter(|_| is_shared && self.state == State::Open)
    }

    /// It was given the shared frames up to this place otherwise, by [`read_live`].
    pub fn go_on_at(&mut self, place: usize) {
        if self.place().is_some() {
            self.offset = Some(place);
        }
    }

    /// The next bytes, at most [`CHUNK_BYTES`]. None when there are none now; then, if
    /// [`FrameReader::is_over`] says so, there never will be.
    pub fn pull(&mut self) -> Option<Chunk> {
        if let Some(reading) = &self.reading {
            reading.pulled();
            if self.run.feed.is_freed() {
                self.cut();
            }
        }
        if self.state == State::Cut {
            return None;
        }
        while self.own.len() < CHUNK_BYTES
            && let Some(compact) = &mut self.compact
        {
            if !compact.write_more(&self.run, self.protocol, &mut self.own) {
                self.compact = None;
            }
        }
        if self.own.len() > CHUNK_BYTES {
            let rest = self.own.split_off(CHUNK_BYTES);
            return Some(Chunk::Own(std::mem::replace(&mut self.own, rest)));
        }
        let mut bytes = std::mem::take(&mut self.own);
        if self.compact.is_none() && self.state == State::Open {
            // Looked at before reading: what was published until then is read.
            let was_over = !self.run.feed.is_running();
            if let Some(at) = self.encode_ahead() {
                if bytes.is_empty()
                    && let Some(shared) =
                        self.run.feed.share(self.protocol, at, LEAST_SHARED_BYTES, CHUNK_BYTES)
                {
                    self.offset = Some(at + shared.len());
                    return Some(Chunk::Shared(shared));
                }
                self.offset = Some(self.read(at, &mut bytes));
            }
            if self.run.feed.is_freed() {
                self.cut();
                return None;
            }
            if was_over && bytes.len() < CHUNK_BYTES {
                self.state = State::Over;
                self.reading = None;
                if self.protocol == Protocol::AiSdk {
                    frames_end(&self.run, &mut self.own);
                    self.own.extend_from_slice(b"data: {\"type\":\"finish\"}\n\ndata: [DONE]\n\n");
                }
                if bytes.is_empty() {
                    bytes = std::mem::take(&mut self.own);
                }
            }
        }
        (!bytes.is_empty()).then_some(Chunk::Own(bytes))
    }

    /// Nobody reads it any more: it keeps nothing of the run.
    pub fn close(&mut self) {
        self.cut();
    }

    fn cut(&mut self) {
        self.state = State::Cut;
        self.reading = None;
        self.compact = None;
        self.own = Vec::new();
    }

    /// Whether everything was pulled and nothing will follow.
    pub fn is_over(&self) -> bool {
        self.state == State::Over && self.own.is_empty()
    }

    /// Whether the run's events were freed before this reader, which stood still, had read them: the
    /// stream has to end with an error.
    pub fn is_cut(&self) -> bool {
        self.state == State::Cut
    }

    /// Appends the shared frames from `at` on to `out`, until that has [`CHUNK_BYTES`] or there are no more.
    fn read(&self, mut at: usize, out: &mut Vec<u8>) -> usize {
        let Self { run, protocol, .. } = self;
        let frames = run.feed.frames(*protocol);
        while out.len() < CHUNK_BYTES {
            let before = at;
            at = if frames.is_gone(at) {
                let room = CHUNK_BYTES - out.len();
                run.feed.with_log(|log, _| frames.read_again(at, room, log, run.started_at, out))
            } else {
                frames.read(at, CHUNK_BYTES, out)
            };
            // Unless it has just gone, it is all.
            if at == before && (run.feed.is_freed() || !frames.is_gone(at)) {
                break;
            }
        }
        at
    }

    /// Encodes what is missing of the next [`CHUNK_BYTES`] of the shared frames. Returns the offset
    /// at which they begin; none when that is not encoded yet.
    fn encode_ahead(&mut self) -> Option<usize> {
        let run = &self.run;
        let frames = run.feed.frames(self.protocol);
        let encode_more = || run.feed.encode_more(self.protocol, run.started_at);
        while self.offset.is_none() {
            let find = |log: &EventLog| frames.offset_of(self.shared_from, log, run.started_at);
            self.offset = run.feed.with_log(|log, _| find(log));
            if self.offset.is_none() && !encode_more() {
                return None;
            }
        }
        let at = self.offset?;
        while frames.encoded().1 < at + CHUNK_BYTES && encode_more() {}
        Some(at)
    }
}

/// Copies the shared frames from `place` on, for all readers that are there. False when they are so many
/// that each reader should pull for itself, or are gone.
pub fn read_live(run: &Run, protocol: Protocol, place: usize, out: &mut Vec<u8>) -> bool {
    // What stands at a place reads: it does not stand still.
    run.feed.pulled();
    let frames = run.feed.frames(protocol);
    while frames.encoded().1 <= place + MOST_LIVE_BYTES
        && run.feed.encode_more(protocol, run.started_at)
    {}
    let is_little = frames.encoded().1 <= place + MOST_LIVE_BYTES;
    if run.feed.is_freed() || !is_little {
        return false;
    }
    frames.read(place, MOST_LIVE_BYTES, out);
    // Afterwards, because what is kept changes at any time.
    !frames.is_gone(place)
}

/// Writes what the run's events leave open: calls without a result.
fn frames_end(run: &Run, out: &mut Vec<u8>) {
    for call in run.feed.frames(Protocol::AiSdk).open_calls() {
        let text = r#"data: {"type":"tool-output-error","toolCallId":""#;
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(call.as_bytes());
        out.extend_from_slice(b"\",\"errorText\":\"interrupted\"}\n\n");
    }
}

/// Events read while the log is locked once.
const SLICE: u64 = 4096;

/// Hands over the events from the cursor up to number `until`, with their numbers, locking the log
/// for a slice at a time. Ends before that when the events are gone.
fn read_up_to(run: &Run, cursor: &mut Cursor, until: u64, mut visit: impl FnMut(u64, Entry<'_>)) {
    while cursor.next() < until {
        let mut number = cursor.next();
        let end = until.min(number + SLICE);
        run.feed.with_log(|log, _| {
            log.read(cursor, |entry, _| {
                if number == end {
                    return ControlFlow::Break(());
                }
                visit(number, entry);
                number += 1;
                ControlFlow::Continue(())
            });
        });
        if number < end {
            return;
        }
    }
}

/// What is open at a place in a run: the numbers of the events with which it began.
struct Open {
    text: Option<u64>,
    reasoning: Option<u64>,
    /// Knows the tool calls.
    encoder: Encoder,
}

impl Open {
    /// What is open just before event number `event`.
    fn at(run: &Run, event: u64) -> Self {
        let mut open = Self { text: None, reasoning: None, encoder: Encoder::default() };
        read_up_to(run, &mut Cursor::default(), event, |number, entry| match entry.kind {
            Kind::TextStart => open.text = Some(number),
            Kind::TextEnd => open.text = None,
            Kind::ReasoningStart => open.reasoning = Some(number),
            Kind::ReasoningEnd => open.reasoning = None,
            Kind::Json => drop(open.encoder.valid_json(number, entry)),
            Kind::TextDelta | Kind::ReasoningDelta => {}
        });
        open
    }

    /// The first of them.
    fn first(&self) -> Option<u64> {
        [self.text, self.reasoning, self.encoder.first_open_call()].into_iter().flatten().min()
    }

    /// Writes the frames without which the AI SDK's reader would refuse what follows: the starts of
    /// the open parts, and the inputs of the calls, any of which may get another result.
    fn write_starts(&self, run: &Run, out: &mut Vec<u8>) {
        let mut numbers = self.encoder.inputs();
        numbers.extend([self.text, self.reasoning].into_iter().flatten());
        numbers.sort_unstable();
        let mut encoder = Encoder::default();
        for number in numbers {
            let id = EventId { run: run.started_at, events: number + 1 };
            run.feed.with_log(|log, _| {
                log.read(&mut log.cursor_at(number), |entry, parts| {
                    encoder.frame(Protocol::AiSdk, id, entry, parts, out);
                    ControlFlow::Break(())
                });
            });
        }
    }
}

/// A stretch of a run with neighbouring deltas of a part merged. Not shared: readers join at
/// different places.
struct Compact {
    cursor: Cursor,
    until: u64,
    encoder: Encoder,
    /// Deltas of one part that wait for more.
    merged: Option<(Kind, JsonString)>,
    /// The parts open at them.
    parts: OpenParts,
}

impl Compact {
    fn new(run: &Run, from: u64, until: u64) -> Self {
        let cursor = run.feed.with_log(|log, _| log.cursor_at(from));
        let Open { encoder, .. } = Open::at(run, from);
        let parts = cursor.parts().clone();
        Self { cursor, until, encoder, merged: None, parts }
    }

    /// Writes some frames. False when the stretch is written, or cannot be any more.
    fn write_more(&mut self, run: &Run, protocol: Protocol, out: &mut Vec<u8>) -> bool {
        let first = self.cursor.next();
        let mut number = first;
        let end = self.until.min(number + SLICE);
        let Self { cursor, encoder, merged, parts: merged_parts, .. } = self;
        let id = |events| EventId { run: run.started_at, events };
        run.feed.with_log(|log, _| {
            log.read(cursor, |entry, parts| {
                if number == end || out.len() >= CHUNK_BYTES {
                    return ControlFlow::Break(());
                }
                let goes_on = merged.as_ref().is_some_and(|(kind, text)| {
                    *kind == entry.kind && text.as_str().len() < MERGED_BYTES
                });
                if !goes_on {
                    flush(protocol, id(number), merged, merged_parts, out);
                }
                if matches!(entry.kind, Kind::TextDelta | Kind::ReasoningDelta) {
                    let delta = trusted(std::str::from_utf8(entry.payload).unwrap_or_default());
                    let begin = || (entry.kind, JsonString::default());
                    merged.get_or_insert_with(begin).1.push(delta);
                    if merged_parts != parts {
                        *merged_parts = parts.clone();
                    }
                } else {
                    encoder.frame(protocol, id(number + 1), entry, parts, out);
                }
                number += 1;
                ControlFlow::Continue(())
            });
        });
        if number < self.until {
            // Where nothing was read, the events are gone.
            return number > first;
        }
        flush(protocol, id(number), &mut self.merged, &self.parts, out);
        false
    }
}

/// Writes the deltas that were merged, the last of which `id` counts.
fn flush(
    protocol: Protocol,
    id: EventId,
    merged: &mut Option<(Kind, JsonString)>,
    parts: &OpenParts,
    out: &mut Vec<u8>,
) {
    if let Some((kind, text)) = merged.take() {
        let entry = Entry { kind, payload: text.as_str().as_bytes() };
        Encoder::default().frame(protocol, id, entry, parts, out);
    }
}
