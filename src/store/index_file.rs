//! `index.json`: the list of sessions that the app shows, edited as the module does it.
//!
//! Other fields, their order and other entries stay as JavaScript would leave them. An index that
//! is absent, broken or no array is never made up or overwritten.

use super::{
    atomic::{self, Draft},
    layout::read_exactly,
    lock::{Identity, Locked, create_folder, open_to_read},
    retry::{Trouble, until_unchanged},
};
use crate::{
    error::{Error, Result},
    json::{Document, JsonStr, NodeId, Value},
    session_id::SessionId,
};
use std::{
    fs::File,
    io::{self, Write},
    iter,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// An index that does not parse and changed less than this ago is probably being written.
const FRESH: Duration = Duration::from_millis(20);
/// How long to wait for it. It may be on the JavaScript thread.
const SETTLE: Duration = Duration::from_millis(50);

/// The index of one store.
pub(super) struct IndexFile {
    folder: PathBuf,
    path: PathBuf,
    /// Held while this process edits it.
    editing: Mutex<()>,
}

/// A change to one entry.
pub(super) struct Touch<'t> {
    /// Messages added to the session's file.
    pub added: usize,
    /// A new title; an empty one counts as none, as in the module.
    pub title: Option<&'t str>,
    pub now_ms: u64,
}

/// What an edit makes of the index.
enum Edit<T> {
    Write(String, T),
    Leave(T),
}

