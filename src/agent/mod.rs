//! The agent as a process: which program it is, how it is started, stopped and waited for, and what
//! is kept of its stderr. Knows nothing of events or of the disk.

mod command;
mod process;
mod spawn;
mod stderr;

pub use command::{Agent, AgentCommand, Environment, Launch};
pub use process::{ExitStatus, Process};
pub use spawn::{SpawnError, Spawned, spawner};
pub use stderr::StderrTail;
