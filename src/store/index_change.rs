//! Changes of the index's entries: gathered before they are written, remembered after, and made again where
//! others have lost them.

use super::{
    identity::Identity,
    index_entries::{find, put_first},
    session_file::Counted,
};
use crate::{
    json::{Document, JsonStr, Value},
    session_id::SessionId,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A session's file or the index changed so recently is probably half of a change.
pub(super) const UNSETTLED: Duration = Duration::from_millis(100);

/// How many messages a session has.
pub(super) type Count<'c> = dyn Fn(&SessionId) -> Counted + 'c;

/// A change to one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touch {
    /// Messages added to the session's file; negative when more were removed.
    pub added: isize,
    /// When it had been changed last before, in milliseconds since 1970.
    pub changed_before_ms: Option<u64>,
    /// A new title; an empty one counts as none, as in the module.
    pub title: Option<String>,
    pub now_ms: u64,
}

/// A change that was written.
pub(super) struct Remembered {
    pub since: Instant,
    /// `updatedAt`, before and after: who has written the entry with another has not read this one.
    pub updated: (Option<f64>, u64),
    /// What was added to the count with that change, and in all that are remembered.
    pub added: isize,
    pub added_in_all: isize,
    /// By how much the count was set to that of the messages.
    pub counted: isize,
    /// It was too early to tell whether others have lost it.
    pub is_doubtful: bool,
    /// Somebody may have added messages without counting them: a process that was killed.
    pub may_lack: bool,
    /// The title that it has got, and the one before.
    pub title: Option<(String, Option<String>)>,
    /// Of an entry that this process has made: title, time and path.
    pub made: Option<(String, u64, Option<String>)>,
}

/// What others have lost of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    Something,
    /// It is too early to tell.
    TooEarly,
}

impl Touch {
    /// Both changes, one after the other.
    pub fn then(self, later: Self) -> Self {
        Self {
            added: self.added + later.added,
            changed_before_ms: self.changed_before_ms.max(later.changed_before_ms),
            title: later.title.filter(|title| !title.is_empty()).or(self.title),
            now_ms: self.now_ms.max(later.now_ms),
        }
    }
}

impl Remembered {
    pub fn new(updated_before: Option<f64>, updated_ms: u64) -> Self {
        Self {
            since: Instant::now(),
            updated: (updated_before, updated_ms),
            added: 0,
            added_in_all: 0,
            counted: 0,
            is_doubtful: false,
            may_lack: false,
            title: None,
            made: None,
        }
    }

    /// Puts an entry that this process has made back, if others have lost it.
    pub fn make_again(
        &self,
        document: &mut Document,
        session: &SessionId,
        index: &Identity,
        folder: &Path,
    ) -> Missing {
        let Some(made) = &self.made else { return Missing::Nothing };
        let has_file = || folder.join(format!("{session}.jsonl")).exists();
        if find(document.root(), session).is_some() || !has_file() {
            return Missing::Nothing;
        }
        // Who deletes a session removes its entry first and its file then, or the other way round.
        if index.age() < UNSETTLED {
            return Missing::TooEarly;
        }
        put_first(document, session, made);
        Missing::Something
    }

    /// Makes the change again if others have lost it, who had read the index before it; says what was
    /// missing.
    pub fn put_back(
        &mut self,
        document: &mut Document,
        session: &SessionId,
        index: &Identity,
        count: &Count<'_>,
    ) -> Missing {
        let Some(entry) = find(document.root(), session) else { return Missing::Nothing };
        let mut missing = Missing::Nothing;
        let title = document.get(entry).get("title").and_then(Value::as_str);
        let title = title.map(|title| title.as_str().to_owned());
        if let Some((new, old)) = &self.title
            && title == *old
            && title.as_deref() != Some(JsonStr::escape(new).as_str())
        {
            document.set(entry, "title", new.as_str());
            missing = Missing::Something;
        }
        let number = |key| document.get(entry).get(key).and_then(Value::as_f64);
        let (before, after) = self.updated;
        let updated = number("updatedAt");
        let counted = number("messageCount").unwrap_or(0.0);
        if updated == Some(after as f64) && !self.is_doubtful {
            return missing;
        }
        if updated == before && !self.is_doubtful {
            // As it was before the change: that is lost, and nothing else is different.
            document.set(entry, "updatedAt", after as f64);
            if self.added != 0 {
                document.set(entry, "messageCount", counted + self.added as f64);
            }
            return Missing::Something;
        }
        // They have changed the entry themselves, with ours or without it.
        if updated.is_some_and(|updated| updated < after as f64) {
            document.set(entry, "updatedAt", after as f64);
            missing = Missing::Something;
        }
        let (messages, age) = match count(session) {
            Counted::Messages(messages, age) => (messages, age),
            Counted::NoFile => return missing,
            Counted::Unknown => return Missing::TooEarly,
        };
        let lacking = messages as f64 - counted;
        let is_lost = lacking > 0.0 && (self.may_lack || lacking <= self.added_in_all as f64);
        // They may have counted what was counted here already, or not have when it was counted.
        let is_doubled = lacking != 0.0 && lacking.abs() <= self.counted as f64;
        if is_lost || is_doubled {
            // They write the file first and the index then.
            if age.min(index.age()) < UNSETTLED {
                return Missing::TooEarly;
            }
            document.set(entry, "messageCount", messages as f64);
            self.counted = self.counted.max(lacking.abs() as isize);
            self.may_lack = false;
            return Missing::Something;
        }
        self.may_lack = false;
        missing
    }
}
