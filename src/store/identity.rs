//! Whether a file is still the one that was looked at, as it was then. Never reads a file's content.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// Names that the file has.
    links: u64,
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

    /// Whether the file has other names, which would have to change with it.
    pub fn has_other_names(&self) -> bool {
        self.links > 1
    }

    /// When it was modified, in milliseconds since 1970.
    pub fn modified_ms(&self) -> u64 {
        let (seconds, nanoseconds) = self.modified;
        u64::try_from(seconds * 1_000 + nanoseconds / 1_000_000).unwrap_or(0)
    }

    /// How long ago it was modified, by the clock; 0 when that lies ahead.
    pub fn age(&self) -> Duration {
        let (seconds, nanoseconds) = self.modified;
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds as u32);
        SystemTime::now().duration_since(UNIX_EPOCH + since).unwrap_or_default()
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
            links: metadata.nlink(),
        }
    }
}
