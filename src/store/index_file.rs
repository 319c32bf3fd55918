//! `index.json`: the list of sessions that the app shows, edited as the module does it.
//!
//! Other fields, their order and other entries stay as JavaScript would leave them. An index that
//! is absent, broken or no array is never made up or overwritten.
//!
//! Changes that need not be seen at once are gathered and written together. The app's routes read the
//! index, change it and write it back: what they had read before this process wrote lacks its change
//! then. So what this process has written is remembered for a while, and put back where it is missing.

use super::{
    atomic::{self, Draft},
    identity::Identity,
    index_change::{Count, Missing, Remembered, Touch, UNSETTLED},
    index_entries::{find, is_entry, put_first},
    index_merge::merge,
    layout::read_exactly,
    lease::Writers,
    live::Live,
    lock::{Locked, create_folder, open_to_read},
    rest::{STILL, at_rest},
    retry::{Attempts, Trouble},
    session_file::Counted,
};
use crate::{
    disk::Turn,
    error::{Error, Result},
    json::{Document, Value},
    session_id::SessionId,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

/// Attempts without the lock while the new index is written, before one that holds it all the time.
const OPTIMISTIC: u32 = 3;
/// How long a change is put back when it is missing.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Changes remembered; beyond that the oldest are forgotten.
const MOST_REMEMBERED: usize = 4_096;
/// How long a replaced index is looked after, and how long while somebody has it open.
const WATCHED: Duration = Duration::from_secs(2);
const WATCHED_WRITER: Duration = Duration::from_secs(60);
/// Replaced indexes kept open.
const MOST_WATCHED: usize = 4;
/// How often the index is looked at: first and longest pause.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));
/// What could not be written is tried again after this time.
const LATER: Duration = Duration::from_secs(5);
/// The times of files may be behind the clock by so much.
const TICK_MS: u64 = 10;
/// Gathered changes are written after a pause of so many times as long as writing took last.
const REST_FACTOR: u32 = 4;

/// The index of one store.
pub(super) struct IndexFile {
    folder: PathBuf,
    path: PathBuf,
    live: Arc<Live>,
    /// Changes to be written. Held for a moment only: the JavaScript thread adds to it.
    pending: Mutex<HashMap<SessionId, Touch>>,
    /// Held while this process edits it.
    editing: Mutex<()>,
    /// Held while files are read; only disk threads may take it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Changes that were written lately.
    written: HashMap<SessionId, Remembered>,
    /// The index as this process has written it last.
    last: Option<Identity>,
    /// The index as others have written it, when nothing was missing in it.
    seen: Option<Identity>,
    replaced: Vec<ReplacedIndex>,
    /// An entry's count was seen to be that of its session's messages: here counts mean that.
    counts_messages: bool,
    /// When gathered changes may be written, and how long writing took last.
    next: Option<Instant>,
}

/// A replaced index, kept open while somebody may write into it.
struct ReplacedIndex {
    file: Arc<File>,
    identity: Identity,
    since: Instant,
    text: String,
}

/// What an edit makes of the index.
enum Edit<T> {
    Write(T),
    Leave(T),
}

impl IndexFile {
    pub fn new(folder: &Path, live: Arc<Live>) -> Self {
        let path = folder.join("index.json");
        Self {
            folder: folder.to_owned(),
            path,
            live,
            pending: Mutex::default(),
            editing: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Has the session's entry updated, if it has one, when gathered changes are written.
    pub fn touch(&self, session: &SessionId, touch: Touch) {
        self.live.enter(session);
        let mut pending = self.pending();
        let before = pending.remove(session).unwrap_or_default();
        pending.insert(session.clone(), before.then(touch));
    }

    /// Whether there is something to write.
    pub fn has_pending(&self) -> bool {
        !self.pending().is_empty()
    }

    /// Whether there is something to write, or to look after.
    pub fn has_work(&self) -> bool {
        if self.has_pending() {
            return true;
        }
        let state = self.state();
        !state.written.is_empty() || !state.replaced.is_empty()
    }

    /// Writes the gathered changes, and puts back what others have lost of earlier ones. Best effort:
    /// messages are what must not be lost, and they are stored by then.
    pub fn flush(&self, attempts: &mut Attempts, count: &Count<'_>) -> Turn<()> {
        let edited = self.edit(attempts, false, count, |_| Ok(Edit::Leave(())));
        edited.unwrap_or_else(|_| {
            // The module leaves an index that it cannot update alone and says nothing. What was
            // gathered is tried again later.
            self.state().next = Some(Instant::now() + LATER);
            Turn::Done(())
        })
    }

    /// What is to be done in the background: writes what was gathered, at a pace that leaves the disk
    /// to others, and looks whether somebody has lost or overtaken what this process wrote. Done when
    /// there is nothing to look after.
    pub fn look_after(&self, attempts: &mut Attempts, count: &Count<'_>) -> Turn<()> {
        let now = Instant::now();
        let has_pending = self.has_pending();
        let (is_due, pause) = {
            let mut state = self.state();
            state.written.retain(|session, change| {
                let is_kept = change.since.elapsed() < REMEMBERED;
                if !is_kept {
                    self.live.leave(session);
                }
                is_kept
            });
            state.replaced.retain(|replaced| !replaced.is_settled());
            let is_time = state.next.is_none_or(|next| next <= now);
            let is_done =
                |replaced: &ReplacedIndex| replaced.is_changed() && !replaced.has_writer();
            let is_overtaken = state.replaced.iter().any(is_done);
            let is_changed = !state.written.is_empty() && {
                let now = Identity::at(&self.path).ok().flatten();
                let is_new = now != state.last && now != state.seen;
                is_new || state.written.values().any(|change| change.is_doubtful)
            };
            let ages = state.written.values().map(|change| change.since.elapsed());
            let ages = ages.chain(state.replaced.iter().map(|replaced| replaced.since.elapsed()));
            let pause = match has_pending {
                false => ages.min(),
                true => Some(state.next.map_or(Duration::ZERO, |next| next - now.min(next))),
            };
            (is_time && (has_pending || is_overtaken || is_changed), pause)
        };
        if is_due {
            return match self.flush(attempts, count) {
                Turn::Done(()) => {
                    *attempts = Attempts::default();
                    Turn::Again(LOOKS.0)
                }
                again => again,
            };
        }
        *attempts = Attempts::default();
        pause.map_or(Turn::Done(()), |pause| Turn::Again(pause.clamp(LOOKS.0, LOOKS.1)))
    }

    /// Puts an entry for a new session first, making the index if there is none, and returns it.
    /// A session that has an entry keeps that one.
    pub fn create(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        title: &str,
        file_path: Option<&str>,
        now_ms: u64,
        count: &Count<'_>,
    ) -> Result<Turn<String>> {
        self.create_absent()?;
        let made = (title.to_owned(), now_ms, file_path.map(str::to_owned));
        let mut is_made = false;
        let step = self.edit(attempts, true, count, |document| {
            let document = document.ok_or_else(no_array)?;
            is_made = false;
            if let Some(entry) = find(document.root(), session) {
                return Ok(Edit::Leave(document.get(entry).stringify()));
            }
            let entry = put_first(document, session, &made);
            is_made = true;
            Ok(Edit::Write(document.get(entry).stringify()))
        })?;
        if let Turn::Done(_) = &step
            && is_made
        {
            let mut state = self.state();
            let change = Remembered { made: Some(made), ..Remembered::new(None, now_ms) };
            let forgotten = state.remember(session, change);
            forgotten.iter().for_each(|session| self.live.leave(session));
        }
        Ok(step)
    }

    /// Removes the session's entry; says whether there was one.
    pub fn delete(
        &self,
        attempts: &mut Attempts,
        session: &SessionId,
        count: &Count<'_>,
    ) -> Result<Turn<bool>> {
        self.pending().remove(session);
        self.state().written.remove(session);
        self.live.leave(session);
        self.edit(attempts, true, count, |document| {
            let Some(document) = document else { return Ok(Edit::Leave(false)) };
            if find(document.root(), session).is_none() {
                return Ok(Edit::Leave(false));
            }
            let others = document.root().items().filter(|entry| !is_entry(*entry, session));
            let others = others.map(Value::id).collect();
            document.set_items(others);
            Ok(Edit::Write(true))
        })
    }

    /// The entries as a JSON array, newest `updatedAt` first. Takes no lock, so that a store that
    /// may only be read can be listed.
    pub fn list(&self, attempts: &mut Attempts) -> Result<Turn<String>> {
        let mut attempt = || {
            let Some(file) = open_to_read(&self.path)? else { return Ok("[]".to_owned()) };
            let (_, _, document) = read(&file, attempts)?;
            let document = document.ok_or_else(no_array)?;
            let updated = |entry: &Value<'_>| {
                entry.get("updatedAt").and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY)
            };
            let mut entries: Vec<_> =
                document.root().items().filter(|item| item.is_record()).collect();
            // Stable: entries of the same time stay in the index's order.
            entries.sort_by(|a, b| updated(b).total_cmp(&updated(a)));
            let texts: Vec<_> = entries.into_iter().map(Value::stringify).collect();
            Ok(format!("[{}]", texts.join(",")))
        };
        let outcome = attempt();
        attempts.step("read", &self.path, outcome)
    }

    /// Reads the index, hands it to `edit` (nothing for one that is broken or no array; an empty
    /// array for one that is absent), and writes it with the gathered changes.
    fn edit<T>(
        &self,
        attempts: &mut Attempts,
        durable: bool,
        count: &Count<'_>,
        edit: impl FnMut(Option<&mut Document>) -> io::Result<Edit<T>>,
    ) -> Result<Turn<T>> {
        let _editing = match self.editing.try_lock() {
            Ok(editing) => editing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Turn::Again(LOOKS.0)),
        };
        let began = Instant::now();
        let mut gathered = std::mem::take(&mut *self.pending());
        let sessions: Vec<SessionId> = gathered.keys().cloned().collect();
        let outcome = self.try_edit(attempts, durable, &mut gathered, count, edit);
        if outcome.is_err() {
            let mut pending = self.pending();
            for (session, touch) in gathered {
                let later = pending.remove(&session);
                let both = match later {
                    Some(later) => touch.then(later),
                    None => touch,
                };
                pending.insert(session, both);
            }
        } else {
            let mut state = self.state();
            state.next = Some(Instant::now() + began.elapsed() * REST_FACTOR);
            // Those that have no entry are not looked after.
            let forgotten = sessions.iter().filter(|session| !state.written.contains_key(session));
            forgotten.for_each(|session| self.live.leave(session));
        }
        attempts.step("update", &self.path, outcome)
    }

    fn try_edit<T>(
        &self,
        attempts: &mut Attempts,
        durable: bool,
        pending: &mut HashMap<SessionId, Touch>,
        count: &Count<'_>,
        mut edit: impl FnMut(Option<&mut Document>) -> io::Result<Edit<T>>,
    ) -> Result<T, Trouble> {
        let Some(locked) = Locked::open(&self.path, false)? else {
            return match edit(Document::parse("[]").ok().as_mut())? {
                Edit::Leave(done) => Ok(done),
                Edit::Write(_) => Err(Trouble::Changed),
            };
        };
        let (identity, base, mut read_now) = read(&locked.file, attempts)?;
        let taken = self.take_over(&mut read_now, attempts)?;
        let mut is_changed = !taken.is_empty();
        if is_changed {
            // What is taken in only now may have been counted as lost before, or lack what it had not read.
            for change in self.state().written.values_mut() {
                (change.is_doubtful, change.may_lack) = (true, true);
            }
        }
        let mut changes = Vec::new();
        if let Some(document) = &mut read_now {
            is_changed |= self.put_back(document, &identity, count);
            changes = self.apply(document, pending, count);
            is_changed |= !changes.is_empty();
        }
        let done = match edit(read_now.as_mut())? {
            Edit::Leave(done) if !is_changed => return Ok(done),
            Edit::Leave(done) | Edit::Write(done) => done,
        };
        let document = read_now.ok_or_else(no_array)?;
        let text = document.root().stringify_pretty();
        let text = text.ok_or_else(|| io::Error::other("it is nested too deeply"))?;
        let old = Arc::clone(&locked.file);
        let held = (attempts.failed() >= OPTIMISTIC).then_some(locked);
        let mut draft = Draft::new(&self.folder, "index")?;
        draft.take_after(&old.metadata()?)?;
        draft.write_all(text.as_bytes())?;
        draft.finish(durable)?;
        let locked = match held {
            Some(locked) => locked,
            None => Locked::open(&self.path, false)?.ok_or(Trouble::Changed)?,
        };
        self.publish(&locked, identity, base, draft, attempts)?;
        drop(locked);
        // Written, whatever comes now.
        pending.clear();
        let mut state = self.state();
        for replaced in &mut state.replaced {
            let of = |(identity, _): &&(Identity, String)| identity.same_file(&replaced.identity);
            if let Some((identity, text)) = taken.iter().find(of) {
                (replaced.identity, replaced.text) = (*identity, text.clone());
            }
        }
        for (session, change) in changes {
            let forgotten = state.remember(&session, change);
            forgotten.iter().for_each(|session| self.live.leave(session));
        }
        drop(state);
        if durable {
            atomic::sync_folder(&self.folder)?;
        }
        Ok(done)
    }

    /// Puts `draft` in the place of `locked`, if that is still in the state `identity` and nobody is in
    /// the midst of writing it.
    fn publish(
        &self,
        locked: &Locked,
        identity: Identity,
        text: String,
        draft: Draft,
        attempts: &mut Attempts,
    ) -> Result<(), Trouble> {
        let lease = match Writers::of(&locked.file) {
            Writers::Nobody(lease) => Some(lease),
            Writers::Somebody if attempts.unchanged_for(identity) < STILL => {
                return Err(Trouble::Busy);
            }
            Writers::Somebody | Writers::Unknown => None,
        };
        if Identity::of(&locked.file)? != identity || !locked.is_current(&self.path)? {
            return Err(Trouble::Changed);
        }
        if lease.as_ref().is_some_and(|lease| lease.is_awaited()) {
            return Err(Trouble::Busy);
        }
        let new = draft.publish(&self.path, &identity)?.ok_or(Trouble::Changed)?;
        let now = Identity::of(&locked.file)?;
        drop(lease);
        let mut state = self.state();
        state.last = Some(new);
        if state.replaced.len() >= MOST_WATCHED {
            let idle = state.replaced.iter().position(|replaced| !replaced.has_writer());
            state.replaced.remove(idle.unwrap_or(0));
        }
        state.replaced.push(ReplacedIndex {
            file: Arc::clone(&locked.file),
            identity: if now.same_content(&identity) { now } else { identity },
            since: Instant::now(),
            text,
        });
        Ok(())
    }

    /// Takes what others have written into replaced indexes into the current one. Returns the states of
    /// those from which something was taken, with their texts.
    fn take_over(
        &self,
        current: &mut Option<Document>,
        attempts: &mut Attempts,
    ) -> Result<Vec<(Identity, String)>, Trouble> {
        let state = self.state();
        let mut taken = Vec::new();
        for replaced in state.replaced.iter().filter(|replaced| replaced.is_changed()) {
            let (identity, text, theirs) = match read(&replaced.file, attempts) {
                Ok(read) => read,
                // Not done yet; nobody waits for it.
                Err(Trouble::Busy | Trouble::Changed) => continue,
                Err(trouble) => return Err(trouble),
            };
            let (Some(theirs), Some(ours)) = (theirs, current.as_mut()) else { continue };
            let base = Document::parse(&replaced.text).ok();
            let has_file = |id: &str| self.folder.join(format!("{id}.jsonl")).exists();
            let Some(merged) = merge(base.as_ref(), &theirs, ours, has_file) else { continue };
            *ours = merged;
            taken.push((identity, text));
        }
        Ok(taken)
    }

    /// Makes changes again that others have lost; says whether something was missing.
    fn put_back(&self, document: &mut Document, identity: &Identity, count: &Count<'_>) -> bool {
        let mut state = self.state();
        let is_others = state.last != Some(*identity);
        let mut is_changed = false;
        let State { written, counts_messages, .. } = &mut *state;
        for (session, change) in written {
            if !is_others && !change.is_doubtful {
                continue;
            }
            let entry = change.make_again(document, session, identity, &self.folder);
            if change.may_lack
                && !*counts_messages
                && let Counted::Messages(messages, _) = count(session)
            {
                let entry = find(document.root(), session).map(|entry| document.get(entry));
                let counted = entry.and_then(|entry| entry.get("messageCount")?.as_f64());
                *counts_messages =
                    counted.is_some_and(|counted| is_count(counted, messages as f64));
            }
            // Only where that is what counts mean.
            let is_counted = *counts_messages || change.counted > 0;
            let count: &Count<'_> = if is_counted { count } else { &|_| Counted::NoFile };
            let change_missing = change.put_back(document, session, identity, count);
            let missing = [entry, change_missing];
            is_changed |= missing.contains(&Missing::Something);
            change.is_doubtful = missing.contains(&Missing::TooEarly);
        }
        state.seen = (is_others && !is_changed).then_some(*identity);
        is_changed
    }

    /// Makes the gathered changes; returns what is to be remembered of them.
    fn apply(
        &self,
        document: &mut Document,
        pending: &HashMap<SessionId, Touch>,
        count: &Count<'_>,
    ) -> Vec<(SessionId, Remembered)> {
        let mut changes = Vec::new();
        for (session, touch) in pending {
            let Some(entry) = find(document.root(), session) else { continue };
            let number = |key| document.get(entry).get(key).and_then(Value::as_f64);
            let updated = number("updatedAt");
            let counted = number("messageCount").unwrap_or(0.0) + touch.added as f64;
            let lines = match count(session) {
                Counted::Messages(lines, _) => Some(lines as f64),
                Counted::NoFile | Counted::Unknown => None,
            };
            // Whoever changed the file last may have been killed before it was counted. Or he is about
            // to count it, where there is another process, or a route.
            let times = touch.changed_before_ms.zip(updated);
            let is_uncounted =
                times.is_some_and(|(changed, updated)| (changed + TICK_MS) as f64 > updated);
            let is_first = !self.state().written.contains_key(session);
            let may_lack = (is_uncounted || is_first) && self.live.is_alone(session);
            let is_short = |lines: f64| {
                counted < lines
                    && (is_uncounted || self.state().counts_messages || is_count(counted, lines))
            };
            let is_doubtful = may_lack && is_first && lines.is_some_and(is_short);
            let new = lines.filter(|_| is_doubtful).unwrap_or(counted);
            if lines.is_some_and(|lines| is_count(counted, lines)) {
                self.state().counts_messages = true;
            }
            let title = touch.title.as_ref().map(|title| {
                let old = document.get(entry).get("title").and_then(Value::as_str);
                (title.clone(), old.map(|old| old.as_str().to_owned()))
            });
            let now = updated.map_or(touch.now_ms, |updated| touch.now_ms.max(updated as u64));
            document.set(entry, "updatedAt", now as f64);
            if touch.added != 0 || is_doubtful {
                document.set(entry, "messageCount", new);
            }
            if let Some((title, _)) = &title {
                document.set(entry, "title", title.as_str());
            }
            let change = Remembered {
                title,
                counted: (new - counted) as isize,
                is_doubtful: may_lack,
                may_lack,
                added: touch.added,
                ..Remembered::new(updated, now)
            };
            changes.push((session.clone(), change));
        }
        changes
    }

    /// Makes an index without entries, complete from its first moment, if there is none.
    fn create_absent(&self) -> Result<()> {
        let make = || {
            if Identity::at(&self.path)?.is_some() {
                return Ok(());
            }
            create_folder(&self.folder)?;
            let mut draft = Draft::new(&self.folder, "index")?;
            draft.write_all(b"[]")?;
            draft.finish(false)?;
            draft.publish_new(&self.path)
        };
        make().map_err(|cause| Error::store("create", &self.path, cause))
    }

    /// Whether what others have written last was looked at, and nothing is missing in it.
    #[cfg(test)]
    pub fn has_seen_others(&self) -> bool {
        self.state().seen.is_some()
    }

    /// As a thread that hangs while it writes the index.
    #[cfg(test)]
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.editing.lock().unwrap()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<SessionId, Touch>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers a change; returns a session whose change was forgotten for it.
    fn remember(&mut self, session: &SessionId, mut change: Remembered) -> Option<SessionId> {
        let mut forgotten = None;
        if let Some(before) = self.written.remove(session) {
            change.made = change.made.or(before.made);
            change.added_in_all = before.added_in_all + change.added;
            change.counted += before.counted;
            change.title = change.title.or(before.title);
            change.is_doubtful |= before.is_doubtful;
            change.may_lack |= before.may_lack;
        } else {
            change.added_in_all = change.added;
            if self.written.len() >= MOST_REMEMBERED {
                let oldest = self.written.iter().min_by_key(|(_, change)| change.since);
                forgotten = oldest.map(|(session, _)| session.clone());
                forgotten.iter().for_each(|session| drop(self.written.remove(session)));
            }
        }
        self.written.insert(session.clone(), change);
        forgotten
    }
}

