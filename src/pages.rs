//! Bytes that many readers get without a copy, each as if they were its own.
//!
//! They lie in a file without a name that exists in memory only (`memfd_create`). A reader gets a
//! private mapping of a stretch of it: what it writes there, nobody else sees. A copy of 64 KiB into
//! fresh memory takes some twenty times as long as a mapping, and occupies the memory. Linux only;
//! elsewhere there are no [`Pages`], and readers get copies.

#[cfg(linux)]
mod linux {
    use rustix::{
        fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
        mm::{MapFlags, ProtFlags, mmap, munmap},
    };
    use std::{
        ffi::c_void,
        fs::File,
        io,
        os::unix::fs::FileExt,
        ptr::{self, NonNull},
        sync::atomic::{AtomicUsize, Ordering},
    };

    /// Mappings that may exist at a time in this process. They are taken back only when garbage was
    /// collected and the event loop has turned, and until then each counts as memory of its own in
    /// what the system says of the process.
    const MOST_MAPPED: usize = 4_096;
    static MAPPED: AtomicUsize = AtomicUsize::new(0);

    /// Bytes that only grow.
    #[derive(Debug)]
    pub struct Pages {
        file: File,
        len: usize,
    }

    impl Pages {
        /// None yet.
        ///
        /// # Errors
        /// When the system refuses.
        pub fn new() -> io::Result<Self> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create("active-runs", flags)?;
            fcntl_add_seals(&file, SealFlags::SHRINK)?;
            Ok(Self { file: file.into(), len: 0 })
        }

        /// Nothing is added any more, and the system sees to it that nothing changes.
        pub fn close(&self) {
            let seals = SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
            // Without them it is only this type that keeps to it.
            let _ = fcntl_add_seals(&self.file, seals);
        }

        #[cfg(test)]
        pub fn file_for_test(&self) -> &File {
            &self.file
        }

        /// How many there are.
        pub fn len(&self) -> usize {
            self.len
        }

        /// Adds bytes behind the others; all or none.
        ///
        /// # Errors
        /// When there is no memory for them.
        pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.file.write_all_at(bytes, self.len as u64)?;
            self.len += bytes.len();
            Ok(())
        }

        /// Copies bytes from `offset` on, as many as `into` takes, which must be there.
        ///
        /// # Errors
        /// When they are not there.
        pub fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
            self.file.read_exact_at(into, offset as u64)
        }

        /// The `len` bytes from `offset` on, or none when they are not there or the system refuses.
        pub fn map(&self, offset: usize, len: usize) -> Option<Mapped> {
            let before = offset % rustix::param::page_size();
            if len == 0 || offset.checked_add(len)? > self.len {
                return None;
            }
            let counted = Counted::new()?;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a mapping of its own at a place that the system chooses takes nobody's memory.
            // What its owner writes to it goes to copies of its pages, because it is private. What is
            // written to the file would be seen in pages that have no copy yet: but these bytes were
            // written before this and are never written again, `append` writes behind them. The file
            // has all of the pages, and keeps them: it is sealed against shrinking.
            let start = unsafe {
                let from = (offset - before) as u64;
                mmap(ptr::null_mut(), before + len, access, MapFlags::PRIVATE, &self.file, from)
            };
            let start = NonNull::new(start.ok()?)?;
            Some(Mapped { start, before, len, _counted: counted })
        }
    }

    /// Bytes that belong to whoever has this.
    #[derive(Debug)]
    pub struct Mapped {
        start: NonNull<c_void>,
        /// Bytes of the first page that are not meant.
        before: usize,
        len: usize,
        _counted: Counted,
    }

    // SAFETY: it is memory that nobody else refers to.
    unsafe impl Send for Mapped {}

    impl Mapped {
        /// How many bytes there are.
        pub fn len(&self) -> usize {
            self.len
        }

        /// Where they are, until this is dropped.
        pub fn as_mut_ptr(&self) -> *mut u8 {
            // SAFETY: the mapping is of `before + len` bytes.
            unsafe { self.start.as_ptr().cast::<u8>().add(self.before) }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: it was mapped like this, and with its owner the last reference to it has gone.
            // The call fails for arguments that are none of these.
            let _ = unsafe { munmap(self.start.as_ptr(), self.before + self.len) };
        }
    }

    #[derive(Debug)]
    struct Counted;

    impl Counted {
        fn new() -> Option<Self> {
            let is_free = MAPPED.fetch_add(1, Ordering::Relaxed) < MOST_MAPPED;
            let counted = Self;
            is_free.then_some(counted)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            MAPPED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(linux)]
pub use linux::{Mapped, Pages};

#[cfg(not(linux))]
mod elsewhere {
    use std::io;

    /// There are none.
    #[derive(Debug)]
    pub enum Pages {}

    impl Pages {
        /// # Errors
        /// Always.
        pub fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn close(&self) {
            match *self {}
        }

        pub fn len(&self) -> usize {
            match *self {}
        }

        pub fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
            match *self {}
        }

        pub fn read(&self, _offset: usize, _into: &mut [u8]) -> io::Result<()> {
            match *self {}
        }

        pub fn map(&self, _offset: usize, _len: usize) -> Option<Mapped> {
            match *self {}
        }
    }

    /// There are none.
    #[derive(Debug)]
    pub enum Mapped {}

    impl Mapped {
        pub fn len(&self) -> usize {
            match *self {}
        }

        pub fn as_mut_ptr(&self) -> *mut u8 {
            match *self {}
        }
    }
}

