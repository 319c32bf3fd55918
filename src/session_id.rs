//! A session's id, checked: it is a file name in the store and must never lead out of it.

use crate::error::{Error, Result};
use std::fmt;

/// The longest id, in bytes: with `.jsonl` and a temporary file's suffix it stays below the 255
/// bytes that file systems allow a name.
pub const MAX_BYTES: usize = 200;

/// A session's id that is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// Checks `id`.
    ///
    /// # Errors
    /// `INVALID_SESSION_ID` when it is empty, `.`, `..`, longer than [`MAX_BYTES`], or has a `/`,
    /// a `\` or a NUL.
    pub fn new(id: &str) -> Result<Self> {
        let reason = match id {
            "" => "is empty",
            "." | ".." => "is a folder's own name",
            _ if id.len() > MAX_BYTES => "is longer than 200 bytes",
            _ if id.contains(['/', '\\']) => "has a path separator",
            _ if id.contains('\0') => "has a NUL character",
            _ => return Ok(Self(id.into())),
        };
        Err(Error::invalid_session_id(id, reason))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_leave_the_store_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0b", "../x", &"x".repeat(201)] {
            let error = SessionId::new(bad).expect_err(bad);
            assert_eq!(error.code(), "INVALID_SESSION_ID");
            assert!(error.to_string().starts_with("sessionId: "), "{error}");
        }
    }

    #[test]
    fn ordinary_ids_are_kept_as_they_are() {
        for good in ["a", "...", "8b0023f6-455b-4ef9", "naïve 🙂", &"x".repeat(200)] {
            assert_eq!(SessionId::new(good).unwrap().as_str(), good);
        }
    }
}
