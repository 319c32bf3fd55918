//! Files that were replaced while another program may have had them open.
//!
//! The app's routes take no locks. One that was about to open the file when a commit renamed another
//! over it writes into the version that has no name any more, and what it writes would be lost. So a
//! replaced file is kept open for a while; if it is written into after all, it is the newer history,
//! and what this process wrote meanwhile is put into it.

use super::{
    atomic::Draft,
    identity::Identity,
    layout::{Known, Layout, NO_ID, read_exactly},
    lease::Writers,
    plan::{Change, Plan},
    rest::at_rest,
    retry::{Attempts, Trouble},
};
use std::{
    fs::File,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A program that opened a file before it was replaced has written into it by then.
const WATCHED: Duration = Duration::from_secs(2);
/// The same, as long as it has the file open.
const WATCHED_WRITER: Duration = Duration::from_secs(60);
/// Replaced files kept open for a session.
const MOST: usize = 4;
/// Replaced files kept open in all: a server needs its descriptors for other things.
const MOST_IN_ALL: usize = 512;

/// Messages of a session that are put back when others lose them, and the bytes of one, at most.
pub(super) const MOST_GUARDED: usize = 1_024;
pub(super) const LONGEST_GUARDED: u64 = 1 << 22;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A replaced file, and what tells whether it was written into since.
pub(super) struct Replaced {
    file: Arc<File>,
    /// As it was left.
    identity: Identity,
    since: Instant,
    /// Its lines when it was replaced.
    layout: Arc<Layout>,
    /// Hashes of the messages that this process wrote in replacing it and later.
    written: Vec<u64>,
}

impl Replaced {
    /// `copied` is the file as it was when it was copied.
    pub fn new(file: Arc<File>, copied: Known, written: &[u64]) -> io::Result<Self> {
        let Known { identity, layout } = copied;
        let now = Identity::of(&file)?;
        // Losing its name changes only the time that `same_content` leaves out.
        let identity = if now.same_content(&identity) { now } else { identity };
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file, identity, since: Instant::now(), layout, written: written.to_vec() })
    }

    /// What is watched from now on, when what `newer` has was taken over.
    pub fn taken(mut self, newer: &Known) -> Self {
        self.identity = newer.identity;
        self.layout = Arc::clone(&newer.layout);
        self.since = Instant::now();
        self
    }

    /// Adds one to those that are watched, if there is room for it.
    pub fn keep(all: &mut Vec<Self>, new: Self) {
        let is_crowded = OPEN.load(Ordering::Relaxed) > MOST_IN_ALL;
        if all.len() >= MOST || (is_crowded && !all.is_empty()) {
            // One that somebody is writing into is kept before all others.
            let idle = all.iter().position(|replaced| !replaced.has_writer());
            all.remove(idle.unwrap_or(0));
        } else if is_crowded {
            return;
        }
        all.push(new);
    }

    /// Notes that this process wrote these messages.
    pub fn note_written(&mut self, hashes: &[u64]) {
        for hash in hashes {
            if !self.written.contains(hash) {
                self.written.push(*hash);
            }
        }
    }

    /// Whether it has been watched for long enough.
    pub fn is_settled(&self) -> bool {
        let age = self.since.elapsed();
        age > WATCHED_WRITER || (age > WATCHED && !self.has_writer() && !self.is_changed())
    }

    /// How long it has been watched.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub fn has_writer(&self) -> bool {
        matches!(Writers::of(&self.file), Writers::Somebody)
    }

    /// Whether another program has changed it.
    pub fn is_changed(&self) -> bool {
        Identity::of(&self.file).is_ok_and(|now| now != self.identity)
    }

    /// The file as another program has rewritten it; `None` when none has (yet).
    pub fn newer(&mut self, attempts: &mut Attempts) -> Result<Option<Known>, Trouble> {
        if !self.is_changed() {
            return Ok(None);
        }
        let identity = match at_rest(&self.file, Some(&self.identity), attempts) {
            Ok(identity) => identity,
            // Whoever writes it is looked after when that is done: nobody else waits for it.
            Err(Trouble::Busy) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let newer = Known::read(&self.file, identity)?;
        if newer.layout.len() == 0 {
            // Emptied and then left so is what a program does that dies in between.
            self.identity = newer.identity;
            return Ok(None);
        }
        Ok(Some(newer))
    }

    /// The lines of `newer`, which is this file as it is now, whose messages `current` lacks. Very long
    /// ones, and those beyond the first 1,024, are left out.
    pub fn lines_beyond(&self, newer: &Known, current: &Layout) -> Result<Vec<Vec<u8>>, Trouble> {
        let hashes = newer.layout.hashes().iter().enumerate();
        let lacking = current.lacking(newer.layout.hashes().iter().copied());
        let beyond = hashes.filter(|(_, hash)| **hash != NO_ID && lacking.contains(hash));
        let lines = beyond.map(|(line, _)| newer.layout.line(line));
        lines
            .filter(|line| line.len <= LONGEST_GUARDED)
            .take(MOST_GUARDED)
            .map(|line| read_exactly(&self.file, line.start, line.len))
            .collect()
    }

    /// Writes the next version: the lines of `newer`, which is this file as it is now, with those
    /// messages of `current` that it lacks. `lines` are those of `current`. Returns the layout and
    /// the hashes of the messages that were taken over.
    pub fn merge(
        &self,
        newer: &Known,
        current: &File,
        lines: &Layout,
        draft: &mut Draft,
    ) -> Result<(Layout, Vec<u64>), Trouble> {
        let mut hashes = Vec::new();
        let mut carried = Vec::new();
        let mut changes = Vec::new();
        let mut appended = Vec::new();
        for (line, &hash) in lines.hashes().iter().enumerate() {
            if !self.lacks(hash) || hashes.contains(&hash) {
                continue;
            }
            let message = carried.len();
            carried.push(lines.line(line));
            hashes.push(hash);
            let places = newer.layout.candidates(hash);
            if places.is_empty() {
                appended.push(message);
            }
            changes.extend(places.into_iter().map(|place| (place, Change::Replace(message))));
        }
        changes.sort_by_key(|(place, _)| *place);
        let plan = Plan::new(&newer.layout, newer.identity.size, changes, appended);
        let mut write = |message: usize, out: &mut dyn Write| {
            let line = carried[message];
            let bytes = read_exactly(current, line.start, line.len);
            out.write_all(&bytes.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?)
        };
        let next = match plan.carry_out(&self.file, &newer.layout, &hashes, draft, &mut write) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Trouble::Changed);
            }
            Err(error) => return Err(error.into()),
        };
        draft.finish(false)?;
        if Identity::of(&self.file)? != newer.identity {
            return Err(Trouble::Changed);
        }
        Ok((next, hashes))
    }

    /// Whether a line of the current file was not yet in this one, or was written by us since.
    fn lacks(&self, hash: u64) -> bool {
        hash != NO_ID && (self.written.contains(&hash) || !self.layout.hashes().contains(&hash))
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}
