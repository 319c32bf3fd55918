//! The store: a folder with `<session>.jsonl` for every session and one `index.json`.
//!
//! It finds, appends and replaces messages in files that the app's routes and other processes
//! read and rewrite too, so that a reader sees a whole old or a whole new file and no writer's
//! words are lost. It never parses or copies the history through memory to change a message, and
//! knows nothing of runs. All of it uses the disk; only `add_message`, `claim_message` and
//! `free_stamp` are quick enough for the JavaScript thread. Except at the end of the process, none of it
//! waits for another writer: a call that cannot be finished now says when to call it again ([`Turn`]), and
//! [`Store::call`] does so.
//!
//! The way of a write: `session_file` opens and locks the file (`lock`), once nobody is in the midst of
//! writing it (`rest`, `lease`), knows its lines (`layout`, `line`), plans the next version (`plan`),
//! writes it beside (`atomic`) and looks after the version it replaced (`replaced`); when another
//! program changed the file meanwhile, it starts over (`retry`). Its entry in `index_file` is updated
//! afterwards, with others' (`index_merge`). A message that cannot be added at once waits in `spool`.

mod atomic;
mod identity;
mod ids;
mod index_change;
mod index_entries;
mod index_file;
mod index_merge;
mod layout;
mod lease;
mod ledger;
mod line;
mod live;
mod lock;
mod plan;
mod process_file;
mod replaced;
mod rest;
mod retry;
mod session_file;
mod session_state;
mod spool;

#[cfg(test)]
mod tests;

pub use ledger::Ledger;
pub use retry::{Attempts, wait};

use crate::{
    clock,
    diagnostics::{self, Warning},
    disk::{Attempt, Disk, Pending, Turn, disk},
    error::{Error, Result},
    json::{Cursor, JsonStr},
    session_id::SessionId,
};
use index_change::Touch;
use index_file::IndexFile;
use layout::{hash_line, hash_of};
use line::{Facts, MARK};
use live::Live;
use once_cell::sync::Lazy;
use session_file::{Added, Counted, Put, SessionFile, WAITING, Waiting, Written};
use spool::{Left, Message, Spool};
use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    path::{self, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often files that dead processes left are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// First pause before a failed write is tried again; each next one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After this time it is given up.
pub const GIVE_UP: Duration = Duration::from_secs(24 * 3_600);

/// Attempts to tidy a file up, some 100 ms, before it is left for later.
const TIDY_ATTEMPTS: u32 = 8;

/// How long the end of the process waits for other writers.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a reader waits for messages that are still to be added.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// How long `list_sessions` waits for gathered changes to be written.
const LIST_PATIENCE: Duration = Duration::from_secs(1);

/// Sessions whose files are remembered, and lines in all of them (24 bytes each).
const MAX_SESSIONS: usize = 512;
const MAX_LINES: usize = 2_000_000;

/// The process ends: removes what its stores keep on the disk for their own use. `is_alone`: nobody is
/// left of what it has started.
pub fn close_all(is_alone: bool) {
    let stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let open: Vec<_> = stores.open.values().filter_map(Weak::upgrade).collect();
    drop(stores);
    let until = Instant::now() + LAST_PATIENCE;
    for store in open {
        store.finish(until);
        store.ledger.close(is_alone);
    }
}

/// Whether messages wait to be added to sessions.
pub fn has_unfinished() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// A folder of sessions. There is one for each folder in the process.
pub struct Store {
    folder: PathBuf,
    sessions: Mutex<Sessions>,
    index: IndexFile,
    live: Arc<Live>,
    ledger: Arc<Ledger>,
    spool: Arc<Spool>,
    is_used: AtomicBool,
    /// When files of dead processes were last looked for. Held while they are; only disk threads may take it.
    swept: Mutex<Option<Instant>>,
    /// The index is being looked after.
    is_looking: AtomicBool,
    this: Weak<Self>,
}

/// What became of a message that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addition {
    /// Every reader of the file sees it.
    Done,
    /// One with its id was there.
    AlreadyThere,
    /// It is added, unless one with its id is there, as soon as another writer is done.
    Later,
}

