//! Reading a run as server-sent events: from the start, from where it is, or from where a reader was
//! cut off.
//!
//! A [`FrameReader`] is a place in the run's shared frames, behind what is this reader's own: an
//! opening, and the part of the replay that it wants shortened. A reader that stops costs nothing
//! more. Knows no HTTP and no JavaScript.
//!
//! In [`Protocol::AiSdk`] each frame has an `id:` line, `<start of the run>-<events so far>`, from
//! which a reader can resume: exactly, which is the frames behind that one and nothing else; or
//! rewound, for a reader that has lost what it knew of open parts. The reader of the AI SDK refuses a
//! delta whose part it has not seen begin, and begins a new part at every start, so a rewound stream
//! goes back to where the first part that is open at the cursor began, and merges deltas up to the
//! cursor: whoever goes on with a message drops its unfinished parts first.
//!
//! What ends the stream is numbered on from the run's events, so that a reader can resume there, too.

use crate::{
    event_log::{Cursor, Entry, EventLog, Kind, Open, OpenParts},
    feed::{Outcome, Reading, RunEnd, metadata_at_start},
    frames::{EventId, FrameLog, Protocol, without_prototypes, write_frame},
    json::JsonStr,
    pages::Mapped,
    run::Run,
    ui::INTERRUPTED,
};
use std::{ops::ControlFlow, sync::Arc};

