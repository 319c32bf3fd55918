//! A run as server-sent events, pulled by a stream of the JavaScript.

use super::{Result, internal};
use crate::sse::FrameReader;
use napi::bindgen_prelude::{BufferSlice, Env};
use napi_derive::napi;

/// See [`crate::sse::From`].
#[napi(string_enum = "camelCase")]
pub enum FramesFrom {
    /// The first event.
    Start,
    /// The first event, with deltas merged up to the given one.
    CompactTo,
    /// The given event.
    Event,
    /// The given event, after a reader was cut off.
    Resume,
}

/// A reader of a run's server-sent events.
#[napi]
pub struct FrameStream {
    reader: FrameReader,
}

impl From<FrameReader> for FrameStream {
    fn from(reader: FrameReader) -> Self {
        Self { reader }
    }
}

#[napi]
impl FrameStream {
    /// The next bytes, 64 KiB at most; null when there are none now.
    #[napi]
    pub fn pull<'env>(&mut self, env: &'env Env) -> Result<Option<BufferSlice<'env>>> {
        let bytes = self.reader.pull();
        bytes.map(|bytes| BufferSlice::copy_from(env, bytes).map_err(internal)).transpose()
    }

    /// Whether all was pulled and nothing will follow.
    #[napi(getter)]
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }
}
