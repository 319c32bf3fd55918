//! Starts runs, and ends all of them: where a session's place, its store, its input and its task meet.

use crate::{
    clock,
    deletion::{self, Author},
    disk::{Disk, disk},
    error::{Error, Result},
    feed::{Reason, RunEnd, Watcher},
    input::process::{self, Limits, NotSpawned, ProcessInput, Spawned},
    json::JsonString,
    launch::Launch,
    leftovers,
    message::{StoreFormat, well_formed},
    persistence::{self, Persistence},
    registry,
    run::{Host, Question, Run, Start, drive, message_id, message_id_prefix},
    runtime::runtime,
    session_id::SessionId,
    settings::{self, Settings},
    store::{self, Addition, Attempts, Ledger, LiveMessage, Store},
};
use std::{
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Stamps tried when another server has claimed ours.
const CLAIMS: u64 = 64;
/// After SIGTERM, how long ending waits for agents to end by themselves.
const POLITE: Duration = Duration::from_millis(700);
/// After SIGKILL, how long ending waits for the last flushes.
const LAST_FLUSHES: Duration = Duration::from_secs(3);
/// How long ending waits then for those to be gone that stopped agents have left.
const LAST_KILLS: Duration = Duration::from_millis(700);

/// How often a run whose agent is not started looks whether it will be.
const LOOK_AT_SPAWNER: Duration = Duration::from_secs(1);
/// After the time for SIGKILL, how long a deletion waits for those that a stopped agent has left.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// How long a start waits for the note of its mark. Without it, the next server does not find what a killed
/// one has left; a busy disk may take some hundred milliseconds.
const NOTE_PATIENCE: Duration = Duration::from_millis(500);

/// A user's message that is to be stored.
#[derive(Clone, Debug)]
pub struct UserMessage {
    id: String,
    line: String,
}

impl UserMessage {
    /// The message with this id; `line` is its JSON up to the timestamp, without the closing brace.
    pub fn new(id: String, line: String) -> Self {
        let line = match settings::current().store_format {
            StoreFormat::Module => line,
            StoreFormat::Ui => well_formed(&line),
        };
        Self { id, line }
    }
}

/// Stores a user's message, unless one with its id is there.
///
/// # Errors
/// `NO_THREADS`, `STORE_FAILED`.
pub fn add_user_message(
    store: &Arc<Store>,
    session: &SessionId,
    UserMessage { id, line }: &UserMessage,
) -> Result<Addition> {
    // First: what is refused is not written.
    disk()?;
    let now = clock::now_ms();
    let line = format!("{line},\"timestamp\":\"{}\"}}", clock::iso(now));
    let addition = store.add_message(session, id, line.into_bytes(), now)?;
    if addition != Addition::AlreadyThere {
        store.sync_later(session.clone());
    }
    Ok(addition)
}

/// Starts a run for a session whose run, if it had one, is over; stores the user's message before, if
/// one is given. Returns at once: the agent is started, and read, on other threads. `watcher` is woken by
/// whatever it publishes; `on_over` is called when it no longer counts as running. None when the user's
/// message was answered before.
///
/// # Errors
/// `RUN_ALREADY_ACTIVE` when the session's run is running; `NO_THREADS` when the engine has none;
/// `CLOSING` when the process ends; `STORE_FAILED` when the user's message cannot be stored.
pub fn start(
    session: SessionId,
    user_message: Option<UserMessage>,
    launch: Launch,
    store_dir: &Path,
    settings: Arc<Settings>,
    watcher: &Arc<dyn Watcher>,
    on_over: impl FnOnce() + Send + 'static,
) -> Result<Option<Arc<Run>>> {
    // All threads that the run needs to get to its end.
    let disk = disk()?;
    let spawner = process::ready().map_err(Error::no_threads)?;
    let runtime = runtime()?;
    let place = registry::reserve(&session)?;
    let store = Store::at(store_dir);
    leftovers::end(&store);
    if let Some(message) = &user_message {
        match store.answer_to(&session, &message.id, message.line.as_bytes())? {
            Some(true) => return Ok(None),
            Some(false) => {}
            None => _ = add_user_message(&store, &session, message)?,
        }
    }
    let started_at = clock::now_ms();
    // Above all that is in the file, also where the clock was put back or stands still.
    let free = store.free_stamp(&session, &message_id_prefix(&session), started_at);
    let stamp = free.max(place.lowest_stamp);
    let (stamp, claim) = claim(&store, &session, stamp);
    let user_message = user_message.map(|message| message.id);
    let id = registry::new_id();
    let (run, commands) = Run::new(id, session, user_message, started_at, stamp, settings);
    let run = Arc::new(run);
    registry::add(&run, place)?;
    // Before the agent: its first words are news.
    run.feed.watch(watcher);
    let question = question(&launch, &run);
    let interval = run.settings.persist_interval;
    let mark = process::new_mark();
    let noted = note_mark(disk, Arc::clone(store.ledger()), mark.clone());
    let author = Author::new(run.id, &store, &run.session);
    let persistence = Persistence::new(disk, store, run.session.clone(), author, claim, interval);
    let (done, spawned) = oneshot::channel();
    let start = {
        let run = Arc::clone(&run);
        async move {
            tokio::pin!(spawned);
            loop {
                if let Ok(spawned) = timeout(LOOK_AT_SPAWNER, &mut spawned).await {
                    return match spawned {
                        Ok(spawned) => take_charge(&run, spawned),
                        // The thread that starts agents has panicked.
                        Err(_) => not_started("nobody has started it"),
                    };
                }
                // One that is on its way already is waited for.
                if let Some(held_up) = spawner.stuck()
                    && run.startup.cancel()
                {
                    return not_started(&format!(
                        "{held_up} other starts hang, as where a file system does not answer"
                    ));
                }
            }
        }
    };
    let place = Place::new(&run, on_over);
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
    Ok(Some(run))
}

fn question(launch: &Launch, run: &Run) -> Question {
    Question {
        format: launch.format(),
        prompt: launch.prompt.clone(),
        errors: run.settings.errors.unwrap_or(launch.usual_errors()),
        earlier_runs: registry::unfinished(&run.session),
    }
}

fn not_started(why: &str) -> Start<ProcessInput> {
    Start::Failed { error: why.to_owned(), exit_code: -1 }
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
    disk: &'static Disk,
    ledger: Arc<Ledger>,
    mark: Box<str>,
) -> impl FnOnce() -> Option<process::Record> + Send + use<> {
    let (done, noted) = sync_channel(1);
    drop(disk.run(None, move || {
        let note = ledger.note(&mark);
        let _ = done.send(Box::new(note) as process::Record);
    }));
    move || noted.recv_timeout(NOTE_PATIENCE).ok()
}

/// A run's place among the runs. Should its task panic, the run has failed, and its session is free.
struct Place {
    run: Arc<Run>,
    /// None when the run is over.
    on_over: Option<Box<dyn FnOnce() + Send>>,
    is_forgotten: bool,
}

impl Place {
    fn new(run: &Arc<Run>, on_over: impl FnOnce() + Send + 'static) -> Self {
        Self { run: Arc::clone(run), on_over: Some(Box::new(on_over)), is_forgotten: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.on_over.is_some() {
            self.run.feed.finish(RunEnd {
                error: Some("the run's task has panicked".into()),
                ..RunEnd::new(Reason::Failed, clock::now_ms())
            });
            self.over();
        }
        if !self.is_forgotten {
            self.forgotten();
        }
    }
}

impl Host for Place {
    fn unfinished(&mut self, runs: &[JsonString]) {
        registry::note_unfinished(&self.run.session, runs);
    }

    fn over(&mut self) {
        registry::over(&self.run);
        if let Some(on_over) = self.on_over.take() {
            on_over();
        }
    }

    fn forgotten(&mut self) {
        self.is_forgotten = true;
        registry::forget(&self.run);
    }
}

/// Claims the message of a run of `session`: the one of `stamp`, or of a later one when a run of
/// another server has that.
fn claim(store: &Arc<Store>, session: &SessionId, stamp: u64) -> (u64, Option<LiveMessage>) {
    // Servers that are refused at the same moment go on to different ones.
    let step = 1 + u64::from(std::process::id() % 8);
    let stamps = (0..CLAIMS).map(|claim| stamp + claim * step);
    let mut claims = stamps.map(|stamp| {
        let claim = store.claim_message(session, &message_id(session, stamp));
        (stamp, claim)
    });
    claims.find(|(_, claim)| claim.is_some()).unwrap_or((stamp, None))
}

/// Deletes a session: stops its run, waits until that and what it has started have ended, and removes
/// the session's file and its entry in the index. Nothing of the run is written any more; it can still
/// be read until its grace period is over. Says whether there was a file or an entry.
///
/// A run of another server is not stopped: its next flush makes the file anew.
///
/// # Errors
/// When the store cannot be written.
pub async fn delete_session(
    disk: &'static Disk,
    store: Arc<Store>,
    session: SessionId,
) -> Result<bool> {
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
    let of = session.clone();
    let delete = move |store: &Store, attempts: &mut Attempts| store.delete_session(attempts, &of);
    store.call(disk, Some(&session), delete).await?
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Watcher for Woken {
        fn wake(&self, _: u32) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A run with a place in a task that panics, before or after it is over.
    async fn panicking(session: &str, is_over: bool) -> (Arc<Run>, usize, usize) {
        let session = SessionId::new(session).unwrap();
        let (run, _commands) = Run::new(registry::new_id(), session, None, 5, 5, Arc::default());
        let run = Arc::new(run);
        registry::add(&run, registry::reserve(&run.session).unwrap()).unwrap();
        let woken = Arc::new(Woken::default());
        run.feed.watch(&(Arc::clone(&woken) as _));
        let told = Arc::new(AtomicUsize::new(0));
        let mut place = {
            let told = Arc::clone(&told);
            Place::new(&run, move || _ = told.fetch_add(1, Ordering::SeqCst))
        };
        let task = tokio::spawn(async move {
            if is_over {
                let end = RunEnd::new(Reason::Completed, 7);
                place.run.feed.finish(end);
                place.over();
            }
            panic!("at the wrong moment");
        });
        assert!(task.await.is_err());
        (run, woken.0.load(Ordering::SeqCst), told.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_run_whose_task_panics_has_failed_and_its_session_is_free() {
        let (run, woken, told) = panicking("panics-while-it-runs", false).await;
        let end = run.feed.end().unwrap();
        assert_eq!((end.reason, end.is_error()), (Reason::Failed, true));
        assert!(end.error.unwrap().contains("panicked"));
        assert!(woken > 0, "its subscribers are told");
        assert_eq!(told, 1);
        assert!(registry::find(&run.session).is_none() && registry::find_running(run.id).is_none());
        assert!(registry::reserve(&run.session).is_ok());
    }

    #[tokio::test]
    async fn a_run_whose_task_panics_in_its_grace_period_is_forgotten() {
        let (run, _, told) = panicking("panics-afterwards", true).await;
        assert_eq!(run.feed.end().unwrap().reason, Reason::Completed);
        assert_eq!(told, 1);
        assert!(registry::find(&run.session).is_none());
    }
}
