//! One copy of the JavaScript: how it is woken, and how it starts and finds runs.

use super::{
    Result, internal,
    process_end::{watch_process_end, watch_signals},
    run_handle::RunHandle,
    settings::{errors_named, millis, set, store_dir},
};
use crate::{
    diagnostics::{self, Warning},
    dispatch::{Doorbell, runs_changed},
    engine::{self, UserMessage},
    error::Error,
    feed::Watcher,
    format::{FormatName, Prompt},
    launch::{Agent, CustomAgent, Launch},
    panics, registry,
    run::Run,
    session_id::SessionId,
    settings::{self, Settings},
};
use napi::bindgen_prelude::{Env, Function, JsValue};
use napi_derive::napi;
use std::{env, ffi::OsString, path::PathBuf, sync::Arc};

/// An agent that the caller describes.
#[napi(object)]
pub struct AgentValues {
    /// The name of the format of its lines.
    pub format: Option<String>,
    /// A path, or a name on `PATH`; when absent, the format's own command is started.
    pub command: Option<String>,
    /// Arguments, with placeholders.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: Option<String>,
}

/// What a run is started with.
#[napi(object)]
pub struct StartValues {
    /// The session's id.
    pub session_id: String,
    /// What the agent is asked.
    pub message: String,
    /// The id of the user's message that is to be stored before.
    pub user_message_id: Option<String>,
    /// Its JSON up to the timestamp, without the closing brace.
    pub user_message_line: Option<String>,
    /// The agent's own id for the session.
    pub agent_session_id: Option<String>,
    /// The agent, when it is not the contract's.
    pub agent: Option<AgentValues>,
    /// The environment: `KEY=value` texts, each ended by a NUL. When absent, that of the process.
    pub env: Option<String>,
    /// The working directory.
    pub cwd: String,
    /// The store when none is configured.
    pub default_store_dir: String,
    /// How much is told of errors, when it is not as set.
    pub errors: Option<String>,
    /// Milliseconds; 0 for none.
    pub max_silence_ms: Option<f64>,
    /// Milliseconds; 0 for none.
    pub max_run_ms: Option<f64>,
}

/// Something that went wrong and stopped nothing.
#[napi(object, object_from_js = false)]
pub struct WarningValues {
    /// Its kind.
    pub code: String,
    /// For people.
    pub message: String,
    /// The session that it is about.
    pub session_id: Option<String>,
}

/// One copy of the JavaScript, to be woken when its runs have news.
#[napi]
pub struct Bell {
    doorbell: Arc<Doorbell>,
}

