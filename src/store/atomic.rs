//! The next version of a file, written beside it and put in its place by one rename.
//!
//! What stays of the old version is copied by the kernel, not through user memory. Whoever reads
//! the file sees the old one or the new one; it never changes a file that can be seen.

use super::{identity::Identity, lock};
use rustix::fs::{Gid, Uid, fchown, fsync};
use std::{
    fs::{self, File, Metadata},
    io::{self, BufWriter, Write},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
};
use tempfile::{Builder, NamedTempFile};

/// Unlike any name that another program would choose, so that what is left may be removed.
const SUFFIX: &str = ".active-runs.tmp";
/// Random characters in a temporary name. With a session id of 200 bytes the name has 226.
const RANDOM: usize = 8;

/// A file's next version while it is written. Dropped unpublished, it is removed.
pub(super) struct Draft {
    temp: BufWriter<NamedTempFile>,
    written: u64,
}

impl Draft {
    /// Starts `.<name>.<random>.active-runs.tmp` in `folder`, readable by this user only. Its lock
    /// is held from the start, so it is this process's when it appears in its place.
    pub fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let make = || {
            Builder::new()
                .prefix(&format!(".{name}."))
                .suffix(SUFFIX)
                .rand_bytes(RANDOM)
                .tempfile_in(folder)
        };
        let temp = lock::make_locked(make)?;
        Ok(Self { temp: BufWriter::with_capacity(1 << 16, temp), written: 0 })
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends a part of `from`. Fails with `UnexpectedEof` when `from` ends before `range` does.
    pub fn copy(&mut self, from: &File, range: Range<u64>) -> io::Result<()> {
        self.temp.flush()?;
        let start = range.start;
        let copied = copy_in_kernel(from, self.temp.get_ref().as_file(), range.clone())?;
        if start + copied < range.end {
            copy_through_memory(from, self.temp.get_mut(), start + copied..range.end)?;
        }
        self.written += range.end - start;
        Ok(())
    }

    /// Gives it the mode of the version it replaces, and the owner as far as that is allowed.
    pub fn take_after(&self, old: &Metadata) -> io::Result<()> {
        let file = self.temp.get_ref().as_file();
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            // Only root may give files away; for others the new file is rightly their own.
            let owner = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
            let _ = fchown(file, Some(owner.0), Some(owner.1));
        }
        let mode = old.mode() & 0o777;
        if new.mode() & 0o777 != mode {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Hands everything to the system, and on to the disk when `durable`, or when a power cut after
    /// the rename could leave a file without its content.
    pub fn finish(&mut self, durable: bool) -> io::Result<()> {
        self.temp.flush()?;
        let file = self.temp.get_ref().as_file();
        if durable || !writes_before_rename(file) {
            fsync(file)?;
        }
        Ok(())
    }

    /// Puts the finished draft in the place of `old` at `path`, and gives its lock back. Returns what it
    /// is there; nothing, when `path` names another file by now, which then stays.
    pub fn publish(self, path: &Path, old: &Identity) -> io::Result<Option<Identity>> {
        let temp = self.temp.into_inner().map_err(io::IntoInnerError::into_error)?;
        let (file, temp) = temp.into_parts();
        match exchange(&temp, path) {
            Some(true) => {
                // What was there has the temporary name now, and goes with it. Somebody who looks for
                // what dead processes left may have been quicker.
                if Identity::at(&temp)?.is_some_and(|there| !there.same_file(old)) {
                    exchange(&temp, path);
                    return Ok(None);
                }
                drop(temp);
            }
            Some(false) => return Ok(None),
            None => temp.persist(path).map_err(|failure| failure.error)?,
        }
        let published = Identity::of(&file);
        // Not left to the closing: a child process that is between fork and exec shares the file.
        lock::unlock(&file);
        published.map(Some)
    }

    /// Puts the finished draft at `path` unless something is there.
    pub fn publish_new(self, path: &Path) -> io::Result<()> {
        let temp = self.temp.into_inner().map_err(io::IntoInnerError::into_error)?;
        match temp.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(failure) if failure.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.temp.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp.flush()
    }
}

/// Has two names name each other's files. False when one of them names none; nothing when the system or
/// the file system cannot do it.
#[cfg(linux)]
fn exchange(one: &Path, other: &Path) -> Option<bool> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Some(true),
        Err(Errno::NOENT) => Some(false),
        Err(_) => None,
    }
}

#[cfg(not(linux))]
fn exchange(_one: &Path, _other: &Path) -> Option<bool> {
    None
}

/// Returns how many bytes were copied: fewer than asked where the file system cannot do it.
#[cfg(linux)]
fn copy_in_kernel(from: &File, to: &File, range: Range<u64>) -> io::Result<u64> {
    use rustix::{fs::copy_file_range, io::Errno};
    let mut offset = range.start;
    while offset < range.end {
        let rest = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut offset), to, None, rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Another file system, an old kernel, a file system without it, a sandbox's filter.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                break;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(offset - range.start)
}

#[cfg(not(linux))]
fn copy_in_kernel(_from: &File, _to: &File, _range: Range<u64>) -> io::Result<u64> {
    Ok(0)
}