/// What an attempt has come to, if it is done; else the caller's attempt is not done either.
macro_rules! done {
    ($step:expr) => {
        match $step {
            Turn::Done(done) => done,
            Turn::Again(after) => return Ok(Turn::Again(after)),
        }
    };
}

#[derive(Default)]
struct Sessions {
    /// With the value of `clock` when each was last used.
    files: HashMap<SessionId, (u64, Arc<SessionFile>)>,
    clock: u64,
}

/// While this exists, the message counts as being written by a run of this process.
pub struct LiveMessage {
    store: Arc<Store>,
    session: SessionId,
    hash: u64,
}

impl fmt::Debug for LiveMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveMessage").field(&self.session).finish()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.folder).finish()
    }
}

impl Drop for LiveMessage {
    fn drop(&mut self) {
        self.store.live.remove(&self.session, self.hash);
    }
}

/// The stores of the process.
#[derive(Default)]
struct Stores {
    open: HashMap<PathBuf, Weak<Store>>,
    /// Kept, with what it knows of its files, while nobody else holds it.
    last: Option<Arc<Store>>,
}

static STORES: Lazy<Mutex<Stores>> = Lazy::new(Mutex::default);

impl Store {
    /// The store in `folder`, which need not exist yet.
    pub fn at(folder: &Path) -> Arc<Self> {
        // Only fails for an empty path or a lost working folder; then the path is as good as any.
        let folder = path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.open.get(&folder).and_then(Weak::upgrade) {
            stores.last = Some(Arc::clone(&store));
            return store;
        }
        let live = Arc::new(Live::new(&folder));
        let store = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            sessions: Mutex::default(),
            index: IndexFile::new(&folder, Arc::clone(&live)),
            live: Arc::clone(&live),
            ledger: Arc::new(Ledger::new(&folder)),
            spool: Arc::new(Spool::new(&folder)),
            is_used: AtomicBool::new(false),
            swept: Mutex::default(),
            is_looking: AtomicBool::new(false),
            folder: folder.clone(),
        });
        stores.open.retain(|_, store| store.strong_count() > 0);
        stores.open.insert(folder, Arc::downgrade(&store));
        stores.last = Some(Arc::clone(&store));
        store
    }

    /// Writes on this thread what was to be written later, and waits for others until then.
    fn finish(&self, until: Instant) {
        let patience = || until.saturating_duration_since(Instant::now());
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let files = sessions.files.iter().map(|(id, (_, file))| (id.clone(), Arc::clone(file)));
        let waiting: Vec<_> = files.filter(|(_, file)| file.has_waiting()).collect();
        drop(sessions);
        for (session, file) in waiting {
            let add = |attempts: &mut Attempts| self.add_waiting(attempts, &session, &file);
            let reason = match wait(patience(), add) {
                Ok(Some(())) => continue,
                Ok(None) => "others are at work on its file".to_owned(),
                Err(error) => error.to_string(),
            };
            diagnostics::warn(&Warning {
                code: "STORE_FAILED",
                message: format!(
                    "A message of session {session} is left to the next server of the store: {reason}"
                ),
                session: Some(session),
            });
        }
        let flush = |attempts: &mut Attempts| Ok(self.index.flush(attempts, &self.count()));
        if self.index.has_pending() {
            let _ = wait(patience(), flush);
        }
    }

    /// Which marks are in use by processes of this store.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// True once: when it is asked for the first time.
    pub fn take_first_use(&self) -> bool {
        !self.is_used.swap(true, Ordering::Relaxed)
    }

    /// Where the session's messages are.
    pub fn session_path(&self, session: &SessionId) -> PathBuf {
        self.folder.join(format!("{session}.jsonl"))
    }

    /// Adds a message at the end, unless one with this id is there. `line` is the message's JSON. It is
    /// not synced; see [`Store::sync_later`].
    ///
    /// Waits for others for a few milliseconds at most. Where another writer is at work for longer, or the
    /// file would have to be written anew, the message is added as soon as that can be done, before
    /// anything else that is asked of the session; the result is then [`Addition::Later`], and the message
    /// is in a file of its own until then.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn add_message(
        &self,
        session: &SessionId,
        id: &str,
        line: Vec<u8>,
        now_ms: u64,
    ) -> Result<Addition> {
        let file = self.session(session);
        let id = written_id(&line, id);
        let (added, is_untidy) = file.add_now(&self.live, &id, &line)?;
        let addition = match added {
            Added::Done(written) => {
                self.touch(session, written, None, now_ms);
                Addition::Done
            }
            Added::AlreadyThere => Addition::AlreadyThere,
            Added::Later => {
                let had_file = self.session_path(session).exists();
                self.add_later(session, &file, id, line, now_ms, had_file)?;
                Addition::Later
            }
        };
        if is_untidy || addition == Addition::Later {
            self.tidy_later(session);
        }
        Ok(addition)
    }

    /// Whether the session has the message with this id, of which `line` is the beginning, and if so,
    /// whether it was answered: an assistant's message comes after it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn answer_to(&self, session: &SessionId, id: &str, line: &[u8]) -> Result<Option<bool>> {
        self.session(session).answer_to(&written_id(line, id))
    }

    /// Has a message wait until it can be added.
    fn add_later(
        &self,
        session: &SessionId,
        file: &SessionFile,
        id: String,
        line: Vec<u8>,
        now_ms: u64,
        had_file: bool,
    ) -> Result<()> {
        let message = Message {
            session: session.as_str().into(),
            id: id.as_str().into(),
            now_ms,
            had_file,
            line: String::from_utf8_lossy(&line),
        };
        let fail = |cause| Error::store("write", &self.folder, cause);
        let spooled = self.spool.keep(message).map_err(fail)?;
        file.add_later(Waiting { id, line, now_ms, had_file, spooled });
        Ok(())
    }

    /// Adds what dead processes had waiting, as soon as that can be done.
    fn take_over(&self) {
        let left: Vec<_> = self.spool.left().collect();
        let mut messages = Vec::new();
        for messages_of_one in left.iter().map(|left| &left.messages) {
            // In its order, whatever the clock did.
            let mut latest = 0;
            messages.extend(messages_of_one.iter().map(|message| {
                latest = message.now_ms.max(latest);
                (latest, message)
            }));
        }
        messages.sort_by_key(|(time, _)| *time);
        let mut failure = None;
        for (_, Message { session, id, now_ms, had_file, line }) in messages {
            let Ok(session) = SessionId::new(session) else { continue };
            let (id, line) = (id.clone().into_owned(), line.as_bytes().to_vec());
            let file = self.session(&session);
            match self.add_later(&session, &file, id, line, *now_ms, *had_file) {
                Ok(()) => self.tidy_later(&session),
                Err(error) => failure = Some((session, error)),
            }
        }
        match failure {
            None => left.into_iter().for_each(Left::remove),
            // They are found again.
            Some((session, error)) => diagnostics::warn(&Warning {
                code: error.code(),
                message: format!("What a killed server had still to add is not saved yet: {error}"),
                session: Some(session),
            }),
        }
    }

    /// Replaces the message `id` where it stands, or adds it at the end. `write` writes its JSON,
    /// and is called again when others change the file meanwhile; it must not use the store. With
    /// `durable`, it is on the disk when this is done, and the index is updated.
    ///
    /// # Errors
    /// When the session's file cannot be read or written, or `write` fails. The file is then as it was,
    /// unless only the sync of its folder failed.
    pub fn put_message(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        id: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        durable: bool,
        now_ms: u64,
    ) -> Result<Turn<()>> {
        let mut write = |_: usize, out: &mut dyn Write| write(out);
        let id = json_id(id);
        let mut put =
            Put { ids: &[&id], only_new: false, counts_once: true, durable, write: &mut write };
        self.put(attempts, session, &mut put, None, now_ms)
    }

    fn put(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        put: &mut Put<'_>,
        title: Option<&str>,
        now_ms: u64,
    ) -> Result<Turn<()>> {
        self.sweep();
        let file = self.session(session);
        done!(self.add_waiting(attempts, session, &file)?);
        let written = done!(file.put(attempts, &self.live, put)?);
        self.look_after_later(session);
        self.touch(session, written, title, now_ms);
        Ok(Turn::Done(()))
    }

    /// Says that a run of this process is writing the message, until the result is dropped: its
    /// `_streaming` mark is then not taken for stale, in no process. `None` when another run of any
    /// process on this machine has said so.
    pub fn claim_message(self: &Arc<Self>, session: &SessionId, id: &str) -> Option<LiveMessage> {
        let hash = hash_of(&json_id(id));
        let is_ours = self.live.claim(session, hash);
        is_ours.then(|| LiveMessage { store: self.clone(), session: session.clone(), hash })
    }

    /// Whether the message is in the session's file in its final form, without a `_streaming` mark; true
    /// when the file was deleted.
    ///
    /// # Errors
    /// When the session's file cannot be read.
    pub fn still_has(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        id: &str,
    ) -> Result<Turn<bool>> {
        self.sweep();
        self.session(session).has(attempts, &json_id(id))
    }

    /// Brings what was added to the disk, in the background.
    pub fn sync_later(&self, session: SessionId) {
        let of = session.clone();
        let sync = move |store: &Self, attempts: &mut Attempts| {
            let file = store.session(&of);
            done!(store.add_waiting(attempts, &of, &file)?);
            file.sync().map(Turn::Done)
        };
        let tell = |store: &Self, session: SessionId, outcome: Result<()>| {
            // What waits is told of by who tries to add it.
            if let Err(error) = outcome
                && !store.session(&session).has_waiting()
            {
                diagnostics::warn(&Warning {
                    code: error.code(),
                    message: error.to_string(),
                    session: Some(session),
                });
            }
        };
        if let (Some(this), Ok(disk)) = (self.this.upgrade(), disk()) {
            let of = session.clone();
            let store = Arc::clone(&this);
            this.call_then(disk, Some(&of), sync, move |outcome| tell(&store, session, outcome));
        }
    }

    /// The session's messages as a JSON array, in order. Lines that are no JSON object are left
    /// out; on the disk they stay. So does a byte order mark.
    ///
    /// # Errors
    /// When the session's file cannot be read.
    pub fn read_messages(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
    ) -> Result<Turn<Vec<u8>>> {
        self.sweep();
        let file = self.session(session);
        // What waits belongs to it; where it cannot be added, what is there can be read all the same.
        if let Ok(Turn::Again(after)) = self.add_waiting(attempts, session, &file)
            && attempts.failing_for() < READ_PATIENCE
        {
            return Ok(Turn::Again(after));
        }
        let bytes = done!(file.read(attempts)?);
        self.look_after_later(session);
        let mut messages = Vec::with_capacity(bytes.len() + 2);
        messages.push(b'[');
        for line in bytes.split(|&byte| byte == b'\n') {
            let text = String::from_utf8_lossy(line::without_bom(line));
            let mut cursor = Cursor::new(&text);
            let Ok(message) = cursor.value() else { continue };
            if cursor.end().is_err() || !message.is_object() || message.is_array() {
                continue;
            }
            if messages.len() > 1 {
                messages.push(b',');
            }
            let message = message.text().as_bytes();
            match message.strip_suffix(MARK).filter(|_| !self.is_growing(session, message)) {
                Some(unmarked) => {
                    messages.extend_from_slice(unmarked);
                    messages.push(b'}');
                }
                None => messages.extend_from_slice(message),
            }
        }
        messages.push(b']');
        Ok(Turn::Done(messages))
    }

    /// Whether the mark of a marked message is true: whether a run is writing it, or it is no run's.
    fn is_growing(&self, session: &SessionId, message: &[u8]) -> bool {
        let is_runs = Facts::read(message).is_some_and(|facts| facts.by_assistant);
        !is_runs || self.live.contains(session, hash_line(message))
    }

    /// Replaces messages (id and JSON) where they stand and adds new ones at the end, in one
    /// durable commit; updates the session's entry in the index.
    ///
    /// # Errors
    /// When the session's file cannot be read or written. The file is then as it was, unless only the
    /// sync of its folder failed.
    pub fn upsert_messages(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        messages: &[(String, String)],
        title: Option<&str>,
        now_ms: u64,
    ) -> Result<Turn<()>> {
        // Of a repeated id the last message counts, at the first one's place.
        let written: Vec<(String, &str)> = messages
            .iter()
            .map(|(id, json)| (written_id(json.as_bytes(), id), json.as_str()))
            .collect();
        let mut last: Vec<(&str, &str)> = Vec::with_capacity(messages.len());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(messages.len());
        for (id, json) in &written {
            match places.get(id.as_str()) {
                Some(&place) => last[place].1 = json,
                None => {
                    places.insert(id, last.len());
                    last.push((id, json));
                }
            }
        }
        let ids: Vec<&str> = last.iter().map(|(id, _)| *id).collect();
        let mut write =
            |message: usize, out: &mut dyn Write| out.write_all(last[message].1.as_bytes());
        let mut put = Put {
            ids: &ids,
            only_new: false,
            counts_once: false,
            durable: true,
            write: &mut write,
        };
        done!(self.put(attempts, session, &mut put, title, now_ms)?);
        // Where others are at work on the index, it is written a little later.
        let _ = self.write_index(&mut Attempts::default());
        Ok(Turn::Done(()))
    }

    /// Writes what was gathered for the index, with what others may have lost of it.
    pub fn write_index(&self, attempts: &mut Attempts) -> Turn<()> {
        let step = self.index.flush(attempts, &self.count());
        self.look_after_index_later();
        step
    }

    /// The index's entries as a JSON array, newest first; `[]` when there is no index.
    ///
    /// # Errors
    /// When the index cannot be read or is no JSON array.
    pub fn list_sessions(&self, attempts: &mut Attempts) -> Result<Turn<String>> {
        self.sweep();
        // What was gathered belongs to it; where others keep the index, that is not waited for.
        match self.write_index(attempts) {
            Turn::Again(after) if attempts.failing_for() < LIST_PATIENCE => Ok(Turn::Again(after)),
            _ => self.index.list(attempts),
        }
    }

    /// Makes a session: an entry at the front of the index, which is returned as JSON, and an
    /// empty file. A session that has either keeps it.
    ///
    /// # Errors
    /// When the store cannot be written, or the index is no JSON array.
    pub fn create_session(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        title: &str,
        file_path: Option<&str>,
        now_ms: u64,
    ) -> Result<Turn<String>> {
        self.sweep();
        done!(self.session(session).create(attempts)?);
        let step = self.index.create(attempts, session, title, file_path, now_ms, &self.count())?;
        self.look_after_index_later();
        Ok(step)
    }

    /// Removes the session's file and its entry in the index; says whether there was either.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn delete_session(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
    ) -> Result<Turn<bool>> {
        self.sweep();
        // What a killed server had still to add goes with the session.
        self.take_over();
        let file = self.session(session);
        // Both again, when the entry has to be waited for: then there is no file any more.
        let had_file = done!(file.delete(attempts)?);
        attempts.had_file |= had_file;
        let had_entry = done!(self.index.delete(attempts, session, &self.count())?);
        self.look_after_index_later();
        Ok(Turn::Done(attempts.had_file || had_entry))
    }

    /// Appends the messages that wait, in order.
    fn add_waiting(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        file: &SessionFile,
    ) -> Result<Turn<()>> {
        while let Some((written, now_ms)) = done!(file.add_waiting(attempts, &self.live)?) {
            self.touch(session, written, None, now_ms);
        }
        Ok(Turn::Done(()))
    }

    /// Has the index follow what was written into a session's file.
    fn touch(&self, session: &SessionId, written: Written, title: Option<&str>, now_ms: u64) {
        let touch = Touch {
            added: written.added,
            changed_before_ms: Some(written.changed_before_ms),
            title: title.map(str::to_owned),
            now_ms,
        };
        self.index.touch(session, touch);
        self.look_after_index_later();
    }

    /// How many messages a session has, for the index.
    fn count(&self) -> impl Fn(&SessionId) -> Counted {
        |session| self.session(session).count()
    }

    /// What is known of the session's file, remembered within the bounds.
    fn session(&self, session: &SessionId) -> Arc<SessionFile> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.clock += 1;
        let clock = sessions.clock;
        if let Some((used, file)) = sessions.files.get_mut(session) {
            *used = clock;
            return file.clone();
        }
        sessions.forget_beyond_bounds();
        let file = Arc::new(SessionFile::new(&self.folder, session));
        sessions.files.insert(session.clone(), (clock, file.clone()));
        file
    }

    /// Housekeeping for calls that are not on the JavaScript thread: now and then, what dead processes
    /// left in the folder.
    pub fn sweep(&self) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|last| last.elapsed() > SWEEP_INTERVAL) {
            // Whoever comes meanwhile waits: what is taken over belongs to the sessions.
            *swept = Some(Instant::now());
            atomic::remove_stale(&self.folder);
            self.take_over();
        }
    }

    /// Calls `work` on a disk thread until it is done; on a session, after what was begun on that
    /// before.
    pub fn call<T: Send + 'static>(
        self: &Arc<Self>,
        disk: &'static Disk,
        session: Option<&SessionId>,
        work: impl FnMut(&Self, &mut Attempts) -> Result<Turn<T>> + Send + 'static,
    ) -> Pending<Result<T>> {
        let file = session.map(|session| self.session_path(session));
        let turn = self.turns(work);
        disk.run_until_done(file, turn)
    }

    /// As [`Store::call`], and calls `done` with what has come of it, on that thread.
    pub fn call_then<T: 'static>(
        self: &Arc<Self>,
        disk: &'static Disk,
        session: Option<&SessionId>,
        work: impl FnMut(&Self, &mut Attempts) -> Result<Turn<T>> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let file = session.map(|session| self.session_path(session));
        let turn = self.turns(work);
        let done = |outcome: Result<Result<T>>| done(outcome.and_then(|outcome| outcome));
        disk.run_then(file, turn, done);
    }

    fn turns<T>(
        self: &Arc<Self>,
        mut work: impl FnMut(&Self, &mut Attempts) -> Result<Turn<T>> + Send + 'static,
    ) -> impl FnMut(&Attempt) -> Turn<Result<T>> + Send + 'static {
        let store = Arc::clone(self);
        let mut attempts = Attempts::default();
        move |attempt| match work(&store, attempts.begun_at(attempt.since)) {
            Ok(turn) => turn.map(Ok),
            Err(error) => Turn::Done(Err(error)),
        }
    }

    /// Appends the messages that wait, and removes from the file what is to go.
    fn tidy(&self, attempts: &mut Attempts, session: &SessionId) -> Result<Turn<()>> {
        let file = self.session(session);
        done!(self.add_waiting(attempts, session, &file)?);
        let written = match file.tidy(attempts, &self.live)? {
            Turn::Done(written) => written,
            // It is of no use to anybody: nobody is to stand behind it for long.
            Turn::Again(_) if attempts.failed() > TIDY_ATTEMPTS => {
                let cause = io::Error::new(io::ErrorKind::TimedOut, "others are at work on it");
                return Err(Error::store("tidy up", self.session_path(session), cause));
            }
            Turn::Again(after) => return Ok(Turn::Again(after)),
        };
        self.look_after_later(session);
        if written.added != 0 {
            self.touch(session, written, None, clock::now_ms());
        }
        Ok(Turn::Done(()))
    }

    /// [`Store::tidy`] in the background. What fails because of others is tried again for a day, by one
    /// chain of attempts a session.
    fn tidy_later(&self, session: &SessionId) {
        self.tidy_after(None, session.clone(), Instant::now());
    }

    fn tidy_after(&self, pause: Option<Duration>, session: SessionId, began: Instant) {
        let (Some(this), Ok(disk)) = (self.this.upgrade(), disk()) else { return };
        disk.run_later(pause.unwrap_or_default(), move || {
            let (file, of) = (this.session(&session), session.clone());
            let tidy = move |store: &Self, attempts: &mut Attempts| store.tidy(attempts, &of);
            let store = Arc::clone(&this);
            this.call_then(disk, Some(&session.clone()), tidy, move |outcome| {
                let has_waiting = file.has_waiting();
                let is_wanted = |error: &Error| has_waiting || retry::is_contention(error);
                let Some(error) = outcome.err().filter(is_wanted) else {
                    if pause.is_some() {
                        file.end_retrying();
                    }
                    return;
                };
                // If this is no chain and there is one, that does it.
                if pause.is_none() && !file.begin_retrying() {
                    return;
                }
                if pause.is_none() && has_waiting {
                    diagnostics::warn(&Warning {
                        code: error.code(),
                        message: format!(
                            "A message of session {session} is not saved yet: {error}"
                        ),
                        session: Some(session.clone()),
                    });
                }
                if began.elapsed() < GIVE_UP {
                    let pause = pause.map_or(FIRST_PAUSE, |pause| pause * 2).min(LONGEST_PAUSE);
                    store.tidy_after(Some(pause), session, began);
                } else {
                    file.end_retrying();
                }
            });
        });
    }

    /// Checks in the background whether others lose something of the session; one check at a time.
    fn look_after_later(&self, session: &SessionId) {
        let file = self.session(session);
        let Ok(disk) = disk() else { return };
        if !file.has_to_look() || !file.begin_looking() {
            return;
        }
        let mut attempts = Attempts::default();
        let look = move |_: &Attempt| match file.look(&mut attempts) {
            Turn::Done(()) if file.end_looking() => Turn::Again(Duration::ZERO),
            turn => turn,
        };
        disk.run_then(None, look, drop);
    }

    /// Has the index written and looked after, unless that is done already.
    fn look_after_index_later(&self) {
        if self.is_looking.load(Ordering::Relaxed) || !self.index.has_work() {
            return;
        }
        let (Some(this), Ok(disk)) = (self.this.upgrade(), disk()) else { return };
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut attempts = Attempts::default();
        let store = Arc::clone(&this);
        let look = move |_: &Attempt| store.index.look_after(&mut attempts, &store.count());
        disk.run_then(None, look, move |_| {
            this.is_looking.store(false, Ordering::Relaxed);
            // Something may have come since.
            this.look_after_index_later();
        });
    }
}

