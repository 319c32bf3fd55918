//! The store: a folder with `<session>.jsonl` for every session and one `index.json`.
//!
//! It finds, appends and replaces messages in files that the app's routes and other processes
//! read and rewrite too, so that a reader sees a whole old or a whole new file and no writer's
//! words are lost. It never parses or copies the history through memory to change a message, and
//! knows nothing of runs. All of it blocks; only `add_message` is quick enough for the JavaScript
//! thread.
//!
//! The way of a write: `session_file` opens and locks the file (`lock`), knows its lines
//! (`layout`, `line`), plans the next version (`plan`), writes it beside (`atomic`) and looks after
//! the version it replaced (`replaced`); when another program changed the file meanwhile, it starts
//! over (`retry`). Then, with the session's lock given back, its entry in `index_file` is updated
//! under the index's own.

mod atomic;
mod index_file;
mod layout;
mod ledger;
mod line;
mod live;
mod lock;
mod plan;
mod replaced;
mod retry;
mod session_file;

#[cfg(test)]
mod tests;

pub use ledger::Ledger;

use crate::{error::Result, json::Cursor, runtime::runtime, session_id::SessionId};
use index_file::{IndexFile, Touch};
use layout::hash_of;
use live::Live;
use once_cell::sync::Lazy;
use session_file::{Put, SessionFile};
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
use tokio::{task::spawn_blocking, time::sleep};

/// How often the files are looked for that processes left which died at work.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Sessions whose files are remembered, and lines in all of them (24 bytes each).
const MAX_SESSIONS: usize = 512;
const MAX_LINES: usize = 2_000_000;

/// The process ends: removes what its stores keep on the disk for their own use. `is_alone`: nobody is
/// left of what it has started.
pub fn close_all(is_alone: bool) {
    let stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    for store in stores.open.values().filter_map(Weak::upgrade) {
        store.ledger.close(is_alone);
    }
}

