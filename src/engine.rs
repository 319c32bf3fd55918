//! Starts runs, and ends all of them: where a session's place, its store, its input and its task meet.

use crate::{
    clock,
    deletion::{self, Author},
    error::{Error, Result},
    feed::{Reason, RunEnd, Watcher},
    input::process::{self, Limits, NotSpawned, ProcessInput, Spawned, spawner},
    launch::Launch,
    leftovers,
    persistence::{self, Persistence},
    registry,
    run::{Host, Question, Run, Start, drive, message_id},
    runtime::runtime,
    session_id::SessionId,
    settings::Settings,
    store::{self, Ledger, LiveMessage, Store},
};
use std::{
    io,
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::oneshot, task::spawn_blocking, time::timeout};

/// Start times tried when another server has claimed ours.
const CLAIMS: u64 = 64;
/// After SIGTERM, how long ending waits for agents to end by themselves.
const POLITE: Duration = Duration::from_millis(700);
/// After SIGKILL, how long ending waits for the last flushes.
const LAST_FLUSHES: Duration = Duration::from_secs(3);
/// How long ending waits then for those to be gone that stopped agents have left.
const LAST_KILLS: Duration = Duration::from_millis(700);

/// After the time for SIGKILL, how long a deletion waits for those that a stopped agent has left.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// How long a start waits for the note of its mark.
const NOTE_PATIENCE: Duration = Duration::from_millis(100);

/// Starts a run for a session whose run, if it had one, is over. Returns at once: the agent is
/// started, and read, on other threads. `watcher` is woken by whatever it publishes; `on_over` is
/// called when it no longer counts as running.
///
/// # Errors
/// `RUN_ALREADY_ACTIVE` when the session's run is running; `NO_THREADS` when the engine has none;
/// `CLOSING` when the process ends.
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
    let earliest = registry::earliest_start(&session)?;
    let store = Store::at(store_dir);
    leftovers::end(&store);
    let (started_at, claim) = claim(&store, &session, clock::now_ms().max(earliest));
    let (run, commands) = Run::new(registry::new_id(), session, started_at, settings);
    let run = Arc::new(run);
    registry::add(&run)?;
    // Before the agent: its first words are news.
    run.feed.watch(watcher);
    let question = question(&launch, &run.settings);
    let interval = run.settings.persist_interval;
    let mark = process::new_mark();
    let noted = note_mark(runtime, Arc::clone(store.ledger()), mark.clone());
    let author = Author::new(run.id, &store, &run.session);
    let persistence = Persistence::new(store, run.session.clone(), author, claim, interval);
    let (done, spawned) = oneshot::channel();
    let start = {
        let run = Arc::clone(&run);
        async move {
            match spawned.await {
                Ok(spawned) => take_charge(&run, spawned),
                // The thread that starts agents has dropped it.
                Err(_) => Start::Failed { error: "nobody has started it".into(), exit_code: -1 },
            }
        }
    };
    let place = Place { run: Arc::clone(&run), on_over: Some(Box::new(on_over)) };
    let driven = drive(Arc::clone(&run), question, start, commands, persistence, place);
    runtime.spawn(async move {
        process::reap_orphans();
        driven.await;
    });
    let prepare = move || (launch.into_command(&|path| path.exists()), noted());
    spawner.spawn(prepare, mark, Arc::clone(&run.startup), move |spawned| {
        // Nobody takes it when the start has hung and its run was ended.
        if let Err(Ok(spawned)) = done.send(spawned) {
            runtime.spawn(process::abandon(spawned));
        }
    });
    Ok(run)
}

fn question(launch: &Launch, settings: &Settings) -> Question {
    Question {
        format: launch.format(),
        prompt: launch.prompt.clone(),
        errors: settings.errors.unwrap_or(launch.usual_errors()),
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

/// Notes a mark in the store on a disk thread. What is returned waits for that, but not for a disk that
/// does not answer; the note is then taken back.
fn note_mark(
    runtime: &Runtime,
    ledger: Arc<Ledger>,
    mark: Box<str>,
) -> impl FnOnce() -> Option<process::Record> + Send + use<> {
    let (done, noted) = sync_channel(1);
    // From a task: where no thread can be had, it is that which fails.
    runtime.spawn(async {
        let note = spawn_blocking(move || {
            let note = ledger.note(&mark);
            let _ = done.send(Box::new(note) as process::Record);
        });
        note.await
    });
    move || noted.recv_timeout(NOTE_PATIENCE).ok()
}

/// A run's place among the runs. Should its task panic, the run has failed, and its session is free.
struct Place {
    run: Arc<Run>,
    on_over: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.on_over.is_some() {
            self.run.feed.finish(RunEnd {
                reason: Reason::Failed,
                exit_code: None,
                signal: None,
                error: Some("the run's task has panicked".into()),
                ended_at: clock::now_ms(),
            });
            self.over();
            self.forgotten();
        }
    }
}

impl Host for Place {
    fn over(&mut self) {
        registry::over(&self.run);
        if let Some(on_over) = self.on_over.take() {
            on_over();
        }
    }

    fn forgotten(&mut self) {
        registry::forget(&self.run);
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

/// Deletes a session: stops its run, waits until that and what it has started have ended, and removes
/// the session's file and its entry in the index. Nothing of the run is written any more; it can still
/// be read until its grace period is over. Says whether there was a file or an entry.
///
/// A run of another server is not stopped: its next flush makes the file anew.
///
/// # Errors
/// When the store cannot be written.
pub async fn delete_session(store: Arc<Store>, session: SessionId) -> Result<bool> {
    loop {
        let discarded = deletion::discard(&store, &session);
        if discarded.is_empty() {
            break;
        }
        // A run of the same session in another store is not meant.
        let run = registry::find(&session).filter(|run| discarded.has(run.id));
        if let Some(run) = &run {
            run.abort();
        }
        discarded.gone().await;
        if let Some(run) = run
            && let Some(pid) = run.startup.pid()
        {
            let patience = run.settings.kill_after + AFTER_KILL;
            let _ = timeout(patience, process::until_gone(pid)).await;
        }
    }
    let path = store.session_path(&session);
    let removed = spawn_blocking(move || store.delete_session(&session)).await;
    removed.unwrap_or_else(|cause| Err(Error::store("delete", path, io::Error::other(cause))))
}

/// The process ends: no run is started any more, and all are ended.
pub fn close() {
    registry::close();
    end_all();
}

/// Ends every running agent, and what stopped ones have left, and waits until what they have printed
/// is on the disk; a few seconds at most.
pub fn end_all() {
    registry::all_running().iter().for_each(|run| run.hurry());
    process::hurry();
    let mut is_alone = registry::wait_until_none_runs(POLITE);
    if !is_alone {
        for run in registry::all_running() {
            run.signal(libc::SIGKILL);
        }
        is_alone = registry::wait_until_none_runs(LAST_FLUSHES);
    }
    is_alone &= process::wait_until_gone(LAST_KILLS);
    persistence::save_unsaved(LAST_FLUSHES);
    store::close_all(is_alone);
}