impl ReplacedIndex {
    fn is_changed(&self) -> bool {
        Identity::of(&self.file).is_ok_and(|now| now != self.identity)
    }

    fn has_writer(&self) -> bool {
        matches!(Writers::of(&self.file), Writers::Somebody)
    }

    fn is_settled(&self) -> bool {
        let age = self.since.elapsed();
        age > WATCHED_WRITER || (age > WATCHED && !self.has_writer() && !self.is_changed())
    }
}

/// Reads an index, once nobody is in the midst of writing it: its state, its text, and what that says;
/// nothing when it is broken or no array.
fn read(
    file: &File,
    attempts: &mut Attempts,
) -> Result<(Identity, String, Option<Document>), Trouble> {
    let identity = Identity::of(file)?;
    let bytes = read_exactly(file, 0, identity.size)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let document = Document::parse(&text).ok();
    if document.is_none() {
        // Emptied or cut, perhaps to be written at once.
        if at_rest(file, None, attempts)? != identity {
            return Err(Trouble::Changed);
        }
        let is_still = matches!(Writers::of(file), Writers::Nobody(_))
            || attempts.unchanged_for(identity) > UNSETTLED;
        if !is_still {
            return Err(Trouble::Busy);
        }
    }
    if Identity::of(file)? != identity {
        return Err(Trouble::Changed);
    }
    Ok((identity, text, document.filter(|found| found.root().is_array())))
}

/// Whether a number is that of so many messages, but for a few that were never counted.
fn is_count(number: f64, messages: f64) -> bool {
    number > 0.0 && number <= messages && messages - number <= messages / 16.0
}

fn no_array() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no JSON array")
}
