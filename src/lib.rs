//! Native run manager for agent chats.

pub mod error;
pub mod session_id;
