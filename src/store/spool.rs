//! Messages that wait to be appended, on the disk meanwhile: a process that is killed loses none.
//!
//! Each process that has such messages keeps them in a file beside the sessions,
//! `.<random>.active-runs.waiting`; the next process that uses the store takes over what a dead one has
//! left. A line says that a message waits, or that it has been added. When nothing waits any more, the file
//! is removed. Nothing here reads or writes a session.

use super::process_file::ProcessFile;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Read, Write},
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
    file: Option<ProcessFile>,
    waiting: usize,
    last_number: u64,
}

/// A message that is on the disk until it is added to its session.
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
    Added {
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
    /// The session had a file then.
    pub had_file: bool,
    /// Its JSON.
    pub line: Cow<'a, str>,
}

/// What a dead process has left.
pub(super) struct Left {
    /// Nobody else takes them over.
    file: ProcessFile,
    /// In the order in which they were given.
    pub messages: Vec<Message<'static>>,
}

impl Left {
    /// They are taken over.
    pub fn remove(self) {
        self.file.remove();
    }
}

impl Spool {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), state: Mutex::default() }
    }

    /// Writes a message down; not synced.
    pub fn keep(self: &Arc<Self>, message: Message<'_>) -> io::Result<Spooled> {
        let mut state = self.state();
        // A store that was deleted may be there again.
        if !state.file.as_ref().is_some_and(ProcessFile::is_there) {
            state.file = Some(ProcessFile::create(&self.folder, SUFFIX)?);
        }
        let number = state.last_number + 1;
        let written = state.write(&Note::Waits { number, message });
        if written.is_err() && state.waiting == 0 {
            state.file.take().into_iter().for_each(ProcessFile::remove);
        }
        written?;
        state.last_number = number;
        state.waiting += 1;
        Ok(Spooled { spool: Arc::clone(self), number })
    }

    /// What dead processes had waiting.
    pub fn left(&self) -> impl Iterator<Item = Left> + use<> {
        ProcessFile::left(&self.folder, SUFFIX).filter_map(read_left)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spooled {
    /// The message was added to its session, or is not to be any more.
    pub fn remove(self) {
        let mut state = self.spool.state();
        state.waiting -= 1;
        // Should it fail, the message is found to be there when it is taken over.
        let _ = state.write(&Note::Added { number: self.number });
        let unused = if state.waiting == 0 { state.file.take() } else { None };
        drop(state);
        unused.into_iter().for_each(ProcessFile::remove);
    }
}

impl State {
    /// One write. What came before it may be cut, when the disk was full: hence the line end in front.
    fn write(&mut self, note: &Note<'_>) -> io::Result<()> {
        let Some(ProcessFile { file, .. }) = &mut self.file else { return Ok(()) };
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, note)?;
        line.push(b'\n');
        file.write_all(&line)
    }
}

fn read_left(mut file: ProcessFile) -> Option<Left> {
    let mut text = Vec::new();
    file.file.read_to_end(&mut text).ok()?;
    let mut messages = BTreeMap::new();
    for line in text.split(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Note::Waits { number, message }) => {
                messages.insert(number, message.into_owned());
            }
            Ok(Note::Added { number }) => {
                messages.remove(&number);
            }
            // Blank, or cut: then nobody was told that the message is kept.
            Err(_) => {}
        }
    }
    Some(Left { file, messages: messages.into_values().collect() })
}

impl Message<'_> {
    fn into_owned(self) -> Message<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let Self { session, id, now_ms, had_file, line } = self;
        Message { session: owned(session), id: owned(id), now_ms, had_file, line: owned(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn message(id: &str) -> Message<'_> {
        let line = format!("{{\"id\":\"{id}\"}}").into();
        Message { session: "a\tb".into(), id: id.into(), now_ms: 7, had_file: true, line }
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn ids(left: &[Left]) -> Vec<Vec<&str>> {
        left.iter().map(|left| left.messages.iter().map(|m| &*m.id).collect()).collect()
    }

    #[test]
    fn what_waits_is_on_the_disk_until_it_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path()));
        let [one, two] = ["1", "2"].map(|id| spool.keep(message(id)).unwrap());
        assert_eq!(files(folder.path()), 1);
        assert_eq!(spool.left().count(), 0, "its process lives");
        one.remove();
        assert_eq!(files(folder.path()), 1);
        two.remove();
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_a_dead_process_had_waiting_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(folder.path()));
        let [_one, two] = ["1", "2"].map(|id| spool.keep(message(id)).unwrap());
        // A full disk has cut a line, a later one is whole; then it dies, in the middle of one.
        let cut = |spool: &Spool| {
            let mut state = spool.state();
            state.file.as_mut().unwrap().file.write_all(b"\n{\"waits\":{\"number\":9").unwrap();
        };
        cut(&spool);
        let _three = spool.keep(message("3")).unwrap();
        two.remove();
        cut(&spool);
        drop(spool.state().file.take());
        let other = Spool::new(folder.path());
        let left: Vec<_> = other.left().collect();
        assert_eq!(ids(&left), [["1", "3"]]);
        let first = &left[0].messages[0];
        assert_eq!((&*first.session, first.now_ms, &*first.line), ("a\tb", 7, "{\"id\":\"1\"}"));
        left.into_iter().for_each(Left::remove);
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn a_store_that_is_deleted_and_made_again_keeps_what_comes_then() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let spool = Arc::new(Spool::new(&store));
        let _before = spool.keep(message("1")).unwrap();
        fs::remove_dir_all(&store).unwrap();
        let _after = spool.keep(message("2")).unwrap();
        drop(spool.state().file.take());
        assert_eq!(ids(&spool.left().collect::<Vec<_>>()), [["2"]]);
    }

    #[test]
    fn a_store_that_cannot_be_written_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let spool = Arc::new(Spool::new(file.path()));
        assert!(spool.keep(message("1")).is_err());
    }
}
