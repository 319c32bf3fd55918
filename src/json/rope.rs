//! A long string that grows at its end and can be kept as it was at any moment, cheaply.
//!
//! An answer grows by millions of short pieces while it is written to disk now and then; a plain
//! string would be moved on growth and copied for each write. It never decodes what it holds.

use super::string::{JsonStr, form, joined};
use std::{io, sync::Arc};

/// The size that blocks are filled to before they are sealed.
const BLOCK_BYTES: usize = 64 * 1024;

/// A JavaScript string in [`JsonStr`]'s form, made of pieces. A clone shares all but the last
/// 64 KiB.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    sealed: Vec<Arc<str>>,
    sealed_bytes: usize,
    tail: String,
    /// A high surrogate that the text ends with, held back: the next piece may begin with its
    /// other half.
    high: Option<u16>,
}

impl Rope {
    /// Appends, and makes one character of surrogates that meet.
    pub fn push(&mut self, piece: &JsonStr) {
        let mut piece = piece;
        if piece.is_empty() {
            return;
        }
        if let Some(high) = self.high.take() {
            if let Some((low, rest)) = piece.split_low_surrogate() {
                self.append(joined(high, low).encode_utf8(&mut [0; 4]));
                piece = rest;
            } else {
                self.append(form(Err(high), &mut [0; 6]));
            }
        }
        if let Some((before, high)) = piece.split_high_surrogate() {
            self.high = Some(high);
            piece = before;
        }
        self.append(piece.as_str());
    }

    fn append(&mut self, text: &str) {
        if self.tail.len() + text.len() > BLOCK_BYTES && !self.tail.is_empty() {
            self.sealed_bytes += self.tail.len();
            self.sealed.push(Arc::from(self.tail.as_str()));
            self.tail.clear();
        }
        if text.len() > BLOCK_BYTES {
            self.sealed_bytes += text.len();
            self.sealed.push(Arc::from(text));
            return;
        }
        if self.tail.capacity() - self.tail.len() < text.len() {
            // By a quarter, not by doubling: many runs have one short rope each.
            self.tail.reserve_exact(text.len().max(self.tail.len() / 4).max(32));
        }
        self.tail.push_str(text);
    }

    /// Whether this is the empty string.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of the JSON text in bytes.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.tail.len() + if self.high.is_some() { 6 } else { 0 }
    }

    /// Writes the JSON text, without the quotes around it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for block in &self.sealed {
            out.write_all(block.as_bytes())?;
        }
        out.write_all(self.tail.as_bytes())?;
        match self.high {
            Some(high) => out.write_all(form(Err(high), &mut [0; 6]).as_bytes()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::JsonString;

    fn text(rope: &Rope) -> String {
        let mut out = Vec::new();
        rope.write_to(&mut out).unwrap();
        assert_eq!(out.len(), rope.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pieces_of_every_size_stay_in_order() {
        let mut rope = Rope::default();
        let mut expected = String::new();
        assert!(rope.is_empty());
        for size in (0..3_000).chain([65_535, 65_536, 65_537, 1, 200_000, 0, 7]) {
            let piece = "abcdefghij€".chars().cycle().take(size).collect::<String>();
            rope.push(&JsonStr::escape(&piece));
            expected.push_str(&piece);
        }
        assert!(text(&rope) == expected);
    }

    #[test]
    fn surrogates_that_meet_become_one_character_wherever_the_cut_is() {
        let [high, low] = ["\"\\ud83d\"", "\"\\ude42\""].map(|source| {
            crate::json::Document::parse(source).unwrap().root().as_str().unwrap().to_owned()
        });
        for before in [0, 1, 65_529, 65_530, 65_536] {
            let mut rope = Rope::default();
            rope.push(&JsonString::from(&*"x".repeat(before)));
            for piece in [&low, &high, &JsonString::default(), &low, &high] {
                rope.push(piece);
            }
            let start = "x".repeat(before) + r"\ude42🙂";
            assert!(text(&rope) == start.clone() + r"\ud83d", "{before}");
            rope.push(&high);
            rope.push(&low);
            assert!(text(&rope) == start + r"\ud83d🙂", "{before}");
        }
    }

    #[test]
    fn a_clone_stays_as_it_was() {
        let mut rope = Rope::default();
        rope.push(&JsonString::from(&*"a".repeat(100_000)));
        rope.push(&JsonString::from("tail"));
        let kept = rope.clone();
        for _ in 0..50_000 {
            rope.push(&JsonString::from("more"));
        }
        assert_eq!(kept.len(), 100_004);
        assert!(text(&kept).ends_with("atail"));
        assert_eq!(rope.len(), 300_004);
    }

    #[test]
    fn memory_stays_close_to_the_text() {
        let mut rope = Rope::default();
        for _ in 0..200_000 {
            rope.push(&JsonString::from("12345678"));
        }
        let held = rope.sealed.iter().map(|block| block.len() + 16).sum::<usize>()
            + rope.sealed.capacity() * size_of::<Arc<str>>()
            + rope.tail.capacity();
        assert!(held * 10 <= rope.len() * 11, "{held} bytes for {}", rope.len());
    }
}
