//! Where the lines of a session file are, found by reading it once.
//!
//! A line costs 24 bytes of memory, whatever its length: a hash of its message's id and its place.
//! A hash only proposes a line; whoever uses one reads it first. History itself is never kept.

use super::{
    identity::Identity,
    line::{self, Facts, HEAD, MARK},
    retry::Trouble,
};
use memchr::memchr;
use std::{collections::HashSet, fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

/// Bytes read at once. Large enough to be fast, small enough to stay in the processor's cache.
const BLOCK: usize = 1 << 18;

/// The hash of a line without a string id. No id has it.
pub(super) const NO_ID: u64 = 0;

/// The hash under which a message is filed with this id, in the form in which `JSON.stringify` prints it.
///
/// Quick, because a first look at a history computes it for every line. Ids differ in their last digits
/// only: both halves of a product are used, as each bit of a word must have its part in all bits. Whoever
/// makes two ids collide gains nothing: a hash only proposes a line.
pub(super) fn hash_of(id: &str) -> u64 {
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
        (product as u64) ^ (product >> 64) as u64
    };
    let (words, rest) = id.as_bytes().as_chunks::<8>();
    let seed = id.len() as u64 ^ 0x2d35_8dcc_aa6c_78a5;
    let hash = words.iter().fold(seed, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last)).max(NO_ID + 1)
}

/// The hash under which a line that is not blank is filed.
pub(super) fn hash_line(line: &[u8]) -> u64 {
    match line::leading_id(line) {
        Some(id) => hash_of(id),
        None => Facts::read(line).and_then(|facts| facts.id).map_or(NO_ID, |id| hash_of(&id)),
    }
}

/// One line, without its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub start: u64,
    pub len: u64,
    /// Whether the line is known to be the message that its hash says.
    pub verified: bool,
}

impl Line {
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The lines of one state of a session file.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Of every line that is not blank, in order.
    hashes: Vec<u64>,
    starts: Vec<u64>,
    /// Lengths; the top bit says verified.
    lens: Vec<u64>,
    /// Blank lines with their line ends, neighbours joined.
    pub blanks: Vec<Range<u64>>,
    /// Lines that end with [`MARK`].
    pub marks: Vec<usize>,
    /// Whether the last line that is not blank lacks its line end.
    pub open_end: bool,
    /// Lines that were appended before it was looked whether their message is in another line, too.
    pub unchecked: Vec<usize>,
}

const VERIFIED: u64 = 1 << 63;

