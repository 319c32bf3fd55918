//! Which process of this store may write, and how its files are opened. Never waits for a lock.
//!
//! The data files themselves carry the locks (`flock`, dropped by the system when a process dies),
//! so the store has no lock files to go stale. The app's own routes take no locks at all: against
//! those there are only leases, and [`Identity`], compared before and after.

use super::{identity::Identity, retry::Trouble};
use crate::error::Error;
use rustix::{
    fs::{Access, FlockOperation, Mode, OFlags, access, flock, open},
    io::Errno,
};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    sync::Arc,
};
use tempfile::NamedTempFile;

/// Names to try before giving up.
const TRIES: usize = 100;

/// NONBLOCK: a FIFO in the place of the file must not hold us.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
const READ_WRITE: OFlags = READ.union(OFlags::RDWR);

/// An open data file whose lock this process holds. When it was made, `path` named this file. It is
/// open for reading only, so that a lease on it tells of others.
pub(super) struct Locked {
    /// Shared, because a file that was replaced outlives its lock; see `replaced.rs`.
    pub file: Arc<File>,
    /// Whether opening made the file.
    pub created: bool,
}

impl Locked {
    /// Opens and locks `path`, which must be a file that may be written. `None` when it does not exist
    /// and `create` is false. Waits for nobody.
    pub fn open(path: &Path, create: bool) -> Result<Option<Self>, Trouble> {
        let fail = |action| move |cause| Error::store(action, path, cause);
        let Some((file, created)) = open_or_create(path, create).map_err(fail("open"))? else {
            return Ok(None);
        };
        let mut file = file;
        let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::BADF) {
            // On NFS the lock is one for writing, and wants a file that is open for that.
            file = File::from(open(path, READ_WRITE, Mode::empty()).map_err(io::Error::from)?);
            locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        }
        match locked {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Trouble::Locked),
            Err(Errno::INTR) => return Err(Trouble::Changed),
            Err(errno) => return Err(fail("lock")(errno.into()).into()),
        }
        let locked = Self { file: Arc::new(file), created };
        // Else it was replaced or deleted meanwhile: the new file is the one to lock.
        if locked.is_current(path).map_err(fail("read"))? {
            Ok(Some(locked))
        } else {
            Err(Trouble::Changed)
        }
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
        unlock(&self.file);
    }
}

/// Opens a data file that may be written, for reading, without its lock; `None` when there is none.
pub(super) fn open_without_lock(path: &Path) -> Result<Option<File>, Trouble> {
    let opened = open_or_create(path, false);
    Ok(opened.map_err(|cause| Error::store("open", path, cause))?.map(|(file, _)| file))
}

/// Locks a file for as long as it is open, unless somebody else does; waits for nobody.
pub(super) fn try_lock(file: &File) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into)
}

/// Makes a file with a new name whose lock is held. Whoever looks for what dead processes left may take it
/// for that between its birth and its lock: then it is made again.
pub(super) fn make_locked(
    make: impl Fn() -> io::Result<NamedTempFile>,
) -> io::Result<NamedTempFile> {
    for _ in 0..TRIES {
        let made = make()?;
        match try_lock(made.as_file()) {
            Ok(()) if made.as_file().metadata()?.nlink() > 0 => return Ok(made),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("temporary files are removed as soon as they are made"))
}

/// Gives the lock of a file back.
pub(super) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

/// Opens a data file that may be written, never through a symbolic link; for reading.
fn open_or_create(path: &Path, create: bool) -> io::Result<Option<(File, bool)>> {
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        match open(path, READ, mode) {
            Ok(file) => {
                let file = regular(File::from(file))?;
                // It is replaced, which its own permissions do not hinder: they say what is wanted.
                access(path, Access::WRITE_OK)?;
                return Ok(Some((file, false)));
            }
            Err(Errno::NOENT) if create => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(explained(path, errno.into())),
        }
        match open(path, READ | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => return Ok(Some((File::from(file), true))),
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => path.parent().map_or(Ok(()), create_folder)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Opens `path` for appending, if it names a file in the state `of` and nobody has it leased; waits for nobody.
pub(super) fn open_to_append(path: &Path, of: &Identity) -> Result<File, Trouble> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(path, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            if Identity::of(&file)? == *of { Ok(file) } else { Err(Trouble::Changed) }
        }
        Err(Errno::WOULDBLOCK) => Err(Trouble::Busy),
        Err(Errno::NOENT) => Err(Trouble::Changed),
        Err(errno) => Err(Trouble::System(errno.into())),
    }
}

/// Opens a data file for reading only, never through a symbolic link; `None` when there is none.
pub(super) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    match open(path, READ, Mode::empty()) {
        Ok(file) => regular(File::from(file)).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(explained(path, errno.into())),
    }
}

/// Opens a file of this package's own for locking and reading; `None` when there is none.
pub(super) fn open_to_lock(path: &Path) -> io::Result<Option<File>> {
    match open(path, READ_WRITE, Mode::empty()) {
        Ok(file) => regular(File::from(file)).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(Errno::ISDIR.into()),
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
