//! Everything that JavaScript can call, and nothing else: converts what crosses the boundary.
//!
//! The public functions, their checks of types and the objects they return are JavaScript (`lib/`):
//! errors and objects made here would belong to another realm in a test runner's sandbox.

#![cfg_attr(test, allow(dead_code, reason = "napi registers nothing in unit tests"))]

use crate::{
    agent::{Agent, Launch},
    batch::{Batch, Text},
    clock,
    diagnostics::{self, Warning},
    dispatch::{Doorbell, end_warnings, ring_main_thread},
    error::Error,
    event_log::Cursor,
    frames::{EventId, Protocol},
    registry,
    run::{Outcome, Run, Watcher},
    session_id::SessionId,
    settings::{self, Settings},
    sse::{FrameReader, From},
    stats,
    store::Store,
};
use napi::bindgen_prelude::{
    BufferSlice, Env, Function, FunctionRef, JsValue, Object, Uint32ArraySlice,
};
use napi_derive::napi;
use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// A stable word, as the `code` of the error that is thrown.
pub struct Code(&'static str);

impl AsRef<str> for Code {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl std::convert::From<Error> for napi::Error<Code> {
    fn from(error: Error) -> Self {
        Self::new(Code(error.code()), error.to_string())
    }
}

/// Node-API itself has failed.
fn internal(error: napi::Error) -> napi::Error<Code> {
    napi::Error::new(Code("INTERNAL"), error.to_string())
}

impl std::convert::From<Code> for napi::Error<Code> {
    fn from(code: Code) -> Self {
        let reason = code.0.to_owned();
        Self::new(code, reason)
    }
}

type Result<T> = napi::Result<T, Code>;

/// The settings, in the units of the public API. As an argument: those that are to be changed.
#[napi(object)]
pub struct SettingsValues {
    /// The folder of the session files.
    pub store_dir: Option<String>,
    /// Milliseconds.
    pub persist_interval_ms: Option<f64>,
    /// Milliseconds.
    pub cleanup_grace_ms: Option<f64>,
    /// Milliseconds.
    pub kill_after_ms: Option<f64>,
    /// Milliseconds.
    pub pipe_grace_ms: Option<f64>,
    /// Bytes.
    pub max_line_bytes: Option<f64>,
    /// Bytes.
    pub max_run_bytes: Option<f64>,
    /// Bytes, of each end.
    pub max_stderr_bytes: Option<f64>,
}

/// Changes settings; the caller has checked the values. Returns those in force.
#[napi]
pub fn configure(change: SettingsValues) -> SettingsValues {
    fn set<T>(setting: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *setting = value;
        }
    }
    let millis = |ms: Option<f64>| ms.map(|ms| Duration::from_millis(ms as u64));
    let bytes = |bytes: Option<f64>| bytes.map(|bytes| bytes as usize);
    let settings = settings::change(|settings| {
        if let Some(dir) = change.store_dir {
            settings.store_dir = Some(PathBuf::from(dir));
        }
        set(&mut settings.persist_interval, millis(change.persist_interval_ms));
        set(&mut settings.cleanup_grace, millis(change.cleanup_grace_ms));
        set(&mut settings.kill_after, millis(change.kill_after_ms));
        set(&mut settings.pipe_grace, millis(change.pipe_grace_ms));
        set(&mut settings.max_line_bytes, bytes(change.max_line_bytes));
        set(&mut settings.max_run_bytes, bytes(change.max_run_bytes));
        set(&mut settings.max_stderr_bytes, bytes(change.max_stderr_bytes));
    });
    let millis = |duration: Duration| Some(duration.as_millis() as f64);
    let bytes = |bytes: usize| Some(bytes as f64);
    SettingsValues {
        store_dir: settings.store_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
        persist_interval_ms: millis(settings.persist_interval),
        cleanup_grace_ms: millis(settings.cleanup_grace),
        kill_after_ms: millis(settings.kill_after),
        pipe_grace_ms: millis(settings.pipe_grace),
        max_line_bytes: bytes(settings.max_line_bytes),
        max_run_bytes: bytes(settings.max_run_bytes),
        max_stderr_bytes: bytes(settings.max_stderr_bytes),
    }
}

/// A program to start in the place of the contract's agent.
#[napi(object)]
pub struct OwnAgent {
    /// A path, or a name on `PATH`.
    pub command: String,
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
    /// The user's message.
    pub message: String,
    /// The agent's own id for the session.
    pub agent_session_id: Option<String>,
    /// The program, when it is not the contract's.
    pub agent: Option<OwnAgent>,
    /// The environment: `KEY=value` texts, each ended by a NUL.
    pub env: String,
    /// The working directory.
    pub cwd: String,
    /// The store when none is configured.
    pub default_store_dir: String,
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
    #[napi(constructor)]
    pub fn new(env: Env, callback: Function<(), ()>, is_main_thread: bool) -> Result<Self> {
        // SAFETY: both are this call's own.
        let doorbell = unsafe { Doorbell::new(env.raw(), callback.raw(), is_main_thread) }
            .map_err(internal)?;
        if is_main_thread {
            watch_process_end(&env).map_err(internal)?;
        }
        Ok(Self { doorbell })
    }

    /// The numbers of the runs with news since the last call.
    #[napi]
    pub fn take(&self, env: Env) -> Vec<u32> {
        watch_signals(&env);
        self.doorbell.take()
    }

    /// Has warnings kept for [`Bell::take_warnings`], or no longer.
    #[napi]
    pub fn hear_warnings(&self, hear: bool) {
        self.doorbell.hear_warnings(hear);
    }

    /// The warnings since the last call.
    #[napi]
    pub fn take_warnings(&self) -> Vec<WarningValues> {
        let warnings = self.doorbell.take_warnings().into_iter();
        let values = warnings.map(|Warning { code, message, session }| WarningValues {
            code: code.to_owned(),
            message,
            session_id: session.map(|session| session.as_str().to_owned()),
        });
        values.collect()
    }

    /// Keeps the process alive, or no longer.
    #[napi]
    pub fn hold(&self, hold: bool) {
        self.doorbell.hold(hold);
    }

    /// Starts a run.
    #[napi]
    pub fn start(&self, env: Env, values: StartValues) -> Result<RunHandle> {
        let session = SessionId::new(&values.session_id)?;
        let settings = settings::current();
        let store_dir = store_dir(&settings, &values.default_store_dir);
        let launch = launch(values);
        let run = registry::start(session, launch, &store_dir, settings, ring_main_thread)?;
        self.doorbell.own(run.id);
        watch_signals(&env);
        ring_main_thread();
        let handle = self.handle(run, 0);
        // What was said before the bell was among the watchers (an agent that cannot be started ends
        // faster than this thread gets here) is news, too.
        self.doorbell.wake(&handle.run);
        Ok(handle)
    }

    /// The session's run, read from where it stands now; null when there is none.
    #[napi]
    pub fn find(&self, session_id: String) -> Option<RunHandle> {
        // An id that can have no file has no run either.
        let session = SessionId::new(&session_id).ok()?;
        registry::find(&session).map(|run| self.handle(run, u64::MAX))
    }

    /// The running run of this number, which another copy started and this one takes over.
    #[napi]
    pub fn adopt(&self, id: u32) -> Option<RunHandle> {
        registry::find_running(id).map(|run| self.handle(run, u64::MAX))
    }

    fn handle(&self, run: Arc<Run>, event: u64) -> RunHandle {
        let watcher: Arc<dyn Watcher> = Arc::clone(&self.doorbell) as _;
        run.watch(&watcher);
        let (cursor, was_over) = run.look(|log, outcome| {
            let cursor = log.cursor_at(event);
            let was_over = outcome.is_some() && cursor.next() == log.len();
            (cursor, was_over)
        });
        RunHandle { run, cursor, was_over }
    }
}

impl Drop for Bell {
    // The finalizer of the JavaScript object: on its thread.
    fn drop(&mut self) {
        self.doorbell.close();
    }
}

/// A run, and the place in it up to which this copy of the JavaScript has been told.
#[napi]
pub struct RunHandle {
    run: Arc<Run>,
    cursor: Cursor,
    /// Whether the run was over, and the cursor at its end, when the handle was made.
    was_over: bool,
}

/// Places in the array that [`RunHandle::pull`] fills, before the events' codes.
const COUNT: usize = 0;
const STATE: usize = 1;
const FIRST_CODE: usize = 2;
/// Values of the second place.
const MORE: u32 = 1;
const OVER: u32 = 2;

#[napi]
impl RunHandle {
    /// The run's number in this process.
    #[napi(getter)]
    pub fn id(&self) -> u32 {
        self.run.id
    }

    /// The session it belongs to.
    #[napi(getter)]
    pub fn session_id(&self) -> &str {
        self.run.session.as_str()
    }

    /// The id of the message it writes.
    #[napi(getter)]
    pub fn message_id(&self) -> &str {
        &self.run.message_id
    }

    /// Milliseconds since 1970.
    #[napi(getter)]
    pub fn started_at(&self) -> f64 {
        self.run.started_at as f64
    }

    /// The agent's process id, once it is started.
    #[napi(getter)]
    pub fn pid(&self) -> Option<i32> {
        self.run.pid()
    }

    /// The number of the event that is pulled next.
    #[napi(getter)]
    pub fn next(&self) -> f64 {
        self.cursor.next() as f64
    }

    /// The id of the text part started last before that event.
    #[napi(getter)]
    pub fn text_id(&self) -> Option<&str> {
        self.cursor.parts().text.as_deref()
    }

    /// The id of the reasoning part started last before that event.
    #[napi(getter)]
    pub fn reasoning_id(&self) -> Option<&str> {
        self.cursor.parts().reasoning.as_deref()
    }

    /// Whether the run was over, and is read to its end, when this handle was made.
    #[napi(getter)]
    pub fn was_over(&self) -> bool {
        self.was_over
    }

    /// Whether the run ended in an error; null while it runs.
    #[napi(getter)]
    pub fn is_error(&self) -> Option<bool> {
        self.run.outcome().map(|Outcome { is_error, .. }| is_error)
    }

    /// The agent's exit code; null while it runs and after a signal.
    #[napi(getter)]
    pub fn exit_code(&self) -> Option<i32> {
        self.run.outcome().and_then(|Outcome { exit_code, .. }| exit_code)
    }

    /// Whether the run is no longer to be found by its session.
    #[napi(getter)]
    pub fn has_left(&self) -> bool {
        self.run.has_left()
    }

    /// A handle of its own on the same run, from its first event on.
    #[napi]
    pub fn replay(&self) -> Self {
        Self { run: Arc::clone(&self.run), cursor: Cursor::default(), was_over: false }
    }

    /// Reads the next events, `limit` at most. Returns the text of the batch; `into` gets their
    /// number, whether there are more (1) or the run is over and all is read (2), and their codes.
    #[napi]
    pub fn pull<'env>(
        &mut self,
        env: &'env Env,
        mut into: Uint32ArraySlice<'_>,
        limit: u32,
    ) -> Result<napi::JsString<'env>> {
        // SAFETY: nobody else looks at the array while this call lasts.
        let into = unsafe { into.as_mut() };
        let Some((head, codes)) = into.split_at_mut_checked(FIRST_CODE) else {
            return Err(Error::invalid_argument("into", "is too short").into());
        };
        let room = codes.len().min(limit as usize);
        BATCH.with_borrow_mut(|batch| {
            let Self { run, cursor, .. } = self;
            let (count, state) = run.look(|log, outcome| {
                let count = batch.fill(log, cursor, &mut codes[..room]);
                let state = match cursor.next() < log.len() {
                    true => MORE,
                    false if outcome.is_some() => OVER,
                    false => 0,
                };
                (count, state)
            });
            head[COUNT] = count as u32;
            head[STATE] = state;
            let text = match batch.text() {
                Text::Ascii(text) => env.create_string_latin1(text),
                Text::Utf8(text) => env.create_string(text),
                Text::Utf16(text) => env.create_string_utf16(text),
            };
            text.map_err(internal)
        })
    }

    /// Passes over what has come since, without events: for when nobody wants them. Returns whether
    /// the run is over and all is passed over (2), or not (0).
    #[napi]
    pub fn skip(&mut self) -> u32 {
        let (cursor, is_over) =
            self.run.look(|log, outcome| (log.cursor_at(u64::MAX), outcome.is_some()));
        self.cursor = cursor;
        if is_over { OVER } else { 0 }
    }

    /// The number of the event at which to resume after the SSE event of this id; null when it is
    /// no id of this run.
    #[napi]
    pub fn resume_point(&self, last_event_id: String) -> Option<f64> {
        let id = EventId::parse(&last_event_id)?;
        let length = self.run.look(|log, _| log.len());
        (id.run == self.run.started_at && id.events <= length).then_some(id.events as f64)
    }

    /// The run as server-sent events, from `event` on as `from` says.
    #[napi]
    pub fn frames(&self, is_ai_sdk: bool, from: FramesFrom, event: f64) -> FrameStream {
        let protocol = if is_ai_sdk { Protocol::AiSdk } else { Protocol::Module };
        let event = event as u64;
        let from = match from {
            FramesFrom::Start => From::Start,
            FramesFrom::CompactTo => From::CompactTo(event),
            FramesFrom::Event => From::Event(event),
            FramesFrom::Resume => From::Resume(event),
        };
        FrameStream { reader: FrameReader::new(Arc::clone(&self.run), protocol, from) }
    }

    /// How many events have been encoded as server-sent events, in both protocols together.
    #[napi(getter)]
    pub fn frames_encoded(&self) -> f64 {
        let encoded = |protocol| self.run.frames(protocol).encoded().0;
        (encoded(Protocol::Module) + encoded(Protocol::AiSdk)) as f64
    }

    /// Stops the agent; false when the run is over.
    #[napi]
    pub fn abort(&self) -> bool {
        self.run.abort()
    }

    /// Sends a signal, by number, to the agent's group; false when the agent has ended.
    #[napi]
    pub fn kill(&self, signal: i32) -> bool {
        self.run.signal(signal)
    }
}

