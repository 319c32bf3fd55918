//! One session's file: finds its messages, adds, replaces and removes them, next to other writers.
//!
//! Long work (reading, copying, syncing) is done without a lock; then, under the locks, the file is
//! looked at once more, and what was made is used only if the file is still the one it was made from.
//! Never writes into what a reader may be looking at, except to append a line. Waits for nobody: what
//! cannot be done now is attempted again later.

use super::{
    atomic::{self, Draft},
    identity::Identity,
    layout::{Known, Layout, Line, byte_at, hash_line, hash_of, read_exactly},
    lease::Writers,
    line::{self, Facts, HEAD, MARK},
    live::Live,
    lock::{Locked, open_to_append, open_to_read, open_without_lock},
    plan::{Change, Plan, WriteMessage},
    replaced::Replaced,
    rest::{STILL, at_rest},
    retry::{Attempts, Trouble},
    session_state::{AppendedLine, Guarded, State},
    spool::Spooled,
};
use crate::{
    disk::Turn,
    error::{Error, Result},
    session_id::SessionId,
};
use rustix::fs::fsync;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    mem,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Attempts without the locks, before one that holds them all the time and so gets its turn.
const OPTIMISTIC: u32 = 3;
/// How long the JavaScript thread tries; other servers hold a file for less.
const MOMENT: Duration = Duration::from_millis(3);
/// Attempts to read under the lock, some 100 ms.
const READ_ATTEMPTS: u32 = 8;
/// A history up to this size is read at once, also on the JavaScript thread.
const QUICK: u64 = 1 << 18;
/// How much of the end of a longer, unknown history is searched for the id of an appended message. A message that is sent twice is sent twice in a row.
const TAIL: u64 = 1 << 16;
/// How much of a file's end is searched for a message and its answer: at first, and at most. The most takes
/// some milliseconds to read.
const NEAREST: u64 = 1 << 18;
const FARTHEST: u64 = 1 << 24;
/// How often it is looked whether somebody writes into a replaced file: first and longest pause.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Messages that wait, in all sessions.
pub(super) static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One session's file and what this process knows of it.
pub(super) struct SessionFile {
    id: SessionId,
    folder: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    /// Messages that could not be appended at once, in order.
    waiting: Mutex<VecDeque<Waiting>>,
    /// Somebody looks after the replaced files.
    is_looking: AtomicBool,
    /// What failed is being tried again.
    is_retrying: AtomicBool,
    /// The lock could not be had within the last [`MOMENT`].
    is_lock_held: AtomicBool,
}

/// A message that is to be appended.
pub(super) struct Waiting {
    /// As `JSON.stringify` prints it.
    pub id: String,
    /// Its JSON.
    pub line: Vec<u8>,
    pub now_ms: u64,
    /// The session had a file when the message was given: one that is gone since was deleted with it.
    pub had_file: bool,
    /// On the disk, so that another process can add it.
    pub spooled: Spooled,
}

impl Waiting {
    /// It waits no longer.
    fn end(self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        self.spooled.remove();
    }
}

/// Messages to put into the file.
pub(super) struct Put<'w> {
    /// No id twice.
    pub ids: &'w [&'w str],
    /// Leave the file alone when they are all there.
    pub only_new: bool,
    /// A message that others have lost meanwhile is not counted again.
    pub counts_once: bool,
    /// Be on the disk before returning.
    pub durable: bool,
    pub write: &'w mut WriteMessage<'w>,
}

/// What a change has made of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Messages that were added, not replaced; negative when more were removed.
    pub added: isize,
    /// When somebody else had changed it last before, in milliseconds since 1970; 0 when it was this process.
    pub changed_before_ms: u64,
}

/// How many messages a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// So many; and how long ago its file was changed.
    Messages(usize, Duration),
    /// There is no file.
    NoFile,
    /// That cannot be told now.
    Unknown,
}

/// What became of a try to append.
enum Append {
    /// `tidy`: the file has something that goes when it is next written to.
    Done {
        written: Written,
        tidy: bool,
    },
    AlreadyThere,
    /// Only a new version of the file will do.
    Impossible,
}

/// What became of a message that was to be added at once.
pub(super) enum Added {
    Done(Written),
    AlreadyThere,
    /// It cannot be added without waiting.
    Later,
}

impl SessionFile {
    pub fn new(folder: &Path, id: &SessionId) -> Self {
        let path = folder.join(format!("{id}.jsonl"));
        Self {
            id: id.clone(),
            folder: folder.to_owned(),
            path,
            state: Mutex::default(),
            waiting: Mutex::default(),
            is_looking: AtomicBool::new(false),
            is_retrying: AtomicBool::new(false),
            is_lock_held: AtomicBool::new(false),
        }
    }

    /// Lines remembered, for the bound on memory. 0 while the session is in use.
    pub fn remembered(&self) -> usize {
        let Ok(state) = self.state.try_lock() else { return 0 };
        state.known.as_ref().map_or(0, |known| known.layout.len())
    }

