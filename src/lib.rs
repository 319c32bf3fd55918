//! Native run manager for agent chats.

pub mod agent;
mod api;
pub mod batch;
pub mod clock;
pub mod diagnostics;
mod dispatch;
pub mod error;
pub mod event_log;
pub mod frames;
pub mod json;
pub mod lines;
pub mod message;
pub mod persistence;
pub mod protocol;
pub mod registry;
pub mod run;
pub mod runtime;
pub mod session_id;
pub mod settings;
pub mod sse;
pub mod stats;
pub mod store;