/// See [`From`].
#[napi(string_enum = "camelCase")]
pub enum FramesFrom {
    /// The first event.
    Start,
    /// The first event, with deltas merged up to the given one.
    CompactTo,
    /// The given event.
    Event,
    /// The given event, after a reader was cut off.
    Resume,
}

/// A reader of a run's server-sent events.
#[napi]
pub struct FrameStream {
    reader: FrameReader,
}

#[napi]
impl FrameStream {
    /// The next bytes, 64 KiB at most; null when there are none now.
    #[napi]
    pub fn pull<'env>(&mut self, env: &'env Env) -> Result<Option<BufferSlice<'env>>> {
        let bytes = self.reader.pull();
        bytes.map(|bytes| BufferSlice::copy_from(env, bytes).map_err(internal)).transpose()
    }

    /// Whether all was pulled and nothing will follow.
    #[napi(getter)]
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::default();
}

/// Writes a user's message; false when one with this id is there. `line` is its JSON up to the
/// timestamp, without the closing brace.
#[napi]
pub fn persist_user_message(
    session_id: String,
    id: String,
    line: String,
    default_store_dir: String,
) -> Result<bool> {
    let session = SessionId::new(&session_id)?;
    let store = Store::at(&store_dir(&settings::current(), &default_store_dir));
    let now = clock::now_ms();
    let line = format!("{line},\"timestamp\":\"{}\"}}", clock::iso(now));
    let is_new = store.add_message(&session, &id, line.as_bytes(), now)?;
    if is_new {
        crate::runtime::runtime()?.spawn_blocking(move || {
            if let Err(error) = store.sync(&session) {
                diagnostics::warn(&Warning {
                    code: error.code(),
                    message: error.to_string(),
                    session: Some(session),
                });
            }
        });
    }
    Ok(is_new)
}

