//! What this process knows of one session's file, and of what it has done to it lately.

use super::{
    identity::Identity,
    layout::{Known, hash_line},
    replaced::{LONGEST_GUARDED, MOST_GUARDED, Replaced},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a message is put back when somebody writes the file without it.
const GUARDED: Duration = Duration::from_secs(2);

/// Bytes of all messages of a session that are put back.
const GUARDED_BYTES: usize = 16 << 20;

/// Answers of a session that are known to be counted.
const MOST_COUNTED: usize = 64;

/// What is known of the file.
#[derive(Default)]
pub(super) struct State {
    pub known: Option<Known>,
    /// Lines that were appended and are not in `known` yet.
    pub appended: Option<Appended>,
    pub replaced: Vec<Replaced>,
    pub guarded: Vec<Guarded>,
    /// As this process has written it last.
    pub last_written: Option<Identity>,
    /// Hashes of answers that this process has added, the last ones.
    counted: Vec<u64>,
}

/// A message that was added beside the app's routes: one of them may have read the file before and write
/// it back without the message. It is put back then.
#[derive(Clone)]
pub(super) struct Guarded {
    /// Of the message's id.
    pub hash: u64,
    pub line: Vec<u8>,
    pub since: Instant,
}

/// What this process has appended to a file between two of its states.
pub(super) struct Appended {
    pub from: Identity,
    pub to: Identity,
    pub lines: Vec<AppendedLine>,
    /// It was looked whether their messages were there before.
    pub is_checked: bool,
}

/// A line that was appended; its place in bytes.
#[derive(Clone, Copy)]
pub(super) struct AppendedLine {
    pub hash: u64,
    pub start: u64,
    pub len: u64,
    pub is_marked: bool,
}

impl Guarded {
    pub fn is_guarded(&self) -> bool {
        self.since.elapsed() < GUARDED
    }
}

impl State {
    /// Has a message put back when others lose it.
    pub fn guard(&mut self, line: Vec<u8>) {
        let hash = hash_line(&line);
        self.guarded.retain(|guarded| guarded.is_guarded() && guarded.hash != hash);
        let bytes: usize = self.guarded.iter().map(|guarded| guarded.line.len()).sum();
        if self.guarded.len() < MOST_GUARDED
            && line.len() as u64 <= LONGEST_GUARDED
            && bytes + line.len() <= GUARDED_BYTES
        {
            self.guarded.push(Guarded { hash, line, since: Instant::now() });
        }
    }

    /// Whether messages, given by the hashes of their ids, are added for the first time.
    pub fn count_once(&mut self, hashes: &[u64]) -> bool {
        let is_first = !hashes.iter().all(|hash| self.counted.contains(hash));
        if is_first {
            self.counted.extend(hashes);
            let beyond = self.counted.len().saturating_sub(MOST_COUNTED);
            self.counted.drain(..beyond);
        }
        is_first
    }

    /// When somebody else has changed the file last, which is in this state; 0 when it was this process.
    pub fn changed_ms(&self, now: &Identity) -> u64 {
        if self.last_written == Some(*now) { 0 } else { now.modified_ms() }
    }

    /// The state in which this process has seen the file last.
    pub fn identity(&self) -> Option<&Identity> {
        let appended = self.appended.as_ref().map(|appended| &appended.to);
        appended.or(self.known.as_ref().map(|known| &known.identity))
    }

    /// Whether all lines are known of the file in this state.
    pub fn is_at(&self, identity: &Identity) -> bool {
        self.known.as_ref().is_some_and(|known| match &self.appended {
            Some(appended) => appended.from == known.identity && appended.to == *identity,
            None => known.identity == *identity,
        })
    }

    /// Takes in what the file was read as, before or after this process has appended to it.
    pub fn learn(&mut self, mut read: Known) {
        if self.is_at(&read.identity) {
            // Another thread was quicker, and knows more.
            return self.fold();
        }
        if let Some(mut appended) = self.appended.take_if(|appended| appended.from != read.identity)
            && appended.to.same_file(&read.identity)
        {
            // More may have been appended while it was read.
            let end = read.identity.size;
            let rest = appended.lines.partition_point(|line| line.start < end);
            let rest = appended.lines.split_off(rest);
            let is_between =
                appended.lines.last().is_some_and(|last| last.start + last.len + 1 == end);
            if is_between && !appended.is_checked {
                let layout = Arc::make_mut(&mut read.layout);
                appended.lines.iter().for_each(|line| layout.set_unchecked(line.start));
            }
            if is_between && !rest.is_empty() {
                self.appended = Some(Appended { from: read.identity, lines: rest, ..appended });
            }
        }
        self.known = Some(read);
        self.fold();
    }

    /// Makes what was appended a part of what is known.
    pub fn fold(&mut self) {
        let Some(known) = &mut self.known else { return };
        let Some(appended) = self.appended.take_if(|appended| appended.from == known.identity)
        else {
            return;
        };
        let layout = Arc::make_mut(&mut known.layout);
        for line in appended.lines {
            layout.push(line.hash, line.start, line.len, line.is_marked);
            match appended.is_checked {
                true => layout.set_verified(layout.len() - 1),
                false => layout.set_unchecked(line.start),
            }
        }
        layout.open_end = false;
        known.identity = appended.to;
    }

    /// Notes a line that was appended, which has brought the file from one state to the next. Quick:
    /// what is known of a long history may be in use elsewhere, and is not copied here.
    pub fn note_appended(
        &mut self,
        from: Identity,
        to: Identity,
        line: AppendedLine,
        is_known: bool,
    ) {
        for replaced in &mut self.replaced {
            replaced.note_written(&[line.hash]);
        }
        if to.size != line.start + line.len + 1 {
            // Somebody else has written, too.
            (self.known, self.appended) = (None, None);
            return;
        }
        self.last_written = Some(to);
        let begun = self.appended.take_if(|appended| appended.to == from);
        let mut appended =
            begun.unwrap_or(Appended { from, to, lines: Vec::new(), is_checked: is_known });
        appended.to = to;
        appended.lines.push(line);
        appended.is_checked &= is_known;
        if !is_known {
            self.known = None;
        }
        self.appended = Some(appended);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::layout::hash_of, *};
    use std::{
        fs::{self, File},
        io::Write,
        path::Path,
    };

    /// Appends a line to the file as the state's owner would.
    fn append(state: &mut State, path: &Path, id: &str) -> Identity {
        let from = Identity::at(path).unwrap().unwrap();
        let text = format!("{{\"id\":\"{id}\"}}");
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(format!("{text}\n").as_bytes()).unwrap();
        let to = Identity::of(&file).unwrap();
        let (start, len) = (from.size, text.len() as u64);
        let line = AppendedLine { hash: hash_of(id), start, len, is_marked: false };
        state.note_appended(from, to, line, false);
        to
    }

    #[test]
    fn what_is_appended_while_a_history_is_read_is_a_part_of_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "{\"id\":\"1\"}\n").unwrap();
        let mut state = State::default();
        let between = append(&mut state, &path, "2");
        let read = Known::read(&File::open(&path).unwrap(), between).unwrap();
        let now = ["3", "4"].map(|id| append(&mut state, &path, id))[1];
        state.learn(read);
        assert!(state.is_at(&now));
        state.fold();
        let layout = &state.known.unwrap().layout;
        assert_eq!(layout.hashes(), ["1", "2", "3", "4"].map(hash_of));
        assert_eq!(layout.unchecked, [1, 2, 3]);
    }
}
