//! A run, as one copy of the JavaScript reads and steers it.

use super::{
    Result,
    frames::{FrameStream, FramesFrom},
    internal,
};
use crate::{
    batch::{Batch, Text},
    error::Error,
    event_log::Cursor,
    feed::Reading,
    frames::{EventId, Protocol},
    json,
    run::Run,
    sse::{FrameReader, From, last_id, read_live},
    ui::Chunk,
};
use napi::bindgen_prelude::{BufferSlice, Env, Uint32ArraySlice};
use napi_derive::napi;
use std::{cell::RefCell, ops::ControlFlow, sync::Arc};

/// A run, and the place in it up to which this copy of the JavaScript has been told.
#[napi]
pub struct RunHandle {
    run: Arc<Run>,
    cursor: Cursor,
    /// Whether the run was over, and the cursor at its end, when the handle was made.
    was_over: bool,
    /// Keeps the events for this copy until it has been told that the session has forgotten the run.
    reading: Option<Reading>,
}

/// How a run ended, for JavaScript.
#[napi(object, object_from_js = false)]
pub struct EndValues {
    /// Why.
    pub reason: String,
    /// The agent's exit code.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended the agent.
    pub signal: Option<i32>,
    /// The error that was told.
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub ended_at: f64,
    /// Whether the run's status is `error`.
    pub is_error: bool,
}

impl RunHandle {
    /// A handle that stands before event number `event`, or behind what there is.
    pub(super) fn at(run: Arc<Run>, event: u64) -> Self {
        // Before looking: what is there now stays there.
        let reading = run.feed.reading();
        let (cursor, was_over) = run.feed.with_log(|log, is_over| {
            let cursor = log.cursor_at(event);
            let was_over = is_over && cursor.next() == log.len();
            (cursor, was_over)
        });
        Self { run, cursor, was_over, reading: Some(reading) }
    }
}

/// Places in the array that [`RunHandle::pull`] fills, before the events' codes.
const COUNT: usize = 0;
const STATE: usize = 1;
const FIRST_CODE: usize = 2;
/// Over more events a cursor is moved by way of the log's blocks.
const FAR: u64 = 1_024;
/// Values of the second place.
const MORE: u32 = 1;
const OVER: u32 = 2;

#[napi]
impl RunHandle {
    /// The run's number in this process.
    #[napi(getter, catch_unwind)]
    pub fn id(&self) -> u32 {
        self.run.id
    }

    /// The session it belongs to.
    #[napi(getter, catch_unwind)]
    pub fn session_id(&self) -> &str {
        self.run.session.as_str()
    }

    /// The id of the message it writes.
    #[napi(getter, catch_unwind)]
    pub fn message_id(&self) -> &str {
        &self.run.message_id
    }

    /// Milliseconds since 1970.
    #[napi(getter, catch_unwind)]
    pub fn started_at(&self) -> f64 {
        self.run.started_at as f64
    }

    /// The agent's process id, once it is started.
    #[napi(getter, catch_unwind)]
    pub fn pid(&self) -> Option<i32> {
        self.run.startup.pid()
    }

    /// The number of the event that is pulled next.
    #[napi(getter, catch_unwind)]
    pub fn next(&self) -> f64 {
        self.cursor.next() as f64
    }

    /// The id of the text part started last before that event.
    #[napi(getter, catch_unwind)]
    pub fn text_id(&self) -> Option<&str> {
        self.cursor.parts().text.as_deref()
    }

    /// The id of the reasoning part started last before that event.
    #[napi(getter, catch_unwind)]
    pub fn reasoning_id(&self) -> Option<&str> {
        self.cursor.parts().reasoning.as_deref()
    }

    /// Whether the run was over, and is read to its end, when this handle was made.
    #[napi(getter, catch_unwind)]
    pub fn was_over(&self) -> bool {
        self.was_over
    }

    /// How the run ended; null while it runs.
    #[napi(getter, catch_unwind)]
    pub fn end(&self) -> Option<EndValues> {
        self.run.feed.end().map(|end| EndValues {
            is_error: end.is_error(),
            reason: end.reason.name().to_owned(),
            exit_code: end.exit_code,
            signal: end.signal,
            error: end.error,
            ended_at: end.ended_at as f64,
        })
    }

    /// When the agent's last line came, in milliseconds since 1970; null before the first.
    #[napi(getter, catch_unwind)]
    pub fn last_line_at(&self) -> Option<f64> {
        self.run.feed.lines().last_at.map(|at| at as f64)
    }

    /// Whether the session can no longer find the run.
    #[napi(getter, catch_unwind)]
    pub fn has_left(&self) -> bool {
        self.run.feed.has_left()
    }

    /// A handle of its own on the same run, from its first event on.
    #[napi(catch_unwind)]
    pub fn replay(&self) -> Self {
        let (run, cursor) = (Arc::clone(&self.run), Cursor::default());
        Self { run, cursor, was_over: false, reading: None }
    }

    /// This copy of the JavaScript knows that the session has forgotten the run: the events need not
    /// be kept for it.
    #[napi(catch_unwind)]
    pub fn release(&mut self) {
        self.reading = None;
    }