/// An id in the form in which `JSON.stringify` prints it.
fn json_id(id: &str) -> String {
    JsonStr::escape(id).as_str().to_owned()
}

/// The id that a message's JSON has, which may be more than `id`: half a surrogate pair is nothing that a
/// string can have here.
fn written_id(json: &[u8], id: &str) -> String {
    let written = line::leading_id(json).map(str::to_owned);
    let written = written.or_else(|| Facts::read(json).and_then(|facts| facts.id));
    written.unwrap_or_else(|| json_id(id))
}

impl Sessions {
    /// Forgets those that were not used for the longest time and are not in use.
    fn forget_beyond_bounds(&mut self) {
        let lines = |file: &SessionFile| file.remembered();
        let mut total: usize = self.files.values().map(|(_, file)| lines(file)).sum();
        while self.files.len() >= MAX_SESSIONS || total > MAX_LINES {
            let idle = self
                .files
                .iter()
                .filter(|(_, (_, file))| Arc::strong_count(file) == 1 && !file.has_waiting());
            let oldest =
                idle.min_by_key(|(_, (used, _))| *used).map(|(session, _)| session.clone());
            let Some((_, file)) = oldest.and_then(|session| self.files.remove(&session)) else {
                return;
            };
            total = total.saturating_sub(lines(&file));
        }
    }
}
