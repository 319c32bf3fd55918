//! Who may write, and whether a file is still the one that was looked at.
//!
//! The data files themselves carry the locks (`flock`, dropped by the system when a process dies),
//! so the store has no lock files to go stale. The app's own routes take no locks at all: against
//! those there is only [`Identity`], compared before and after.

use super::retry::changing;
use crate::error::Error;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::{
    fs::{self, DirBuilder, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longest wait for another writer's lock. Holders need milliseconds; one that was stopped
/// (SIGSTOP) must not stop this process, whose JavaScript thread may be the one that waits.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What tells one state of a file from another without reading it. Times alone would not do: their
/// clock may tick as slowly as every 10 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// Of what `path` names now, a symbolic link itself included; `None` when it names nothing.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether both are states of one file.
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether size and modification time agree; a rename or an unlink changes neither.
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && self.size == other.size && self.modified == other.modified
    }

    /// Whether the file was modified less than `age` ago. The file's clock may lag behind or run
    /// ahead of ours by a tick, so a time slightly in the future counts too.
    pub fn modified_within(&self, age: Duration) -> bool {
        let (seconds, nanoseconds) = self.modified;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let elapsed = now.as_nanos() as i128 - modified;
        (-20_000_000..age.as_nanos() as i128).contains(&elapsed)
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// An open data file whose lock this process holds. When it was made, `path` named this file.
pub(super) struct Locked {
    /// Shared, because a file that was replaced outlives its lock; see `replaced.rs`.
    pub file: Arc<File>,
    /// Whether opening made the file.
    pub created: bool,
}

impl Locked {
    /// Opens and locks `path`. `None` when it does not exist and `create` is false.
    pub fn open(path: &Path, create: bool) -> Result<Option<Self>, Error> {
        let fail = |action| move |cause| Error::store(action, path, cause);
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let Some((file, created)) = open_or_create(path, create).map_err(fail("open"))? else {
                return Ok(None);
            };
            lock_until(&file, deadline).map_err(fail("lock"))?;
            let locked = Self { file: Arc::new(file), created };
            if locked.is_current(path).map_err(fail("read"))? {
                return Ok(Some(locked));
            }
            // Replaced or deleted while we waited for its lock: the new file is the one to lock.
            if Instant::now() > deadline {
                return Err(fail("lock")(changing()));
            }
        }
    }

    /// Takes over a file that this process made, locked and put in its place.
    pub fn adopt(file: Arc<File>) -> Self {
        Self { file, created: false }
    }

    /// Whether `path` still names this file.
    pub fn is_current(&self, path: &Path) -> io::Result<bool> {
        let here = Identity::of(&self.file)?;
        Ok(Identity::at(path)?.is_some_and(|there| there.same_file(&here)))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Not left to the closing: the file may be kept open, and a child process that is between
        // fork and exec shares it.
        let _ = flock(&*self.file, FlockOperation::Unlock);
    }
}

/// Locks a file that nobody else can know of yet.
pub(super) fn lock_new(file: &File) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into)
}

/// Whether nobody holds the lock of `file`.
pub(super) fn is_unlocked(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Opens a data file for reading and appending, never through a symbolic link.
fn open_or_create(path: &Path, create: bool) -> io::Result<Option<(File, bool)>> {
    // NONBLOCK: a FIFO in the place of the file must not hold us.
    let flags =
        OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        match open(path, flags, mode) {
            Ok(file) => return regular(File::from(file)).map(|file| Some((file, false))),
            Err(rustix::io::Errno::NOENT) if create => {}
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(explained(path, errno.into())),
        }
        match open(path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => return Ok(Some((File::from(file), true))),
            Err(rustix::io::Errno::EXIST) => {}
            Err(rustix::io::Errno::NOENT) => path.parent().map_or(Ok(()), create_folder)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Opens a data file for reading only, never through a symbolic link; `None` when there is none.
pub(super) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(path, flags, Mode::empty()) {
        Ok(file) => regular(File::from(file)).map(Some),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(explained(path, errno.into())),
    }
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(rustix::io::Errno::ISDIR.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// The system reports a link that it may not follow as "too many levels of symbolic links".
fn explained(path: &Path, error: io::Error) -> io::Error {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a symbolic link, which the store does not follow",
        ),
        _ => error,
    }
}

/// Makes the store's folder, and those above it, for this user only.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lock_until(file: &File, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let reason = "another process holds its lock for too long";
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            Err(errno) => return Err(errno.into()),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}