fn copy_through_memory(from: &File, to: &mut impl Write, range: Range<u64>) -> io::Result<()> {
    let mut block = vec![0; 1 << 18];
    let mut offset = range.start;
    while offset < range.end {
        let rest = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(block.len());
        let count = from.read_at(&mut block[..rest], offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&block[..count])?;
        offset += count as u64;
    }
    Ok(())
}

/// Whether the file system sees to it that a file's content reaches the disk before its rename over
/// another does. ext4 and btrfs do, tmpfs has no disk; of others (XFS does not) nothing is assumed.
#[cfg(linux)]
fn writes_before_rename(file: &File) -> bool {
    const EXT: u64 = 0xef53;
    const BTRFS: u64 = 0x9123_683e;
    const TMPFS: u64 = 0x0102_1994;
    // Signed or not, 32 bits or 64: that differs from platform to platform.
    rustix::fs::fstatfs(file)
        .is_ok_and(|fs| matches!(fs.f_type as u64 & 0xffff_ffff, EXT | BTRFS | TMPFS))
}

#[cfg(not(linux))]
fn writes_before_rename(_file: &File) -> bool {
    false
}

/// Makes a rename in `folder`, or a new file's name, survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match fsync(File::open(folder)?) {
        // Some file systems cannot sync folders, and then have no need to.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

/// Removes the temporary files that dead processes left in `folder`: those that nobody locks. Best
/// effort.
pub(super) fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(is_temporary) {
            continue;
        }
        let Ok(Some(file)) = lock::open_to_lock(&entry.path()) else { continue };
        // Removed while its lock is held here: whoever has just made it sees that it is gone.
        if lock::try_lock(&file).is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a [`Draft`] could have this name.
fn is_temporary(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(SUFFIX));
    inner.and_then(|inner| inner.rsplit_once('.')).is_some_and(|(name, random)| {
        !name.is_empty()
            && random.len() == RANDOM
            && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn both_ways_of_copying_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let old = folder.path().join("old");
        fs::write(&old, &bytes).unwrap();
        let file = File::open(&old).unwrap();
        let mut draft = Draft::new(folder.path(), "new").unwrap();
        draft.write_all(b"<").unwrap();
        draft.copy(&file, 10..900_000).unwrap();
        draft.write_all(b">").unwrap();
        copy_through_memory(&file, &mut draft, 10..900_000).unwrap();
        draft.finish(true).unwrap();
        let size = draft.written();
        fs::write(folder.path().join("new"), "").unwrap();
        let replaced = Identity::at(&folder.path().join("new")).unwrap().unwrap();
        assert!(draft.publish(&folder.path().join("new"), &replaced).unwrap().is_some());
        let new = fs::read(folder.path().join("new")).unwrap();
        assert_eq!(new.len() as u64, size);
        assert_eq!(new, [b"<", &bytes[10..900_000], b">", &bytes[10..900_000]].concat());
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_copied_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old"), "short").unwrap();
        let file = File::open(folder.path().join("old")).unwrap();
        let mut draft = Draft::new(folder.path(), "new").unwrap();
        let error = draft.copy(&file, 0..6).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = copy_through_memory(&file, &mut draft, 0..6).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let draft = Draft::new(folder.path(), &"x".repeat(200)).unwrap();
        assert_eq!(names(folder.path())[0].len(), 226);
        drop(draft);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_that_somebody_has_just_put_there_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        fs::write(folder.path().join("theirs"), "theirs").unwrap();
        fs::rename(folder.path().join("theirs"), &path).unwrap();
        let mut draft = Draft::new(folder.path(), "f").unwrap();
        draft.write_all(b"ours").unwrap();
        draft.finish(false).unwrap();
        let published = draft.publish(&path, &Identity::of(&old).unwrap()).unwrap();
        if cfg!(linux) {
            assert_eq!(published, None);
            assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        }
        assert_eq!(names(folder.path()), ["f"]);
    }

    #[test]
    fn only_unlocked_temporary_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let others = [
            ".bashrc",
            ".s.abc.active-runs.tmp",
            ".s.abcdefgh.tmp",
            "s.abcdefgh.active-runs.tmp",
            "s.jsonl",
        ];
        for name in others.into_iter().chain([".s.abcdefgh.active-runs.tmp"]) {
            File::create(folder.path().join(name)).unwrap();
        }
        let busy = Draft::new(folder.path(), "busy").unwrap();
        remove_stale(folder.path());
        let (left, busy_left): (Vec<_>, Vec<_>) =
            names(folder.path()).into_iter().partition(|name| !name.starts_with(".busy."));
        assert_eq!(left, others);
        assert_eq!(busy_left.len(), 1);
        drop(busy);
    }

    #[test]
    fn a_draft_is_never_lost_to_a_sweep() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("s.jsonl")).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // Few, because a system that writes before each rename takes its time.
                for n in 0..200 {
                    let mut draft = Draft::new(folder.path(), "s").unwrap();
                    write!(draft, "{n}").unwrap();
                    draft.finish(false).unwrap();
                    let path = folder.path().join("s.jsonl");
                    let replaced = Identity::at(&path).unwrap().unwrap();
                    assert!(draft.publish(&path, &replaced).unwrap().is_some());
                }
            });
            while !writer.is_finished() {
                remove_stale(folder.path());
            }
        });
        assert_eq!(names(folder.path()), ["s.jsonl"]);
    }
}