#[cfg(not(linux))]
pub use elsewhere::{Mapped, Pages};

#[cfg(all(test, linux))]
mod tests {
    use super::*;

    fn bytes(mapped: &mut Mapped) -> &mut [u8] {
        // SAFETY: as `Mapped` says.
        unsafe { std::slice::from_raw_parts_mut(mapped.as_mut_ptr(), mapped.len()) }
    }

    #[test]
    fn every_stretch_is_mapped_as_it_was_written() {
        let written: Vec<u8> = (0..50_000_u32).map(|number| (number * 7 % 251) as u8).collect();
        let mut pages = Pages::new().unwrap();
        for part in written.chunks(7_001) {
            pages.append(part).unwrap();
        }
        for (offset, len) in [(0, 1), (0, 50_000), (4_095, 2), (4_096, 4_096), (12_345, 30_000)] {
            let range = offset..offset + len;
            assert_eq!(bytes(&mut pages.map(offset, len).unwrap()), &written[range.clone()]);
            let mut copy = vec![0; len];
            pages.read(offset, &mut copy).unwrap();
            assert_eq!(copy, written[range]);
        }
        assert!(pages.map(49_999, 2).is_none());
        assert!(pages.map(0, 0).is_none());
    }

    #[test]
    fn the_file_cannot_be_made_shorter_and_once_closed_not_be_changed() {
        let mut pages = Pages::new().unwrap();
        pages.append(&[1; 10_000]).unwrap();
        assert!(pages.file_for_test().set_len(5_000).is_err());
        let mut mapped = pages.map(0, 10_000).unwrap();
        pages.close();
        assert!(pages.append(&[2; 10]).is_err());
        assert_eq!(bytes(&mut pages.map(0, 10_000).unwrap()), [1; 10_000]);
        bytes(&mut mapped).fill(9);
        assert_eq!(bytes(&mut mapped), [9; 10_000]);
    }

    #[test]
    fn what_one_reader_writes_no_other_sees() {
        let mut pages = Pages::new().unwrap();
        pages.append(&[1; 10_000]).unwrap();
        let [mut first, mut second] = [0, 0].map(|offset| pages.map(offset, 10_000).unwrap());
        bytes(&mut first).fill(9);
        pages.append(&[2; 10]).unwrap();
        assert_eq!(bytes(&mut second), [1; 10_000]);
        let mut last = pages.map(9_999, 11).unwrap();
        assert_eq!(bytes(&mut last), [&[1][..], &[2; 10]].concat());
        drop(pages);
        assert_eq!(bytes(&mut first), [9; 10_000]);
    }
}
