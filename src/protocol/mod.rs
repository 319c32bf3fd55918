//! What the agent says, turned into what the browser is told: a line → an [`AgentEvent`] → UI
//! message stream events.
//!
//! Pure: no clock, no I/O; the time for part ids is handed in. The line format
//! ([`AgentEvent`]) and the state machine ([`UiState`]) know nothing of each other, so that
//! other agents' lines can feed the same stream; [`Translator`] puts the two together.

mod agent_event;
mod error_text;
mod tool_result;
mod translator;
mod ui_events;

pub use agent_event::{AgentEvent, AgentLine};
pub use translator::{LineKind, Translator};
pub use ui_events::{EventSink, UiEvent, UiState};
