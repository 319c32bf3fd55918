//! Which run belongs to which session: one at a time, found until its grace period is over.
//!
//! It belongs to the process, so that hot reloads, second copies of the JavaScript and worker threads
//! share its runs. Starting a run is a claim on its session that can be refused.

use crate::{
    clock,
    error::{Error, Result},
    feed::{LineCounts, Watcher},
    format::Errors,
    input::process::{self, Limits, NotSpawned, ProcessInput, Spawned, spawner},
    launch::Launch,
    leftovers,
    persistence::Persistence,
    run::{Host, Question, Run, Start, drive, message_id},
    runtime::runtime,
    session_id::SessionId,
    settings::Settings,
    store::{self, LiveMessage, Store},
};
use once_cell::sync::Lazy;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Default)]
struct Runs {
    by_session: HashMap<SessionId, Arc<Run>>,
    /// Those that are running, by id; also one whose session has another by now.
    running: HashMap<u32, Arc<Run>>,
    last_id: u32,
    /// The process ends: no run is started any more.
    is_closing: bool,
    /// Lines of the runs that are no longer among these.
    departed: LineCounts,
}

static RUNS: Lazy<Mutex<Runs>> = Lazy::new(Mutex::default);
static ONE_LESS: Condvar = Condvar::new();

/// Start times tried when another server has claimed ours.
const CLAIMS: u64 = 64;
/// After SIGKILL, how long ending waits for the last flushes.
const LAST_FLUSHES: Duration = Duration::from_secs(3);
/// How long ending waits then for those to be gone that stopped agents have left.
const LAST_KILLS: Duration = Duration::from_millis(700);
/// After SIGTERM, how long ending waits for agents to end by themselves.
const POLITE: Duration = Duration::from_millis(700);

/// Starts a run for a session whose run, if it had one, is over. Returns at once: the agent is
/// started, and heard, on other threads. `watcher` is woken by whatever it publishes; `on_over` is
/// called when it no longer counts as [`running`].
///
/// # Errors
/// `RUN_ALREADY_ACTIVE` when the session's run is running; `NO_THREADS` when the engine has none.
pub fn start(
    session: SessionId,
    launch: Launch,
    store_dir: &Path,
    settings: Arc<Settings>,
    watcher: &Arc<dyn Watcher>,
    on_over: impl FnOnce() + Send + 'static,
) -> Result<Arc<Run>> {
    let runtime = runtime()?;
    let spawner = spawner().map_err(Error::no_runtime)?;
    let not_before = match lock().by_session.get(&session) {
        Some(run) if run.feed.is_running() => return Err(Error::already_running()),
        // Message ids are made of this number: two runs of a session must not share one.
        before => before.map_or(0, |run| run.started_at + 1),
    };
    let store = Store::at(store_dir);
    leftovers::end(&store);
    let (started_at, claim) = claim(&store, &session, clock::now_ms().max(not_before));
    let (run, commands, replaced) = {
        let mut runs = lock();
        if runs.is_closing {
            return Err(Error::closing());
        }
        let before = runs.by_session.get(&session);
        if before.is_some_and(|run| run.feed.is_running()) {
            return Err(Error::already_running());
        }
        runs.last_id += 1;
        let (run, commands) = Run::new(runs.last_id, session.clone(), started_at, settings);
        let run = Arc::new(run);
        runs.running.insert(run.id, Arc::clone(&run));
        let replaced = runs.by_session.insert(session, Arc::clone(&run));
        if let Some(replaced) = &replaced {
            runs.departed += replaced.feed.lines();
        }
        (run, commands, replaced)
    };
    if let Some(replaced) = replaced {
        replaced.feed.leave();
    }
    // Before the agent: its first words are news.
    run.feed.watch(watcher);
    let question = question(&launch, &run.settings);
    let ledger = Arc::clone(store.ledger());
    let prepare = move |mark: &str| {
        let command = launch.into_command(&|path| path.exists());
        (command, Box::new(ledger.note(mark)) as process::Record)
    };
    let driven = Arc::clone(&run);
    let started = move |spawned| {
        let interval = driven.settings.persist_interval;
        let persistence = Persistence::new(store, driven.session.clone(), claim, interval);
        let place = Place { run: Arc::clone(&driven), on_over: Some(Box::new(on_over)) };
        runtime.spawn(async move {
            process::reap_orphans();
            let start = take_charge(&driven, spawned);
            drive(driven, question, start, commands, persistence, place).await;
        });
    };
    spawner.spawn(prepare, Arc::clone(&run.startup), started);
    Ok(run)
}

