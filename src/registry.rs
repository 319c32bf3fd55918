//! Which run belongs to which session: one at a time, found until its grace period is over.
//!
//! It belongs to the process, so that hot reloads, second copies of the JavaScript and worker threads
//! share its runs. Starting a run is a claim on its session that can be refused.

use crate::{
    agent::{self, Launch},
    clock,
    error::{Error, Result},
    persistence::Persistence,
    run::{LineCounts, Run, Watcher, drive, message_id},
    runtime::runtime,
    session_id::SessionId,
    settings::Settings,
    store::{LiveMessage, Store},
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
    /// Lines of the runs that are no longer among these.
    departed: LineCounts,
}

static RUNS: Lazy<Mutex<Runs>> = Lazy::new(Mutex::default);
static ONE_LESS: Condvar = Condvar::new();

/// Moments to try for a run that other servers started, too.
const CLAIMS: u64 = 64;
/// After SIGKILL, how long ending waits for the last flushes.
const LAST_FLUSHES: Duration = Duration::from_secs(3);
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
    let spawner = agent::spawner().map_err(Error::no_runtime)?;
    let not_before = match lock().by_session.get(&session) {
        Some(run) if run.is_running() => return Err(Error::already_running()),
        // Message ids are made of this number: two runs of a session must not share one.
        before => before.map_or(0, |run| run.started_at + 1),
    };
    let store = Store::at(store_dir);
    let (started_at, claim) = claim(&store, &session, clock::now_ms().max(not_before));
    let (run, replaced) = {
        let mut runs = lock();
        let before = runs.by_session.get(&session);
        if before.is_some_and(|run| run.is_running()) {
            return Err(Error::already_running());
        }
        runs.last_id += 1;
        let run = Arc::new(Run::new(runs.last_id, session.clone(), started_at, settings));
        runs.running.insert(run.id, Arc::clone(&run));
        let replaced = runs.by_session.insert(session, Arc::clone(&run));
        if let Some(replaced) = &replaced {
            runs.departed += replaced.lines();
        }
        (run, replaced)
    };
    if let Some(replaced) = replaced {
        replaced.leave();
    }
    // Before the agent: its first words are news.
    run.watch(watcher);
    let session_key = launch.session_key();
    let driven = Arc::clone(&run);
    spawner.spawn(launch, move |spawned| {
        let interval = driven.settings.persist_interval;
        let persistence = Persistence::new(store, driven.session.clone(), claim, interval);
        let (over, forgotten) = (Arc::clone(&driven), Arc::clone(&driven));
        let on_over = move || {
            lock().running.remove(&over.id);
            ONE_LESS.notify_all();
            on_over();
        };
        let on_forgotten = move || remove(&forgotten);
        runtime.spawn(drive(driven, session_key, spawned, persistence, on_over, on_forgotten));
    });
    Ok(run)
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

/// Ends every running agent and waits until what they said is on the disk; a few seconds at most.
/// For the end of the process.
pub fn end_all() {
    let running = || lock().running.values().cloned().collect::<Vec<_>>();
    let runs = running();
    if runs.is_empty() {
        return;
    }
    runs.iter().for_each(Run::hurry);
    if !wait_until_none_runs(POLITE) {
        for run in running() {
            run.signal(libc::SIGKILL);
        }
        wait_until_none_runs(LAST_FLUSHES);
    }
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
        runs.departed += run.lines();
        drop(runs);
        run.leave();
    }
}

fn lock() -> MutexGuard<'static, Runs> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}
