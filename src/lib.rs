//! Native run manager for agent chats.

pub mod agent;
pub mod clock;
pub mod diagnostics;
pub mod error;
pub mod json;
pub mod lines;
pub mod message;
pub mod protocol;
pub mod session_id;
pub mod settings;