/// The numbers of [`stats::stats`].
#[napi(object, object_from_js = false)]
pub struct StatsValues {
    /// Runs.
    pub running: u32,
    /// Runs.
    pub completed: u32,
    /// Runs.
    pub failed: u32,
    /// In the logs of these runs.
    pub events: f64,
    /// Bytes.
    pub buffered_bytes: f64,
    /// Lines.
    pub read: f64,
    /// Lines.
    pub unreadable: f64,
    /// Lines.
    pub other_session: f64,
    /// Lines.
    pub too_long: f64,
    /// Flushes.
    pub written: f64,
    /// Flushes.
    pub not_written: f64,
    /// Why the last of these was not.
    pub last_error: Option<FlushErrorValues>,
    /// Of agents.
    pub pids: Vec<i32>,
}

/// A flush that failed.
#[napi(object, object_from_js = false)]
pub struct FlushErrorValues {
    /// For people.
    pub message: String,
    /// Whose answer it was.
    pub session_id: String,
    /// Milliseconds since 1970.
    pub at: f64,
}

/// What the engine is doing.
#[napi]
pub fn stats() -> StatsValues {
    let stats = stats::stats();
    let last_error = stats.flushes.last_failure.map(|failure| FlushErrorValues {
        message: failure.message,
        session_id: failure.session.as_str().to_owned(),
        at: failure.at as f64,
    });
    StatsValues {
        running: stats.running as u32,
        completed: stats.completed as u32,
        failed: stats.failed as u32,
        events: stats.events as f64,
        buffered_bytes: stats.bytes as f64,
        read: stats.lines.read as f64,
        unreadable: stats.lines.unreadable as f64,
        other_session: stats.lines.other_session as f64,
        too_long: stats.lines.too_long as f64,
        written: stats.flushes.written as f64,
        not_written: stats.flushes.failed as f64,
        last_error,
        pids: stats.pids,
    }
}

