//! Which program is the agent: the contract's own (found from `OPENCLAW_ROOT` or the working
//! directory), or one that the caller names. Looks at the file system, starts nothing.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// How far above the working directory the package root is looked for.
const FOLDERS_ABOVE: usize = 19;

/// Environment variables in the order they were given.
pub type Environment = Vec<(OsString, OsString)>;

/// What a caller asks to be started, and where the caller stands.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The session's id, for `{sessionId}`.
    pub session_id: String,
    /// The user's message.
    pub message: String,
    /// The agent's own id for the session; empty counts as none.
    pub agent_session_id: Option<String>,
    /// The program to start.
    pub agent: Agent,
    /// The environment at the call.
    pub env: Environment,
    /// The working directory at the call.
    pub cwd: PathBuf,
}

/// The program to start.
#[derive(Clone, Debug)]
pub enum Agent {
    /// The one that the contract describes.
    Contract,
    /// One that the caller names.
    Own {
        /// A path, or a name to be found on `PATH`.
        command: String,
        /// Arguments; `{message}`, `{sessionId}` and `{agentSessionId}` are replaced in them.
        args: Vec<String>,
        /// Its working directory, relative to the caller's; the caller's when absent.
        cwd: Option<PathBuf>,
    },
}

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

impl Launch {
    /// The key under which the agent's gateway knows the session, and which is on its lines.
    pub fn session_key(&self) -> Option<String> {
        self.agent_session_id.as_deref().filter(|id| !id.is_empty()).map(session_key)
    }

    /// The command to start. Looks for the package root on the disk.
    pub fn into_command(self) -> AgentCommand {
        let agent_session_id = self.agent_session_id.unwrap_or_default();
        match self.agent {
            Agent::Own { command, args, cwd } => {
                let fill = |arg: &String| {
                    fill_placeholders(arg, &self.message, &self.session_id, &agent_session_id)
                };
                AgentCommand {
                    program: command.into(),
                    args: args.iter().map(|arg| fill(arg).into()).collect(),
                    cwd: cwd.map_or_else(|| self.cwd.clone(), |cwd| self.cwd.join(cwd)),
                    env: self.env,
                }
            }
            Agent::Contract => {
                let root = package_root(variable(&self.env, "OPENCLAW_ROOT"), &self.cwd);
                let development = root.join("scripts").join("run-node.mjs");
                let script =
                    if development.exists() { development } else { root.join("openclaw.mjs") };
                let mut args: Vec<OsString> = vec![script.into()];
                let fixed = ["agent", "--agent", "main", "--message", &self.message];
                args.extend(fixed.map(OsString::from));
                args.push("--stream-json".into());
                if !agent_session_id.is_empty() {
                    let key = session_key(&agent_session_id);
                    let lane = ["--session-key", &key, "--lane", "subagent"];
                    args.extend(lane.map(OsString::from));
                }
                AgentCommand { program: "node".into(), args, cwd: root, env: self.env }
            }
        }
    }
}

fn session_key(agent_session_id: &str) -> String {
    format!("agent:main:subagent:{agent_session_id}")
}

/// The first value of a variable, which is the one that a process reads.
pub(super) fn variable<'a>(env: &'a Environment, name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}

fn package_root(from_env: Option<&OsStr>, cwd: &Path) -> PathBuf {
    if let Some(root) = from_env.filter(|root| !root.is_empty()) {
        let root = cwd.join(root);
        if root.exists() {
            return root;
        }
    }
    let is_root = |folder: &&Path| {
        folder.join("openclaw.mjs").exists() || folder.join("scripts/run-node.mjs").exists()
    };
    if let Some(root) = cwd.ancestors().take(1 + FOLDERS_ABOVE).find(is_root) {
        return root.to_owned();
    }
    match cwd.ends_with("apps/web") {
        true => cwd.ancestors().nth(2).unwrap_or(cwd).to_owned(),
        false => cwd.to_owned(),
    }
}

/// One pass from left to right: what was put in is not searched again.
fn fill_placeholders(arg: &str, message: &str, session_id: &str, agent_session_id: &str) -> String {
    let values = [
        ("{message}", message),
        ("{sessionId}", session_id),
        ("{agentSessionId}", agent_session_id),
    ];
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
    use std::fs;

    fn launch(cwd: &Path, env: &[(&str, &str)]) -> Launch {
        Launch {
            session_id: "s".into(),
            message: "hello {sessionId}".into(),
            agent_session_id: None,
            agent: Agent::Contract,
            env: env.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
            cwd: cwd.to_owned(),
        }
    }

    fn file(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_environment_names_the_root_if_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let (root, work) = (dir.path().join("root"), dir.path().join("work"));
        file(root.join("scripts/run-node.mjs"));
        file(work.join("openclaw.mjs"));
        let root_text = root.to_str().unwrap();
        let command = launch(&work, &[("OPENCLAW_ROOT", root_text)]).into_command();
        assert_eq!(command.cwd, root);
        assert_eq!(command.args[0], root.join("scripts/run-node.mjs"));
        for missing in ["", "/nowhere/at/all"] {
            assert_eq!(launch(&work, &[("OPENCLAW_ROOT", missing)]).into_command().cwd, work);
        }
    }

    #[test]
    fn the_root_is_the_first_folder_upwards_that_holds_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |levels: usize| dir.path().join(vec!["d"; levels].join("/"));
        file(dir.path().join("openclaw.mjs"));
        fs::create_dir_all(deep(20)).unwrap();
        assert_eq!(launch(&deep(19), &[]).into_command().cwd, dir.path());
        assert_eq!(launch(&deep(20), &[]).into_command().cwd, deep(20));
    }

    #[test]
    fn the_web_app_stands_two_levels_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let web = dir.path().join("apps/web");
        fs::create_dir_all(&web).unwrap();
        let command = launch(&web, &[]).into_command();
        assert_eq!(command.cwd, dir.path());
        assert_eq!(command.args[0], dir.path().join("openclaw.mjs"));
    }

    #[test]
    fn the_arguments_are_the_contracts() {
        let mut launch = launch(Path::new("/"), &[]);
        launch.agent_session_id = Some("ID".into());
        let command = launch.clone().into_command();
        assert_eq!(command.program, "node");
        assert_eq!(
            command.args[1..],
            "agent|--agent|main|--message|hello {sessionId}|--stream-json|--session-key|\
             agent:main:subagent:ID|--lane|subagent"
                .split('|')
                .collect::<Vec<_>>()
        );
        launch.agent_session_id = Some(String::new());
        assert_eq!(launch.into_command().args.len(), 7);
    }

    #[test]
    fn placeholders_are_replaced_in_one_pass() {
        let fill = |arg| fill_placeholders(arg, "m{sessionId}", "s", "a");
        assert_eq!(fill("{message}"), "m{sessionId}");
        assert_eq!(fill("--x={sessionId}/{agentSessionId}{other}{"), "--x=s/a{other}{");
        assert_eq!(fill("{{message}}"), "{m{sessionId}}");
    }
}
