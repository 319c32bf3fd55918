//! What a caller of `startRun` asks to be started, made into a command: the format's own, or the one
//! that the caller names with its placeholders filled in. Starts nothing; whether a file exists is
//! asked of whoever calls.

use crate::{
    command::{AgentCommand, Environment},
    format::{Errors, FormatName, Prompt},
};
use std::path::{Path, PathBuf};

/// What a caller asks to be started, and the caller's surroundings.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The session's id, for `{sessionId}`.
    pub session_id: String,
    /// What the user wrote, and in which of the agent's conversations.
    pub prompt: Prompt,
    /// The agent; none for the contract's.
    pub agent: Option<Agent>,
    /// The environment at the call.
    pub env: Environment,
    /// The working directory at the call.
    pub cwd: PathBuf,
}

/// An agent that the caller describes.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// What it prints.
    pub format: FormatName,
    /// The program, when it is not the format's own.
    pub custom: Option<CustomAgent>,
}

/// A program that the caller names.
#[derive(Clone, Debug)]
pub struct CustomAgent {
    /// A path, or a name to be found on `PATH`.
    pub command: String,
    /// Arguments; `{message}`, `{sessionId}` and `{agentSessionId}` are replaced in them.
    pub args: Vec<String>,
    /// Its working directory, relative to the caller's; the caller's when absent.
    pub cwd: Option<PathBuf>,
}

impl Launch {
    /// What the agent prints.
    pub fn format(&self) -> FormatName {
        self.agent.as_ref().map_or_else(FormatName::default, |agent| agent.format)
    }

    /// How much is told of errors, unless that is set: of the contract's agent as the module does it.
    pub fn usual_errors(&self) -> Errors {
        if self.agent.is_none() { Errors::Module } else { Errors::Full }
    }

    /// The command to start. `exists` tells whether there is a file of that path.
    pub fn into_command(self, exists: &dyn Fn(&Path) -> bool) -> AgentCommand {
        let Agent { format, custom } = self.agent.unwrap_or_default();
        let Some(CustomAgent { command, args, cwd }) = custom else {
            return format.default_command(&self.prompt, self.env, &self.cwd, exists);
        };
        let Prompt { message, agent_session_id } = &self.prompt;
        let fill = |arg: &String| {
            fill_placeholders(
                arg,
                [
                    ("{message}", message.as_str()),
                    ("{sessionId}", &self.session_id),
                    ("{agentSessionId}", agent_session_id.as_deref().unwrap_or_default()),
                ],
            )
        };
        AgentCommand {
            program: command.into(),
            args: args.iter().map(|arg| fill(arg).into()).collect(),
            cwd: cwd.map_or_else(|| self.cwd.clone(), |cwd| self.cwd.join(cwd)),
            env: self.env,
        }
    }
}

/// One pass from left to right: what was put in is not searched again.
fn fill_placeholders(arg: &str, values: [(&str, &str); 3]) -> String {
    let mut filled = String::with_capacity(arg.len());
    let mut rest = arg;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let placeholder = values.iter().find(|(name, _)| rest.starts_with(name));
        let (taken, value) = placeholder.map_or(("{", "{"), |&(name, value)| (name, value));
        filled.push_str(value);
        rest = &rest[taken.len()..];
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_in_one_pass() {
        let values =
            [("{message}", "m{sessionId}"), ("{sessionId}", "s"), ("{agentSessionId}", "a")];
        let fill = |arg| fill_placeholders(arg, values);
        assert_eq!(fill("{message}"), "m{sessionId}");
        assert_eq!(fill("--x={sessionId}/{agentSessionId}{other}{"), "--x=s/a{other}{");
        assert_eq!(fill("{{message}}"), "{m{sessionId}}");
    }

    #[test]
    fn a_custom_agent_starts_relative_to_its_caller() {
        let launch = Launch {
            session_id: "s".into(),
            prompt: Prompt { message: "hello".into(), agent_session_id: None },
            agent: Some(Agent {
                format: FormatName::default(),
                custom: Some(CustomAgent {
                    command: "agent".into(),
                    args: vec!["--say={message}".into(), "{agentSessionId}".into()],
                    cwd: Some("work".into()),
                }),
            }),
            env: Vec::new(),
            cwd: "/home/user".into(),
        };
        let command = launch.into_command(&|_| unreachable!("nothing is looked up"));
        assert_eq!(command.program, "agent");
        assert_eq!(command.args, ["--say=hello", ""]);
        assert_eq!(command.cwd, Path::new("/home/user/work"));
    }
}