/// What a call to the store has come to: a value, or an error to be thrown.
#[napi(object)]
pub struct StoreAnswer {
    /// JSON; none where there is no value.
    pub json: Option<String>,
    /// Of the error.
    pub code: Option<String>,
    /// Of the error.
    pub message: Option<String>,
}

/// Does `work` on a disk thread. The promise is always fulfilled; see [`StoreAnswer`].
fn in_store<'env>(
    env: &'env Env,
    default_store_dir: &str,
    work: impl FnOnce(&Store) -> crate::error::Result<Option<String>> + Send + 'static,
) -> Result<Object<'env>> {
    type Answer = Box<dyn FnOnce(Env) -> napi::Result<StoreAnswer>>;
    let store = Store::at(&store_dir(&settings::current(), default_store_dir));
    let (deferred, promise) = env.create_deferred::<_, Answer>().map_err(internal)?;
    crate::runtime::runtime()?.spawn_blocking(move || {
        let answer = match work(&store) {
            Ok(json) => StoreAnswer { json, code: None, message: None },
            Err(error) => {
                let (code, message) = (error.code().to_owned(), error.to_string());
                StoreAnswer { json: None, code: Some(code), message: Some(message) }
            }
        };
        deferred.resolve(Box::new(move |_| Ok(answer)));
    });
    Ok(promise)
}

