//! A program with all that it is started with. Plain data: who makes it and who starts it need not
//! know each other.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// Environment variables in the order they were given.
pub type Environment = Vec<(OsString, OsString)>;

/// A command ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCommand {
    /// A path, or a name to be found on the `PATH` of `env`.
    pub program: OsString,
    /// Arguments after the program's own name.
    pub args: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Environment,
}

/// The first value of a variable, which is the one that a process reads.
pub(crate) fn variable<'a>(env: &'a Environment, name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}
