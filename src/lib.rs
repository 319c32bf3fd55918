//! Native run manager for agent chats: starts an agent program for a chat turn, turns the lines that
//! it prints into the events of a UI message stream, and keeps the growing answer in the session's
//! file, all of it off the JavaScript thread.
//!
//! This is the map. Imports point down the list of rooms only; no room but `api` and `dispatch` names
//! napi, and what JavaScript sees (objects, errors, checks of arguments) is JavaScript, in `lib/`.
//!
//! # The way of the data
//!
//! ```text
//!  agent's stdout            a pipe, read up to 64 KiB at a time
//!        │
//!      input                 bytes, and at last how the agent ended
//!        │
//!       run                  one task for each run: its lifecycle, and the answer under way
//!        │
//!      lines                 bytes → lines, a limit on each
//!        │
//!      format                a line → what the agent has done; pure
//!        │
//!       ui                   which parts begin and end → UI events; pure
//!        │
//!        ├── feed            for readers: the events, how the run ended, who is woken
//!        │     │
//!        │   event_log       each event once, compactly, numbered
//!        │     │
//!        │     ├── batch ── api ── lib/run-view.js    numbers and one string → object literals
//!        │     └── frames ─ sse ── lib/streams.js     bytes of server-sent events, shared by all
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
//! # The way of a command
//!
//! A run's task alone speaks to its input. Who wants it stopped, signalled or hurried (`abortRun`,
//! `kill`, the end of the process) sends the task a command; a watchdog or a limit of its own moves it
//! in the same way. One thing does not wait for the task: the gate in [`input::Startup`], which whoever
//! stops a run closes first, so that an agent that is not executed yet never is. How a stopped agent
//! and its descendants are found and ended is in `input/process/family.rs`; it goes on when the run is
//! over.
//!
//! # The rooms
//!
//! | room | lives there |
//! |---|---|
//! | `api` | every `#[napi]` item: converts what crosses the boundary |
//! | `dispatch` | the one way into JavaScript: bells |
//! | [`stats`] | what this package is doing, in numbers |
//! | `signals` | signals that would end the process, where no JavaScript hears them |
//! | [`engine`] | starts runs, and ends all of them: a session's place, its store, its input and its task |
//! | [`leftovers`] | ends what the runs of a killed server have left |
//! | [`launch`] | what a caller asks to be started → a command |
//! | [`registry`] | which run belongs to which session; refuses a second one, and all when the process ends; what is remembered of earlier ones |
//! | [`sse`] | a place in a run's server-sent events |
//! | [`run`] | a run's task: its lifecycle, its watchdogs, its answer, and what others may ask of it |
//! | [`persistence`] | when a run's answer is written |
//! | [`deletion`] | who is writing answers, so that a deleted session stays deleted |
//! | [`store`] | session files and their index; which processes' marks are in use |
//! | [`input`] | where lines come from, and who can be told to stop: `process` |
//! | [`feed`] | what readers need of a run: its events, its end, who is woken; frees the events |
//! | [`batch`], [`frames`] | a run's events as JavaScript reads them, and as server-sent events |
//! | `pages` | bytes that many readers get without a copy |
//! | [`event_log`] | a run's events and the cursors into them; what is open at every place |
//! | [`settings`] | what can be set |
//! | [`message`] | events folded into the message to keep |
//! | [`mod@format`] | agent lines → what the UI is told, a file for each format; default commands, error texts |
//! | [`ui`] | UI events, and the state machine that keeps them well-formed |
//! | [`lines`] | bytes → lines |
//! | [`command`] | a program with all that it is started with |
//! | [`json`] | JavaScript's reading of JSON: numbers, strings, key order |
//! | `memory` | gives freed memory back to the system |
//! | [`copies`] | which copy of this library serves the process |
//! | [`diagnostics`] | warnings, and the agents' stderr |
//! | [`disk`] | the threads that wait for the disk |
//! | [`session_id`], [`clock`], [`runtime`], `panics`, [`error`] | what all rooms share |
//!
//! The source of lines, their format and the run are three things, and none knows the others' inside.
//! Another format is one file in `format/` and its name in the list there; another source is one file
//! in `input/` that implements [`input::Input`]. `run/tests.rs` drives whole runs through such a source
//! without a process. `docs/contributing.md` has the steps.

mod api;
pub mod batch;
pub mod clock;
pub mod command;
pub mod copies;
pub mod deletion;
pub mod diagnostics;
pub mod disk;
mod dispatch;
pub mod engine;
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
mod panics;
pub mod persistence;
pub mod registry;
pub mod run;
pub mod runtime;
pub mod session_id;
pub mod settings;
mod signals;
pub mod sse;
pub mod stats;
pub mod store;
pub mod ui;