/// As [`in_store`], with one session.
fn in_session<'env>(
    env: &'env Env,
    session_id: &str,
    default_store_dir: &str,
    work: impl FnOnce(&Store, &SessionId) -> crate::error::Result<Option<String>> + Send + 'static,
) -> Result<Object<'env>> {
    let session = SessionId::new(session_id)?;
    in_store(env, default_store_dir, move |store| work(store, &session))
}

/// The session's messages, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn read_messages(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, |store, session| {
        let json = store.read_messages(session)?;
        Ok(Some(String::from_utf8_lossy(&json).into_owned()))
    })
}

/// Inserts or replaces messages; `ids` and `lines` (their JSON) belong together.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn upsert_messages(
    env: &Env,
    session_id: String,
    ids: Vec<String>,
    lines: Vec<String>,
    title: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, move |store, session| {
        let messages: Vec<_> = ids.into_iter().zip(lines).collect();
        store.upsert_messages(session, &messages, title.as_deref(), clock::now_ms())?;
        Ok(None)
    })
}

/// The index, newest first, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn list_sessions(env: &Env, default_store_dir: String) -> Result<Object<'_>> {
    in_store(env, &default_store_dir, |store| store.list_sessions().map(Some))
}

/// Adds a session to the index; its entry as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn create_session(
    env: &Env,
    session_id: String,
    title: String,
    file_path: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, move |store, session| {
        store.create_session(session, &title, file_path.as_deref(), clock::now_ms()).map(Some)
    })
}

