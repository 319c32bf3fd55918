//! Native run manager for agent chats: starts an agent program for a chat turn, turns the lines that
//! it prints into the events of a UI message stream, and keeps the growing answer in the session's
//! file, all of it off the JavaScript thread.
//!
//! This is the map. Imports point down the list only; no room but `api` and `dispatch` names
//! napi, and what JavaScript sees (objects, errors, checks of arguments) is JavaScript, in `lib/`.
//!
//! # The way of the data
//!
//! ```text
//!  agent's stdout            one read of the pipe, up to 64 KiB
//!        │
//!      lines                 bytes → lines, a limit on each
//!        │
//!      protocol              a line → a lenient agent event → UI events; pure
//!        │
//!        ├── event_log       each event once, compactly, numbered
//!        │      │
//!        │      ├── batch ── api ── lib/run-view.js    numbers and one string → object literals
//!        │      └── frames ─ sse ── lib/streams.js     bytes of server-sent events, shared by all
//!        │
//!        └── message         the message to keep; pure
//!               │
//!          persistence       when it is written
//!               │
//!             store          JSONL and index, atomically, next to other writers
//! ```
//!
//! Nothing is pushed into JavaScript. A run that has news rings the `dispatch` bell of each copy of
//! the JavaScript that watches it, once until it is answered; JavaScript then pulls from its cursor
//! in the log, for about two milliseconds at a time. A slow reader costs a cursor, not a queue.
//!
//! # The rooms
//!
//! | room | lives there |
//! |---|---|
//! | `api` | every `#[napi]` item: converts what crosses the boundary |
//! | `dispatch` | the one way into JavaScript: bells |
//! | [`stats`] | what the engine is doing, in numbers |
//! | [`registry`] | which run belongs to which session |
//! | [`run`] | a run's task: its lifecycle, its end, and what others may ask of it |
//! | [`agent`] | the process: which program, how it is started, stopped and waited for |
//! | [`persistence`] | when a run's answer is written |
//! | [`sse`], [`frames`], [`batch`] | a run as it is read: by readers of bytes, by readers of events |
//! | `pages` | bytes that many readers get without a copy |
//! | [`event_log`] | a run's events and the cursors into them |
//! | [`message`] | events folded into the message to keep |
//! | [`protocol`] | agent lines → UI events |
//! | [`lines`] | bytes → lines |
//! | [`store`] | session files and their index |
//! | [`json`] | JavaScript's reading of JSON: numbers, strings, key order |
//! | [`diagnostics`] | warnings, and the agents' stderr |
//! | [`settings`], [`session_id`], [`clock`], [`runtime`], [`error`] | what all rooms share |
//!
//! The source of lines, their format and the run are three things: a run that is fed from elsewhere,
//! or another agent's format, takes the place of [`agent`] or of [`protocol`] and of nothing else.

mod api;
pub mod batch;
pub mod clock;
pub mod command;
pub mod diagnostics;
mod dispatch;
pub mod error;
pub mod event_log;
pub mod feed;
pub mod format;
pub mod frames;
pub mod input;
pub mod json;
pub mod launch;
pub mod leftovers;
pub mod lines;
mod memory;
pub mod message;
mod pages;
pub mod persistence;
pub mod registry;
pub mod run;
pub mod runtime;
pub mod session_id;
pub mod settings;
pub mod sse;
pub mod stats;
pub mod store;
pub mod ui;