/// A folder of sessions. There is one for each folder in the process.
pub struct Store {
    folder: PathBuf,
    sessions: Mutex<Sessions>,
    index: IndexFile,
    live: Live,
    ledger: Arc<Ledger>,
    is_used: AtomicBool,
    /// When temporary files were last looked for.
    swept: Mutex<Option<Instant>>,
    /// Replaced files are closed later, by a task of the runtime.
    is_tidying: AtomicBool,
    this: Weak<Self>,
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
        let store = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            sessions: Mutex::default(),
            index: IndexFile::new(&folder),
            live: Live::new(&folder),
            ledger: Arc::new(Ledger::new(&folder)),
            is_used: AtomicBool::new(false),
            swept: Mutex::default(),
            is_tidying: AtomicBool::new(false),
            folder: folder.clone(),
        });
        stores.open.retain(|_, store| store.strong_count() > 0);
        stores.open.insert(folder, Arc::downgrade(&store));
        stores.last = Some(Arc::clone(&store));
        store
    }

    /// Which marks are in use by processes of this store.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// True once: when it is asked for the first time.
    pub fn is_first_use(&self) -> bool {
        !self.is_used.swap(true, Ordering::Relaxed)
    }

    /// Where the session's messages are.
    pub fn session_path(&self, session: &SessionId) -> PathBuf {
        self.folder.join(format!("{session}.jsonl"))
    }

    /// Adds a message at the end, unless one with this id is there; says whether it was added.
    /// `line` is the message's JSON. It is not synced; see [`Store::sync`].
    ///
    /// # Errors
    /// When the session's file cannot be read or written.
    pub fn add_message(
        &self,
        session: &SessionId,
        id: &str,
        line: &[u8],
        now_ms: u64,
    ) -> Result<bool> {
        let added = self.session(session).add(&self.live, id, line)?;
        self.tidy_later();
        if added {
            self.index.touch(session, &Touch { added: 1, title: None, now_ms });
        }
        Ok(added)
    }

    /// Replaces the message `id` where it stands, or adds it at the end. `write` writes its JSON,
    /// and is called again when others change the file meanwhile; it must not use the store. With
    /// `durable`, it is on the disk when this returns.
    ///
    /// # Errors
    /// When the session's file cannot be read or written, or `write` fails. The file is then as
    /// it was.
    pub fn put_message(
        &self,
        session: &SessionId,
        id: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        durable: bool,
        now_ms: u64,
    ) -> Result<()> {
        self.sweep();
        let mut write = |_: usize, out: &mut dyn Write| write(out);
        let mut put = Put { ids: &[id], only_new: false, durable, write: &mut write };
        let added = self.session(session).put(&self.live, &mut put)?;
        self.tidy_later();
        self.index.touch(session, &Touch { added, title: None, now_ms });
        Ok(())
    }

    /// Says that a run of this process is writing the message, until the result is dropped: its
    /// `_streaming` mark is then not taken for stale, in no process. `None` when another run of any
    /// process on this machine has said so.
    pub fn claim_message(self: &Arc<Self>, session: &SessionId, id: &str) -> Option<LiveMessage> {
        let hash = hash_of(id);
        let is_ours = self.live.claim(session, hash);
        is_ours.then(|| LiveMessage { store: self.clone(), session: session.clone(), hash })
    }

    /// Whether the message is (still) in the session's file; true when the file was deleted.
    ///
    /// # Errors
    /// When the session's file cannot be read.
    pub fn still_has(&self, session: &SessionId, id: &str) -> Result<bool> {
        self.sweep();
        self.session(session).has(id)
    }

    /// Waits until what was added is on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self, session: &SessionId) -> Result<()> {
        self.sweep();
        self.session(session).sync()
    }

    /// The session's messages as a JSON array, in order. Lines that are no JSON object are left
    /// out; on the disk they stay. So does a byte order mark.
    ///
    /// # Errors
    /// When the session's file cannot be read.
    pub fn read_messages(&self, session: &SessionId) -> Result<Vec<u8>> {
        self.sweep();
        let bytes = self.session(session).read()?;
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
            messages.extend_from_slice(message.text().as_bytes());
        }
        messages.push(b']');
        Ok(messages)
    }

    /// Replaces messages (id and JSON) where they stand and adds new ones at the end, in one
    /// durable commit; updates the session's entry in the index.
    ///
    /// # Errors
    /// When the session's file cannot be read or written. The file is then as it was.
    pub fn upsert_messages(
        &self,
        session: &SessionId,
        messages: &[(String, String)],
        title: Option<&str>,
        now_ms: u64,
    ) -> Result<()> {
        self.sweep();
        // Of a repeated id the last message counts, at the first one's place.
        let mut last: Vec<(&str, &str)> = Vec::with_capacity(messages.len());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(messages.len());
        for (id, json) in messages {
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
        let mut put = Put { ids: &ids, only_new: false, durable: true, write: &mut write };
        let added = self.session(session).put(&self.live, &mut put)?;
        self.tidy_later();
        self.index.touch(session, &Touch { added, title, now_ms });
        Ok(())
    }

    /// The index's entries as a JSON array, newest first; `[]` when there is no index.
    ///
    /// # Errors
    /// When the index cannot be read or is no JSON array.
    pub fn list_sessions(&self) -> Result<String> {
        self.sweep();
        self.index.list()
    }

    /// Makes a session: an entry at the front of the index, which is returned as JSON, and an
    /// empty file. A session that has either keeps it.
    ///
    /// # Errors
    /// When the store cannot be written, or the index is no JSON array.
    pub fn create_session(
        &self,
        session: &SessionId,
        title: &str,
        file_path: Option<&str>,
        now_ms: u64,
    ) -> Result<String> {
        self.sweep();
        self.session(session).create()?;
        self.index.create(session, title, file_path, now_ms)
    }

    /// Removes the session's file and its entry in the index; says whether there was either.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn delete_session(&self, session: &SessionId) -> Result<bool> {
        self.sweep();
        let file = self.session(session).delete()?;
        let entry = self.index.delete(session)?;
        Ok(file || entry)
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

    /// Housekeeping for calls that are not on the JavaScript thread: now and then, the files that
    /// dead processes left; always, the replaced files that nobody will write into any more.
    fn sweep(&self) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|last| last.elapsed() > SWEEP_INTERVAL) {
            *swept = Some(Instant::now());
            drop(swept);
            atomic::remove_stale(&self.folder);
        } else {
            drop(swept);
        }
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let files: Vec<_> = sessions.files.values().map(|(_, file)| file.clone()).collect();
        drop(sessions);
        for file in files {
            file.forget_replaced();
        }
    }

    /// Has replaced files closed when their time is over, should nobody use the store by then.
    fn tidy_later(&self) {
        if replaced::watched() == 0 || self.is_tidying.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = runtime() else {
            self.is_tidying.store(false, Ordering::Relaxed);
            return;
        };
        let this = Weak::clone(&self.this);
        runtime.spawn(async move {
            sleep(replaced::WATCHED + Duration::from_millis(100)).await;
            if let Some(store) = this.upgrade() {
                // Before looking: whoever replaces a file from now on sees to it.
                store.is_tidying.store(false, Ordering::Relaxed);
                spawn_blocking(move || {
                    store.sweep();
                    store.tidy_later();
                });
            }
        });
    }
}

impl Sessions {
    /// Forgets those that were not used for the longest time and are not in use.
    fn forget_beyond_bounds(&mut self) {
        let lines = |file: &SessionFile| file.remembered();
        let mut total: usize = self.files.values().map(|(_, file)| lines(file)).sum();
        while self.files.len() >= MAX_SESSIONS || total > MAX_LINES {
            let idle = self.files.iter().filter(|(_, (_, file))| Arc::strong_count(file) == 1);
            let oldest =
                idle.min_by_key(|(_, (used, _))| *used).map(|(session, _)| session.clone());
            let Some((_, file)) = oldest.and_then(|session| self.files.remove(&session)) else {
                return;
            };
            total = total.saturating_sub(lines(&file));
        }
    }
}
