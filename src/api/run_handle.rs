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
    frames::{EventId, Protocol},
    run::{Outcome, Run},
    sse::{FrameReader, From},
};
use napi::bindgen_prelude::{Env, Uint32ArraySlice};
use napi_derive::napi;
use std::{cell::RefCell, sync::Arc};

/// A run, and the place in it up to which this copy of the JavaScript has been told.
#[napi]
pub struct RunHandle {
    run: Arc<Run>,
    cursor: Cursor,
    /// Whether the run was over, and the cursor at its end, when the handle was made.
    was_over: bool,
}

impl RunHandle {
    /// A handle that stands before event number `event`, or behind what there is.
    pub(super) fn at(run: Arc<Run>, event: u64) -> Self {
        let (cursor, was_over) = run.look(|log, outcome| {
            let cursor = log.cursor_at(event);
            let was_over = outcome.is_some() && cursor.next() == log.len();
            (cursor, was_over)
        });
        Self { run, cursor, was_over }
    }
}

/// Places in the array that [`RunHandle::pull`] fills, before the events' codes.
const COUNT: usize = 0;
const STATE: usize = 1;
const FIRST_CODE: usize = 2;
/// Values of the second place.
const MORE: u32 = 1;
const OVER: u32 = 2;

#[napi]
impl RunHandle {
    /// The run's number in this process.
    #[napi(getter)]
    pub fn id(&self) -> u32 {
        self.run.id
    }

    /// The session it belongs to.
    #[napi(getter)]
    pub fn session_id(&self) -> &str {
        self.run.session.as_str()
    }

    /// The id of the message it writes.
    #[napi(getter)]
    pub fn message_id(&self) -> &str {
        &self.run.message_id
    }

    /// Milliseconds since 1970.
    #[napi(getter)]
    pub fn started_at(&self) -> f64 {
        self.run.started_at as f64
    }

    /// The agent's process id, once it is started.
    #[napi(getter)]
    pub fn pid(&self) -> Option<i32> {
        self.run.pid()
    }

    /// The number of the event that is pulled next.
    #[napi(getter)]
    pub fn next(&self) -> f64 {
        self.cursor.next() as f64
    }

    /// The id of the text part started last before that event.
    #[napi(getter)]
    pub fn text_id(&self) -> Option<&str> {
        self.cursor.parts().text.as_deref()
    }

    /// The id of the reasoning part started last before that event.
    #[napi(getter)]
    pub fn reasoning_id(&self) -> Option<&str> {
        self.cursor.parts().reasoning.as_deref()
    }

    /// Whether the run was over, and is read to its end, when this handle was made.
    #[napi(getter)]
    pub fn was_over(&self) -> bool {
        self.was_over
    }

    /// Whether the run ended in an error; null while it runs.
    #[napi(getter)]
    pub fn is_error(&self) -> Option<bool> {
        self.run.outcome().map(|Outcome { is_error, .. }| is_error)
    }

    /// The agent's exit code; null while it runs and after a signal.
    #[napi(getter)]
    pub fn exit_code(&self) -> Option<i32> {
        self.run.outcome().and_then(|Outcome { exit_code, .. }| exit_code)
    }

    /// Whether the run is no longer to be found by its session.
    #[napi(getter)]
    pub fn has_left(&self) -> bool {
        self.run.has_left()
    }

    /// A handle of its own on the same run, from its first event on.
    #[napi]
    pub fn replay(&self) -> Self {
        Self { run: Arc::clone(&self.run), cursor: Cursor::default(), was_over: false }
    }

    /// Reads the next events, `limit` at most. Returns the text of the batch; `into` gets their
    /// number, whether there are more (1) or the run is over and all is read (2), and their codes.
    #[napi]
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
            let (count, state) = run.look(|log, outcome| {
                let count = batch.fill(log, cursor, &mut codes[..room]);
                let state = match cursor.next() < log.len() {
                    true => MORE,
                    false if outcome.is_some() => OVER,
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
    #[napi]
    pub fn skip(&mut self) -> u32 {
        let (cursor, is_over) =
            self.run.look(|log, outcome| (log.cursor_at(u64::MAX), outcome.is_some()));
        self.cursor = cursor;
        if is_over { OVER } else { 0 }
    }

    /// The number of the event at which to resume after the SSE event of this id; null when it is
    /// no id of this run.
    #[napi]
    pub fn resume_point(&self, last_event_id: String) -> Option<f64> {
        let id = EventId::parse(&last_event_id)?;
        let length = self.run.look(|log, _| log.len());
        (id.run == self.run.started_at && id.events <= length).then_some(id.events as f64)
    }

    /// The run as server-sent events, from `event` on as `from` says.
    #[napi]
    pub fn frames(&self, is_ai_sdk: bool, from: FramesFrom, event: f64) -> FrameStream {
        let protocol = if is_ai_sdk { Protocol::AiSdk } else { Protocol::Module };
        let event = event as u64;
        let from = match from {
            FramesFrom::Start => From::Start,
            FramesFrom::CompactTo => From::CompactTo(event),
            FramesFrom::Event => From::Event(event),
            FramesFrom::Resume => From::Resume(event),
        };
        FrameReader::new(Arc::clone(&self.run), protocol, from).into()
    }

    /// How many events have been encoded as server-sent events, in both protocols together.
    #[napi(getter)]
    pub fn frames_encoded(&self) -> f64 {
        let encoded = |protocol| self.run.frames(protocol).encoded().0;
        (encoded(Protocol::Module) + encoded(Protocol::AiSdk)) as f64
    }

    /// Stops the agent; false when the run is over.
    #[napi]
    pub fn abort(&self) -> bool {
        self.run.abort()
    }

    /// Sends a signal, by number, to the agent's group; false when the agent has ended.
    #[napi]
    pub fn kill(&self, signal: i32) -> bool {
        self.run.signal(signal)
    }
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::default();
}
