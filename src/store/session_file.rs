//! One session's file: finds its messages, adds, replaces and removes them, next to other writers.
//!
//! Long work (copying, syncing) is done without a lock on a draft; then, under the locks, the file
//! is looked at once more, and the draft is published only if the file is still the one it was
//! made from. Never writes into what a reader may be looking at, except for appends within a page.

use super::{
    atomic::{self, Draft},
    layout::{Known, Layout, byte_at, hash_line, hash_of, read_exactly},
    line::{self, Facts, MARK},
    live::Live,
    lock::{Identity, Locked, open_to_read},
    plan::{Change, Plan, WriteMessage},
    replaced::Replaced,
    retry::{Trouble, until_unchanged},
};
use crate::{
    error::{Error, Result},
    session_id::SessionId,
};
use memchr::memchr_iter;
use rustix::fs::fsync;
use std::{
    fs::{self, File},
    io::{self, Write},
    iter,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Readers see an append grow page by page, as the system copies it in; one that stays inside a
/// page they see whole or not at all. No supported system has smaller pages.
const PAGE: u64 = 4096;

/// Attempts without the locks, before one that holds them all the time and so gets its turn.
const OPTIMISTIC: usize = 3;

/// One session's file and what this process knows of it.
pub(super) struct SessionFile {
    id: SessionId,
    folder: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    replaced: Vec<Replaced>,
}

/// Messages to put into the file.
pub(super) struct Put<'w> {
    /// No id twice.
    pub ids: &'w [&'w str],
    /// Leave the file alone when they are all there.
    pub only_new: bool,
    /// Be on the disk before returning.
    pub durable: bool,
    pub write: &'w mut WriteMessage<'w>,
}

/// What became of a try to append.
enum Append {
    Done,
    AlreadyThere,
    /// Only a new version of the file will do.
    Impossible,
}

impl SessionFile {
    pub fn new(folder: &Path, id: &SessionId) -> Self {
        let path = folder.join(format!("{id}.jsonl"));
        Self { id: id.clone(), folder: folder.to_owned(), path, state: Mutex::default() }
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

    /// Closes replaced files that nobody will write into any more.
    pub fn forget_replaced(&self) {
        // Whoever holds the lock is about to look after them.
        let Ok(mut state) = self.state.try_lock() else { return };
        let settled: Vec<_> = state.replaced.extract_if(.., |file| file.is_settled()).collect();
        // The last close of a large file takes milliseconds: not under the lock.
        drop(state);
        drop(settled);
    }

    /// Adds a message unless one with its id is there; says whether it was added.
    pub fn add(&self, live: &Live, id: &str, line: &[u8]) -> Result<bool> {
        if memchr::memchr(b'\n', line).is_some() {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "the message has a line end");
            return Err(Error::store("write", &self.path, cause));
        }
        match until_unchanged("write", &self.path, |_| self.try_append(live, id, line))? {
            Append::Done => Ok(true),
            Append::AlreadyThere => Ok(false),
            Append::Impossible => {
                let mut write = |_, out: &mut dyn Write| out.write_all(line);
                let mut put = Put { ids: &[id], only_new: true, durable: false, write: &mut write };
                Ok(self.put(live, &mut put)? > 0)
            }
        }
    }

    /// Puts messages where others with their ids are, or at the end, all in one commit. Returns
    /// how many were added.
    pub fn put(&self, live: &Live, put: &mut Put<'_>) -> Result<usize> {
        until_unchanged("write", &self.path, |attempt| self.try_put(live, put, attempt))
    }

    /// Whether the message is in the file. A file that is gone was deleted on purpose: that counts
    /// as yes.
    pub fn has(&self, id: &str) -> Result<bool> {
        until_unchanged("read", &self.path, |_| {
            let mut state = self.state();
            let Some(locked) = self.open(&mut state, false)? else { return Ok(true) };
            Ok(!self.find(&mut state, &locked.file, id)?.is_empty())
        })
    }

    /// The file's bytes at one moment; empty when there is none.
    pub fn read(&self) -> Result<Vec<u8>> {
        until_unchanged("read", &self.path, |_| {
            let Some(file) = self.open_to_read_all()? else { return Ok(Vec::new()) };
            let before = Identity::of(&file)?;
            let bytes = read_exactly(&file, 0, before.size)?;
            // It may have been replaced or appended to: what was read was still all of it once.
            let after = Identity::of(&file)?;
            if after.same_content(&before) { Ok(bytes) } else { Err(Trouble::Changed) }
        })
    }

