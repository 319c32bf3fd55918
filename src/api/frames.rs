//! A run as server-sent events, pulled by a stream of the JavaScript.

use super::{Result, internal};
use crate::{
    pages::Mapped,
    sse::{Chunk, FrameReader},
};
use napi::bindgen_prelude::{BufferSlice, Env};
use napi_derive::napi;
use once_cell::sync::OnceCell;

/// Of so many shared bytes, one counts as the buffer's own when JavaScript decides whether there is
/// garbage enough to collect: it then does so about when no more mappings are to be had.
const SHARED_WEIGHT: i64 = 4;

/// Whether V8 may be told to count less than there is. Newer versions sum the buffers up apart, and end
/// the process where the other sum would be negative (seen in Node.js 26).
fn may_count_less(env: &Env) -> bool {
    static MAY: OnceCell<bool> = OnceCell::new();
    *MAY.get_or_init(|| env.get_node_version().is_ok_and(|version| version.major < 24))
}

/// See [`crate::sse::From`].
#[napi(string_enum = "camelCase")]
pub enum FramesFrom {
    /// The first event.
    Start,
    /// The first event, with deltas merged up to the given one.
    CompactTo,
    /// The given event.
    Event,
    /// Behind the given event, with nothing sent again.
    After,
    /// Behind the given event, rewound to where open parts began.
    Rewind,
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
    /// The next bytes, 64 KiB at most; null when there are none now. `place`, unless it is negative, is
    /// where the reader has come to with bytes of [`RunHandle::live_frames`].
    ///
    /// [`RunHandle::live_frames`]: super::run_handle::RunHandle::live_frames
    #[napi(catch_unwind)]
    pub fn pull<'env>(&mut self, env: &'env Env, place: f64) -> Result<Option<BufferSlice<'env>>> {
        if place >= 0.0 {
            self.reader.go_on_at(place as usize);
        }
        let buffer = match self.reader.pull() {
            None => return Ok(None),
            // Not handed over as they are: such memory stays until the event loop is idle.
            Some(Chunk::Own(bytes)) => BufferSlice::copy_from(env, bytes),
            Some(Chunk::Shared(bytes)) => {
                let (start, len) = (bytes.as_mut_ptr(), bytes.len());
                let not_its_own = match may_count_less(env) {
                    true => len as i64 / SHARED_WEIGHT * (SHARED_WEIGHT - 1),
                    false => 0,
                };
                let finalize = move |env: Env, _: Mapped| {
                    // Neither call can fail while the environment is there.
                    let _ = env.adjust_external_memory(not_its_own);
                };
                // SAFETY: the memory stays until the hint is dropped, and belongs to it alone.
                let buffer =
                    unsafe { BufferSlice::from_external(env, start, len, bytes, finalize) };
                let _ = env.adjust_external_memory(-not_its_own);
                buffer
            }
        };
        buffer.map(Some).map_err(internal)
    }

    /// Its place among the frames that the run's readers share; negative when it is at none.
    #[napi(getter, catch_unwind)]
    pub fn place(&self) -> f64 {
        self.reader.place().map_or(-1.0, |place| place as f64)
    }

    /// Nobody reads it any more.
    #[napi(catch_unwind)]
    pub fn close(&mut self) {
        self.reader.close();
    }

    /// Whether the events were freed before this reader had them.
    #[napi(getter, catch_unwind)]
    pub fn is_cut(&self) -> bool {
        self.reader.is_cut()
    }

    /// Whether all was pulled and nothing will follow.
    #[napi(getter, catch_unwind)]
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }
}
