//! JSON as JavaScript reads and writes it, down to lone surrogates, key order and number forms.
//!
//! The agent, the browser and the files all speak the dialect of `JSON.parse` and
//! `JSON.stringify`, which differs from what general JSON libraries accept and print. Everything
//! here is iterative, so that hostile nesting costs memory but never the stack. Nothing here
//! knows what the data means.

mod document;
mod number;
mod rope;
mod scan;
mod string;

pub use document::{Document, JsonValue, NodeId, Scalar, Value};
pub use rope::Rope;
pub use scan::{Cursor, Invalid, RawStr, RawValue};
pub(crate) use string::trusted;
pub use string::{JsonStr, JsonString, is_white, trim};