    /// Replaced files that are kept open.
    #[cfg(test)]
    pub fn watched(&self) -> usize {
        self.state().replaced.len()
    }

    /// Appends a message unless one with its id is there, waiting for nobody longer than a [`MOMENT`]; says
    /// whether something is to be tidied up.
    pub fn add_now(&self, live: &Live, id: &str, line: &[u8]) -> Result<(Added, bool)> {
        self.check_line(line)?;
        if !self.waiting().is_empty() {
            return Ok((Added::Later, false));
        }
        let until = Instant::now() + MOMENT;
        loop {
            let is_last = Instant::now() >= until;
            let mut attempts = Attempts::default();
            let state = self.try_state();
            let mut appended =
                state.and_then(|state| self.append(state, &mut attempts, live, true, id, line));
            let is_locked = matches!(appended, Err(Trouble::Locked));
            if is_locked && (is_last || self.is_lock_held.load(Ordering::Relaxed)) {
                // Its holder may be a server that is stopped.
                let state = self.try_state();
                appended = state.and_then(|state| self.append_beside(state, live, id, line));
            }
            if is_last || !is_locked {
                self.is_lock_held.store(is_locked, Ordering::Relaxed);
            }
            return match appended {
                Ok(Append::Done { written, tidy }) => Ok((Added::Done(written), tidy)),
                Ok(Append::AlreadyThere) => Ok((Added::AlreadyThere, false)),
                Err(Trouble::Changed | Trouble::Busy | Trouble::Locked) if !is_last => {
                    thread::sleep(Duration::from_micros(50));
                    continue;
                }
                Ok(Append::Impossible)
                | Err(Trouble::Changed | Trouble::Busy | Trouble::Locked) => {
                    Ok((Added::Later, false))
                }
                Err(Trouble::System(cause)) => Err(Error::store("write", &self.path, cause)),
                Err(Trouble::Failed(error)) => Err(error),
            };
        }
    }

