//! Native run manager for agent chats.

pub mod clock;
pub mod error;
pub mod session_id;
