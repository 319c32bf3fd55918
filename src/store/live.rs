//! Which messages are being written by a run right now, in this process or in another, and which sessions
//! a process changes.
//!
//! A message marked `_streaming` whose run died must lose the mark; one whose run lives must not.
//! Every run holds a lock on one byte of the store's folder, at an offset made from session and
//! message. The system drops the lock when the process dies, so there is nothing to go stale.

use super::{
    layout::{NO_ID, hash_of},
    lock::create_folder,
};
use crate::session_id::SessionId;
use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// In the place of a message's hash: the session itself.
const ENTERED: u64 = NO_ID;

/// The live messages of one store.
pub(super) struct Live {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Places that this process has marked.
    here: HashSet<u64>,
    /// The open store folder that carries this process's byte locks.
    folder: Option<File>,
}

impl Live {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), state: Mutex::default() }
    }

    /// Marks a message, given by the hash of its id, as being written. False when a run, in whatever
    /// process, has marked it already.
    pub fn claim(&self, session: &SessionId, hash: u64) -> bool {
        let place = place(session, hash);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.here.contains(&place) {
            return false;
        }
        if state.folder(&self.folder).is_none() {
            // Best effort: the run's first flush reports what is wrong with the store.
            let _ = create_folder(&self.folder);
            state.folder(&self.folder);
        }
        if let Some(folder) = &state.folder {
            // Locked first and looked at then: of two that claim it at once, both may be refused,
            // but never none.
            bytes::lock(folder, place);
            if bytes::is_locked(folder, place) {
                bytes::unlock(folder, place);
                return false;
            }
        }
        state.here.insert(place)
    }

    /// Says that this process changes the session, until [`Live::leave`] or its end.
    pub fn enter(&self, session: &SessionId) {
        let place = place(session, ENTERED);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.here.insert(place)
            && let Some(folder) = state.folder(&self.folder)
        {
            bytes::lock(folder, place);
        }
    }

    /// Takes [`Live::enter`] back.
    pub fn leave(&self, session: &SessionId) {
        self.remove(session, ENTERED);
    }

    /// Whether no other process on this machine changes the session; false where that cannot be asked.
    pub fn is_alone(&self, session: &SessionId) -> bool {
        let place = place(session, ENTERED);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = state.folder(&self.folder);
        bytes::CAN_ASK && folder.is_some_and(|folder| !bytes::is_locked(folder, place))
    }

    /// Takes a claim back.
    pub fn remove(&self, session: &SessionId, hash: u64) {
        let place = place(session, hash);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.here.remove(&place)
            && let Some(folder) = &state.folder
        {
            bytes::unlock(folder, place);
        }
    }

    /// Whether any process on this machine is writing the message.
    pub fn contains(&self, session: &SessionId, hash: u64) -> bool {
        let place = place(session, hash);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.here.contains(&place)
            || state.folder(&self.folder).is_some_and(|folder| bytes::is_locked(folder, place))
    }
}

impl State {
    /// The folder, opened when it is first there, and again when it was deleted and made anew: the
    /// marks move with it.
    fn folder(&mut self, path: &Path) -> Option<&File> {
        let here = self.folder.as_ref().and_then(|folder| folder.metadata().ok());
        let there = fs::metadata(path).ok();
        let place = |folder: &Metadata| (folder.dev(), folder.ino());
        if here.as_ref().map(place) != there.as_ref().map(place) {
            self.folder = File::open(path).ok();
            if let Some(folder) = &self.folder {
                self.here.iter().for_each(|&place| bytes::lock(folder, place));
            }
        }
        self.folder.as_ref()
    }
}

/// The byte that stands for a message: any file offset that is not negative. All processes of a store
/// must come to the same, whatever they were built with: it stays as it is.
fn place(session: &SessionId, hash: u64) -> u64 {
    let both = hash_of(session.as_str()).rotate_left(32) ^ hash;
    both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2
}

/// Locks of single bytes that belong to the open file, not to the process as a whole: closing
/// another descriptor of the folder does not lose them, and they can be asked about.
#[cfg(linux)]
mod bytes {
    use std::{fs::File, os::fd::AsRawFd};

    pub const CAN_ASK: bool = true;

    pub fn lock(folder: &File, place: u64) {
        // Only readers' locks are ever taken, so this cannot wait. A file system without locks
        // loses what the mark is for; the run's next flush puts its mark back.
        call(folder, place, libc::F_OFD_SETLK, libc::F_RDLCK);
    }

    pub fn unlock(folder: &File, place: u64) {
        call(folder, place, libc::F_OFD_SETLK, libc::F_UNLCK);
    }

    /// Whether another open file has the byte locked.
    pub fn is_locked(folder: &File, place: u64) -> bool {
        call(folder, place, libc::F_OFD_GETLK, libc::F_WRLCK)
            .is_some_and(|found| i32::from(found) != libc::F_UNLCK)
    }

    /// Returns the lock type that the system left in the request.
    fn call(folder: &File, place: u64, command: i32, kind: i32) -> Option<libc::c_short> {
        // SAFETY: an all-zero `flock` is a valid one, of plain integers.
        let mut request: libc::flock = unsafe { std::mem::zeroed() };
        request.l_type = kind as libc::c_short;
        request.l_whence = libc::SEEK_SET as libc::c_short;
        request.l_start = place as libc::off_t;
        request.l_len = 1;
        // SAFETY: the descriptor is open, and these commands take a pointer to a `flock`, which
        // lives until the call returns.
        let done = unsafe { libc::fcntl(folder.as_raw_fd(), command, &raw mut request) };
        (done == 0).then_some(request.l_type)
    }
}

/// Elsewhere other processes cannot be asked: their marks count as stale. A run that lives puts
/// its mark back with its next flush, so a mark is missing for two seconds at most.
#[cfg(not(linux))]
mod bytes {
    use std::fs::File;

    pub const CAN_ASK: bool = false;

    pub fn lock(_folder: &File, _place: u64) {}
    pub fn unlock(_folder: &File, _place: u64) {}
    pub fn is_locked(_folder: &File, _place: u64) -> bool {
        false
    }
}
