//! A run as server-sent events, pulled by a stream of the JavaScript.

use super::{Result, internal};
use crate::sse::{Chunk, FrameReader};
use napi::bindgen_prelude::{BufferSlice, Env};
use napi_derive::napi;

/// Copying less takes no longer than handing it over.
const LEAST_HANDED_OVER: usize = 8 * 1024;

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
    /// The next bytes, 256 KiB at most; null when there are none now.
    #[napi]
    pub fn pull<'env>(&mut self, env: &'env Env) -> Result<Option<BufferSlice<'env>>> {
        let buffer = match self.reader.pull() {
            None => return Ok(None),
            Some(Chunk::Own(bytes)) if bytes.len() < LEAST_HANDED_OVER => {
                BufferSlice::copy_from(env, bytes)
            }
            Some(Chunk::Own(bytes)) => BufferSlice::from_data(env, bytes),
            Some(Chunk::Shared(bytes)) => {
                let (start, len) = (bytes.as_mut_ptr(), bytes.len());
                // SAFETY: the memory stays until the hint is dropped, and belongs to it alone.
                unsafe { BufferSlice::from_external(env, start, len, bytes, |_, _bytes| {}) }
            }
        };
        buffer.map(Some).map_err(internal)
    }

    /// Whether all was pulled and nothing will follow.
    #[napi(getter)]
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }
}
