//! Messages that wait to be appended, on the disk meanwhile: a process that is killed loses none.
//!
//! Each process that has such messages keeps a file beside the sessions,
//! `.<random>.active-runs.waiting`, and holds its lock (`flock`), which the system drops when the process
//! dies; the next process that uses the store then takes them over. A line says that a message waits, or
//! that one does no longer. Where none does, there is no file.

use super::lock::{create_folder, is_unlocked, lock_new, open_to_read};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const SUFFIX: &str = ".active-runs.waiting";

/// The messages of one store that wait in this process.
pub(super) struct Spool {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// While messages wait.
    file: Option<(PathBuf, File)>,
    waiting: usize,
    last: u64,
}

/// A message that is on the disk until it was appended.
pub(super) struct Spooled {
    spool: Arc<Spool>,
    number: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Note<'a> {
    Waits {
        number: u64,
        #[serde(borrow, flatten)]
        message: Message<'a>,
    },
    Done {
        number: u64,
    },
}

/// A message that waits.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message<'a> {
    /// Of the session.
    pub session: Cow<'a, str>,
    /// As `JSON.stringify` prints it.
    pub id: Cow<'a, str>,
    /// When it was given, in milliseconds since 1970.
    pub now_ms: u64,
    /// Its JSON.
    pub line: Cow<'a, str>,
}

/// What a dead process had waiting.
pub(super) struct Left {
    path: PathBuf,
    /// Holds the lock: nobody else takes them over.
    _file: File,
    /// In the order in which they were given.
    pub messages: Vec<Message<'static>>,
}

impl Left {
    /// They are taken over.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Spool {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), state: Mutex::default() }
    }

    /// Writes a message down; not synced.
    pub fn keep(self: &Arc<Self>, message: Message<'_>) -> io::Result<Spooled> {
        let mut state = self.state();
        if state.file.is_none() {
            state.file = Some(create(&self.folder)?);
        }
        let number = state.last + 1;
        state.write(&Note::Waits { number, message })?;
        state.last = number;
        state.waiting += 1;
        Ok(Spooled { spool: Arc::clone(self), number })
    }

    /// What dead processes had waiting.
    pub fn left(&self) -> impl Iterator<Item = Left> + use<> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_meant = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(SUFFIX))
        };
        entries.filter(is_meant).filter_map(|entry| read_left(entry.path()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spooled {
    /// The message is where it belongs, or is wanted no more.
    pub fn done(self) {
        let mut state = self.spool.state();
        state.waiting -= 1;
        if state.waiting > 0 {
            // Should it fail, the message is found to be there when it is taken over.
            let _ = state.write(&Note::Done { number: self.number });
        } else if let Some((path, _file)) = state.file.take() {
            let _ = fs::remove_file(path);
        }
    }
}

impl State {
    /// One write: what a killed process has written is whole lines, and perhaps a part of the last one.
    fn write(&mut self, note: &Note<'_>) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        let before = file.metadata()?.len();
        file.write_all(&line).inspect_err(|_| {
            // The disk is full: what fitted must not stand before the next line.
            let _ = file.set_len(before);
        })
    }
}

fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
    create_folder(folder)?;
    let mut options = fs::OpenOptions::new();
    options.append(true).mode(0o600);
    let made = tempfile::Builder::new()
        .prefix(".")
        .suffix(SUFFIX)
        .make_in(folder, |path| options.create_new(true).open(path))?;
    let (file, path) = made.into_parts();
    lock_new(&file)?;
    Ok((path.keep()?, file))
}

fn read_left(path: PathBuf) -> Option<Left> {
    let file = open_to_read(&path).ok()??;
    // An empty one may have been made just now, by a process that is about to lock it.
    if file.metadata().ok()?.len() == 0 || !is_unlocked(&file) {
        return None;
    }
    let mut messages = BTreeMap::new();
    for line in BufReader::new(&file).split(b'\n') {
        // A part of a line was no promise yet.
        match serde_json::from_slice(&line.ok()?) {
            Ok(Note::Waits { number, message }) => {
                let Message { session, id, now_ms, line } = message;
                let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
                let (session, id, line) = (owned(session), owned(id), owned(line));
                messages.insert(number, Message { session, id, now_ms, line });
            }
            Ok(Note::Done { number }) => {
                messages.remove(&number);
            }
            Err(_) => {}
        }
    }
    Some(Left { path, _file: file, messages: messages.into_values().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message<'_> {
        let line = format!("{{\"id\":\"{id}\"}}").into();
        Message { session: "a\tb".into(), id: id.into(), now_ms: 7, line }
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn ids(left: &[Left]) -> Vec<Vec<&str>> {
        left.iter().map(|left| left.messages.iter().map(|m| &*m.id).collect()).collect()
    }

    #[test]
    fn what_waits_is_on_the_disk_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path()));
        let [one, two] = ["1", "2"].map(|id| spool.keep(message(id)).unwrap());
        assert_eq!(files(folder.path()), 1);
        assert_eq!(spool.left().count(), 0, "its process lives");
        one.done();
        assert_eq!(files(folder.path()), 1);
        two.done();
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_a_dead_process_had_waiting_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path()));
        let ids_kept: Vec<_> =
            ["1", "2", "3"].map(|id| spool.keep(message(id)).unwrap()).into_iter().collect();
        ids_kept.into_iter().nth(1).unwrap().done();
        // It dies, in the middle of a line.
        let (path, mut file) = spool.state().file.take().unwrap();
        file.write_all(b"{\"waits\":{\"number\":4").unwrap();
        drop(file);
        let other = Spool::new(folder.path());
        let left: Vec<_> = other.left().collect();
        assert_eq!(ids(&left), [["1", "3"]]);
        let first = &left[0].messages[0];
        assert_eq!((&*first.session, first.now_ms, &*first.line), ("a\tb", 7, "{\"id\":\"1\"}"));
        assert_eq!(other.left().count(), 0, "one takes them over at a time");
        left.into_iter().for_each(Left::remove);
        assert!(!path.exists());
    }

    #[test]
    fn a_store_that_cannot_be_written_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let spool = Arc::new(Spool::new(file.path()));
        assert!(spool.keep(message("1")).is_err());
    }
}