impl IndexFile {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("index.json");
        Self { folder: folder.to_owned(), path, editing: Mutex::default() }
    }

    /// Updates the session's entry, if it has one. Best effort: messages are what must not be
    /// lost, and they are stored by then.
    pub fn touch(&self, session: &SessionId, touch: &Touch<'_>) {
        let edited = self.edit(false, |document| {
            let done = document.and_then(|mut document| {
                let entry = find(document.root(), session)?;
                change(&mut document, entry, touch);
                document.root().stringify_pretty()
            });
            Ok(done.map_or(Edit::Leave(()), |text| Edit::Write(text, ())))
        });
        // The module leaves an index that it cannot update alone and says nothing.
        let _ = edited;
    }

    /// Puts an entry for a new session first, making the index if there is none, and returns it.
    /// A session that has an entry keeps that one.
    pub fn create(
        &self,
        session: &SessionId,
        title: &str,
        file_path: Option<&str>,
        now_ms: u64,
    ) -> Result<String> {
        self.create_absent()?;
        self.edit(true, |document| {
            let mut document = document.ok_or_else(no_array)?;
            if let Some(entry) = find(document.root(), session) {
                return Ok(Edit::Leave(document.get(entry).stringify()));
            }
            let entry = document.object([]);
            document.set(entry, "id", session.as_str());
            document.set(entry, "title", title);
            document.set(entry, "createdAt", now_ms as f64);
            document.set(entry, "updatedAt", now_ms as f64);
            document.set(entry, "messageCount", 0.0);
            if let Some(path) = file_path {
                document.set(entry, "filePath", path);
            }
            let others = document.root().items().map(Value::id);
            let all = iter::once(entry).chain(others).collect();
            Ok(Edit::Write(pretty(&mut document, all)?, document.get(entry).stringify()))
        })
    }

    /// Removes the session's entry; says whether there was one.
    pub fn delete(&self, session: &SessionId) -> Result<bool> {
        self.edit(true, |document| {
            let Some(mut document) = document else { return Ok(Edit::Leave(false)) };
            if find(document.root(), session).is_none() {
                return Ok(Edit::Leave(false));
            }
            let others = document.root().items().filter(|entry| !is_entry(*entry, session));
            let others = others.map(Value::id).collect();
            Ok(Edit::Write(pretty(&mut document, others)?, true))
        })
    }

    /// The entries as a JSON array, newest `updatedAt` first. Takes no lock, so that a store that
    /// may only be read can be listed.
    pub fn list(&self) -> Result<String> {
        until_unchanged("read", &self.path, |_| {
            let Some(file) = open_to_read(&self.path)? else { return Ok("[]".to_owned()) };
            let (_, document) = self.read(&file)?;
            let document = document.ok_or_else(no_array)?;
            let updated = |entry: &Value<'_>| {
                entry.get("updatedAt").and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY)
            };
            let mut entries: Vec<_> = document
                .root()
                .items()
                .filter(|item| item.is_object() && !item.is_array())
                .collect();
            // Stable: entries of the same time stay in the index's order.
            entries.sort_by(|a, b| updated(b).total_cmp(&updated(a)));
            let texts: Vec<_> = entries.into_iter().map(Value::stringify).collect();
            Ok(format!("[{}]", texts.join(",")))
        })
    }

    /// Reads the index, hands it to `edit` (nothing for one that is broken or no array; an empty
    /// array for one that is absent) and writes what comes back.
    fn edit<T>(
        &self,
        durable: bool,
        mut edit: impl FnMut(Option<Document>) -> io::Result<Edit<T>>,
    ) -> Result<T> {
        let _editing = self.editing.lock().unwrap_or_else(PoisonError::into_inner);
        // Set when someone wrote into a version that was just replaced.
        let mut newer = None;
        until_unchanged("update", &self.path, |_| {
            let Some(locked) = Locked::open(&self.path, false)? else {
                return match edit(Document::parse("[]").ok())? {
                    Edit::Leave(done) => Ok(done),
                    Edit::Write(..) => Err(Trouble::Changed),
                };
            };
            let (identity, read) = self.read(&locked.file)?;
            let (text, done) = match edit(newer.take().unwrap_or(read))? {
                Edit::Leave(done) => return Ok(done),
                Edit::Write(text, done) => (text, done),
            };
            let mut draft = Draft::new(&self.folder, "index")?;
            draft.take_after(&locked.file.metadata()?)?;
            draft.write_all(text.as_bytes())?;
            draft.finish(durable)?;
            if Identity::of(&locked.file)? != identity || !locked.is_current(&self.path)? {
                return Err(Trouble::Changed);
            }
            let _new = Locked::adopt(draft.publish(&self.path)?);
            if durable {
                atomic::sync_folder(&self.folder)?;
            }
            // A route that had opened the old version just before the rename has emptied it by
            // now; what it is about to write there would be lost.
            if !Identity::of(&locked.file)?.same_content(&identity)
                && let (_, Some(document)) = self.read(&locked.file)?
            {
                newer = Some(Some(document));
                return Err(Trouble::Changed);
            }
            Ok(done)
        })
    }

    /// Reads the index, waiting a moment if it seems to be in the midst of being written.
    fn read(&self, file: &File) -> Result<(Identity, Option<Document>), Trouble> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let identity = Identity::of(file)?;
            let bytes = read_exactly(file, 0, identity.size);
            if let Ok(bytes) = &bytes
                && let Ok(document) = Document::parse(&String::from_utf8_lossy(bytes))
                && Identity::of(file)? == identity
            {
                return Ok((identity, Some(document).filter(|found| found.root().is_array())));
            }
            if !identity.modified_within(FRESH) || Instant::now() > deadline {
                return bytes.map(|_| (identity, None));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes an index without entries, complete from its first moment, if there is none.
    fn create_absent(&self) -> Result<()> {
        let make = || {
            if Identity::at(&self.path)?.is_some() {
                return Ok(());
            }
            create_folder(&self.folder)?;
            let mut draft = Draft::new(&self.folder, "index")?;
            draft.write_all(b"[]")?;
            draft.finish(false)?;
            draft.publish_new(&self.path)
        };
        make().map_err(|cause| Error::store("create", &self.path, cause))
    }
}

fn no_array() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no JSON array")
}

fn is_entry(entry: Value<'_>, session: &SessionId) -> bool {
    let id = entry.get("id").and_then(Value::as_str);
    id.is_some_and(|id| id.as_str() == JsonStr::escape(session.as_str()).as_str())
}

/// `index.find((s) => s.id === session)`, which throws at a `null`.
fn find(index: Value<'_>, session: &SessionId) -> Option<NodeId> {
    let found = index.items().find(|entry| entry.is_null() || is_entry(*entry, session))?;
    (!found.is_null()).then(|| found.id())
}

fn change(document: &mut Document, entry: NodeId, touch: &Touch<'_>) {
    document.set(entry, "updatedAt", touch.now_ms as f64);
    if touch.added > 0 {
        let count = document.get(entry).get("messageCount").and_then(Value::as_f64);
        document.set(entry, "messageCount", count.unwrap_or(0.0) + touch.added as f64);
    }
    if let Some(title) = touch.title.filter(|title| !title.is_empty()) {
        document.set(entry, "title", title);
    }
}

/// `JSON.stringify([…], null, 2)` of these entries.
fn pretty(document: &mut Document, entries: Vec<NodeId>) -> io::Result<String> {
    let index = document.array(entries);
    let text = document.get(index).stringify_pretty();
    text.ok_or_else(|| io::Error::other("it is nested too deeply"))
}