    /// Reads the next events, `limit` at most. Returns the text of the batch; `into` gets their
    /// number, whether there are more (1) or the run is over and all is read (2), and their codes.
    #[napi(catch_unwind)]
    pub fn pull<'env>(
        &mut self,
        env: &'env Env,
        mut into: Uint32ArraySlice<'_>,
        limit: u32,
    ) -> Result<napi::JsString<'env>> {
        // SAFETY: nobody else looks at the array while this call lasts.
        let into = unsafe { into.as_mut() };
        let Some((head, codes)) = into.split_at_mut_checked(FIRST_CODE) else {
            return Err(Error::invalid_argument("into", "is too short").into());
        };
        let room = codes.len().min(limit as usize);
        BATCH.with_borrow_mut(|batch| {
            let Self { run, cursor, .. } = self;
            let (count, state) = run.feed.with_log(|log, is_over| {
                let count = batch.fill(log, cursor, &mut codes[..room]);
                let state = match cursor.next() < log.len() {
                    true => MORE,
                    false if is_over => OVER,
                    false => 0,
                };
                (count, state)
            });
            head[COUNT] = count as u32;
            head[STATE] = state;
            let text = match batch.text() {
                Text::Ascii(text) => env.create_string_latin1(text),
                Text::Utf8(text) => env.create_string(text),
                Text::Utf16(text) => env.create_string_utf16(text),
            };
            text.map_err(internal)
        })
    }

    /// Passes over what has come since, without events: for when nobody wants them. Returns whether
    /// the run is over and all is passed over (2), or not (0).
    #[napi(catch_unwind)]
    pub fn skip(&mut self) -> u32 {
        let Self { run, cursor, .. } = self;
        let is_over = run.feed.with_log(|log, is_over| {
            if log.len().saturating_sub(cursor.next()) > FAR {
                *cursor = log.cursor_at(u64::MAX);
            }
            log.read(cursor, |_, _| ControlFlow::Continue(()));
            is_over
        });
        if is_over { OVER } else { 0 }
    }

    /// The number in an SSE id of this run: how far the reader that received it last has read. Null when it
    /// is no id of this run.
    #[napi(catch_unwind)]
    pub fn resume_point(&self, last_event_id: String) -> Option<f64> {
        let id = EventId::parse(&last_event_id)?;
        (id.run == self.run.stamp && id.events <= last_id(&self.run)).then_some(id.events as f64)
    }

    /// What comes first in the ids of its frames: its start, in milliseconds since 1970, or a little more.
    #[napi(getter, catch_unwind)]
    pub fn stamp(&self) -> f64 {
        self.run.stamp as f64
    }

    /// The id of the user's message that it answers, where that is known.
    #[napi(getter, catch_unwind)]
    pub fn user_message_id(&self) -> Option<&str> {
        self.run.user_message_id.as_deref()
    }

    /// Puts a chunk, given as JSON, into the stream. False when the run is over.
    #[napi(catch_unwind)]
    pub fn emit(&self, chunk: String) -> Result<bool> {
        let wrong = |reason: String| Error::invalid_argument("chunk", reason);
        let value = json::Cursor::new(&chunk).value();
        let value = value.map_err(|invalid| wrong(format!("is {invalid}")))?;
        let chunk = Chunk::read(value).map_err(wrong)?;
        Ok(self.run.emit(chunk))
    }

    /// The run as server-sent events, from `event` on as `from` says.
    #[napi(catch_unwind)]
    pub fn frames(&self, is_ai_sdk: bool, from: FramesFrom, event: f64) -> FrameStream {
        let protocol = protocol(is_ai_sdk);
        let event = event as u64;
        let from = match from {
            FramesFrom::Start => From::Start,
            FramesFrom::CompactTo => From::CompactTo(event),
            FramesFrom::Event => From::Event(event),
            FramesFrom::After => From::After(event),
            FramesFrom::Rewind => From::Rewind(event),
        };
        FrameReader::new(Arc::clone(&self.run), protocol, from).into()
    }

    /// The frames from a place on, for all readers who are there; null when they are so many that each
    /// should pull for itself.
    #[napi(catch_unwind)]
    pub fn live_frames<'env>(
        &self,
        env: &'env Env,
        is_ai_sdk: bool,
        place: f64,
    ) -> Result<Option<BufferSlice<'env>>> {
        FRAMES.with_borrow_mut(|frames| {
            frames.clear();
            if !read_live(&self.run, protocol(is_ai_sdk), place as usize, frames) {
                return Ok(None);
            }
            BufferSlice::copy_from(env, &frames).map(Some).map_err(internal)
        })
    }

    /// How many events have been encoded as server-sent events, in both protocols together.
    #[napi(getter, catch_unwind)]
    pub fn frames_encoded(&self) -> f64 {
        self.run.feed.frames_encoded() as f64
    }

    /// Stops the agent and what it has started; false when the run is over.
    #[napi(catch_unwind)]
    pub fn abort(&self) -> bool {
        self.run.abort()
    }

    /// Sends a signal, by number, to the agent's group; false when the agent has ended.
    #[napi(catch_unwind)]
    pub fn kill(&self, signal: i32) -> bool {
        self.run.signal(signal)
    }
}

fn protocol(is_ai_sdk: bool) -> Protocol {
    if is_ai_sdk { Protocol::AiSdk } else { Protocol::Module }
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::default();
    /// At most as long as what one call of [`read_live`] gives.
    static FRAMES: RefCell<Vec<u8>> = RefCell::default();
}
