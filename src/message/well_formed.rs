//! A writer of JSON that puts U+FFFD in the place of half surrogate pairs, which not every reader of
//! a file takes.

use std::io::{self, Write};

/// What stands in the place of half a pair.
const REPLACEMENT: &str = "\u{fffd}";

/// Passes JSON on in which half pairs are escaped, as `JSON.stringify` prints it.
pub(super) struct WellFormed<'w> {
    out: &'w mut dyn Write,
    /// An escape that has begun, and may go on with the next bytes.
    escape: Vec<u8>,
}

/// `\uXXXX`.
const UNICODE_ESCAPE: usize = 6;

impl<'w> WellFormed<'w> {
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, escape: Vec::new() }
    }

    /// Takes the next byte of an escape.
    fn take(&mut self, byte: u8) -> io::Result<()> {
        self.escape.push(byte);
        let is_over = match self.escape[..] {
            [_] => false,
            [_, b'u', ..] => self.escape.len() == UNICODE_ESCAPE,
            _ => true,
        };
        if is_over {
            let escape = std::mem::take(&mut self.escape);
            let is_half = matches!(
                escape[..],
                [_, b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]
            );
            self.out.write_all(if is_half { REPLACEMENT.as_bytes() } else { &escape })?;
        }
        Ok(())
    }
}

impl Write for WellFormed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if self.escape.is_empty() {
                let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
                self.out.write_all(&rest[..plain])?;
                rest = &rest[plain..];
                if !rest.is_empty() {
                    self.escape.push(b'\\');
                    rest = &rest[1..];
                }
            } else {
                self.take(byte)?;
                rest = &rest[1..];
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_pairs_are_replaced_wherever_the_bytes_are_split() {
        for (json, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"b"}"#),
            (r#""\ud83d""#, "\"\u{fffd}\""),
            (r#""x\udc00\ud83dy""#, "\"x\u{fffd}\u{fffd}y\""),
            (r#""\\ud83d \u000b \n \" é""#, r#""\\ud83d \u000b \n \" é""#),
        ] {
            for at in 0..=json.len() {
                let mut out = Vec::new();
                let mut writer = WellFormed::new(&mut out);
                writer.write_all(&json.as_bytes()[..at]).unwrap();
                writer.write_all(&json.as_bytes()[at..]).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), expected, "split at {at}");
            }
        }
    }
}