    /// The file, with what was written into replaced versions; as it is where the store may only be
    /// read.
    fn open_to_read_all(&self) -> Result<Option<Arc<File>>, Trouble> {
        match self.open(&mut self.state(), false) {
            Ok(locked) => Ok(locked.map(|locked| Arc::clone(&locked.file))),
            Err(trouble) if trouble.is_for_writers() => Ok(open_to_read(&self.path)?.map(Arc::new)),
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes sure that the file is there.
    pub fn create(&self) -> Result<()> {
        until_unchanged("create", &self.path, |_| {
            let mut state = self.state();
            self.open(&mut state, true).map(|_| ())
        })
    }

    /// Removes the file; says whether there was one.
    pub fn delete(&self) -> Result<bool> {
        let mut state = self.state();
        // Locked, so that another process' commit does not bring it back.
        let found = match Locked::open(&self.path, false)? {
            Some(_locked) => match fs::remove_file(&self.path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::store("delete", &self.path, error)),
            },
            None => false,
        };
        *state = State::default();
        Ok(found)
    }

    /// Waits until what was written is on the disk. Nothing to do when the file is gone.
    pub fn sync(&self) -> Result<()> {
        let fail = |cause| Error::store("sync", &self.path, cause);
        let Some(file) = open_to_read(&self.path).map_err(fail)? else { return Ok(()) };
        fsync(&file).map_err(|errno| fail(errno.into()))?;
        atomic::sync_folder(&self.folder).map_err(fail)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking thread left is checked against the file like anything else.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens and locks the file and knows its layout. `None` when there is none and `create` is
    /// false.
    fn open(&self, state: &mut State, create: bool) -> Result<Option<Locked>, Trouble> {
        let locked = Locked::open(&self.path, create)?;
        let Some(mut locked) = locked else {
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
        self.refresh(state, &locked.file)?;
        self.recover(state, &mut locked)?;
        Ok(Some(locked))
    }

    /// Reads the file if it is not the one that is known.
    fn refresh(&self, state: &mut State, file: &File) -> Result<(), Trouble> {
        let known = state.known.as_ref();
        if let Some(known) = known
            && known.identity == Identity::of(file)?
        {
            return Ok(());
        }
        let had_lines = known.is_some_and(|known| known.layout.len() > 0);
        state.known = Some(Known::read(file, had_lines)?);
        Ok(())
    }

    /// Takes the history out of replaced files that were written into. `state` knows the current
    /// file, which is `locked`; both are those of the new version afterwards.
    fn recover(&self, state: &mut State, locked: &mut Locked) -> Result<(), Trouble> {
        let mut index = 0;
        while let Some(replaced) = state.replaced.get(index) {
            let Some(newer) = replaced.newer()? else {
                // Not closed here, however old: that frees its blocks, which takes a while.
                index += 1;
                continue;
            };
            let Some(base) = state.known.clone() else { return Err(Trouble::Changed) };
            let mut draft = self.draft(&locked.file)?;
            let (next, hashes) = replaced.merge(&newer, &locked.file, &base.layout, &mut draft)?;
            // Taken out first: publishing adds one, and for that may close the oldest.
            let replaced = state.replaced.remove(index);
            let published = self.publish(state, locked, base, draft, next, &hashes);
            if published.is_err() {
                state.replaced.insert(index, replaced);
            }
            published?;
        }
        Ok(())
    }

    /// The lines that are the message `id`, each read and parsed once.
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
            if !line.verified {
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

    fn try_append(&self, live: &Live, id: &str, line: &[u8]) -> Result<Append, Trouble> {
        let mut state = self.state();
        let Some(locked) = self.open(&mut state, true)? else { return Err(Trouble::Changed) };
        if !self.find(&mut state, &locked.file, id)?.is_empty() {
            return Ok(Append::AlreadyThere);
        }
        let Some(known) = &mut state.known else { return Err(Trouble::Changed) };
        let old = known.identity.size;
        let open_end: &[u8] = if known.layout.open_end { b"\n" } else { b"" };
        let bytes = [open_end, line, b"\n"].concat();
        let added = bytes.len() as u64;
        let crosses = added > PAGE || old / PAGE != (old + added - 1) / PAGE;
        if crosses
            || !known.layout.blanks.is_empty()
            || !self.stale_marks(known, &locked.file, live)?.is_empty()
        {
            return Ok(Append::Impossible);
        }

        self.append(&locked.file, old, &bytes)?;
        let identity = Identity::of(&locked.file)?;
        let layout = Arc::make_mut(&mut known.layout);
        layout.push(
            hash_of(id),
            old + open_end.len() as u64,
            line.len() as u64,
            line.ends_with(MARK),
        );
        layout.set_verified(layout.len() - 1);
        layout.open_end = false;
        known.identity = identity;
        if identity.size != old + added {
            state.known = None;
        }
        for replaced in &mut state.replaced {
            replaced.note_written(&[hash_of(id)]);
        }
        // Someone may have put another file in its place meanwhile: it goes into that one, too.
        if locked.is_current(&self.path)? { Ok(Append::Done) } else { Err(Trouble::Changed) }
    }

    /// Appends in one piece, or not at all.
    fn append(&self, mut file: &File, old: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let done = file.write(bytes);
        match done {
            Ok(count) if count == bytes.len() => return Ok(()),
            // The disk is full: what fitted must not stay.
            Ok(count) if Identity::of(file)?.size == old + count as u64 => {
                file.set_len(old)?;
            }
            _ => {}
        }
        Err(done.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()).into())
    }

    fn try_put(&self, live: &Live, put: &mut Put<'_>, attempt: usize) -> Result<usize, Trouble> {
        let mut state = self.state();
        let Some(locked) = self.open(&mut state, true)? else { return Err(Trouble::Changed) };
        let plan = self.plan(&mut state, &locked.file, live, put)?;
        if put.only_new && plan.added() == 0 {
            return Ok(0);
        }
        let Some(base) = state.known.clone() else { return Err(Trouble::Changed) };
        let old = locked.file.clone();
        let held = (attempt >= OPTIMISTIC).then_some((state, locked));

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

        let (mut state, mut locked) = match held {
            Some(both) => both,
            None => {
                let state = self.state();
                let Some(locked) = Locked::open(&self.path, false)? else {
                    return Err(Trouble::Changed);
                };
                (state, locked)
            }
        };
        self.publish(&mut state, &mut locked, base, draft, next, &hashes)?;
        drop((locked, state));
        if put.durable {
            atomic::sync_folder(&self.folder).map_err(|error| self.failed("sync", error))?;
        }
        Ok(plan.added())
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
        changes.sort_by_key(|(line, _)| *line);
        for blank in &known.layout.blanks {
            let end = blank.end.min(known.identity.size);
            let bytes = read_exactly(file, blank.start, end - blank.start)?;
            let ends = memchr_iter(b'\n', &bytes).chain(iter::once(bytes.len()));
            let mut start = 0;
            for end in ends {
                if !line::is_blank(&bytes[start.min(end)..end]) {
                    state.known = None;
                    return Err(Trouble::Changed);
                }
                start = end + 1;
            }
        }
        Ok(Plan::new(&known.layout, known.identity.size, changes, appended))
    }

    fn draft(&self, like: &File) -> Result<Draft, Trouble> {
        let fail = |error| self.failed("make a new version of", error);
        let draft = Draft::new(&self.folder, self.id.as_str()).map_err(fail)?;
        draft.take_after(&like.metadata().map_err(fail)?).map_err(fail)?;
        Ok(draft)
    }

    /// Puts `draft` in the place of `locked`, if that is still the file of `base`.
    fn publish(
        &self,
        state: &mut State,
        locked: &mut Locked,
        base: Known,
        draft: Draft,
        next: Layout,
        written: &[u64],
    ) -> Result<(), Trouble> {
        let current = locked.is_current(&self.path)?;
        if !current || Identity::of(&locked.file)? != base.identity {
            return Err(Trouble::Changed);
        }
        let size = draft.written();
        let file = draft.publish(&self.path).map_err(|error| self.failed("replace", error))?;
        let new = Identity::of(&file)?;
        let known = Known { identity: new, layout: Arc::new(next) };
        state.known = (new.size == size).then_some(known);
        for replaced in &mut state.replaced {
            replaced.note_written(written);
        }
        let replaced = Replaced::new(locked.file.clone(), base, written)?;
        Replaced::keep(&mut state.replaced, replaced);
        *locked = Locked::adopt(file);
        Ok(())
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> Trouble {
        Trouble::Failed(Error::store(action, &self.path, cause))
    }
}