/// The most that one [`FrameReader::pull`] gives, in bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Less is copied: that takes no longer.
const LEAST_SHARED_BYTES: usize = 16 * 1024;
/// A copy that many readers are given has at most so many bytes. What is more is mapped for each.
const MOST_LIVE_BYTES: usize = LEAST_SHARED_BYTES;
/// Merged deltas grow no longer than about this, and are no more than these.
const MERGED_BYTES: usize = 32 * 1024;
const MERGED_DELTAS: usize = 8 * 1024;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first event, every event in a frame of its own.
    Start,
    /// At the first event, with neighbouring deltas merged up to this one.
    CompactTo(u64),
    /// At this event.
    Event(u64),
    /// Behind the frame with this number, with nothing sent again.
    After(u64),
    /// Behind the frame with this number, rewound; see the module.
    Rewind(u64),
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
    /// Bytes of its own that come first, from `own_at` on.
    own: Vec<u8>,
    own_at: usize,
    /// Writes more of them, while there are more.
    opening: Option<Opening>,
    /// Among the shared frames; none until the replay of its own is over.
    offset: Option<usize>,
    /// The event at which the shared frames begin, or go on where there is no offset.
    shared_from: u64,
    /// How many of the frames that end the stream the reader has had.
    closings_had: usize,
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
    /// A reader of the run's frames. What it costs does not depend on the run's length.
    pub fn new(run: Arc<Run>, protocol: Protocol, from: From) -> Self {
        // First: what is there now stays there.
        let reading = Some(run.feed.pulling());
        let (shared_from, opening, closings_had) = run.feed.with_log(|log, _| {
            let merged = |begin, end| {
                (begin < end).then(|| Opening::Merged(Merged::new(log.cursor_at(begin), end)))
            };
            match from {
                From::Start | From::Event(0) => (0, None, 0),
                From::CompactTo(event) => {
                    let event = event.min(log.len());
                    (event, merged(0, event), 0)
                }
                From::Event(event) => {
                    let event = event.min(log.len());
                    let starts = || Opening::Starts(Starts::new(log.open_at(event), event));
                    (event, (protocol == Protocol::AiSdk).then(starts), 0)
                }
                From::After(event) => {
                    let had = usize::try_from(event.saturating_sub(log.len()));
                    (event.min(log.len()), None, had.unwrap_or(usize::MAX))
                }
                From::Rewind(event) => {
                    let event = event.min(log.len());
                    let Open { text, reasoning } = log.open_at(event);
                    let open = [text, reasoning, log.first_open_call_at(event)];
                    let first = open.into_iter().flatten().min();
                    (event, merged(first.unwrap_or(event), event), 0)
                }
            }
        });
        let mut own = Vec::new();
        if protocol == Protocol::AiSdk && !matches!(from, From::After(_)) {
            // Only where the stream begins at the first event can a reader resume behind `start`.
            if matches!(from, From::Start | From::Event(0) | From::CompactTo(_)) {
                EventId { run: run.stamp, events: 0 }.write(&mut own);
            }
            let id = JsonStr::escape(&run.message_id);
            let metadata = metadata_at_start(run.started_at);
            let start = format!(
                "data: {{\"type\":\"start\",\"messageId\":\"{}\",\"messageMetadata\":{}}}\n\n",
                id.as_str(),
                metadata.text()
            );
            own.extend_from_slice(start.as_bytes());
        }
        Self {
            run,
            protocol,
            own,
            own_at: 0,
            opening,
            offset: None,
            shared_from,
            closings_had,
            reading,
            state: State::Open,
        }
    }

    /// Where it is among the frames that all share; none while it reads what is only for itself, or
    /// when it reads no further.
    pub fn place(&self) -> Option<usize> {
        let is_shared = self.own.is_empty() && self.opening.is_none();
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
        if self.own.len() - self.own_at < CHUNK_BYTES {
            self.own.drain(..self.own_at);
            self.own_at = 0;
        }
        let mut slices = 0;
        while self.own.len() < CHUNK_BYTES
            && (slices < SLICES || self.own.is_empty())
            && let Some(opening) = &mut self.opening
        {
            if !opening.write_more(&self.run, self.protocol, &mut self.own) {
                self.opening = None;
            }
            slices += 1;
        }
        // Of a long event, a part.
        let end = self.own_at + CHUNK_BYTES;
        if end < self.own.len() {
            let bytes = self.own[self.own_at..end].to_vec();
            self.own_at = end;
            return Some(Chunk::Own(bytes));
        }
        let mut bytes = std::mem::take(&mut self.own);
        bytes.drain(..std::mem::take(&mut self.own_at));
        if self.opening.is_none() && self.state == State::Open {
            // Looked at before reading: what was published until then is read.
            let was_over = !self.run.feed.is_running();
            let mut is_last = false;
            if let Some((frames, at)) = self.encode_ahead() {
                is_last = frames.end().is_none();
                if bytes.is_empty()
                    && let Some(shared) = frames.share(at, LEAST_SHARED_BYTES, CHUNK_BYTES)
                {
                    self.offset = Some(at + shared.len());
                    return Some(Chunk::Shared(shared));
                }
                let Run { feed, stamp, .. } = &*self.run;
                self.offset = Some(feed.read_frames(&frames, *stamp, at, CHUNK_BYTES, &mut bytes));
            }
            if self.run.feed.is_freed() {
                self.cut();
                return None;
            }
            if was_over && is_last && bytes.len() < CHUNK_BYTES {
                self.state = State::Over;
                if self.protocol == Protocol::AiSdk {
                    write_closings(&self.run, self.closings_had, &mut self.own);
                }
                // Not before: the last of these are made of the events.
                self.reading = None;
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
        self.opening = None;
        (self.own, self.own_at) = (Vec::new(), 0);
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

    /// Encodes what is missing of the next [`CHUNK_BYTES`] of the shared frames. Returns those, and the
    /// offset at which they begin; none when that is not encoded yet.
    fn encode_ahead(&mut self) -> Option<(Arc<FrameLog>, usize)> {
        let (run, protocol) = (&self.run, self.protocol);
        let encode_more = |frames: &FrameLog| run.feed.encode_more(frames, run.stamp);
        loop {
            let (frames, at) = match self.offset {
                Some(at) => (run.feed.frames_at(protocol, at)?, at),
                None => {
                    let frames = run.feed.frames_from(protocol, self.shared_from);
                    let find = |log: &EventLog| frames.offset_of(self.shared_from, log, run.stamp);
                    let mut offset = run.feed.with_log(|log, _| find(log));
                    while offset.is_none() && encode_more(&frames) {
                        offset = run.feed.with_log(|log, _| find(log));
                    }
                    (frames, offset?)
                }
            };
            self.offset = Some(at);
            while frames.encoded().1 < at + CHUNK_BYTES && encode_more(&frames) {}
            match frames.end() {
                // All of these are read: they go on in others.
                Some(end) if frames.encoded() == (end, at) => {
                    (self.offset, self.shared_from) = (None, end);
                }
                _ => return Some((frames, at)),
            }
        }
    }
}

/// Copies the shared frames from `place` on, for all readers that are there. False when they are so many
/// that each reader should pull for itself, or are gone.
pub fn read_live(run: &Run, protocol: Protocol, place: usize, out: &mut Vec<u8>) -> bool {
    // What stands at a place reads: it does not stand still.
    run.feed.pulled();
    let Some(frames) = run.feed.frames_at(protocol, place) else { return false };
    while frames.encoded().1 <= place + MOST_LIVE_BYTES && run.feed.encode_more(&frames, run.stamp)
    {
    }
    // Where these frames end, each goes on in others by itself.
    let is_last = frames.end().is_none();
    if run.feed.is_freed() || !is_last || frames.encoded().1 > place + MOST_LIVE_BYTES {
        return false;
    }
    frames.read(place, MOST_LIVE_BYTES, out);
    // Afterwards, because what is kept changes at any time.
    !frames.is_gone(place)
}

/// The highest number in the ids of the run's frames so far.
pub fn last_id(run: &Run) -> u64 {
    let length = run.feed.with_log(|log, _| log.len());
    length + run.feed.end().map_or(0, |end| closings(run, &end).len() as u64)
}

/// The chunks that end the stream of a run that has ended so: what its events leave open, and how it
/// ended.
fn closings(run: &Run, end: &RunEnd) -> Vec<String> {
    let interrupted = |call: &str| {
        let error = format!(r#""errorText":"{INTERRUPTED}""#);
        format!(r#"{{"type":"tool-output-error","toolCallId":"{call}",{error}}}"#)
    };
    let mut chunks: Vec<_> =
        run.feed.with_log(|log, _| log.open_calls().map(interrupted).collect());
    let metadata = end.metadata(run.started_at);
    let metadata = format!(r#""messageMetadata":{}"#, metadata.text());
    match end.outcome() {
        Outcome::Answered => {}
        Outcome::Aborted => chunks.push(r#"{"type":"abort"}"#.to_owned()),
        Outcome::Failed(error) => {
            // Before the error: the AI SDK's reader reads nothing behind it, `finish` included.
            chunks.push(format!(r#"{{"type":"message-metadata",{metadata}}}"#));
            let error = JsonStr::escape(&error);
            chunks.push(format!(r#"{{"type":"error","errorText":"{}"}}"#, error.as_str()));
        }
    }
    let reason = end.finish_reason();
    chunks.push(format!(r#"{{"type":"finish","finishReason":"{reason}",{metadata}}}"#));
    let valid = |chunk: String| without_prototypes(chunk.as_bytes()).unwrap_or(chunk);
    chunks.into_iter().map(valid).collect()
}

/// Writes the frames that end the stream, but those that the reader has `had`.
fn write_closings(run: &Run, had: usize, out: &mut Vec<u8>) {
    let events = run.feed.with_log(|log, _| log.len());
    if let Some(end) = run.feed.end() {
        for (number, chunk) in closings(run, &end).iter().enumerate().skip(had) {
            EventId { run: run.stamp, events: events + 1 + number as u64 }.write(out);
            out.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
    }
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// Events looked at while the log is locked once, and how often that is done for a chunk.
const SLICE: u64 = 4096;
const SLICES: usize = 4;

/// What a reader gets before the shared frames.
enum Opening {
    Starts(Starts),
    Merged(Merged),
}

impl Opening {
    /// Writes some frames. False when all are written, or cannot be any more.
    fn write_more(&mut self, run: &Run, protocol: Protocol, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Starts(starts) => starts.write_more(run, protocol, out),
            Self::Merged(merged) => merged.write_more(run, protocol, out),
        }
    }
}

/// The frames without which the AI SDK's reader would refuse what follows an event: the starts of the
/// parts that are open there, and the inputs of the calls, any of which may get another result.
struct Starts {
    until: u64,
    /// Events that begin parts, in order.
    parts: [Option<u64>; 2],
    /// Which of the inputs comes next.
    input: usize,
}

impl Starts {
    /// Of what is `open` at event number `until`.
    fn new(open: Open, until: u64) -> Self {
        let mut parts = [open.text, open.reasoning];
        parts.sort_unstable();
        Self { until, parts, input: 0 }
    }

    fn write_more(&mut self, run: &Run, protocol: Protocol, out: &mut Vec<u8>) -> bool {
        run.feed.with_log(|log, _| {
            let Self { until, parts, input } = self;
            let mut write_parts = |before: u64, out: &mut Vec<u8>| {
                for part in parts.iter_mut() {
                    let Some(number) = part.take_if(|number| *number < before) else { continue };
                    log.read(&mut log.cursor_at(number), |entry, parts| {
                        write_frame(protocol, None, entry, parts, out);
                        ControlFlow::Break(())
                    });
                }
            };
            for _ in 0..SLICE {
                let Some(next) = log.input(*input).filter(|input| input.number < *until) else {
                    write_parts(*until, out);
                    // Not before: a reader that is cut off among these cannot go on behind them.
                    EventId { run: run.stamp, events: *until }.write(out);
                    out.push(b'\n');
                    return false;
                };
                if out.len() >= CHUNK_BYTES {
                    break;
                }
                *input += 1;
                if next.is_last_before(*until) {
                    write_parts(next.number, out);
                    let entry = log.input_entry(&next);
                    write_frame(protocol, None, entry, &OpenParts::default(), out);
                }
            }
            true
        })
    }
}

/// A stretch of a run with neighbouring deltas of a part merged. Not shared: readers join at
/// different places.
struct Merged {
    cursor: Cursor,
    until: u64,
    deltas: Deltas,
}

/// Neighbouring deltas of one part that wait for more.
struct Deltas {
    kind: Kind,
    /// Their payloads. A pair of surrogates that two of them share is one again.
    text: Vec<u8>,
    count: usize,
    /// The parts open at them.
    parts: OpenParts,
}

impl Deltas {
    /// Writes them as one. `id` counts the last of them.
    fn write(&mut self, protocol: Protocol, id: EventId, out: &mut Vec<u8>) {
        if self.count > 0 {
            let entry = Entry { kind: self.kind, payload: &self.text };
            write_frame(protocol, Some(id), entry, &self.parts, out);
            self.text.clear();
            self.count = 0;
        }
    }

    fn is_full(&self) -> bool {
        self.text.len() >= MERGED_BYTES || self.count >= MERGED_DELTAS
    }
}

impl Merged {
    fn new(cursor: Cursor, until: u64) -> Self {
        let parts = cursor.parts().clone();
        let deltas = Deltas { kind: Kind::TextDelta, text: Vec::new(), count: 0, parts };
        Self { cursor, until, deltas }
    }

    fn write_more(&mut self, run: &Run, protocol: Protocol, out: &mut Vec<u8>) -> bool {
        let Self { cursor, until, deltas } = self;
        let first = cursor.next();
        let end = first + (*until - first).min(SLICE);
        let id = |events| EventId { run: run.stamp, events };
        run.feed.with_log(|log, _| {
            while cursor.next() < end && out.len() < CHUNK_BYTES {
                let mut number = cursor.next();
                if deltas.parts != *cursor.parts() {
                    deltas.parts = cursor.parts().clone();
                }
                let most = (end - number) as usize;
                log.read_deltas(cursor, most, usize::MAX, |kind, payload| {
                    if kind != deltas.kind || deltas.is_full() {
                        deltas.write(protocol, id(number), out);
                        deltas.kind = kind;
                    }
                    deltas.text.extend_from_slice(payload);
                    deltas.count += 1;
                    number += 1;
                });
                // What stopped it: an event of another kind, or the end of a block.
                log.read(cursor, |entry, parts| {
                    let is_delta = matches!(entry.kind, Kind::TextDelta | Kind::ReasoningDelta);
                    if is_delta || number == end || out.len() >= CHUNK_BYTES {
                        return ControlFlow::Break(());
                    }
                    deltas.write(protocol, id(number), out);
                    write_frame(protocol, Some(id(number + 1)), entry, parts, out);
                    number += 1;
                    ControlFlow::Continue(())
                });
                if cursor.next() == first {
                    // The events are gone.
                    return;
                }
            }
        });
        if cursor.next() < *until {
            return cursor.next() > first;
        }
        deltas.write(protocol, id(*until), out);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event_log::{NewEntries, tests::LINES},
        feed::{LineCounts, Reason, RunEnd},
        format::tests::as_the_module,
        frames::Kept,
        session_id::SessionId,
        settings::Settings,
    };
    use std::collections::{HashMap, HashSet};

    /// A run that grows when it is told to.
    struct Growing {
        run: Arc<Run>,
        translator: crate::format::Translator,
        new: NewEntries,
    }

    impl Growing {
        fn new() -> Self {
            Self::of(Settings::default())
        }

        fn of(settings: Settings) -> Self {
            let session = SessionId::new("s").unwrap();
            let (run, _) = Run::new(1, session, None, 5, 5, Arc::new(settings));
            Self { run: run.into(), translator: as_the_module(), new: NewEntries::default() }
        }

        fn print(&mut self, line: &str) {
            self.translator.line(line.as_bytes(), 7, &mut self.new);
            self.run.feed.append(&mut self.new, LineCounts::default());
        }

        fn complete(&self) {
            self.end(RunEnd::new(Reason::Completed, 9));
        }

        fn end(&self, end: RunEnd) {
            self.run.feed.finish(end);
        }

        fn len(&self) -> u64 {
            self.run.feed.with_log(|log, _| log.len())
        }

        fn read(&self, protocol: Protocol, from: From) -> FrameReader {
            FrameReader::new(Arc::clone(&self.run), protocol, from)
        }
    }

    /// Pulls a chunk, if there is one.
    fn pull(reader: &mut FrameReader, out: &mut Vec<u8>) -> bool {
        match reader.pull() {
            None => return false,
            Some(Chunk::Own(bytes)) => {
                assert!(bytes.len() <= CHUNK_BYTES);
                out.extend_from_slice(&bytes);
            }
            // SAFETY: it has so many bytes, and they are this test's own.
            Some(Chunk::Shared(bytes)) => out.extend_from_slice(unsafe {
                std::slice::from_raw_parts(bytes.as_mut_ptr(), bytes.len())
            }),
        }
        true
    }

    /// Pulls what there is.
    fn drain(reader: &mut FrameReader, out: &mut Vec<u8>) {
        while pull(reader, out) {}
    }

    fn all(growing: &Growing, protocol: Protocol, from: From) -> String {
        let (mut reader, mut out) = (growing.read(protocol, from), Vec::new());
        drain(&mut reader, &mut out);
        assert!(reader.is_over());
        String::from_utf8(out).unwrap()
    }

    fn turn(number: usize) -> Vec<String> {
        let tool = |phase: &str, id: usize| {
            format!(
                r#"{{"event":"agent","stream":"tool","data":{{"phase":"{phase}","toolCallId":"t{id}","name":"x","result":"r{number}"}}}}"#
            )
        };
        let mut lines: Vec<_> = LINES.map(str::to_owned).into();
        lines.extend([tool("start", number), tool("result", number / 2), tool("result", number)]);
        lines
    }

    /// What a reader of the AI SDK makes of a stream: the text of each part, and which calls there are.
    /// It takes no delta without its part, and no result without its call; it has `calls` before.
    fn shown(
        stream: &str,
        mut calls: HashSet<String>,
    ) -> (HashMap<String, String>, HashSet<String>) {
        let mut parts = HashMap::<_, String>::new();
        let mut open = HashSet::new();
        for json in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let value = |key: &str| {
                let (_, rest) = json.split_once(&format!("\"{key}\":\""))?;
                Some(rest[..rest.find('"')?].to_owned())
            };
            let Some(kind) = value("type") else { continue };
            let id = || value("id").unwrap();
            match kind.as_str() {
                "text-start" | "reasoning-start" => {
                    open.insert(id());
                    assert!(parts.insert(id(), String::new()).is_none(), "begun twice: {json}");
                }
                "text-delta" | "reasoning-delta" => {
                    assert!(open.contains(&id()), "{json}");
                    *parts.get_mut(&id()).unwrap() += &value("delta").unwrap();
                }
                "text-end" | "reasoning-end" => assert!(open.remove(&id()), "{json}"),
                "tool-input-start" | "tool-input-available" => {
                    calls.insert(value("toolCallId").unwrap());
                }
                "tool-output-available" | "tool-output-error" => {
                    assert!(calls.contains(&value("toolCallId").unwrap()), "{json}");
                }
                _ => {}
            }
        }
        (parts, calls)
    }

    #[test]
    fn a_reader_can_begin_anywhere_while_the_run_goes_on_and_misses_nothing() {
        for protocol in [Protocol::Module, Protocol::AiSdk] {
            let mut growing = Growing::new();
            let mut readers = Vec::new();
            for number in 0..600 {
                for line in turn(number) {
                    growing.print(&line);
                }
                // From places near the end and far from it, in no order, at no regular times.
                let place = growing.len() * (number as u64 * 7_919 % 100) / 100;
                let event = if number % 3 == 0 { growing.len() } else { place };
                if number % 23 == 0 {
                    readers.push((growing.read(protocol, From::Event(event)), event, Vec::new()));
                }
                if number % 17 == 0 {
                    readers.iter_mut().for_each(|(reader, _, out)| drain(reader, out));
                }
            }
            growing.complete();
            let whole = all(&growing, protocol, From::Start);
            let kept = Arc::new(Kept::new(usize::MAX));
            let frames = FrameLog::new(protocol, 0, Cursor::default(), None, kept);
            let run = growing.run.stamp;
            growing.run.feed.with_log(|log, _| while frames.encode_more(log, run) {});
            let offset_of = |event| {
                let offset = |log: &EventLog| frames.offset_of(event, log, run);
                growing.run.feed.with_log(|log, _| offset(log)).unwrap()
            };
            let start = whole.find("\n\n").unwrap() + 2;
            let start = if protocol == Protocol::AiSdk { start } else { 0 };
            for (mut reader, event, mut out) in readers {
                drain(&mut reader, &mut out);
                assert!(reader.is_over());
                let rest = &whole[start + offset_of(event)..];
                assert!(out.ends_with(rest.as_bytes()), "from event {event}");
                match protocol {
                    Protocol::Module => assert_eq!(out.len(), rest.len()),
                    Protocol::AiSdk => {
                        drop(shown(std::str::from_utf8(&out).unwrap(), HashSet::new()));
                    }
                }
            }
        }
    }

    #[test]
    fn all_that_is_kept_of_a_run_is_bounded_whoever_reads_it_where_and_how() {
        const MOST_FRAMES: usize = 1 << 20;
        // A segment, what was encoded again, and the blocks to which the run adds.
        const SLACK: usize = 512 * 1024;
        let print = |growing: &mut Growing, from, to| {
            for number in from..to {
                turn(number).iter().for_each(|line| growing.print(line));
            }
        };
        let mut unbounded = Growing::new();
        print(&mut unbounded, 0, 3_000);
        unbounded.complete();
        let whole = [Protocol::Module, Protocol::AiSdk]
            .map(|protocol| (protocol, all(&unbounded, protocol, From::Start)));
        assert!(whole.iter().all(|(_, text)| text.len() > 4 * MOST_FRAMES));

        let max_run_bytes = unbounded.run.feed.with_log(|log, _| log.bytes()) + MOST_FRAMES;
        let mut growing = Growing::of(Settings { max_run_bytes, ..Settings::default() });
        let check = |growing: &Growing| {
            let feed = &growing.run.feed;
            let kept = feed.frame_bytes() + feed.with_log(|log, _| log.bytes());
            assert!(kept <= max_run_bytes + SLACK, "{kept} of {max_run_bytes}");
        };
        print(&mut growing, 0, 2_900);
        let mut readers = Vec::new();
        for tenth in (0..=10).rev() {
            for (protocol, text) in &whole {
                let event = growing.len() * tenth / 10;
                let reader = growing.read(*protocol, From::Event(event));
                readers.push((reader, text, event, Vec::new()));
            }
        }
        let mut compared = 0;
        for round in 0.. {
            match round {
                ..100 => print(&mut growing, 2_900 + round, 2_901 + round),
                100 => growing.complete(),
                _ => {}
            }
            let mut is_more = false;
            for (reader, _, _, out) in &mut readers {
                is_more |= pull(reader, out);
                check(&growing);
            }
            if round > 100 && !is_more {
                break;
            }
        }
        for (reader, text, event, out) in &readers {
            assert!(reader.is_over());
            let out = std::str::from_utf8(out).unwrap();
            match (reader.protocol, event) {
                (Protocol::Module, _) => assert!(text.ends_with(out), "from event {event}"),
                (Protocol::AiSdk, 0) => assert!(*text == out),
                (Protocol::AiSdk, _) => {
                    let id = format!("id: 5-{}\n", event + 1);
                    let rest = text.find(&id).map(|at| &text[at..]);
                    assert!(rest.is_none_or(|rest| out.ends_with(rest)), "from event {event}");
                    compared += usize::from(rest.is_some());
                }
            }
        }
        assert!(compared > 5);
    }

    #[test]
    fn a_reader_that_resumes_exactly_gets_the_frames_behind_its_own_and_nothing_else() {
        let mut growing = Growing::new();
        for number in 0..3 {
            turn(number).iter().for_each(|line| growing.print(line));
        }
        let call = r#"{"event":"agent","stream":"tool","data":{"phase":"start","toolCallId":"open","name":"x"}}"#;
        growing.print(call);
        growing.end(RunEnd { error: Some("no \"key\"".into()), ..RunEnd::new(Reason::Failed, 9) });
        let whole = all(&growing, Protocol::AiSdk, From::Start);
        for cut in [whole.clone(), all(&growing, Protocol::AiSdk, From::CompactTo(u64::MAX))] {
            let ids = cut.lines().filter_map(|line| line.strip_prefix("id: "));
            let ids: Vec<_> = ids.filter_map(EventId::parse).collect();
            assert!(ids.len() > 20);
            for id in ids {
                let frame = whole.find(&format!("id: 5-{}\n", id.events)).unwrap();
                let behind = frame + whole[frame..].find("\n\n").unwrap() + 2;
                let resumed = all(&growing, Protocol::AiSdk, From::After(id.events));
                assert_eq!(resumed, whole[behind..], "behind {id:?}");
            }
        }
        assert_eq!(
            all(&growing, Protocol::AiSdk, From::After(last_id(&growing.run))),
            "data: [DONE]\n\n"
        );
    }

    #[test]
    fn the_end_is_told_as_the_ai_sdk_has_it() {
        let ending = |end: RunEnd| {
            let mut growing = Growing::new();
            growing.print(LINES[2]);
            growing.end(end);
            let text = all(&growing, Protocol::AiSdk, From::Start);
            let chunks = text.lines().filter_map(|line| line.strip_prefix("data: "));
            chunks.skip(3).map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        let metadata = |end: &str| {
            format!(
                r#""messageMetadata":{{"startedAt":5,"endedAt":9,"durationMs":4,"end":"{end}"}}"#
            )
        };
        let finish = |reason: &str, end: &str| {
            let metadata = metadata(end);
            format!(r#"{{"type":"finish","finishReason":"{reason}",{metadata}}} [DONE]"#)
        };
        assert_eq!(ending(RunEnd::new(Reason::Completed, 9)), finish("stop", "completed"));
        let aborted = format!(r#"{{"type":"abort"}} {}"#, finish("other", "aborted"));
        assert_eq!(ending(RunEnd::new(Reason::Aborted, 9)), aborted);
        let failed = RunEnd { exit_code: Some(3), ..RunEnd::new(Reason::Failed, 9) };
        let expected = format!(
            r#"{{"type":"message-metadata",{}}} {{"type":"error","errorText":"The agent exited with code 3"}} {}"#,
            metadata("failed"),
            finish("error", "failed")
        );
        assert_eq!(ending(failed), expected);
    }

    #[test]
    fn a_resumed_reader_has_what_one_has_that_was_there_from_the_start() {
        let mut growing = Growing::new();
        for number in 0..40 {
            turn(number).iter().for_each(|line| growing.print(line));
        }
        growing.complete();
        let protocol = Protocol::AiSdk;
        let (parts, _) = shown(&all(&growing, protocol, From::Start), HashSet::new());
        let whole = all(&growing, protocol, From::Start);
        let mut had = 0;
        for event in 0..=growing.len() {
            // Up to the cursor it was told all; not every event has a frame.
            if let Some(at) = whole.find(&format!("\nid: 5-{event}\n")) {
                had = at + 1 + whole[at + 1..].find("\n\n").unwrap();
            }
            let (_, calls) = shown(&whole[..had], HashSet::new());
            let (later, _) = shown(&all(&growing, protocol, From::Rewind(event)), calls);
            for (id, text) in later {
                assert_eq!(parts[&id], text, "{id} from event {event}");
            }
        }
        let compact = all(&growing, protocol, From::CompactTo(u64::MAX));
        assert!(compact.len() < whole.len());
        assert_eq!(shown(&compact, HashSet::new()).0, parts);
    }

    #[test]
    fn a_chunk_of_a_part_of_many_small_deltas_is_no_more_work_than_another() {
        let mut growing = Growing::new();
        for number in 0..30_000 {
            let delta = number % 10;
            growing.print(&format!(
                r#"{{"event":"agent","stream":"assistant","data":{{"delta":"{delta}"}}}}"#
            ));
        }
        for protocol in [Protocol::Module, Protocol::AiSdk] {
            let mut reader = growing.read(protocol, From::Rewind(29_990));
            let mut pulls = 0;
            while reader.opening.is_some() {
                let at = |reader: &FrameReader| match &reader.opening {
                    Some(Opening::Merged(merged)) => merged.cursor.next(),
                    _ => 29_990,
                };
                let before = at(&reader);
                assert!(reader.pull().is_some());
                assert!(at(&reader) - before <= (SLICES as u64 + 2) * SLICE);
                pulls += 1;
            }
            assert!(pulls >= 2);
            // The frames of all that went before are nobody's wish.
            assert!(growing.run.feed.frames_encoded() < 25_000);
        }
    }
}