/// Removes a session from the index and its file; whether there was one, as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn delete_session(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, |store, session| {
        store.delete_session(session).map(|was_there| Some(was_there.to_string()))
    })
}

fn store_dir(settings: &Settings, default: &str) -> PathBuf {
    settings.store_dir.clone().unwrap_or_else(|| Path::new(default).to_owned())
}

fn launch(values: StartValues) -> Launch {
    let env = values
        .env
        .split_terminator('\0')
        .filter_map(|variable| {
            // A name may begin with `=` on some systems, but not be empty.
            let at = variable.char_indices().skip(1).find(|&(_, char)| char == '=')?.0;
            Some((variable[..at].into(), variable[at + 1..].into()))
        })
        .collect();
    let agent = match values.agent {
        None => Agent::Contract,
        Some(OwnAgent { command, args, cwd }) => {
            Agent::Own { command, args, cwd: cwd.map(PathBuf::from) }
        }
    };
    Launch {
        session_id: values.session_id,
        message: values.message,
        agent_session_id: values.agent_session_id,
        agent,
        env,
        cwd: values.cwd.into(),
    }
}

/// Ends all runs, as `process_end.js` is given it.
type EndRuns<'env> = Function<'env, (), ()>;

/// Begins or ends listening for the signals that would end the process at once.
type ListenForSignals = FunctionRef<bool, ()>;

thread_local! {
    /// On the main thread, once [`watch_process_end`] has run.
    static LISTEN: RefCell<Option<ListenForSignals>> = const { RefCell::new(None) };
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// On the main thread: has agents ended, and their answers written, before the process ends.
fn watch_process_end(env: &Env) -> napi::Result<()> {
    if LISTEN.with_borrow(Option::is_some) {
        return Ok(());
    }
    let install: Function<'_, EndRuns<'_>, Function<'_, bool, ()>> =
        env.run_script(include_str!("process_end.js"))?;
    let end_runs = env.create_function_from_closure::<(), (), _>("endRuns", |_| {
        registry::end_all();
        end_warnings();
        diagnostics::flush(FLUSH_AT_END);
        Ok(())
    })?;
    let listen = install.call(end_runs)?.create_ref()?;
    LISTEN.set(Some(listen));
    Ok(())
}

/// How long the end of the process may wait for the last lines on stderr.
const FLUSH_AT_END: Duration = Duration::from_millis(200);

/// On the main thread: listens for signals exactly while runs are running.
fn watch_signals(env: &Env) {
    let is_wanted = registry::running() > 0;
    LISTEN.with_borrow(|listen| {
        if let Some(listen) = listen.as_ref().filter(|_| IS_LISTENING.get() != is_wanted) {
            IS_LISTENING.set(is_wanted);
            // Without a listener, the signals keep their default effect.
            let _ = listen.borrow_back(env).and_then(|listen| listen.call(is_wanted));
        }
    });
}
