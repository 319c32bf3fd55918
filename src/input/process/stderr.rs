//! What is kept of an agent's stderr: its beginning, where the cause is told, and its end, where the
//! last words are. The middle of a flood is dropped, so that memory stays bounded.

use std::collections::VecDeque;

/// The first and the last bytes of a stream.
#[derive(Debug)]
pub struct StderrTail {
    first: Vec<u8>,
    last: VecDeque<u8>,
    /// Most bytes in each of the two.
    limit: usize,
    /// Bytes that are in neither.
    dropped: u64,
}

impl StderrTail {
    /// Keeps `limit` bytes of the beginning and as many of the end.
    pub fn new(limit: usize) -> Self {
        Self { first: Vec::new(), last: VecDeque::new(), limit, dropped: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(self.limit - self.first.len()));
        self.first.extend_from_slice(head);
        self.last.extend(tail);
        let over = self.last.len().saturating_sub(self.limit);
        self.last.drain(..over);
        self.dropped += over as u64;
    }

    /// What was kept, as text. Where something was dropped, a new line stands in its place, so that
    /// the halves of two lines do not read as one.
    pub fn text(&self) -> String {
        let mut bytes = self.first.clone();
        if self.dropped > 0 {
            bytes.push(b'\n');
        }
        let (front, back) = self.last.as_slices();
        bytes.extend_from_slice(front);
        bytes.extend_from_slice(back);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_kept_whole() {
        let mut tail = StderrTail::new(4);
        for piece in ["ab", "cde", "", "fgh"] {
            tail.push(piece.as_bytes());
        }
        assert_eq!(tail.text(), "abcdefgh");
    }

    #[test]
    fn of_much_the_first_and_the_last_are_kept() {
        let mut tail = StderrTail::new(4);
        for byte in b"0123456789" {
            tail.push(&[*byte]);
        }
        assert_eq!(tail.text(), "0123\n6789");
        tail.push(b"abcdefghijklmnop");
        assert_eq!(tail.text(), "0123\nmnop");
    }

    #[test]
    fn a_flood_stays_bounded() {
        let mut tail = StderrTail::new(1_000);
        for _ in 0..10_000 {
            tail.push(&[b'x'; 777]);
        }
        assert!(tail.first.capacity() + tail.last.capacity() < 8_000);
    }
}