impl Layout {
    /// Reads the first `size` bytes of `file`, which must be all of it.
    fn scan(file: &File, size: u64) -> Result<Self, Trouble> {
        let mut scan = Scan { file, layout: Self::default(), partial: Partial::default() };
        let mut block = vec![0; usize::try_from(size).unwrap_or(BLOCK).clamp(1, BLOCK)];
        let mut offset = 0;
        while offset < size {
            let rest = usize::try_from(size - offset).unwrap_or(BLOCK).min(block.len());
            match file.read_at(&mut block[..rest], offset) {
                Ok(0) => return Err(Trouble::Changed),
                Ok(count) => {
                    scan.block(offset, &block[..count])?;
                    offset += count as u64;
                    if offset == count as u64 {
                        // Histories are much the same all through: room for all, and to grow.
                        let lines = scan.layout.len() as u64 * (size - offset) / offset;
                        scan.layout.reserve(usize::try_from(lines + lines / 8).unwrap_or(0));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        scan.end(size)
    }

    /// An empty file's, with room for `lines`.
    pub fn with_capacity(lines: usize) -> Self {
        let vec = || Vec::with_capacity(lines);
        Self { hashes: vec(), starts: vec(), lens: vec(), ..Self::default() }
    }

    fn reserve(&mut self, lines: usize) {
        self.hashes.reserve(lines);
        self.starts.reserve(lines);
        self.lens.reserve(lines);
    }

    /// How many lines are not blank.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn line(&self, index: usize) -> Line {
        let len = self.lens[index];
        Line { start: self.starts[index], len: len & !VERIFIED, verified: len & VERIFIED != 0 }
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The lines that may be the message with this hash.
    pub fn candidates(&self, hash: u64) -> Vec<usize> {
        let mut found = Vec::new();
        // In chunks without an early exit, which the compiler turns into vector code.
        for (chunk, hashes) in self.hashes.chunks(64).enumerate() {
            if hashes.iter().fold(false, |any, &other| any | (other == hash)) {
                let matching = hashes.iter().enumerate().filter(|(_, other)| **other == hash);
                found.extend(matching.map(|(index, _)| chunk * 64 + index));
            }
        }
        found
    }

    /// Those of the hashes that no line has.
    pub fn lacking(&self, hashes: impl Iterator<Item = u64>) -> HashSet<u64> {
        let mut lacking: HashSet<u64> = hashes.collect();
        if !lacking.is_empty() {
            self.hashes.iter().for_each(|hash| {
                lacking.remove(hash);
            });
        }
        lacking
    }

    /// Notes that it is not known yet whether the message of the line that begins there is in another
    /// line, too.
    pub fn set_unchecked(&mut self, start: u64) {
        self.unchecked.extend(self.starts.binary_search(&start));
    }

    /// Notes that the line was read and is the message that its hash says.
    pub fn set_verified(&mut self, index: usize) {
        self.lens[index] |= VERIFIED;
    }

    /// Adds a line at the end.
    pub fn push(&mut self, hash: u64, start: u64, len: u64, marked: bool) {
        if marked {
            self.marks.push(self.hashes.len());
        }
        self.hashes.push(hash);
        self.starts.push(start);
        self.lens.push(len & !VERIFIED);
    }
}

/// The layout of the file as long as it has this identity.
#[derive(Clone)]
pub(super) struct Known {
    pub identity: Identity,
    /// Shared with a commit under way.
    pub layout: Arc<Layout>,
}

impl Known {
    /// Reads the file, which is in the state `identity`.
    pub fn read(file: &File, identity: Identity) -> Result<Self, Trouble> {
        let layout = Layout::scan(file, identity.size)?;
        if Identity::of(file)? != identity {
            return Err(Trouble::Changed);
        }
        Ok(Self { identity, layout: Arc::new(layout) })
    }
}

struct Scan<'f> {
    file: &'f File,
    layout: Layout,
    partial: Partial,
}

/// What is kept of a line that began in an earlier block.
#[derive(Default)]
struct Partial {
    start: u64,
    len: u64,
    /// At most [`HEAD`] bytes.
    head: Vec<u8>,
    /// At most as many bytes as [`MARK`] has.
    tail: Vec<u8>,
}

impl Partial {
    fn extend(&mut self, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(MARK.len())..]);
        let excess = self.tail.len().saturating_sub(MARK.len());
        self.tail.drain(..excess);
        self.len += bytes.len() as u64;
    }
}

impl Scan<'_> {
    /// Reads `bytes`, which stand at `offset` and follow the block before.
    fn block(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &bytes[at..]) {
            let line = &bytes[at..at + length];
            if self.partial.len == 0 {
                let start = offset + at as u64;
                self.line(start, length as u64, line, line)?;
            } else {
                self.partial.extend(line);
                self.finish_partial()?;
            }
            at += length + 1;
        }
        if self.partial.len == 0 {
            self.partial.start = offset + at as u64;
        }
        self.partial.extend(&bytes[at..]);
        Ok(())
    }

    fn end(mut self, size: u64) -> Result<Layout, Trouble> {
        if self.partial.len > 0 {
            let lines = self.layout.len();
            self.finish_partial()?;
            if self.layout.len() > lines {
                self.layout.open_end = true;
            } else if let Some(blank) = self.layout.blanks.last_mut() {
                // The last blank line has no line end.
                blank.end = size;
            }
        }
        Ok(self.layout)
    }

    fn finish_partial(&mut self) -> Result<(), Trouble> {
        let Partial { start, len, head, tail } = std::mem::take(&mut self.partial);
        self.line(start, len, &head, &tail)
    }

    /// Takes in a line of which `head` and `tail` are at least as much as is looked at first.
    fn line(&mut self, start: u64, len: u64, head: &[u8], tail: &[u8]) -> Result<(), Trouble> {
        let marked = tail.ends_with(MARK);
        if let Some(id) = line::leading_id(head) {
            self.layout.push(hash_of(id), start, len, marked);
            return Ok(());
        }
        let read;
        let whole = if head.len() as u64 == len {
            head
        } else {
            read = read_exactly(self.file, start, len)?;
            &read
        };
        if line::is_blank(whole) {
            let end = start + len + 1;
            match self.layout.blanks.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => self.layout.blanks.push(start..end),
            }
        } else {
            self.layout.push(hash_line(whole), start, len, marked);
        }
        Ok(())
    }
}

/// Reads a part of a file that must be there.
pub(super) fn read_exactly(file: &File, start: u64, len: u64) -> Result<Vec<u8>, Trouble> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    match file.read_exact_at(&mut bytes, start) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Trouble::Changed),
        Err(error) => Err(error.into()),
    }
}

/// `None` at the file's end.
pub(super) fn byte_at(file: &File, at: u64) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let count = file.read_at(&mut byte, at)?;
    Ok((count == 1).then_some(byte[0]))
}
