//! Whether somebody has a file open for writing.
//!
//! The app's routes rewrite a file with `open(O_TRUNC)`, `write`, `close`: between these nothing in
//! its size or its times says that more will come. Linux can tell: a read lease (`fcntl(2)`,
//! `F_SETLEASE`) is given only while nobody, this process included, has the file open for writing;
//! and as long as it is held, whoever opens the file for writing waits. So it is held for a rename at
//! the longest, never while something is copied or synced.

use std::fs::File;

/// Who has a file open for writing.
#[cfg_attr(not(linux), expect(dead_code, reason = "only Linux can tell"))]
pub(super) enum Writers<'f> {
    /// Nobody, as long as this exists.
    Nobody(Lease<'f>),
    /// Somebody, of whatever process.
    Somebody,
    /// That cannot be learnt: another user's file, a file system or a system without leases.
    Unknown,
}

/// Keeps others from opening a file for writing, until it is dropped.
pub(super) struct Lease<'f>(&'f File);

impl Writers<'_> {
    /// Who has the file open for writing, if nobody, with a lease. `file` must be open for reading
    /// only.
    pub fn of(file: &File) -> Writers<'_> {
        system::take(file)
    }
}

impl Lease<'_> {
    /// Whether somebody waits for its end to write into the file.
    pub fn is_awaited(&self) -> bool {
        system::is_awaited(self.0)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        system::give_back(self.0);
    }
}

#[cfg(linux)]
mod system {
    use super::{Lease, Writers};
    use std::{fs::File, io, os::fd::AsRawFd};

    /// The same on all kinds of machines; the crate has it for some only.
    const F_SETSIG: libc::c_int = 10;

    pub fn take(file: &File) -> Writers<'_> {
        // The holder of a lease that is in the way gets a signal. By default it is SIGIO, which ends
        // the process; this one is ignored by default.
        if call(file, F_SETSIG, libc::SIGURG) == -1 {
            return Writers::Unknown;
        }
        if call(file, libc::F_SETLEASE, libc::F_RDLCK) == 0 {
            return Writers::Nobody(Lease(file));
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock => Writers::Somebody,
            _ => Writers::Unknown,
        }
    }

    pub fn is_awaited(file: &File) -> bool {
        // What the lease has to become, when somebody is in the way.
        call(file, libc::F_GETLEASE, 0) != libc::F_RDLCK
    }

    pub fn give_back(file: &File) {
        call(file, libc::F_SETLEASE, libc::F_UNLCK);
    }

    fn call(file: &File, command: libc::c_int, value: libc::c_int) -> libc::c_int {
        // SAFETY: these commands take a number and change nothing but the open file.
        unsafe { libc::fcntl(file.as_raw_fd(), command, value) }
    }
}

#[cfg(not(linux))]
mod system {
    use super::Writers;
    use std::fs::File;

    pub fn take(_file: &File) -> Writers<'_> {
        Writers::Unknown
    }

    pub fn is_awaited(_file: &File) -> bool {
        false
    }

    pub fn give_back(_file: &File) {}
}

#[cfg(all(test, linux))]
mod tests {
    use super::*;
    use std::{
        fs::{self, OpenOptions},
        sync::mpsc,
        thread,
        time::Duration,
    };

    #[test]
    fn a_writer_is_seen_for_as_long_as_it_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "x").unwrap();
        let file = File::open(&path).unwrap();
        assert!(matches!(Writers::of(&file), Writers::Nobody(_)));
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(matches!(Writers::of(&file), Writers::Somebody));
        let reader = File::open(&path).unwrap();
        drop(writer);
        assert!(matches!(Writers::of(&file), Writers::Nobody(_)));
        drop(reader);
    }

    #[test]
    fn whoever_opens_the_file_for_writing_waits_for_the_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "x").unwrap();
        let file = File::open(&path).unwrap();
        let Writers::Nobody(lease) = Writers::of(&file) else { panic!("nobody writes") };
        assert!(!lease.is_awaited());
        let (done, written) = mpsc::channel();
        let writer = thread::spawn(move || {
            fs::write(&path, "").unwrap();
            done.send(()).unwrap();
        });
        while !lease.is_awaited() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(file.metadata().unwrap().len(), 1, "not emptied yet");
        assert!(written.try_recv().is_err());
        drop(lease);
        written.recv().unwrap();
        writer.join().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
