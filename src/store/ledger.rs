//! Which marks are in use by the processes of this store, so that the next server can find what a
//! server that was killed has left running.
//!
//! Each process keeps a file beside the sessions, `.<random>.active-runs.marks`. A line is `+mark` or
//! `-mark`, the first one says on which start of which machine, and where processes are numbered apart
//! (containers), in which of these places. Best effort: a store that cannot be written has no such file.

use super::process_file::ProcessFile;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const SUFFIX: &str = ".active-runs.marks";
/// The file of another place whose processes cannot be seen from here is removed when it is so old.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600);
/// A file is written anew when it has this many lines more than marks in use.
const MANY_LINES: usize = 1_000;

/// The marks of one store in this process.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<ProcessFile>,
    in_use: BTreeSet<Box<str>>,
    /// In the file, behind the first.
    lines: usize,
}

/// While this exists, the mark is in use.
#[derive(Debug)]
pub struct InUse {
    ledger: Arc<Ledger>,
    mark: Box<str>,
}

/// The marks that a dead process of this place had in use.
#[derive(Debug)]
pub struct Left {
    /// Nobody else looks after them.
    file: ProcessFile,
    /// The marks.
    pub marks: Vec<String>,
}

impl Left {
    /// They have been looked after.
    pub fn remove(self) {
        self.file.remove();
    }
}

impl Ledger {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), state: Mutex::default() }
    }

    /// Notes a mark, until the result is dropped.
    pub fn note(self: &Arc<Self>, mark: &str) -> InUse {
        let mut state = self.state();
        // A store that was deleted may be there again.
        let is_there = state.file.as_ref().is_some_and(ProcessFile::is_there);
        state.in_use.insert(mark.into());
        if is_there {
            state.write('+', mark);
        } else {
            state.file = ProcessFile::create(&self.folder, SUFFIX).ok();
            state.write_all();
        }
        drop(state);
        InUse { ledger: Arc::clone(self), mark: mark.into() }
    }

    /// The process ends, or nobody uses the store any more: removes its file. With `is_alone`, nobody
    /// bears its marks any more, whatever is still noted; else the file stays for the marks in use.
    pub fn close(&self, is_alone: bool) {
        let mut state = self.state();
        if (is_alone || state.in_use.is_empty())
            && let Some(file) = state.file.take()
        {
            file.remove();
        }
    }

    /// What dead processes of this place had in use.
    pub fn left(&self) -> Vec<Left> {
        ProcessFile::left(&self.folder, SUFFIX).filter_map(read_left).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, sign: char, mark: &str) {
        let Some(ProcessFile { file, .. }) = &mut self.file else { return };
        // One write: what a killed process has written is whole lines.
        let _ = file.write_all(format!("{sign}{mark}\n").as_bytes());
        self.lines += 1;
        if self.lines > MANY_LINES + 2 * self.in_use.len() && file.set_len(0).is_ok() {
            self.write_all();
        }
    }

    /// Writes all that is in use into the empty file.
    fn write_all(&mut self) {
        let Some(ProcessFile { file, .. }) = &mut self.file else { return };
        let marks = self.in_use.iter().map(|mark| format!("+{mark}\n"));
        let text: String = std::iter::once(place()).chain(marks).collect();
        let _ = file.write_all(text.as_bytes());
        self.lines = self.in_use.len();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close(false);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.in_use.remove(&self.mark);
        state.write('-', &self.mark);
    }
}

fn read_left(file: ProcessFile) -> Option<Left> {
    let text = io::read_to_string(&file.file).ok()?;
    let Some(lines) = text.strip_prefix(&place()) else {
        // Made by a process that died before it had written anything, or in another place.
        let modified = file.file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        if modified.elapsed().ok()? > FORGOTTEN {
            file.remove();
        }
        return None;
    };
    let mut marks: Vec<String> = Vec::new();
    for line in lines.lines() {
        if let Some(mark) = line.strip_prefix('+') {
            marks.push(mark.to_owned());
        } else if let Some(mark) = line.strip_prefix('-') {
            marks.retain(|known| known != mark);
        }
    }
    Some(Left { file, marks })
}

/// The first line: tells from where a process' number means the same process.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let numbers = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}\n", boot.trim_end(), numbers.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process leaves that is killed: the file, without its lock.
    fn killed(folder: &Path, text: &str) {
        fs::write(folder.join(format!(".abc{SUFFIX}")), text).unwrap();
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_marks_of_a_dead_process_are_found_until_they_are_looked_after() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path());
        killed(folder.path(), &format!("{}+a\n+b\n-a\n+c\n+d", place()));
        let left = ledger.left();
        assert_eq!(left.iter().map(|left| &left.marks[..]).collect::<Vec<_>>(), [["b", "c", "d"]]);
        assert!(ledger.left().is_empty(), "one looks after them at a time");
        drop(left);
        for left in ledger.left() {
            left.remove();
        }
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn the_marks_of_a_living_process_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [ledger, other] = [0, 1].map(|_| Arc::new(Ledger::new(folder.path())));
        let in_use = ledger.note("a");
        assert!(other.left().is_empty());
        ledger.close(false);
        assert_eq!(files(folder.path()), 1, "a mark is in use");
        drop(in_use);
        ledger.close(false);
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn another_places_marks_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        killed(folder.path(), "another-boot pid:[1]\n+a\n");
        assert!(Ledger::new(folder.path()).left().is_empty());
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn a_store_that_cannot_be_written_has_no_marks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ledger = Arc::new(Ledger::new(file.path()));
        drop(ledger.note("a"));
        assert!(ledger.left().is_empty());
    }

    #[test]
    fn a_file_stays_small_and_has_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::new(folder.path()));
        let _in_use = ledger.note("kept");
        for _ in 0..2 * MANY_LINES {
            drop(ledger.note("0123456789abcdef0123456789abcdef"));
        }
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.len() < 40 * MANY_LINES && text.contains("+kept\n"));
    }

    #[test]
    fn a_store_that_is_deleted_gets_its_marks_again() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::new(folder.path()));
        let _first = ledger.note("first");
        let path = || fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        fs::remove_file(path()).unwrap();
        let _second = ledger.note("second");
        let text = fs::read_to_string(path()).unwrap();
        assert!(text.contains("+first\n") && text.contains("+second\n"), "{text}");
    }
}
