//! Bytes to lines: joins what arrives in pieces and cuts at `\n` and `\r`, as Node's readline does.
//!
//! `\r\n` therefore yields an empty line too, which every reader of lines skips. A line over the
//! limit is reported once, when its limit is crossed, and never held in memory. Decoding and
//! parsing are somebody else's.

use memchr::memchr2_iter;

/// What a [`LineSplitter`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its end.
    Bytes(&'a [u8]),
    /// A line that grew past the limit; its bytes are dropped up to its end.
    TooLong,
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct LineSplitter {
    /// The beginning of a line whose end has not come yet; at most `limit` bytes.
    carry: Vec<u8>,
    limit: usize,
    /// The line under way was reported as too long.
    skipping: bool,
}

/// A carry buffer that grew beyond this is given back after its line.
const KEPT_CAPACITY: usize = 256 * 1024;

impl LineSplitter {
    /// `limit` is the longest line that is handed on, in bytes.
    pub fn new(limit: usize) -> Self {
        Self { carry: Vec::new(), limit, skipping: false }
    }

    /// Takes the next bytes and hands over every line that ends within them.
    pub fn feed(&mut self, bytes: &[u8], mut on_line: impl FnMut(Line<'_>)) {
        let mut start = 0;
        for end in memchr2_iter(b'\n', b'\r', bytes) {
            self.finish_line(&bytes[start..end], &mut on_line);
            start = end + 1;
        }
        let rest = &bytes[start..];
        if self.skipping || rest.is_empty() {
            return;
        }
        if self.carry.len() + rest.len() > self.limit {
            self.skipping = true;
            self.carry = Vec::new();
            on_line(Line::TooLong);
        } else {
            self.carry.extend_from_slice(rest);
        }
    }

    /// The stream has ended: a last line without an end is a line.
    pub fn end(&mut self, mut on_line: impl FnMut(Line<'_>)) {
        if !self.skipping && !self.carry.is_empty() {
            on_line(Line::Bytes(&self.carry));
        }
        self.carry = Vec::new();
        self.skipping = false;
    }

    fn finish_line(&mut self, tail: &[u8], on_line: &mut impl FnMut(Line<'_>)) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if self.carry.len() + tail.len() > self.limit {
            on_line(Line::TooLong);
        } else if self.carry.is_empty() {
            on_line(Line::Bytes(tail));
        } else {
            self.carry.extend_from_slice(tail);
            on_line(Line::Bytes(&self.carry));
        }
        self.carry.clear();
        if self.carry.capacity() > KEPT_CAPACITY {
            self.carry = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]], limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(limit);
        let mut take = |line: Line<'_>| {
            lines.push(match line {
                Line::Bytes(bytes) => Some(bytes.to_vec()),
                Line::TooLong => None,
            });
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut take);
        }
        splitter.end(&mut take);
        lines.retain(|line| line.as_ref().is_none_or(|bytes| !bytes.is_empty()));
        lines
    }

    #[test]
    fn every_cut_of_the_stream_gives_the_same_lines() {
        let text = "a\n\nbc\r\ndé\u{2028}f\r🙂\rlast".as_bytes();
        let expected: Vec<_> =
            ["a", "bc", "dé\u{2028}f", "🙂", "last"].map(|l| Some(l.as_bytes().to_vec())).into();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(split(&chunks, 100), expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_reported_once_and_the_next_is_read() {
        let text = b"12345\n123456\nok\n";
        for size in 1..=text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            let expected = [Some(b"12345".to_vec()), None, Some(b"ok".to_vec())];
            assert_eq!(split(&chunks, 5), expected, "chunks of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let mut splitter = LineSplitter::new(1_000);
        let mut reported = 0;
        for _ in 0..1_000 {
            splitter.feed(&[b'x'; 900], |line| {
                assert_eq!(line, Line::TooLong);
                reported += 1;
            });
        }
        splitter.end(|_| reported += 1);
        assert_eq!((reported, splitter.carry.capacity()), (1, 0));
    }
}