fn question(launch: &Launch, settings: &Settings) -> Question {
    // The contract's agent is told of as the module does it, others are new.
    let usual = if launch.custom.is_none() { Errors::Module } else { Errors::Full };
    Question {
        format: launch.format,
        prompt: launch.prompt.clone(),
        errors: settings.errors.unwrap_or(usual),
    }
}

/// Makes an input of what was started. In the runtime's context.
fn take_charge(run: &Run, spawned: Result<Spawned, NotSpawned>) -> Start<ProcessInput> {
    let Settings { pipe_grace, max_stderr_bytes, .. } = *run.settings;
    let limits = Limits { pipe_grace, max_stderr_bytes };
    match spawned {
        Ok(spawned) => match ProcessInput::new(spawned, Arc::clone(&run.startup), limits) {
            Ok(input) => Start::Started(input),
            Err(cause) => Start::Failed {
                error: format!("its pipes cannot be watched: {cause}"),
                exit_code: cause.raw_os_error().map_or(-1, |number| -number),
            },
        },
        Err(NotSpawned::Cancelled) => Start::Cancelled,
        Err(NotSpawned::Failed(error)) => {
            Start::Failed { error: error.to_string(), exit_code: error.exit_code() }
        }
    }
}

/// A run's place among the runs.
struct Place {
    run: Arc<Run>,
    on_over: Option<Box<dyn FnOnce() + Send>>,
}

impl Host for Place {
    fn over(&mut self) {
        lock().running.remove(&self.run.id);
        ONE_LESS.notify_all();
        if let Some(on_over) = self.on_over.take() {
            on_over();
        }
    }

    fn forgotten(&mut self) {
        remove(&self.run);
    }
}

/// Claims the message of a run of `session`: the one of `started_at`, or of a moment later when a run
/// of another server has the same start.
fn claim(store: &Arc<Store>, session: &SessionId, started_at: u64) -> (u64, Option<LiveMessage>) {
    // Servers that are refused at the same moment go on to different ones.
    let step = 1 + u64::from(std::process::id() % 8);
    let starts = (0..CLAIMS).map(|claim| started_at + claim * step);
    let mut claims = starts.map(|start| {
        let claim = store.claim_message(session, &message_id(session, start));
        (start, claim)
    });
    claims.find(|(_, claim)| claim.is_some()).unwrap_or((started_at, None))
}

/// The session's run, running or over, until its grace period ends.
pub fn find(session: &SessionId) -> Option<Arc<Run>> {
    lock().by_session.get(session).cloned()
}

/// A running run by its number.
pub fn find_running(id: u32) -> Option<Arc<Run>> {
    lock().running.get(&id).cloned()
}

/// All runs that can be found, and what became of the lines of those that no longer can.
pub fn all() -> (Vec<Arc<Run>>, LineCounts) {
    let runs = lock();
    (runs.by_session.values().cloned().collect(), runs.departed)
}

/// How many runs are running.
pub fn running() -> usize {
    lock().running.len()
}

/// The process ends: no run is started any more, every running agent is ended, and what has been
/// answered is written; so is what stopped agents have left. Takes a few seconds at most.
pub fn close() {
    lock().is_closing = true;
    end_all();
    store::close_all();
}

/// Ends every running agent and waits until what they have printed is on the disk; a few seconds at
/// most.
pub fn end_all() {
    let running = || lock().running.values().cloned().collect::<Vec<_>>();
    let runs = running();
    runs.iter().for_each(|run| run.hurry());
    process::hurry();
    if !wait_until_none_runs(POLITE) {
        for run in running() {
            run.signal(libc::SIGKILL);
        }
        wait_until_none_runs(LAST_FLUSHES);
    }
    process::wait_until_gone(LAST_KILLS);
}

fn wait_until_none_runs(patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let mut runs = lock();
    while !runs.running.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        runs = ONE_LESS.wait_timeout(runs, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// Forgets `run`, unless its session has another one by now.
fn remove(run: &Arc<Run>) {
    let mut runs = lock();
    if runs.by_session.get(&run.session).is_some_and(|found| Arc::ptr_eq(found, run)) {
        runs.by_session.remove(&run.session);
        runs.departed += run.feed.lines();
        drop(runs);
        run.feed.leave();
    }
}

fn lock() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}
