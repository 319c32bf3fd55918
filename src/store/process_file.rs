//! Files that a process keeps beside the sessions, `.<random>` with a suffix, and whose lock (`flock`) it
//! holds while it lives. The system drops the lock when the process dies: what it has written is then taken
//! over by another one. Knows nothing of what is in them.

use super::{
    identity::Identity,
    lock::{create_folder, make_locked, open_to_lock, try_lock},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use tempfile::Builder;

/// A file whose lock this process holds.
#[derive(Debug)]
pub(super) struct ProcessFile {
    path: PathBuf,
    /// For appending where this process has made it, else for reading.
    pub file: File,
}

impl ProcessFile {
    /// Makes an empty one, readable by this user only, and the folder, if need be.
    pub fn create(folder: &Path, suffix: &str) -> io::Result<Self> {
        create_folder(folder)?;
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600).create_new(true);
        let make =
            || Builder::new().prefix(".").suffix(suffix).make_in(folder, |path| options.open(path));
        let (file, path) = make_locked(make)?.into_parts();
        Ok(Self { path: path.keep()?, file })
    }

    /// Those of dead processes. As long as one is held here, nobody else finds it.
    pub fn left(folder: &Path, suffix: &'static str) -> impl Iterator<Item = Self> + use<> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let is_meant = move |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(suffix))
        };
        entries.filter(is_meant).filter_map(|entry| {
            let path = entry.path();
            let file = open_to_lock(&path).ok()??;
            let left = Self { path, file };
            // Else its process lives, or it has just been removed.
            (try_lock(&left.file).is_ok() && left.is_there()).then_some(left)
        })
    }

    /// Whether it still has its name.
    pub fn is_there(&self) -> bool {
        let here = Identity::of(&self.file);
        let there = Identity::at(&self.path);
        matches!((here, there), (Ok(here), Ok(Some(there))) if here.same_file(&there))
    }

    pub fn remove(self) {
        // Best effort: what is left is found again, and was taken over already.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SUFFIX: &str = ".active-runs.test";

    #[test]
    fn a_dead_processes_file_is_found_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let left = || ProcessFile::left(folder.path(), SUFFIX).collect::<Vec<_>>();
        let alive = ProcessFile::create(folder.path(), SUFFIX).unwrap();
        assert!(left().is_empty());
        drop(alive);
        let found = left();
        assert_eq!(found.len(), 1);
        assert!(left().is_empty(), "it is held here");
        found.into_iter().for_each(ProcessFile::remove);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_living_processes_file_is_never_taken_for_a_dead_ones() {
        let folder = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for _ in 0..500 {
                    let made = ProcessFile::create(folder.path(), SUFFIX).unwrap();
                    thread::yield_now();
                    assert!(made.is_there());
                    made.remove();
                }
            });
            while !maker.is_finished() {
                ProcessFile::left(folder.path(), SUFFIX).for_each(ProcessFile::remove);
            }
        });
    }
}
