//! What a commit keeps of a session file, what it leaves out and what it puts in; and where the
//! lines are afterwards.
//!
//! A plan holds offsets only. It is carried out into a draft and never changes the file it is for.

use super::{
    atomic::Draft,
    layout::{Layout, Line},
    line::MARK,
};
use memchr::memchr;
use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
};

/// Writes the line of one message, given its number; called again when a commit must start over.
pub(super) type WriteMessage<'w> = dyn FnMut(usize, &mut dyn Write) -> io::Result<()> + 'w;

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Keep(Range<u64>),
    Text(&'static [u8]),
    Message(usize),
}

/// What happens to one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The line becomes this message.
    Replace(usize),
    /// The line loses its mark.
    Unmark,
    /// The line goes.
    Remove,
}

/// How one version of a session file becomes the next.
#[derive(Debug)]
pub(super) struct Plan {
    /// The file's.
    size: u64,
    pieces: Vec<Piece>,
    /// By line, in order.
    changes: Vec<(usize, Change)>,
    appended: Vec<usize>,
}

/// A message as it was written.
#[derive(Clone, Copy, Default)]
struct Written {
    len: u64,
    marked: bool,
}

impl Plan {
    /// `changes` are in line order, a line at most once; `size` is the file's.
    pub fn new(
        layout: &Layout,
        size: u64,
        changes: Vec<(usize, Change)>,
        appended: Vec<usize>,
    ) -> Self {
        let mut cuts: Vec<(Range<u64>, Option<Piece>)> =
            layout.blanks.iter().map(|blank| (blank.clone(), None)).collect();
        for &(index, change) in &changes {
            let Line { start, .. } = layout.line(index);
            let end = layout.line(index).end();
            cuts.push(match change {
                Change::Replace(message) => (start..end, Some(Piece::Message(message))),
                Change::Unmark => (end - MARK.len() as u64..end, Some(Piece::Text(b"}"))),
                Change::Remove => (start..(end + 1).min(size), None),
            });
        }
        cuts.sort_by_key(|(range, _)| range.start);

        let mut pieces = Vec::with_capacity(2 * cuts.len() + 2 * appended.len() + 2);
        let mut at = 0;
        let keep = |range: Range<u64>| (!range.is_empty()).then_some(Piece::Keep(range));
        for (range, piece) in cuts {
            pieces.extend(keep(at..range.start));
            pieces.extend(piece);
            at = range.end;
        }
        pieces.extend(keep(at..size));
        let is_last_removed = changes
            .last()
            .is_some_and(|&(line, change)| change == Change::Remove && line + 1 == layout.len());
        if layout.open_end && !is_last_removed {
            pieces.push(Piece::Text(b"\n"));
        }
        for &message in &appended {
            pieces.extend([Piece::Message(message), Piece::Text(b"\n")]);
        }
        Self { size, pieces, changes, appended }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        match &self.pieces[..] {
            [] => self.size == 0,
            [Piece::Keep(range)] => *range == (0..self.size),
            _ => false,
        }
    }

    /// How many messages are added, not replaced; fewer by those that are removed.
    pub fn added(&self) -> isize {
        let is_removal = |(_, change): &&(usize, Change)| *change == Change::Remove;
        let removed = self.changes.iter().filter(is_removal).count();
        self.appended.len() as isize - removed as isize
    }

    /// Writes the next version of `old`, whose layout is `layout`, and returns its layout.
    /// `hashes` are those of the messages.
    pub fn carry_out(
        &self,
        old: &File,
        layout: &Layout,
        hashes: &[u64],
        draft: &mut Draft,
        write: &mut WriteMessage<'_>,
    ) -> io::Result<Layout> {
        let mut written = vec![Written::default(); hashes.len()];
        for piece in &self.pieces {
            match piece {
                Piece::Keep(range) => draft.copy(old, range.clone())?,
                Piece::Text(text) => draft.write_all(text)?,
                Piece::Message(message) => {
                    let mut line = LineWriter { draft, written: 0, tail: Vec::new() };
                    write(*message, &mut line)?;
                    written[*message] =
                        Written { len: line.written, marked: line.tail.ends_with(MARK) };
                }
            }
        }
        let next = self.next_layout(layout, hashes, &written);
        // Every line has one line end and nothing is between lines now.
        let size = next.len().checked_sub(1).map_or(0, |last| next.line(last).end() + 1);
        if size == draft.written() { Ok(next) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn next_layout(&self, layout: &Layout, hashes: &[u64], written: &[Written]) -> Layout {
        let mut next = Layout::with_capacity(layout.len() + self.appended.len());
        let mut at = 0;
        let mut push = |hash, len, marked, verified| {
            next.push(hash, at, len, marked);
            if verified {
                next.set_verified(next.len() - 1);
            }
            at += len + 1;
        };
        let mut changes = self.changes.iter().peekable();
        let mut marks = layout.marks.iter().peekable();
        for (index, &hash) in layout.hashes().iter().enumerate() {
            let line = layout.line(index);
            let marked = marks.next_if_eq(&&index).is_some();
            match changes.next_if(|(changed, _)| *changed == index) {
                Some(&(_, Change::Replace(message))) => {
                    push(hash, written[message].len, written[message].marked, true);
                }
                // `,"_streaming":true}` becomes `}`.
                Some((_, Change::Unmark)) => {
                    push(hash, line.len - MARK.len() as u64 + 1, false, line.verified);
                }
                Some((_, Change::Remove)) => {}
                None => push(hash, line.len, marked, line.verified),
            }
        }
        for &message in &self.appended {
            push(hashes[message], written[message].len, written[message].marked, true);
        }
        next
    }
}

/// Counts a line and keeps its end; refuses a line end inside it, which would make it two.
struct LineWriter<'d> {
    draft: &'d mut Draft,
    written: u64,
    tail: Vec<u8>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if memchr(b'\n', bytes).is_some() {
            let reason = "a message has a line end outside its strings";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.draft.write_all(bytes)?;
        self.written += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(MARK.len())..]);
        let excess = self.tail.len().saturating_sub(MARK.len());
        self.tail.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