#[napi]
impl Bell {
    /// `callback` is called on this thread when [`Bell::take`] has something to give.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, callback: Function<(), ()>, is_main_thread: bool) -> Result<Self> {
        diagnostics::tell_panics_without_waiting();
        // SAFETY: both are this call's own.
        let doorbell = unsafe { Doorbell::new(env.raw(), callback.raw(), is_main_thread) }
            .map_err(internal)?;
        if is_main_thread {
            watch_process_end(&env).map_err(internal)?;
        }
        Ok(Self { doorbell })
    }

    /// The numbers of the runs with news since the last call.
    #[napi(catch_unwind)]
    pub fn take(&self, env: Env) -> Vec<u32> {
        // First, which answers the ring: whatever changes after that rings again.
        let runs = self.doorbell.take();
        watch_signals(&env);
        if self.doorbell.is_main_thread() {
            self.doorbell.hold_for_workers();
        }
        runs
    }

    /// Has warnings kept for [`Bell::take_warnings`], or no longer.
    #[napi(catch_unwind)]
    pub fn hear_warnings(&self, hear: bool) {
        self.doorbell.hear_warnings(hear);
    }

    /// The warnings since the last call.
    #[napi(catch_unwind)]
    pub fn take_warnings(&self) -> Vec<WarningValues> {
        let warnings = self.doorbell.take_warnings().into_iter();
        let values = warnings.map(|Warning { code, message, session }| WarningValues {
            code: code.to_owned(),
            message,
            session_id: session.map(|session| session.as_str().to_owned()),
        });
        values.collect()
    }

    /// Writes a warning to stderr that nobody has taken, without waiting for that.
    #[napi(catch_unwind)]
    pub fn print_warning(&self, message: String) {
        diagnostics::print(&Warning { code: "INTERNAL", message, session: None });
    }

    /// Keeps the process alive, or no longer.
    #[napi(catch_unwind)]
    pub fn hold(&self, hold: bool) {
        self.doorbell.hold(hold);
    }

    /// Starts a run; null when the user's message was answered before.
    #[napi(catch_unwind)]
    pub fn start(&self, env: Env, mut values: StartValues) -> Result<Option<RunHandle>> {
        let session = SessionId::new(&values.session_id)?;
        let settings = settings_of(&values);
        let store_dir = store_dir(&settings, &values.default_store_dir);
        let message = values.user_message_id.take().zip(values.user_message_line.take());
        let message = message.map(|(id, line)| UserMessage::new(id, line));
        let launch = launch(values)?;
        let watcher = self.watcher();
        let started =
            engine::start(session, message, launch, &store_dir, settings, &watcher, runs_changed);
        let Some(run) = started? else { return Ok(None) };
        self.doorbell.own(run.id);
        if self.doorbell.is_main_thread() {
            watch_signals(&env);
        } else {
            runs_changed();
        }
        Ok(Some(RunHandle::at(run, 0)))
    }

    /// The number of the session's run; null when there is none.
    #[napi(catch_unwind)]
    pub fn find_id(&self, session_id: String) -> Option<u32> {
        // An id that can have no file has no run either.
        let session = SessionId::new(&session_id).ok()?;
        registry::find(&session).map(|run| run.id)
    }

    /// The session's run, read from where it stands now; null when there is none. The handle keeps the
    /// run's events: it is to be released.
    #[napi(catch_unwind)]
    pub fn find(&self, session_id: String) -> Option<RunHandle> {
        let session = SessionId::new(&session_id).ok()?;
        self.handle(registry::find(&session)?)
    }

    /// Whether this copy has started the run of this number, or was given it when the thread of the one
    /// that had started it ended.
    #[napi(catch_unwind)]
    pub fn owns(&self, id: u32) -> bool {
        self.doorbell.owns(id)
    }

    /// The running run of this number, which another copy started and this one takes over.
    #[napi(catch_unwind)]
    pub fn adopt(&self, id: u32) -> Option<RunHandle> {
        self.handle(registry::find_running(id)?)
    }

    /// A handle on a run that is running or was, from where it stands now; none when it has left since it
    /// was found.
    fn handle(&self, run: Arc<Run>) -> Option<RunHandle> {
        run.feed.watch(&self.watcher());
        let handle = RunHandle::at(Arc::clone(&run), u64::MAX);
        // What has not left by now is kept for the handle, and rings when it leaves.
        (!run.feed.has_left()).then_some(handle)
    }

    fn watcher(&self) -> Arc<dyn Watcher> {
        Arc::clone(&self.doorbell) as _
    }
}

impl Drop for Bell {
    // The finalizer of the JavaScript object: on its thread.
    fn drop(&mut self) {
        // Node-API has nobody to tell.
        let _ = panics::caught("the end of a bell", || self.doorbell.close());
    }
}

/// Whether the environment of the process has a variable of this name.
#[napi(catch_unwind)]
pub fn has_variable(name: String) -> bool {
    env::var_os(name).is_some()
}

/// The settings in force, with those that the call gives for its run.
fn settings_of(values: &StartValues) -> Arc<Settings> {
    let mut settings = settings::current();
    let StartValues { errors, max_silence_ms, max_run_ms, .. } = values;
    if errors.is_some() || max_silence_ms.is_some() || max_run_ms.is_some() {
        let settings = Arc::make_mut(&mut settings);
        set(&mut settings.errors, errors.as_deref().map(errors_named));
        set(&mut settings.max_silence, millis(*max_silence_ms));
        set(&mut settings.max_run, millis(*max_run_ms));
    }
    settings
}

fn launch(values: StartValues) -> Result<Launch> {
    let env = match values.env {
        // Read here, on the thread of the JavaScript that may write to it.
        None => env::vars_os().collect(),
        Some(text) => text.split_terminator('\0').filter_map(variable).collect(),
    };
    let StartValues { session_id, message, agent_session_id, agent, cwd, .. } = values;
    let agent = agent.map(|AgentValues { format, command, args, cwd }| {
        let format = match format {
            Some(name) => FormatName::parse(&name).ok_or_else(|| unknown_format(&name))?,
            None => FormatName::default(),
        };
        let cwd = cwd.map(PathBuf::from);
        let custom = command.map(|command| CustomAgent { command, args, cwd });
        Ok::<_, Error>(Agent { format, custom })
    });
    let agent = agent.transpose()?;
    let prompt = Prompt { message, agent_session_id };
    Ok(Launch { session_id, prompt, agent, env, cwd: cwd.into() })
}

fn unknown_format(name: &str) -> Error {
    let known = FormatName::ALL.join(", ");
    Error::invalid_argument("agent.format", format!("{name:?} is unknown; there are {known}"))
}

/// Name and value of a `KEY=value` text.
fn variable(text: &str) -> Option<(OsString, OsString)> {
    // A name may begin with `=` on some systems, but not be empty.
    let at = text.char_indices().skip(1).find(|&(_, char)| char == '=')?.0;
    Some((text[..at].into(), text[at + 1..].into()))
}