    /// Has a message wait until it can be appended.
    pub fn add_later(&self, message: Waiting) {
        self.waiting().push_back(message);
        WAITING.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the caller is to try again what failed: nobody else does.
    pub fn begin_retrying(&self) -> bool {
        !self.is_retrying.swap(true, Ordering::Relaxed)
    }

    /// Ends what [`SessionFile::begin_retrying`] began.
    pub fn end_retrying(&self) {
        self.is_retrying.store(false, Ordering::Relaxed);
    }

    /// Whether a message waits.
    pub fn has_waiting(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Appends the first message that waits; nothing when none does.
    pub fn add_waiting(
        &self,
        attempts: &mut Attempts,
        live: &Live,
    ) -> Result<Turn<Option<(Written, u64)>>> {
        // Nobody else takes it meanwhile: it goes when it is written.
        let first = |message: &Waiting| {
            let Waiting { id, line, now_ms, had_file, .. } = message;
            (id.clone(), line.clone(), *now_ms, !had_file)
        };
        let Some((id, line, now_ms, create)) = self.waiting().front().map(first) else {
            return Ok(Turn::Done(None));
        };
        let mut attempt = || {
            let appended = self.append(self.state(), attempts, live, create, &id, &line);
            let appended = match appended {
                Err(Trouble::Locked) => self.append_beside(self.state(), live, &id, &line),
                appended => appended,
            };
            match appended? {
                Append::Done { written, .. } => Ok(written),
                Append::AlreadyThere => Ok(Written::default()),
                Append::Impossible => {
                    let mut write = |_: usize, out: &mut dyn Write| out.write_all(&line);
                    let mut put = Put {
                        ids: &[&id],
                        only_new: true,
                        counts_once: false,
                        durable: false,
                        write: &mut write,
                    };
                    self.try_put(live, &mut put, attempts)
                }
            }
        };
        let outcome = attempt();
        let turn = attempts.step("write", &self.path, outcome)?;
        if let Turn::Done(written) = &turn {
            if written.added > 0 {
                self.state().guard(line);
            }
            let mut waiting = self.waiting();
            let is_first = waiting.front().is_some_and(|first| first.id == id);
            let added = if is_first { waiting.pop_front() } else { None };
            drop(waiting);
            added.into_iter().for_each(Waiting::end);
        }
        Ok(turn.map(|written| Some((written, now_ms))))
    }

    fn check_line(&self, line: &[u8]) -> Result<()> {
        if memchr::memchr(b'\n', line).is_some() {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "the message has a line end");
            return Err(Error::store("write", &self.path, cause));
        }
        Ok(())
    }

    /// Puts messages where others with their ids are, or at the end, all in one commit.
    pub fn put(
        &self,
        attempts: &mut Attempts,
        live: &Live,
        put: &mut Put<'_>,
    ) -> Result<Turn<Written>> {
        let outcome = self.try_put(live, put, attempts);
        attempts.step("write", &self.path, outcome)
    }

    /// Removes what is to go when the file is next written to: blank lines, stale marks, and messages
    /// that were appended though they were there before.
    pub fn tidy(&self, attempts: &mut Attempts, live: &Live) -> Result<Turn<Written>> {
        let mut write = |_: usize, _: &mut dyn Write| Ok(());
        let mut put = Put {
            ids: &[],
            only_new: false,
            counts_once: false,
            durable: false,
            write: &mut write,
        };
        self.put(attempts, live, &mut put)
    }

    /// Whether the message is in the file, and not as it was in the midst of its run. A file that is gone
    /// was deleted on purpose: that counts as yes.
    pub fn has(&self, attempts: &mut Attempts, id: &str) -> Result<Turn<bool>> {
        let mut attempt = || {
            let Some((mut state, locked)) = self.open(self.state(), attempts, false)? else {
                return Ok(true);
            };
            let found = self.find(&mut state, &locked.file, id)?;
            let marks = state.known.as_ref().map_or(&[][..], |known| &known.layout.marks);
            Ok(found.iter().any(|line| !marks.contains(line)))
        };
        let outcome = attempt();
        attempts.step("read", &self.path, outcome)
    }

    /// Whether the file has the message with this id, and if so, whether an assistant's message comes after
    /// it. Waits for nobody, and looks no further than [`FARTHEST`] from the end.
    pub fn answer_to(&self, id: &str) -> Result<Option<bool>> {
        let look = || -> io::Result<Option<bool>> {
            let Some(file) = open_to_read(&self.path)? else { return Ok(None) };
            let identity = Identity::of(&file)?;
            if self.is_known_to_lack(&identity, id) {
                return Ok(None);
            }
            let (size, mut reach) = (identity.size, NEAREST);
            loop {
                let end = read_end(&file, size, reach)?;
                let is_all = reach >= size;
                if let Some(answered) = answer_in(&end, id, is_all) {
                    return Ok(Some(answered));
                }
                if is_all || reach >= FARTHEST {
                    return Ok(None);
                }
                reach *= 4;
            }
        };
        look().map_err(|cause| Error::store("read", &self.path, cause))
    }

    /// Whether the file, in this state, has no message with this id, as far as that is known without reading.
    fn is_known_to_lack(&self, identity: &Identity, id: &str) -> bool {
        let Ok(mut state) = self.try_state() else { return false };
        state.fold();
        let known = state.known.as_ref().filter(|_| state.is_at(identity));
        known.is_some_and(|known| known.layout.candidates(hash_of(id)).is_empty())
    }

    /// How many messages the file has. Waits for nobody, and reads no long file.
    pub fn count(&self) -> Counted {
        let Ok(state) = self.try_state() else { return Counted::Unknown };
        let counted = || {
            let Some((mut state, locked, identity)) =
                self.lock(state, &mut Attempts::default(), false)?
            else {
                return Ok(Counted::NoFile);
            };
            state.fold();
            if !state.is_at(&identity) && identity.size <= QUICK {
                state.learn(Known::read(&locked.file, identity)?);
            }
            let known = state.known.as_ref().filter(|_| state.is_at(&identity));
            Ok::<_, Trouble>(known.map_or(Counted::Unknown, |known| {
                Counted::Messages(known.layout.len(), known.identity.age())
            }))
        };
        counted().unwrap_or(Counted::Unknown)
    }

    /// The file's bytes at one moment; empty when there is none.
    pub fn read(&self, attempts: &mut Attempts) -> Result<Turn<Vec<u8>>> {
        let mut attempt = || {
            let Some((file, before)) = self.open_to_read_all(attempts)? else {
                return Ok(Vec::new());
            };
            let bytes = read_exactly(&file, 0, before.size)?;
            // It may have been replaced or appended to: what was read was still all of it once.
            let after = Identity::of(&file)?;
            if after.same_content(&before) { Ok(bytes) } else { Err(Trouble::Changed) }
        };
        let outcome = attempt();
        attempts.step("read", &self.path, outcome)
    }

    /// The file and its state at rest, with what was written into replaced versions; as it is where the
    /// store may only be read.
    fn open_to_read_all(
        &self,
        attempts: &mut Attempts,
    ) -> Result<Option<(Arc<File>, Identity)>, Trouble> {
        let unlocked = |attempts: &mut Attempts| {
            let Some(file) = open_to_read(&self.path)? else { return Ok(None) };
            let identity = at_rest(&file, None, attempts)?;
            Ok(Some((Arc::new(file), identity)))
        };
        match self.open(self.state(), attempts, false) {
            Ok(None) => Ok(None),
            Ok(Some((state, locked))) => {
                let identity = *state.identity().ok_or(Trouble::Changed)?;
                Ok(Some((Arc::clone(&locked.file), identity)))
            }
            Err(trouble) if trouble.is_read_only() => unlocked(attempts),
            // Who only reads does not wait for long: what is there is whole.
            Err(Trouble::Locked) if attempts.failed() > READ_ATTEMPTS => unlocked(attempts),
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes sure that the file is there.
    pub fn create(&self, attempts: &mut Attempts) -> Result<Turn<()>> {
        let outcome = self.open(self.state(), attempts, true).map(|_| ());
        attempts.step("create", &self.path, outcome)
    }

    /// Removes the file; says whether there was one.
    pub fn delete(&self, attempts: &mut Attempts) -> Result<Turn<bool>> {
        let attempt = || {
            let mut state = self.state();
            // Locked, so that another process' commit does not bring it back.
            let found = match Locked::open(&self.path, false)? {
                Some(_locked) => match fs::remove_file(&self.path) {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => return Err(self.failed("delete", error)),
                },
                None => false,
            };
            *state = State::default();
            let waiting = mem::take(&mut *self.waiting());
            waiting.into_iter().for_each(Waiting::end);
            Ok(found)
        };
        attempts.step("delete", &self.path, attempt())
    }

    /// Waits until what was written is on the disk. Nothing to do when the file is gone.
    pub fn sync(&self) -> Result<()> {
        let fail = |cause| Error::store("sync", &self.path, cause);
        let Some(file) = open_to_read(&self.path).map_err(fail)? else { return Ok(()) };
        fsync(&file).map_err(|errno| fail(errno.into()))?;
        atomic::sync_folder(&self.folder).map_err(fail)
    }

    /// Looks whether somebody writes into replaced files, or has lost what was added lately, and puts it
    /// into the current one; done when nobody will any more.
    pub fn look(&self, attempts: &mut Attempts) -> Turn<()> {
        // Whoever holds it looks after them.
        let Ok(mut state) = self.state.try_lock() else { return Turn::Again(LOOKS.0) };
        let settled: Vec<_> = state.replaced.extract_if(.., |file| file.is_settled()).collect();
        state.guarded.retain(Guarded::is_guarded);
        let ages = state.replaced.iter().map(Replaced::age);
        let ages = ages.chain(state.guarded.iter().map(|guarded| guarded.since.elapsed()));
        let Some(youngest) = ages.min() else {
            drop(state);
            // The last close of a large file takes milliseconds: not under the lock.
            drop(settled);
            return Turn::Done(());
        };
        let pause = Turn::Again(youngest.clamp(LOOKS.0, LOOKS.1));
        let is_changed = |state: &State| {
            let now = Identity::at(&self.path).ok().flatten();
            !state.guarded.is_empty() && now.as_ref() != state.identity()
        };
        if state.replaced.iter().any(Replaced::is_changed) || is_changed(&state) {
            // In the midst of it, it is too early.
            return match self.open(state, attempts, false) {
                Err(Trouble::Changed) => Turn::Again(LOOKS.0),
                Err(_) => Turn::Again(LOOKS.1),
                Ok(_) => pause,
            };
        }
        pause
    }

    /// Whether there is something to look after.
    pub fn has_to_look(&self) -> bool {
        let state = self.state.try_lock();
        state.map_or(true, |state| !state.replaced.is_empty() || !state.guarded.is_empty())
    }

    /// Whether the caller is to look: nobody else does.
    pub fn begin_looking(&self) -> bool {
        !self.is_looking.swap(true, Ordering::Relaxed)
    }

    /// Ends what [`SessionFile::begin_looking`] began, unless there is something to look after after all;
    /// then the caller goes on.
    pub fn end_looking(&self) -> bool {
        self.is_looking.store(false, Ordering::Relaxed);
        self.has_to_look() && self.begin_looking()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking thread left is checked against the file like anything else.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless another thread has it.
    fn try_state(&self) -> Result<MutexGuard<'_, State>, Trouble> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Trouble::Locked),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the file, at rest, and knows its layout. `None` when there is none and `create` is false.
    fn open<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        attempts: &mut Attempts,
        create: bool,
    ) -> Result<Option<(MutexGuard<'s, State>, Locked)>, Trouble> {
        let Some((mut state, mut locked, identity)) = self.lock(state, attempts, create)? else {
            return Ok(None);
        };
        state.fold();
        if !state.is_at(&identity) {
            if identity.size <= QUICK {
                state.learn(Known::read(&locked.file, identity)?);
            } else {
                // Not under the locks: it takes a while. Then again from the start, which is quick.
                let file = Arc::clone(&locked.file);
                drop((state, locked));
                let read = Known::read(&file, identity);
                state = self.state();
                state.learn(read?);
                let Some(again) = self.lock(state, attempts, create)? else { return Ok(None) };
                (state, locked) = (again.0, again.1);
                if !state.is_at(&again.2) {
                    return Err(Trouble::Changed);
                }
                state.fold();
            }
        }
        self.recover(state, locked, attempts).map(Some)
    }

    /// Locks the file and returns it with its state, once nobody is in the midst of writing it.
    fn lock<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        attempts: &mut Attempts,
        create: bool,
    ) -> Result<Option<(MutexGuard<'s, State>, Locked, Identity)>, Trouble> {
        let Some(locked) = Locked::open(&self.path, create)? else {
            // Deleted on purpose, with all that was written into its earlier versions.
            *state = State::default();
            return Ok(None);
        };
        if locked.created {
            *state = State::default();
            let identity = Identity::of(&locked.file)?;
            // Else another process was quicker to lock what we made.
            if identity.size == 0 {
                state.known = Some(Known { identity, layout: Arc::default() });
            }
        }
        let identity = at_rest(&locked.file, state.identity(), attempts)?;
        Ok(Some((state, locked, identity)))
    }

    /// Takes the history out of a replaced file that was written into, and puts back what others have
    /// lost. When that has changed the file, the attempt begins anew.
    fn recover<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        locked: Locked,
        attempts: &mut Attempts,
    ) -> Result<(MutexGuard<'s, State>, Locked), Trouble> {
        for index in 0..state.replaced.len() {
            let Some(newer) = state.replaced[index].newer(attempts)? else { continue };
            let Some(base) = state.known.clone() else { return Err(Trouble::Changed) };
            let rescued = state.replaced[index].lines_beyond(&newer, &base.layout)?;
            let mut draft = self.draft(&locked.file)?;
            // Taken out: publishing adds one, and for that may close the oldest.
            let replaced = state.replaced.remove(index);
            let published = replaced
                .merge(&newer, &locked.file, &base.layout, &mut draft)
                .and_then(|(next, hashes)| {
                    self.publish(&mut state, &locked, base, draft, next, &hashes, attempts)
                });
            match published {
                // It may be written into once more.
                Ok(()) => Replaced::keep(&mut state.replaced, replaced.taken(&newer)),
                Err(_) => state.replaced.insert(index, replaced),
            }
            published?;
            rescued.into_iter().for_each(|line| state.guard(line));
            return Err(Trouble::Changed);
        }
        let Some(known) = &state.known else { return Err(Trouble::Changed) };
        let (identity, layout) = (known.identity, Arc::clone(&known.layout));
        if self.write_lost(&mut state, identity, &layout)? {
            return Err(Trouble::Changed);
        }
        Ok((state, locked))
    }

    /// Appends what is guarded and not in the file, which is in this state; says whether there was something.
    fn write_lost(
        &self,
        state: &mut State,
        identity: Identity,
        layout: &Layout,
    ) -> Result<bool, Trouble> {
        let guarded = state.guarded.iter().filter(|guarded| guarded.is_guarded());
        let lost = layout.lacking(guarded.map(|guarded| guarded.hash));
        if lost.is_empty() || identity.has_other_names() {
            return Ok(false);
        }
        let mut now = identity;
        let mut is_open = layout.open_end;
        for index in 0..state.guarded.len() {
            if !lost.contains(&state.guarded[index].hash) {
                continue;
            }
            let Guarded { hash, line, .. } = state.guarded[index].clone();
            self.write_line(state, now, is_open, hash, &line, true)?;
            now = *state.identity().ok_or(Trouble::Changed)?;
            is_open = false;
            state.guarded[index].since = Instant::now();
        }
        Ok(true)
    }

    /// The lines that are the message `id`, each read and parsed once. Ids are those that
    /// `JSON.stringify` prints, here and below.
    fn find(&self, state: &mut State, file: &File, id: &str) -> Result<Vec<usize>, Trouble> {
        let Some(known) = &mut state.known else { return Err(Trouble::Changed) };
        let found = self.find_in(known, file, id);
        if matches!(found, Err(Trouble::Changed)) {
            // The identity did not tell, so it cannot be trusted a second time.
            state.known = None;
        }
        found
    }

    fn find_in(&self, known: &mut Known, file: &File, id: &str) -> Result<Vec<usize>, Trouble> {
        let hash = hash_of(id);
        let mut found = Vec::new();
        for index in known.layout.candidates(hash) {
            let line = known.layout.line(index);
            let before = match line.start.checked_sub(1) {
                Some(at) => byte_at(file, at)?,
                None => Some(b'\n'),
            };
            let framed =
                before == Some(b'\n') && matches!(byte_at(file, line.end())?, None | Some(b'\n'));
            if !framed {
                return Err(Trouble::Changed);
            }
            // A line that was read before is the message that its beginning says, if that says one.
            let head = read_exactly(file, line.start, line.len.min(HEAD as u64))?;
            let written = line::leading_id(&head).filter(|_| line.verified);
            if written.is_some_and(|written| written != id) {
                continue;
            }
            if written.is_none() {
                let bytes = read_exactly(file, line.start, line.len)?;
                if hash_line(&bytes) != hash {
                    return Err(Trouble::Changed);
                }
                // It may begin like the message, but be broken or have a second id.
                if !Facts::read(&bytes).is_some_and(|facts| facts.is(id)) {
                    continue;
                }
                Arc::make_mut(&mut known.layout).set_verified(index);
            }
            found.push(index);
        }
        Ok(found)
    }

    /// The marked lines whose mark must go: messages of assistants whose run is gone.
    fn stale_marks(
        &self,
        known: &mut Known,
        file: &File,
        live: &Live,
    ) -> Result<Vec<usize>, Trouble> {
        let mut stale = Vec::new();
        let mut no_marks = Vec::new();
        for &index in &known.layout.marks {
            if live.contains(&self.id, known.layout.hashes()[index]) {
                continue;
            }
            let line = known.layout.line(index);
            let bytes = read_exactly(file, line.start, line.len)?;
            let facts = Facts::read(&bytes).unwrap_or_default();
            if facts.by_assistant && facts.id.is_some() && bytes.ends_with(MARK) {
                stale.push(index);
            } else {
                no_marks.push(index);
            }
        }
        if !no_marks.is_empty() {
            let layout = Arc::make_mut(&mut known.layout);
            layout.marks.retain(|index| !no_marks.contains(index));
        }
        Ok(stale)
    }

    /// Appends the message, unless one with its id is there. `create`: makes the file, if need be; else a file
    /// that is gone and does not come back was deleted, with what was to be added to it.
    fn append(
        &self,
        state: MutexGuard<'_, State>,
        attempts: &mut Attempts,
        live: &Live,
        create: bool,
        id: &str,
        line: &[u8],
    ) -> Result<Append, Trouble> {
        match self.lock(state, attempts, create)? {
            Some((state, locked, identity)) => {
                self.append_to(state, &locked.file, identity, live, id, line)
            }
            None if create || attempts.failing_for() < STILL => Err(Trouble::Changed),
            None => Ok(Append::AlreadyThere),
        }
    }

    /// The same beside the holder of the lock, where a lease tells that nobody has the file open for writing
    /// or is just replacing it. A holder that does so later finds that the file has changed.
    fn append_beside(
        &self,
        state: MutexGuard<'_, State>,
        live: &Live,
        id: &str,
        line: &[u8],
    ) -> Result<Append, Trouble> {
        let Some(file) = open_without_lock(&self.path)? else { return Err(Trouble::Changed) };
        let Writers::Nobody(lease) = Writers::of(&file) else { return Err(Trouble::Locked) };
        let identity = Identity::of(&file)?;
        drop(lease);
        self.append_to(state, &file, identity, live, id, line)
    }

    /// Appends the message to `file`, which is at rest in the state `identity`.
    fn append_to(
        &self,
        mut state: MutexGuard<'_, State>,
        file: &File,
        identity: Identity,
        live: &Live,
        id: &str,
        line: &[u8],
    ) -> Result<Append, Trouble> {
        if identity.has_other_names() {
            return Ok(Append::Impossible);
        }
        if state.replaced.iter().any(|old| old.is_changed() && !old.has_writer()) {
            // What was written into it comes first.
            return Err(Trouble::Busy);
        }
        if !state.is_at(&identity) && identity.size <= QUICK {
            state.learn(Known::read(file, identity)?);
        }
        let is_known = state.is_at(&identity);
        let is_ours = state.last_written == Some(identity);
        if !is_ours && state.guarded.iter().any(Guarded::is_guarded) {
            // What others have lost comes before it.
            state.fold();
            let Some(known) = state.known.as_ref().filter(|_| is_known) else {
                return Err(Trouble::Busy);
            };
            let layout = Arc::clone(&known.layout);
            if self.write_lost(&mut state, identity, &layout)? {
                return Err(Trouble::Changed);
            }
        }
        let is_there = self.has_appended(&state, file, &identity, id)?
            || match is_known {
                true => !self.find(&mut state, file, id)?.is_empty(),
                false => self.is_in_tail(file, &identity, id)?,
            };
        if is_there {
            return Ok(Append::AlreadyThere);
        }
        let changed_before_ms = state.changed_ms(&identity);
        let is_open = identity.size > 0 && byte_at(file, identity.size - 1)? != Some(b'\n');
        self.write_line(&mut state, identity, is_open, hash_of(id), line, is_known)?;
        // Someone may have put another file in its place meanwhile: it goes into that one, too.
        if !Identity::at(&self.path)?.is_some_and(|there| there.same_file(&identity)) {
            return Err(Trouble::Changed);
        }
        let written = Written { added: 1, changed_before_ms };
        let tidy = state.known.as_ref().filter(|_| is_known).is_none_or(|known| {
            let hashes = known.layout.hashes();
            let is_stale = |&line: &usize| !live.contains(&self.id, hashes[line]);
            !known.layout.blanks.is_empty() || known.layout.marks.iter().any(is_stale)
        });
        Ok(Append::Done { written, tidy })
    }

    /// Whether the file, in this state, has had this message appended lately.
    fn has_appended(
        &self,
        state: &State,
        file: &File,
        identity: &Identity,
        id: &str,
    ) -> Result<bool, Trouble> {
        let hash = hash_of(id);
        let appended = state.appended.as_ref().filter(|appended| appended.to == *identity);
        for line in appended.iter().flat_map(|appended| &appended.lines) {
            if line.hash == hash
                && Facts::read(&read_exactly(file, line.start, line.len)?)
                    .is_some_and(|facts| facts.is(id))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the message is among the last of a file that is not known.
    fn is_in_tail(&self, file: &File, identity: &Identity, id: &str) -> Result<bool, Trouble> {
        let hash = hash_of(id);
        let start = identity.size.saturating_sub(TAIL);
        let tail = read_exactly(file, start, identity.size - start)?;
        // What comes before the first line end may be the end of a line.
        let lines = tail.split(|&byte| byte == b'\n').skip(usize::from(start > 0));
        Ok(lines
            .filter(|line| hash_line(line) == hash)
            .any(|line| Facts::read(line).is_some_and(|facts| facts.is(id))))
    }

    /// Writes a line at the end of the file, and notes that. `is_open`: the last line has no end yet.
    /// `is_known`: it was looked whether the message is there.
    fn write_line(
        &self,
        state: &mut State,
        from: Identity,
        is_open: bool,
        hash: u64,
        line: &[u8],
        is_known: bool,
    ) -> Result<(), Trouble> {
        let start = from.size + u64::from(is_open);
        let bytes = [if is_open { b"\n" } else { &b""[..] }, line, b"\n"].concat();
        let to = self.write_end(&from, &bytes)?;
        let len = line.len() as u64;
        let new = AppendedLine { hash, start, len, is_marked: line.ends_with(MARK) };
        state.note_appended(from, to, new, is_known);
        Ok(())
    }

    /// Writes at the end of the file, which is in the state `old`, in one piece or not at all. Returns
    /// its state then.
    fn write_end(&self, old: &Identity, bytes: &[u8]) -> Result<Identity, Trouble> {
        let mut file = open_to_append(&self.path, old)?;
        let done = file.write(bytes);
        let now = Identity::of(&file)?;
        match done {
            Ok(count) if count == bytes.len() && now.size == old.size + count as u64 => {
                return Ok(now);
            }
            // Somebody else has written, too: what is there is looked at anew.
            Ok(count) if count == bytes.len() && now.size > old.size + count as u64 => {
                return Ok(now);
            }
            // It was emptied just before, by somebody who is about to write it.
            Ok(count) if count == bytes.len() => return Err(Trouble::Changed),
            // The disk is full: what fitted must not stay.
            Ok(count) if now.size == old.size + count as u64 => file.set_len(old.size)?,
            _ => {}
        }
        Err(done.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()).into())
    }

    fn try_put(
        &self,
        live: &Live,
        put: &mut Put<'_>,
        attempts: &mut Attempts,
    ) -> Result<Written, Trouble> {
        let create = !put.ids.is_empty();
        let Some((mut state, locked)) = self.open(self.state(), attempts, create)? else {
            return if create { Err(Trouble::Changed) } else { Ok(Written::default()) };
        };
        let plan = self.plan(&mut state, &locked.file, live, put)?;
        let Some(base) = state.known.clone() else { return Err(Trouble::Changed) };
        let changed_before_ms = state.changed_ms(&base.identity);
        if plan.is_empty() {
            return Ok(Written { added: 0, changed_before_ms });
        }
        let old = locked.file.clone();
        let held = (attempts.failed() >= OPTIMISTIC).then_some((state, locked));

        let hashes: Vec<u64> = put.ids.iter().map(|id| hash_of(id)).collect();
        let mut draft = self.draft(&old)?;
        let next = match plan.carry_out(&old, &base.layout, &hashes, &mut draft, put.write) {
            Ok(next) => next,
            // The file is not as it was known to be.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                drop(held);
                self.state().known = None;
                return Err(Trouble::Changed);
            }
            Err(error) => return Err(error.into()),
        };
        draft.finish(put.durable)?;

        let (mut state, locked) = match held {
            Some(both) => both,
            None => {
                let state = self.state();
                let Some(locked) = Locked::open(&self.path, false)? else {
                    return Err(Trouble::Changed);
                };
                (state, locked)
            }
        };
        self.publish(&mut state, &locked, base, draft, next, &hashes, attempts)?;
        for guarded in &mut state.guarded {
            if let Some(message) = hashes.iter().position(|hash| *hash == guarded.hash) {
                guarded.line.clear();
                (put.write)(message, &mut guarded.line)?;
            }
        }
        let mut added = plan.added();
        if put.counts_once && added > 0 && !state.count_once(&hashes) {
            added = 0;
        }
        drop((locked, state));
        if put.durable {
            atomic::sync_folder(&self.folder).map_err(|error| self.failed("sync", error))?;
        }
        Ok(Written { added, changed_before_ms })
    }

    fn plan(
        &self,
        state: &mut State,
        file: &File,
        live: &Live,
        put: &Put<'_>,
    ) -> Result<Plan, Trouble> {
        let mut changes = Vec::new();
        let mut appended = Vec::new();
        for (message, id) in put.ids.iter().enumerate() {
            let found = self.find(state, file, id)?;
            if found.is_empty() {
                appended.push(message);
            }
            changes.extend(found.into_iter().map(|line| (line, Change::Replace(message))));
        }
        if put.only_new && appended.is_empty() {
            changes.clear();
        }
        let Some(known) = &mut state.known else { return Err(Trouble::Changed) };
        let stale = self.stale_marks(known, file, live)?;
        let replaced: Vec<usize> = changes.iter().map(|(line, _)| *line).collect();
        let unmarked = stale.into_iter().filter(|line| !replaced.contains(line));
        changes.extend(unmarked.map(|line| (line, Change::Unmark)));
        let doubled = self.appended_twice(state, file)?;
        changes.retain(|(line, _)| !doubled.contains(line));
        changes.extend(doubled.into_iter().map(|line| (line, Change::Remove)));
        let Some(known) = &mut state.known else { return Err(Trouble::Changed) };
        changes.sort_by_key(|(line, _)| *line);
        for blank in &known.layout.blanks {
            let end = blank.end.min(known.identity.size);
            let bytes = read_exactly(file, blank.start, end - blank.start)?;
            if !bytes.split(|&byte| byte == b'\n').all(line::is_blank) {
                state.known = None;
                return Err(Trouble::Changed);
            }
        }
        Ok(Plan::new(&known.layout, known.identity.size, changes, appended))
    }

    /// Lines that were appended when it was not known that their message was there before.
    fn appended_twice(&self, state: &mut State, file: &File) -> Result<Vec<usize>, Trouble> {
        let Some(known) = &state.known else { return Err(Trouble::Changed) };
        let layout = Arc::clone(&known.layout);
        let mut doubled = Vec::new();
        for line in layout.unchecked.clone() {
            let hash = layout.hashes()[line];
            let earlier = layout.candidates(hash).into_iter().filter(|&other| other < line);
            let Line { start, len, .. } = layout.line(line);
            let id = Facts::read(&read_exactly(file, start, len)?).and_then(|facts| facts.id);
            for other in earlier {
                let Line { start, len, .. } = layout.line(other);
                let other = Facts::read(&read_exactly(file, start, len)?);
                if id.is_some() && other.and_then(|facts| facts.id) == id {
                    doubled.push(line);
                    break;
                }
            }
        }
        Ok(doubled)
    }

    fn draft(&self, like: &File) -> Result<Draft, Trouble> {
        let fail = |error| self.failed("make a new version of", error);
        let draft = Draft::new(&self.folder, self.id.as_str()).map_err(fail)?;
        draft.take_after(&like.metadata().map_err(fail)?).map_err(fail)?;
        Ok(draft)
    }

    /// Puts `draft` in the place of `locked`, if that is still the file of `base` and nobody is in the
    /// midst of writing it.
    #[expect(clippy::too_many_arguments, reason = "both versions of the file, and all of each")]
    fn publish(
        &self,
        state: &mut State,
        locked: &Locked,
        base: Known,
        draft: Draft,
        next: Layout,
        written: &[u64],
        attempts: &mut Attempts,
    ) -> Result<(), Trouble> {
        let size = draft.written();
        let new = {
            // Whoever opens the file to write into it waits for this, and then writes into the
            // version that was replaced, which is looked after.
            let lease = match Writers::of(&locked.file) {
                Writers::Nobody(lease) => Some(lease),
                Writers::Somebody if attempts.unchanged_for(base.identity) < STILL => {
                    return Err(Trouble::Busy);
                }
                Writers::Somebody | Writers::Unknown => None,
            };
            let is_same = Identity::of(&locked.file)? == base.identity;
            if !is_same || !locked.is_current(&self.path)? {
                return Err(Trouble::Changed);
            }
            if lease.as_ref().is_some_and(|lease| lease.is_awaited()) {
                return Err(Trouble::Busy);
            }
            let new = draft.publish(&self.path, &base.identity);
            drop(lease);
            new.map_err(|error| self.failed("replace", error))?.ok_or(Trouble::Changed)?
        };
        let known = Known { identity: new, layout: Arc::new(next) };
        state.known = (new.size == size).then_some(known);
        state.last_written = Some(new);
        state.appended = None;
        for replaced in &mut state.replaced {
            replaced.note_written(written);
        }
        let replaced = Replaced::new(locked.file.clone(), base, written)?;
        Replaced::keep(&mut state.replaced, replaced);
        Ok(())
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> Trouble {
        Trouble::Failed(Error::store(action, &self.path, cause))
    }
}

/// The last `most` bytes of a file that had `size`; fewer when it is shorter by now.
fn read_end(file: &File, size: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size.min(most)).map_err(io::Error::other)?];
    let (start, mut read) = (size - bytes.len() as u64, 0);
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], start + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Whether the end of a file has the message with this id, and if so, whether it was answered. `is_all`: it
/// begins with the file's first line.
fn answer_in(end: &[u8], id: &str, is_all: bool) -> Option<bool> {
    let mut is_answered = false;
    let mut behind = end.len();
    for start in memchr::memrchr_iter(b'\n', end).map(|at| at + 1).chain([0]) {
        // The first may have begun before.
        if start == 0 && !is_all {
            break;
        }
        let line = &end[start..behind];
        behind = start.saturating_sub(1);
        let facts = Facts::of_head(line).or_else(|| Facts::read(line));
        let Some(facts) = facts else { continue };
        if facts.is(id) {
            return Some(is_answered);
        }
        is_answered |= facts.by_assistant;
    }
    None
}
